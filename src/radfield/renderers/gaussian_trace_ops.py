"""The native functions of `gaussian_trace.py`: their arguments.

On CUDA a tile is a ray (T = N), a thread each, and a particle's 16 numbers in `block` lie together.

Letters: G particles, R rows of coefficients, N rays, T tiles, K rows of sums, B parts; I inner nodes and L leaves of
the tree.
"""

from __future__ import annotations

from ..cuda.plan import Launch, blocks
from ..op import In, InOut, Op, Out, Scalar
from .gaussian_tiles import SORT_DIGITS, SORT_ITEMS, sort_passes

_PARTICLES = (
    In("means", "f32", "3 G"),
    In("quaternions", "f32", "4 G"),
    In("scales", "f32", "3 G"),
    In("opacities", "f32", "G"),
)
_RAYS = (
    In("origins", "f32", "3 N"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("near", "f32", "N", optional=True),
    In("far", "f32", "N", optional=True),
    In("box", "f32", "I 6 16"),
    In("child", "i32", "I 16"),
    In("leaf_box", "f32", "L 6 16"),
    In("order", "i32", "G"),
    In("block", "f32", "L 16 16", "of 16 particles: mean, A, opacity, colour"),
    In("coefficients", "f32", "G R"),
    Scalar("min_response", "float"),
    Scalar("min_transmittance", "float"),
    Scalar("max_alpha", "float"),
    Scalar("degree", "int", "of the kernel"),
    Scalar("harmonics", "int", "bands of the colours' harmonics"),
    Scalar("k", "int"),
    Scalar("width", "int", "of the image that the rays are, row by row; 0: none"),
    Scalar("packets", "int", "whether rays may go together"),
)
PACK = Op(
    "gaussian_trace_pack",
    Out("block", "f32", "L 16 16"),
    Out("coefficients", "f32", "G R"),
    Out("stale", "i32", "L", "particles that stand out of the boxes that the tree has for them"),
    In("leaf_box", "f32", "L 6 16"),
    In("order", "i32", "G"),
    *_PARTICLES,
    In("base", "f32", "3 G"),
    In("rest", "f32", "R G"),
    Scalar("min_response", "float"),
    Scalar("degree", "int"),
)
FORWARD = Op(
    "gaussian_trace_forward",
    Out("color", "f32", "N 3"),
    Out("depth", "f32", "N"),
    Out("transmittance", "f32", "N"),
    Out("hits", "i32", "N", "particles blended; -1: no ray"),
    Out("normals", "f32", "N 3", optional=True),
    Out("rows", "i32", "T", "rows of sums that the backward pass writes"),
    Out("visits", "i32", "T 3", "inner nodes, leaves, and tests of particles of W rays or W particles", optional=True),
    *_RAYS,
)
BACKWARD = Op(
    "gaussian_trace_backward",
    Out("partial", "f32", "K 16"),
    Out("partial_rest", "f32", "K R"),
    Out("row_particle", "i32", "K"),
    InOut("grad_origins", "f32", "N 3", optional=True),
    InOut("grad_directions", "f32", "N 3", optional=True),
    In("row_start", "i64", "T+1"),
    In("grad_color", "f32", "N 3", optional=True),
    In("grad_depth", "f32", "N", optional=True),
    In("grad_transmittance", "f32", "N", optional=True),
    In("color", "f32", "N 3"),
    In("depth", "f32", "N"),
    In("transmittance", "f32", "N"),
    Scalar("first_tile", "int", "whose rows are the first of `partial`"),
    Scalar("tiles", "int"),
    *_RAYS,
)
SORT = Op(
    "gaussian_trace_sort",
    Out("position", "i32", "K"),
    Out("slot_start", "i32", "G+1"),
    Out("counts", "i32", "B G", "on the way; none on CUDA", optional=True),
    In("row_particle", "i32", "K"),
)
GATHER = Op(
    "gaussian_trace_gather",
    Out("grad_means", "f32", "3 G"),
    Out("grad_quaternions", "f32", "4 G"),
    Out("grad_scales", "f32", "3 G"),
    Out("grad_opacities", "f32", "G"),
    Out("grad_base", "f32", "3 G"),
    Out("grad_rest", "f32", "R G"),
    In("partial", "f32", "K 16"),
    In("partial_rest", "f32", "K R"),
    In("position", "i32", "K"),
    In("slot_start", "i32", "G+1"),
    *_PARTICLES,
    Scalar("min_response", "float"),
)

_RAY_THREADS = 128  # two tiles of 64 rays
_FORWARD_FILE, _BACKWARD_FILE = "gaussian_trace.cu", "gaussian_trace_backward.cu"


@PACK.cuda_in(_FORWARD_FILE)
def _(a):
    a.aligned("block", 16)
    return Launch("gaussian_trace_pack", blocks(16 * a.L))


@FORWARD.cuda_in(_FORWARD_FILE)
def _(a):
    return _of_rays("gaussian_trace_forward", a)


@BACKWARD.cuda_in(_BACKWARD_FILE)
def _(a):
    return _of_rays("gaussian_trace_backward", a)


def _of_rays(kernel: str, a) -> Launch:
    """A thread per ray, in the order of tiles: neighbours in an image are neighbours."""
    for name in ("box", "leaf_box", "block"):
        a.aligned(name, 16)
    rays = 64 * -(-a.width // 8) * -(-(a.N // a.width) // 8) if a.width else a.N
    most = 16 if a.k <= 16 else 64
    return Launch(f"{kernel}<{a.harmonics}, {most}>", blocks(rays, threads=_RAY_THREADS), (_RAY_THREADS,))


@SORT.cuda_in(_BACKWARD_FILE)
def _(a):
    name, parts, passes = "gaussian_trace_sort", -(-a.K // SORT_ITEMS), -(-a.G.bit_length() // 8)
    scratch = {"scratch": 16 * a.K + 4 * (SORT_DIGITS + SORT_DIGITS * parts)}
    return (
        Launch(f"{name}_make", blocks(a.K), **scratch),
        *sort_passes(name, passes, parts, scratch),
        Launch(f"{name}_write", blocks(a.K), extra=(passes,), **scratch),
        Launch(f"{name}_starts", blocks(a.G + 1), extra=(passes,), **scratch),
    )


@GATHER.cuda_in(_BACKWARD_FILE)
def _(a):
    return Launch("gaussian_trace_gather", blocks(16 * a.G))
