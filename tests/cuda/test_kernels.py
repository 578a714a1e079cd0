"""Every kernel compiles under NVRTC, for every architecture that we support, quickly. No GPU is needed; NVRTC is: these
tests fail without it."""

import importlib
import pkgutil
import re
import time

import pytest

import radfield
from radfield.cuda import compiler
from radfield.cuda.source import PACKAGE, flat_source, place
from radfield.op import Op

B, H = "radfield::bf16", "radfield::f16"
FACTORED = [("Triplane", 4, B), ("Triplane", 1, "float"), ("VM", 8, B), ("CP", 8, B), ("CP", 8, "float")]
VOXELS = [(1, B, "false"), (8, B, "false"), (8, "float", "false"), (4, "float", "true")]
MMA = ("false", "true")
FRAMES = ("false, 2, float", f"true, 4, {B}", f"true, 8, {B}")
#: the encodings of positions in one pass
GRID = "radfield::GridEncoding"
ONE_PASS = (
    *("SimplexEncoding<4>", "ProbeEncoding<2>"),
    *(f"FactoredEncoding<radfield::{kind}Kind, {f}>" for kind, f in (("Triplane", 4), ("VM", 8))),
)
SORT = ("count", "scan", "scatter")
#: what is compiled of each file: the specialisations that differ in code, training's among them
KERNELS = {
    "camera_rays.cu": [f"camera_rays<{model}, {b}>" for model in (0, 1, 2, 3) for b in ("false", "true")],
    "compat/nerfacc/segments.cu": [
        *(f"segment_scan<{p}, {t}>" for p in ("false", "true") for t in ("float", "double")),
        *(f"segment_product_backward<{t}>" for t in ("float", "double")),
    ],
    "compat/nerfacc/traversal.cu": ["grid_traverse_count", "grid_traverse_fill"],
    "data/pixels.cu": ["pixels_sample"],
    "data/picture_pixels.cu": [f"picture_pixels<{t}>" for t in ("uint8_t", "uint16_t", "float")],
    "data/target.cu": ["target_image<3>", "target_image<4>"],
    "encodings/factored.cu": [
        *(
            f"factored_{way}<radfield::{kind}Kind, {f}, {t}>"
            for way in ("forward", "backward")
            for kind, f, t in FACTORED
        )
    ],
    "encodings/frequency.cu": ["frequency_forward", "frequency_backward"],
    "encodings/grid_jacobian.cu": [
        *(f"grid_jacobian_forward<{f}, {t}, {t}>" for f in (2, 4) for t in ("float", B)),
        *(f"grid_jacobian_{way}<{t}, {t}>" for way in ("pull", "push") for t in ("float", B)),
    ],
    "encodings/hash_grid.cu": [
        *(f"hash_grid_forward<3, {f}, {t}, {t}, false>" for f in (1, 2, 4, 8) for t in ("float", B)),
        *(f"hash_grid_forward<{d}, 2, float, float, true>" for d in (2, 4)),
        *(f"hash_grid_backward<3, {f}, {t}, false, float>" for f in (1, 2, 4, 8) for t in ("float", B)),
        *(f"hash_grid_backward<{d}, 2, float, true, float>" for d in (2, 4)),
        *(f"hash_grid_forward<3, {f}, {H}, {H}, false>" for f in (1, 4)),
        *(f"hash_grid_backward<3, {f}, {H}, false, {H}>" for f in (1, 2, 8)),
        *(f"hash_grid_backward_x<3, 2, {t}, {t}, false>" for t in ("float", B)),
        *(f"hash_grid_backward_x<{d}, 2, float, float, true>" for d in (3, 4)),
    ],
    "encodings/hash_grid_adam.cu": [
        *("hash_grid_adam_clear", "hash_grid_adam_step<false>", "hash_grid_adam_step<true>"),
        *(f"hash_grid_adam_add<3, {f}, {t}>" for f in (2, 4) for t in ("float", B, H)),
    ],
    "encodings/simplex.cu": [
        *(f"simplex_forward<3, {f}, {t}, {t}, false>" for f in (2, 4) for t in ("float", B)),
        *(f"simplex_backward<{d}, 2, float, true, float>" for d in (2, 6)),
        *(f"simplex_backward<3, 4, {t}, false, float>" for t in ("float", B)),
        *(f"simplex_backward_x<{d}, 2, float, float, false>" for d in (3, 6)),
        *("simplex_adam_clear", f"simplex_adam_add<3, 4, {B}>", "simplex_adam_step<false>", "simplex_adam_step<true>"),
    ],
    "encodings/learned_probe.cu": [
        *(f"learned_probe_forward<3, {f}, {t}, {t}, false>" for f in (2, 4) for t in ("float", B)),
        "learned_probe_forward<2, 2, float, float, true>",
        *(f"learned_probe_backward<3, 2, {p}, {B}, false>" for p in (1, 2, 8, 16)),
        "learned_probe_backward<3, 4, 8, float, false>",
        "learned_probe_backward<2, 2, 4, float, true>",
        *(f"learned_probe_backward_x<3, 2, {t}, {t}, false>" for t in ("float", B)),
        "learned_probe_backward_x<3, 2, float, float, true>",
    ],
    "encodings/slope_gradients.cu": [
        *("slope_adam_clear", "slope_adam_step<false>", "slope_adam_step<true>"),
        *(f"slope_adam_add<{f}, {t}>" for f in (2, 4) for t in ("float", B)),
    ],
    "encodings/sparse_voxels.cu": [
        *(f"sparse_voxels_forward<{f}, {t}, {t}, {tangent}>" for f, t, tangent in VOXELS),
        *(f"sparse_voxels_backward<{f}, {t}, {tangent}>" for f, t, tangent in VOXELS),
        *(f"sparse_voxels_backward_x<{f}, {t}, {t}, {tangent}>" for f, t, tangent in VOXELS),
        *(f"sparse_voxels_smooth<{f}>" for f in (1, 8)),
        *("sparse_voxels_adam_clear", "sparse_voxels_adam_step<false>", "sparse_voxels_adam_step<true>"),
        *(f"sparse_voxels_adam_add<3, {f}, {B}>" for f in (1, 8)),
    ],
    "encodings/spherical_harmonics.cu": [
        *(f"spherical_harmonics_forward<{n}, {t}>" for n in (1, 4, 8) for t in ("float", B)),
        *(f"spherical_harmonics_{way}<4, {H}>" for way in ("forward", "backward")),
        *(f"spherical_harmonics_backward<{n}, {t}>" for n in (1, 4, 8) for t in ("float", B)),
    ],
    "gaussians/plas.cu": ["plas_exchange"],
    "image_loss.cu": ["image_loss_similarity<true>", "image_loss_similarity<false>", "image_loss_gradient"],
    "networks/grid_mlp.cu": [
        *(f"grid_mlp_pack<{mma}>" for mma in ("false", "true")),
        *(f"grid_mlp_forward<{mma}, 3, 2, {t}>" for mma, t in (("false", "float"), ("true", B))),
    ],
    "networks/mlp.cu": [
        *(f"mlp_pack<{mma}, radfield::Mlp{way}>" for mma in ("false", "true", "2") for way in ("Forward", "Backward")),
        *(f"mlp_{way}>" for mma in ("false", "true", "2") for way in (f"forward<{mma}", f"backward<{mma}, false")),
        *(f"mlp_backward<{mma}, true>" for mma in ("false", "true")),
        "mlp_add_partial",
    ],
    "networks/mlp_second.cu": ["mlp_second_pack", "mlp_second", "mlp_second_add_partial"],
    "renderers/composite.cu": [
        *(f"composite_{way}<{raw}>" for way in ("forward", "backward") for raw in ("false", "true")),
        *(f"compact_streams<uint{bits}_t>" for bits in (16, 32)),
    ],
    "renderers/gaussian_color.cu": [f"gaussian_color_{way}<{n}>" for way in ("forward", "backward") for n in (1, 4, 5)],
    "renderers/gaussian_color_rows.cu": [
        "gaussian_color_rows_clear",
        *(f"gaussian_color_rows_{way}<{n}>" for way in ("forward", "backward") for n in (1, 4, 5)),
    ],
    "renderers/gaussian_projection_rows.cu": [
        *("gaussian_project_rows_clear", "gaussian_project_rows_forward"),
        *(f"gaussian_project_rows_backward<{b}>" for b in ("false", "true")),
    ],
    "rows.cu": ["rows_clear", "rows_put", "rows_take"],
    "renderers/gaussian_eval3d.cu": [
        "gaussian_eval3d_pack",
        *(f"gaussian_eval3d_{way}<{most}>" for way in ("forward", "backward") for most in (0, 16, 64)),
    ],
    **{
        f"renderers/gaussian_{stem}.cu": [
            f"gaussian_{kind}_forward",
            *(f"gaussian_{kind}_backward<{b}>" for b in ("false", "true")),
        ]
        for stem, kind in (("projection", "project"), ("unscented", "unscented"))
    },
    "renderers/gaussian_raster.cu": [
        *(f"gaussian_raster_forward<{c}>" for c in (1, 3, 4)),
        *(f"gaussian_raster_backward<{c}, {b}>" for c, b in ((1, "false"), (3, "false"), (4, "true"))),
        "gaussian_raster_gather",
    ],
    "renderers/gaussian_surfels.cu": [
        *(f"gaussian_surfels_{way}<{c}>" for way in ("forward", "backward") for c in (1, 3, 6)),
        "gaussian_surfels_gather",
    ],
    "renderers/gaussian_tiles.cu": [
        *("gaussian_pack", "gaussian_tiles_trim"),
        *(f"gaussian_sort_{part}" for part in ("limits", "starts", "collect", *SORT, "write")),
        *(f"gaussian_tiles_{part}" for part in ("clear", "sum", "starts", "slots", "count", "offsets")),
        *(f"gaussian_tiles_fill_{part}" for part in ("sum", "starts", "make", *SORT, "write")),
    ],
    "renderers/neus_alpha.cu": ["neus_alpha_forward", "neus_alpha_backward"],
    "renderers/gaussian_trace.cu": [
        *("gaussian_trace_pack", "gaussian_trace_forward<1, 16>", "gaussian_trace_forward<4, 16>"),
        "gaussian_trace_forward<5, 64>",
    ],
    "renderers/gaussian_trace_backward.cu": [
        *(f"gaussian_trace_backward<{kind}>" for kind in ("1, 16", "4, 16", "5, 64")),
        *(f"gaussian_trace_sort_{part}" for part in ("make", *SORT, "write", "starts")),
        "gaussian_trace_gather",
    ],
    "renderers/media.cu": [*(f"media_march_pack<{m}>" for m in MMA), *(f"media_march<{k}>" for k in FRAMES)],
    "renderers/picture_frame.cu": [
        *(f"picture_frame_pack<{m}>" for m in MMA),
        *(f"picture_frame<{k}, {v}>" for k, v in zip(FRAMES, ("float", "uint8_t", "uint16_t"), strict=True)),
    ],
    "renderers/sphere_tracing.cu": [
        *(f"sphere_trace_pack<{m}>" for m in MMA),
        *(f"sphere_trace<{k}>" for k in FRAMES),
    ],
    "tracing/bvh.cu": ["bvh_trace"],
    "tracing/mesh_distance.cu": ["mesh_distance"],
    "tracing/shading.cu": ["shade", "sky"],
    "tracing/solids.cu": ["solids_trace"],
    "tracing/texture.cu": ["texture"],
    "tracing/winding.cu": ["mesh_winding"],
    "tracing/particle_bvh.cu": ["particle_bounds", *(f"particle_bvh_refit_{p}" for p in ("clear", "leaves", "nodes"))],
    "renderers/fused.cu": [
        *(f"render_fused_pack<{mma}>" for mma in ("false", "true", "2")),
        f"render_fused<2, false, false, {GRID}<4>, 4, {H}>",
        f"render_fused<false, false, false, {GRID}<2>, 4, float>",
        *(f"render_fused<true, {b}, {b}, {GRID}<4>, 4, {B}>" for b in ("false", "true")),
        *(f"render_fused<true, false, false, radfield::{encoding}, 4, {B}>" for encoding in ONE_PASS),
    ],
    "sampling/march.cu": [
        *(f"march_count<{a}, {b}>" for a in ("false", "true") for b in ("false", "true")),
        *("march_starts", "march_fill<false>", "march_fill<true>"),
    ],
    "sampling/occupancy.cu": [
        *(f"occupancy_uniform_{part}" for part in ("count", "scan", "write")),
        *(f"occupancy_occupied_{part}" for part in ("count", "scan", "draw")),
        *(f"occupancy_update_{part}" for part in ("clear", "decay", "raise")),
        *(f"occupancy_{part}" for part in ("points", "observe", "sum", "threshold", "bits", "merge", "near")),
    ],
    "training/adam.cu": ["adam_clear", "adam_step<false>", "adam_step<true>"],
}
#: __CUDA_ARCH__ is asked for 80 and for 90 only, so that these two compile every line; what NVRTC itself makes of the
#: others, such as sm_120, is for the slow tests
ALWAYS, ALL = (75, 90), (75, 80, 86, 89, 90, 100, 120)
SECONDS = 3.0  # of CPU time per kernel


