"""`import gsplat` through `radfield.compat.install`, and a script that was written for gsplat."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from radfield import compat
from radfield.errors import RadfieldWarning

SCRIPT = Path(__file__).with_name("train_gsplat_script.py")


@pytest.fixture(autouse=True)
def clean():
    """No test leaves a stand-in behind."""
    yield
    compat.uninstall()
    for name in [key for key in sys.modules if key.partition(".")[0] == "gsplat"]:
        del sys.modules[name]


@pytest.fixture
def absent():
    """The test runs where no gsplat is installed."""
    if importlib.util.find_spec("gsplat") is not None:
        pytest.skip("a gsplat is installed here")


def test_an_unmodified_training_script_learns_its_pictures(absent):
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert imported == {"gsplat", "math", "torch"}
    code = "import radfield.compat, runpy, sys; radfield.compat.install(); runpy.run_path(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, psnr = done.stdout.split()
    assert int(count) > 330  # of 300; measured: 580
    assert float(psnr) > 22  # views that were not trained on; measured: 25.8, a constant colour has 8


def test_submodules_are_those_of_the_stand_in(absent):
    compat.install()
    gsplat = importlib.import_module("gsplat")
    assert gsplat.__version__ == "1.5.3"
    for name in gsplat.MODULES:
        assert importlib.import_module(f"gsplat.{name}").__name__ == f"radfield.compat.gsplat.{name}"
    wrapper = importlib.import_module("gsplat.cuda._wrapper")
    assert wrapper.rasterize_to_pixels is gsplat.rasterize_to_pixels
    assert importlib.import_module("gsplat.strategy.default").DefaultStrategy is gsplat.DefaultStrategy
    compat.install()
    assert importlib.import_module("gsplat") is gsplat
    compat.uninstall()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gsplat.rendering")


def test_a_really_installed_one_stays_unless_asked(tmp_path, monkeypatch):
    (tmp_path / "gsplat").mkdir()
    (tmp_path / "gsplat" / "__init__.py").write_text("REAL = True\n")
    (tmp_path / "gsplat" / "own.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("gsplat.own")
    with pytest.warns(RadfieldWarning, match="gsplat is installed and stays in use"):
        compat.install()
    assert importlib.import_module("gsplat").REAL
    compat.install(replace=True)
    assert importlib.import_module("gsplat").__version__ == "1.5.3" and "gsplat.own" not in sys.modules
    compat.uninstall()
    assert importlib.import_module("gsplat").REAL


def test_the_entry_point_runs_one_process(absent):
    compat.install()
    calls = []
    assert importlib.import_module("gsplat.distributed").cli(lambda *a: calls.append(a), "arguments")
    assert calls == [(0, 0, 1, "arguments")]


# the arguments of gsplat 1.5.3 in their order, with the defaults that there are
SIGNATURES = {
    "rasterization": "means quats scales opacities colors viewmats Ks width height near_plane=0.01 "
    "far_plane=10000000000.0 radius_clip=0.0 eps2d=0.3 sh_degree=None packed=True tile_size=16 backgrounds=None "
    "render_mode='RGB' sparse_grad=False absgrad=False rasterize_mode='classic' channel_chunk=32 distributed=False "
    "camera_model='pinhole' segmented=False covars=None with_ut=False with_eval3d=False radial_coeffs=None "
    "tangential_coeffs=None thin_prism_coeffs=None ftheta_coeffs=None rolling_shutter=GLOBAL viewmats_rs=None",
    "rasterization_2dgs": "means quats scales opacities colors viewmats Ks width height near_plane=0.01 "
    "far_plane=10000000000.0 radius_clip=0.0 eps2d=0.3 sh_degree=None packed=False tile_size=16 backgrounds=None "
    "render_mode='RGB' sparse_grad=False absgrad=False distloss=False depth_mode='expected'",
    "fully_fused_projection": "means covars quats scales viewmats Ks width height eps2d=0.3 near_plane=0.01 "
    "far_plane=10000000000.0 radius_clip=0.0 packed=False sparse_grad=False calc_compensations=False "
    "camera_model='pinhole' opacities=None",
    "fully_fused_projection_2dgs": "means quats scales viewmats Ks width height eps2d=0.3 near_plane=0.01 "
    "far_plane=10000000000.0 radius_clip=0.0 packed=False sparse_grad=False",
    "isect_tiles": "means2d radii depths tile_size tile_width tile_height sort=True segmented=False packed=False "
    "n_images=None image_ids=None gaussian_ids=None",
    "isect_offset_encode": "isect_ids n_images tile_width tile_height",
    "rasterize_to_pixels": "means2d conics colors opacities image_width image_height tile_size isect_offsets "
    "flatten_ids backgrounds=None masks=None packed=False absgrad=False",
    "rasterize_to_pixels_2dgs": "means2d ray_transforms colors opacities normals densify image_width image_height "
    "tile_size isect_offsets flatten_ids backgrounds=None masks=None packed=False absgrad=False distloss=False",
    "rasterize_to_indices_in_range": "range_start range_end transmittances means2d conics opacities image_width "
    "image_height tile_size isect_offsets flatten_ids",
    "rasterize_to_indices_in_range_2dgs": "range_start range_end transmittances means2d ray_transforms opacities "
    "image_width image_height tile_size isect_offsets flatten_ids",
    "accumulate": "means2d conics opacities colors gaussian_ids pixel_ids image_ids image_width image_height",
    "accumulate_2dgs": "means2d ray_transforms opacities colors normals gaussian_ids pixel_ids image_ids image_width "
    "image_height",
    "spherical_harmonics": "degrees_to_use dirs coeffs masks=None",
    "quat_scale_to_covar_preci": "quats scales compute_covar=True compute_preci=True triu=False",
    "proj": "means covars Ks width height camera_model='pinhole'",
    "world_to_cam": "means covars viewmats",
    "compute_relocation": "opacities scales ratios binoms",
    "export_splats": "means scales quats opacities sh0 shN format='ply' save_to=None",
    "SelectiveAdam": "params eps betas",
    "PngCompression": "use_sort=True verbose=True",
    "MCMCStrategy": "cap_max=1000000 noise_lr=500000.0 refine_start_iter=500 refine_stop_iter=25000 refine_every=100 "
    "min_opacity=0.005 verbose=False",
    "DefaultStrategy": "prune_opa=0.005 grow_grad2d=0.0002 grow_scale3d=0.01 grow_scale2d=0.05 prune_scale3d=0.1 "
    "prune_scale2d=0.15 refine_scale2d_stop_iter=0 refine_start_iter=500 refine_stop_iter=15000 reset_every=3000 "
    "refine_every=100 pause_refine_after_reset=0 absgrad=False revised_opacity=False verbose=False "
    "key_for_gradient='means2d'",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_gsplat(name):
    gsplat = importlib.import_module("radfield.compat.gsplat")
    found = []
    for parameter in inspect.signature(getattr(gsplat, name)).parameters.values():
        default = parameter.default
        if default is inspect.Parameter.empty:
            found.append(parameter.name)
        else:
            found.append(f"{parameter.name}={getattr(default, 'name', None) or repr(default)}")
    assert found == SIGNATURES[name].split()
