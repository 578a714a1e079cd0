"""Ray tracing of Gaussians, and of particles with other kernels (Moenne-Loccoz et al. 2024, "3D Gaussian Ray
Tracing").

A ray o + t d meets particle i, whose inverse axes are A = S^-1 R^T, where its response along the ray is largest:

    tau_i   = -(A (o - mean)) . (A d) / |A d|^2        u_i = A (o + tau_i d - mean)
    alpha_i = min(max_alpha, opacity response(|u_i|))  met where opacity times response is at least `min_response`,
                                                       and near < tau_i < far
    T_(i+1) = T_i (1 - alpha_i), T_0 = 1               in the order of tau_i as float32, then of i
    color   = sum_i T_i alpha_i color_i(d)             color_i(d) = max(0, 1/2 + sum_k coefficient_k Y_k(d))
    depth   = sum_i T_i alpha_i tau_i                  normals: the same sum of the normals where the ray enters i

until T is at or below `min_transmittance`. The kernels are those of tracing/particle_bvh.py. Unlike a rasterised
Gaussian, which is a splat on one image, a traced one answers any ray: any lens, mirror or shadow. A particle that
reaches around the ray's origin counts where its largest response lies ahead. As each alpha is at least `min_response`,
a ray blends at most ln(min_transmittance) / ln(1 - min_response) particles (608 with the defaults), however many it
begins inside.

Rays of a tile (8 x 8 pixels of an image, or 64 in a row) that keep together go down the tree once, as packets; others
go one at a time, k particles at a time. The result is the same. The way back traces again and stores no hits; each
gradient is a sum in a fixed order, so that no bit depends on the number of threads. On CUDA each ray is a thread and
goes alone.

Letters: G particles, R = 3 ((degree + 1)^2 - 1) rows of coefficients, N rays, T tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import memory
from ..backend import native, on_cuda
from ..errors import BadInput
from ..rays import Rays
from ..tensors import feature_major
from ..tracing.particle_bvh import GAUSSIAN, Kernel, ParticleBvh, particle_streams
from .gaussian_color import rest_rows
from .gaussian_trace_ops import BACKWARD, FORWARD, GATHER, PACK, SORT
from .gaussian_trace_reference import trace_reference

if TYPE_CHECKING:
    from ..gaussians.scene import GaussianScene

MOST_K = 64
TILE, SIDE = 64, 8
PARTS = 8  # of the rows when they are sorted
ROW_BYTES = 1 << 29  # of rows of sums that are kept at a time: gaussians/memory_cap.py counts on it


@dataclass(frozen=True)
class Tracing:
    """How rays meet particles."""

    kernel: Kernel = field(default_factory=Kernel)
    min_transmittance: float = 1e-3  # a ray ends here
    max_alpha: float = 0.99  # ceiling of a particle's alpha
    k: int = 16  # particles that a lone ray looks for at a time; does not change the result
    packets: bool = True  # whether rays that keep together go together; does not change the result

    def __post_init__(self):
        rules = [
            ("min_transmittance", 0 < self.min_transmittance < 1, "above 0 and below 1"),
            ("max_alpha", 0 < self.max_alpha < 1, "above 0 and below 1"),
            ("k", 1 <= self.k <= MOST_K, f"from 1 to {MOST_K}"),
        ]
        for name, holds, rule in rules:
            if not holds:
                raise BadInput(f"Tracing: {name} is {getattr(self, name)!r}; the rule: {rule}")


DEFAULT = Tracing()


class Traced(NamedTuple):
    """What N rays see. Gradients pass through color, opacity and depth."""

    color: Tensor  # [N, 3], the background blended in
    opacity: Tensor  # [N], 1 - transmittance
    depth: Tensor  # [N], sum of weight times distance along the ray: divide by opacity for its mean
    hits: Tensor  # [N] int32, particles blended
    normals: Tensor | None  # [N, 3], sum of weight times unit normal, where asked for


class _Call(NamedTuple):
    """What the passes share: the arguments of `_RAYS`, and the particles as streams."""

    rays: dict
    particles: dict
    tiles: int
    normals: bool
    visits: Tensor | None


class _Trace(torch.autograd.Function):
    """Of particles as streams, and rays [N, 3]."""

    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, base, rest, origins, directions, call: _Call):
        n = len(origins)
        color = memory.empty((n, 3), torch.float32, means.device)
        depth, transmittance = means.new_empty(n), means.new_empty(n)
        hits, rows = (means.new_empty(size, dtype=torch.int32) for size in (n, call.tiles))
        normals = means.new_empty(n, 3) if call.normals else None
        seen = {"color": color, "depth": depth, "transmittance": transmittance}
        FORWARD(**seen, hits=hits, normals=normals, rows=rows, visits=call.visits, **call.rays)
        _refuse_rays(hits, directions)
        ctx.save_for_backward(color, depth, transmittance, rows)
        ctx.call, ctx.of_rays = call, any(ctx.needs_input_grad[6:8])
        ctx.mark_non_differentiable(hits)
        ctx.set_materialize_grads(False)
        if normals is not None:
            ctx.mark_non_differentiable(normals)
        return color, depth, transmittance, hits, normals

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_color, grad_depth, grad_transmittance, _hits, _normals):
        color, depth, transmittance, rows = ctx.saved_tensors
        grads = {"grad_color": grad_color, "grad_depth": grad_depth, "grad_transmittance": grad_transmittance}
        grads = {name: None if g is None else g.contiguous() for name, g in grads.items()}
        seen = {"color": color, "depth": depth, "transmittance": transmittance}
        rays = [torch.zeros_like(color) if ctx.of_rays else None for _ in range(2)]
        found = None
        for first, last, row_start in _batches(rows, ctx.call.rays["coefficients"].shape[1]):
            part = _sums(ctx.call, first, last, row_start, {**grads, **seen}, rays)
            found = part if found is None else [a.add_(b) for a, b in zip(found, part, strict=True)]
        return *found, *rays, None


def _batches(rows: Tensor, R: int):
    """Tiles [first, last) whose rows of sums fit into memory together, and where each tile's rows start."""
    row_start = torch.nn.functional.pad(rows.long().cumsum(0), (1, 0))
    most, first = max(ROW_BYTES // (4 * (16 + R)), 1), 0
    while first < len(rows) or first == 0:
        limit = row_start[first] + most
        last = max(int(torch.searchsorted(row_start, limit, right=True)) - 1, first + 1)
        yield first, min(last, len(rows)), row_start
        first = last


def _sums(call: _Call, first: int, last: int, row_start: Tensor, seen: dict, rays: list) -> list[Tensor]:
    """Gradients of the particles by the rays of some tiles; those of the rays are added to `rays`."""
    (g, r), device = call.rays["coefficients"].shape, row_start.device
    k = int(row_start[last] - row_start[first])
    partial = memory.empty((k, 16), torch.float32, device)
    partial_rest = memory.empty((k, r), torch.float32, device)
    row_particle = memory.empty((k,), torch.int32, device)
    sums = {"partial": partial, "partial_rest": partial_rest}
    of_rays = {"grad_origins": rays[0], "grad_directions": rays[1]}
    where = {"row_start": row_start, "first_tile": first, "tiles": last - first}
    BACKWARD(**sums, row_particle=row_particle, **of_rays, **where, **seen, **call.rays)
    position, slot_start = (memory.empty((size,), torch.int32, device) for size in (k, g + 1))
    counts = None if on_cuda(row_start) else memory.empty((PARTS, g), torch.int32)
    SORT(position=position, slot_start=slot_start, counts=counts, row_particle=row_particle)
    shapes = {
        "means": (3, g),
        "quaternions": (4, g),
        "scales": (3, g),
        "opacities": (g,),
        "base": (3, g),
        "rest": (r, g),
    }
    found = {f"grad_{name}": memory.empty(shape, torch.float32, device) for name, shape in shapes.items()}
    order = {"position": position, "slot_start": slot_start}
    GATHER(**found, **sums, **order, **call.particles, min_response=call.rays["min_response"])
    return list(found.values())


def _refuse_rays(hits: Tensor, directions: Tensor) -> None:
    if len(hits) and int(hits.min()) < 0:
        bad = (hits < 0).nonzero()[:, 0]
        first = int(bad[0])
        found = f"{len(bad)} rays are none; ray {first} has the direction {directions[first].tolist()}"
        raise BadInput(f"trace: {found}; the rule: unit vectors, and origins within 1e12")


def _pack(bvh: ParticleBvh, particles: dict, base: Tensor, rest: Tensor) -> dict:
    """The records of the particles, in the order of the tree. Raises `BadInput` where the tree's boxes do not hold
    them."""
    g, leaves, device = len(bvh), len(bvh.leaf_box), base.device
    block = memory.empty((leaves, 16, 16), torch.float32, device)
    coefficients = memory.empty((g, len(rest)), torch.float32, device)
    stale = torch.empty(leaves, dtype=torch.int32, device=device)
    kernel = {"min_response": bvh.kernel.min_response, "degree": bvh.kernel.degree}
    packed = {
        "block": block,
        "coefficients": coefficients,
        "stale": stale,
        "leaf_box": bvh.leaf_box,
        "order": bvh.order,
    }
    PACK(**packed, **particles, base=base, rest=rest, **kernel)
    if count := int(stale.sum()):
        found = f"the tree is older than its particles: {count} of {g} stand out of their boxes"
        raise BadInput(f"trace: {found}; the rule: refit it, or build it again, after they change")
    tree = {"box": bvh.box, "child": bvh.child, "leaf_box": bvh.leaf_box, "order": bvh.order}
    return {**tree, **kernel, "block": block, "coefficients": coefficients}


def _tiles(n: int, width: int) -> int:
    return -(-width // SIDE) * -(-(n // width) // SIDE) if width else -(-n // TILE)


def trace_particles(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    base: Tensor,
    rest: Tensor,
    rays: Rays,
    *,
    tracing: Tracing = DEFAULT,
    bvh: ParticleBvh | None = None,
    background: Tensor | None = None,
    width: int | None = None,
    normals: bool = False,
    visits: Tensor | None = None,
) -> Traced:
    """What `rays` see of particles given as streams, float32: means [3, G], quaternions [4, G], scales [3, G],
    opacities [G], and the coefficients of their colours, base [3, G] and rest [R, G]. Differentiable once by all of
    these and by the rays' origins and directions.

    bvh: the tree of these particles, made here where there is none. background: [3], black by default. width: the rays
    are the rows of an image so wide, which is faster. visits: [T, 3] int32 of T tiles (on CUDA of N rays), what was
    visited (see FORWARD). Raises `BadInput` for shapes that do not fit, rays without direction, and a tree that is
    older than its particles.
    """
    _check(means, quaternions, scales, opacities, base, rest)
    n, width, kernel = len(rays), width or 0, tracing.kernel
    if width < 0 or (width and n % width):
        raise BadInput(f"trace: width is {width} for {n} rays; the rule: a divisor of their number")
    values = (means, quaternions, scales, opacities, base, rest)
    options = {"min_transmittance": tracing.min_transmittance, "max_alpha": tracing.max_alpha}
    if bvh is not None and bvh.kernel != kernel:
        raise BadInput(f"trace: the tree is one for {bvh.kernel}; the rule: that of tracing, {kernel}")
    if bvh is not None and len(bvh) != len(opacities):
        rule = f"refit and build it again: there are {len(opacities)}"
        raise BadInput(f"trace: the tree is older than its particles, of which it has {len(bvh)}; the rule: {rule}")
    if not native(means) or not len(opacities) or not n:
        near = torch.zeros_like(rays.origins[:, 0]) if rays.near is None else rays.near.clamp_min(0)
        far = torch.full_like(near, torch.inf) if rays.far is None else rays.far
        together = (rays.origins, rays.directions, near, far)
        color, depth, transmittance, hits, normal = trace_reference(*values, together, kernel, **options)
    else:
        particles = particle_streams(*values[:4])
        bvh = bvh or ParticleBvh.of(*values[:4], kernel)
        arguments = _pack(bvh, particles, base.detach().contiguous(), rest.detach().contiguous())
        arguments |= {"origins": feature_major(rays.origins), "directions": feature_major(rays.directions)}
        arguments |= {name: _limit(getattr(rays, name)) for name in ("near", "far")}
        degree = round((len(rest) // 3 + 1) ** 0.5)
        arguments |= {**options, "harmonics": degree, "k": tracing.k, "width": width, "packets": tracing.packets}
        tiles = n if on_cuda(means) else _tiles(n, width)
        call = _Call(arguments, particles, tiles, normals, visits)
        color, depth, transmittance, hits, normal = _Trace.apply(*values, rays.origins, rays.directions, call)
    if background is not None:
        color = color + transmittance[:, None] * background
    return Traced(color, 1 - transmittance, depth, hits, normal if normals else None)


def _limit(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().contiguous()


def _check(means, quaternions, scales, opacities, base, rest) -> None:
    g = len(opacities)
    shapes = (("means", means, 3), ("quaternions", quaternions, 4), ("scales", scales, 3), ("base", base, 3))
    for name, value, rows in shapes:
        if value.shape != (rows, g):
            raise BadInput(f"trace: {name} has shape {list(value.shape)}; the rule: [{rows}, {g}]")
    if rest.ndim != 2 or rest.shape[1] != g or len(rest) not in [rest_rows(degree) for degree in range(5)]:
        raise BadInput(f"trace: rest has shape {list(rest.shape)}; the rule: [R, {g}] with R of degree 0 to 4")


def scene_particles(gaussians: GaussianScene) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means, quaternions, scales and opacities of a scene, as streams."""
    return gaussians.means, gaussians.quaternions, gaussians.log_scales.exp(), gaussians.opacity_logits.sigmoid()


def scene_bvh(gaussians: GaussianScene, kernel: Kernel = GAUSSIAN) -> ParticleBvh | None:
    """The tree of a scene's Gaussians, to trace it several times. None where there are no Gaussians, or where plain
    torch traces, which needs none."""
    if not len(gaussians) or not native(gaussians.means):
        return None
    return ParticleBvh.of(*(value.detach() for value in scene_particles(gaussians)), kernel)


def trace(
    gaussians: GaussianScene,
    rays: Rays,
    *,
    tracing: Tracing = DEFAULT,
    bvh: ParticleBvh | None = None,
    background: Tensor | None = None,
    width: int | None = None,
    normals: bool = False,
) -> Traced:
    """What `rays`, any at all, see of `gaussians`: colour, opacity, depth, hit counts and normals, differentiable by
    the scene's parameters and by the rays. The other arguments are those of `trace_particles`.

        import torch
        from radfield import Rays, renderers
        from radfield.gaussians.files import read_gaussians

        scene = read_gaussians("scene.ply")
        x = torch.linspace(-1, 1, 256)
        y, x = torch.meshgrid(x, x, indexing="ij")
        directions = torch.nn.functional.normalize(torch.stack((x, y, torch.ones_like(x)), -1).view(-1, 3), dim=-1)
        seen = renderers.trace(scene, Rays(torch.zeros_like(directions), directions), width=256)
        picture = seen.color.view(256, 256, 3)
    """
    options = {"tracing": tracing, "bvh": bvh, "background": background, "width": width, "normals": normals}
    return trace_particles(*scene_particles(gaussians), gaussians.base, gaussians.rest, rays, **options)