def test_nvrtc_is_there():
    assert compiler.missing() is None
    assert set(ALL) <= set(compiler.architectures())


def test_every_kernel_is_in_the_list():
    written = {
        place(path): set(re.findall(r"__global__ void\s+(?:__launch_bounds__\(\d+\)\s*)?(\w+)\(", path.read_text()))
        for path in PACKAGE.rglob("*.cu")
    }
    assert written == {file: {k.split("<")[0] for k in kernels} for file, kernels in KERNELS.items()}


def compile_one(file, arch):
    """CPU seconds of this thread per kernel: machines that test are busy with other things as well."""
    text, kernels = flat_source(PACKAGE / file), KERNELS[file]
    begin = time.thread_time()
    cubin = compiler.compile_cubin(text, file, tuple(kernels), f"sm_{arch}")
    seconds = (time.thread_time() - begin) / len(kernels)
    assert cubin.code.startswith(b"\x7fELF") and cubin.symbols.keys() == set(kernels)
    assert all(symbol.encode() in cubin.code for symbol in cubin.symbols.values())
    return seconds


@pytest.mark.parametrize("arch", [pytest.param(a, marks=() if a in ALWAYS else pytest.mark.slow) for a in ALL])
def test_every_kernel_compiles(arch):
    seconds = {file: compile_one(file, arch) for file in KERNELS}
    assert max(seconds.values()) < SECONDS, seconds


def test_errors_of_the_source_name_kernel_file_and_line():
    with pytest.raises(RuntimeError, match=r"(?s)broken.cu does not compile for sm_75 \(f\).*broken.cu\(2\)"):
        compiler.compile_cubin('#line 1 "broken.cu"\n\nint x = y;', "broken.cu", ("f",), "sm_75")


#: ops that run on the CPU alone: the making of trees, which are then copied to where they are asked
CPU_ONLY = ("bvh_build", "wide_bvh_build", "particle_bvh_build")
# and what torch does there: finding the rows above 0, and taking them
CPU_ONLY += ("rows_above_zero", "columns_take")


def test_every_other_op_has_cuda_kernels():
    for module in pkgutil.walk_packages(radfield.__path__, "radfield."):
        # not the process that alone needs pycolmap, nor a library of a development build
        if not module.name.endswith("photographs.child") and ".libradfield" not in module.name:
            importlib.import_module(module.name)
    assert {name for name, op in Op.registry.items() if op.plan is None} == set(CPU_ONLY)
