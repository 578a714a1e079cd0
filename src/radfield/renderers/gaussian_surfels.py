"""2D Gaussians, flat discs in space: where a pixel's ray meets each, and blending (Huang et al. 2024, 2DGS).

A surfel has a centre mu, tangents R e_1, R e_2 (of its quaternion) and scales s_1, s_2. In the camera's axes, with
centre (x, y, z) and a_k = R_c R e_k s_k, its point (u, v) is seen at pixel mean2d + d, where d solves

    d = (J (u, v)) / (1 + s . (u, v)),    s_k = a_kz / z,    J = f (a_kxy / z - s_k (x, y) / z)   [2, 2]
    depth of the point = z (1 + s . (u, v))

With p = d_x s - J_x and q = d_y s - J_y (rows of J) the ray meets the disc at (u, v) = (p_v d_y - d_x q_v,
d_x q_u - p_u d_y) / (p x q). The response is exp(-rho / 2) with

    rho = min(u^2 + v^2, 2 |d|^2)    the second is the low-pass filter: edge-on and tiny ones stay 0.7 pixels wide

and the first is left out where the ray misses the disc's plane in front of `near`. alpha, T, colour and their
constants are as in `gaussian_raster.py`, in the order of the centres' depths. With weight w_i = T_i alpha_i and m_i the
depth where the ray meets the disc (z where the filter is the nearer):

    depth = sum w_i m_i      distortion = sum_(i < j) w_i w_j (m_i - m_j)^2      median = m_i of the last with T_i > 1/2

Left out (radius 0): degenerate ones, as in `gaussian_projection.py`; those whose visible part reaches nearer than
`near`; those off the image. Lenses are perspective, without distortion.

Letters: G surfels, C channels (at most 6), T tiles, K entries.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import memory
from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from .gaussian_camera import Camera
from .gaussian_projection_reference import MIN_ALPHA, Projected, _sound, rotation_matrices
from .gaussian_raster import MIN_TRANSMITTANCE
from .gaussian_tiles import make_tiles

MOST_CHANNELS = 6
LEAST_CROSS = 1e-20  # of p x q: a disc seen edge-on
_LISTS = (
    In("records", "f32", "G 16", "x, y, J by rows, s, z, opacity, C colours and zeros"),
    In("entries", "i32", "K"),
    In("tile_start", "i32", "T+1"),
    In("background", "f32", "C", optional=True),
    Scalar("near", "float"),
    Scalar("max_alpha", "float"),
)
FORWARD = Op(
    "gaussian_surfels_forward",
    Out("image", "f32", "rows columns C"),
    Out("transmittance", "f32", "rows columns", "1 - alpha"),
    Out("depth", "f32", "rows columns"),
    Out("distortion", "f32", "rows columns"),
    Out("median", "f32", "rows columns", "0: none"),
    Out("last", "i32", "rows columns", "the entry that the ray ends with; -1: none"),
    *_LISTS,
)
BACKWARD = Op(
    "gaussian_surfels_backward",
    Out("partial", "f32", "K 16", "gradients of each entry's record"),
    In("grad_image", "f32", "rows columns C"),
    In("grad_alpha", "f32", "rows columns"),
    In("grad_depth", "f32", "rows columns"),
    In("grad_distortion", "f32", "rows columns"),
    In("transmittance", "f32", "rows columns"),
    In("depth", "f32", "rows columns"),
    In("distortion", "f32", "rows columns"),
    In("last", "i32", "rows columns"),
    *_LISTS,
)
GATHER = Op(
    "gaussian_surfels_gather",
    Out("grad_records", "f32", "G 16"),
    In("partial", "f32", "K 16"),
    In("position", "i32", "K"),
    In("slot_start", "i32", "G+1"),
    In("records", "f32", "G 16"),
)


@FORWARD.cuda
def _(a):
    a.aligned("records", 16)
    return Launch(f"gaussian_surfels_forward<{a.C}>", (a.T,))


@BACKWARD.cuda
def _(a):
    a.aligned("records", 16)
    return Launch(f"gaussian_surfels_backward<{a.C}>", (a.T,))


@GATHER.cuda
def _(a):
    return Launch("gaussian_surfels_gather", blocks(16 * a.G))


class Surfels(NamedTuple):
    """G surfels on the image (see the module)."""

    mean2d: Tensor  # [G, 2] pixels
    jacobian: Tensor  # [G, 4] J by rows
    slope: Tensor  # [G, 2] s
    depth: Tensor  # [G] z of the centre
    radius: Tensor  # [G, 2] pixels around mean2d; 0: left out. No gradient
    opacity: Tensor  # [G]


class SurfelImage(NamedTuple):
    """What the camera sees."""

    color: Tensor  # [rows, columns, C], the background blended in
    alpha: Tensor  # [rows, columns]
    depth: Tensor  # [rows, columns]
    distortion: Tensor  # [rows, columns]
    median: Tensor  # [rows, columns]; 0 where half the light passes. No gradient


def project_surfels(means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, camera: Camera) -> Surfels:
    """`means` [G, 3], `quaternions` [G, 4], `scales` [G, 2 or more] (the first two count), `opacities` [G], of any
    float type, in torch on every backend. Gradients to all and to the camera. Raises `BadInput` for another lens."""
    if camera.by_sigma_points:
        raise BadInput("project_surfels: the rule: a perspective camera without distortion or shutter")
    kept = _sound(means, quaternions, scales, opacities)
    pose, (fx, fy) = camera.world_to_camera.to(means), camera.focal
    local = torch.where(kept[:, None], means, 0.0) @ pose[:3, :3].T + pose[:3, 3]
    kept = kept & (local[:, 2].detach() >= camera.near) & (local[:, 2].detach() <= camera.far)
    x, y, z = torch.where(kept[:, None], local, local.new_tensor([0.0, 0.0, 1.0])).unbind(-1)
    turn = rotation_matrices(torch.where(kept[:, None], quaternions, quaternions.new_tensor([1.0, 0.0, 0.0, 0.0])))
    axes = pose[:3, :3] @ (turn[:, :, :2] * torch.where(kept[:, None], scales[:, :2], 1.0)[:, None])  # [G, 3, 2]
    slope = axes[:, 2] / z[:, None]
    rows = [f * (axes[:, i] / z[:, None] - slope * (c / z)[:, None]) for i, (f, c) in enumerate(((fx, x), (fy, y)))]
    jacobian, opacity = torch.cat(rows, 1), torch.where(kept, opacities, 0.0)
    mean2d = torch.stack((fx * x / z + camera.center[0], fy * y / z + camera.center[1]), 1)
    radius, inside = _box(mean2d, rows, slope, z, opacity, camera)
    kept = kept & inside
    wide, radius = kept[:, None], torch.where(kept[:, None], radius, 0.0)
    values = (torch.where(wide, v, 0.0) for v in (mean2d, jacobian, slope))
    return Surfels(*values, torch.where(kept, z, 0.0), radius, torch.where(kept, opacity, 0.0))


@torch.no_grad()
def _box(mean2d, rows, slope, z, opacity, camera):
    """(radius [G, 2], whether something is seen): around the image of the disc of alpha 1/255, and of the filter's."""
    level = 2 * (255 * opacity.clamp_min(MIN_ALPHA)).log()
    steep = level * slope.square().sum(1)
    safe = steep < 1
    below = torch.where(safe, 1 - steep, 1.0)
    sides = []
    for row in rows:  # d is within center +- half where u^2 + v^2 <= level
        center = -level * (row * slope).sum(1) / below
        half = (center.square() + level * row.square().sum(1) / below).sqrt()
        sides.append(torch.maximum(center.abs() + half, (level / 2).sqrt()))
    radius = torch.stack(sides, 1)
    size = mean2d.new_tensor([camera.width, camera.height])
    near = z * (1 - (level.clamp_min(0) * slope.square().sum(1)).sqrt()) >= camera.near
    on_image = ((mean2d + radius > 0) & (mean2d - radius < size) & (radius > 0)).all(1)
    finite = torch.stack([v.isfinite().all(1) for v in (mean2d, *rows, slope)]).all(0)
    return radius, safe & near & on_image & finite & (opacity >= MIN_ALPHA)


def raster_surfels_reference(
    surfels: Surfels, colors, width: int, height: int, background=None, *, near: float = 0.01, max_alpha: float = 0.99
) -> SurfelImage:
    """The specification, of any float type: every surfel on every pixel. `colors` [G, C], `background` [C]."""
    drawn = (surfels.radius > 0).all(1).nonzero()[:, 0]
    order = drawn[surfels.depth.detach()[drawn].argsort(stable=True)]
    rho, depth, _ = surfel_hits(Surfels(*(v[order] for v in surfels)), width, height, near)
    alpha = (surfels.opacity[order, None] * (-rho / 2).exp()).clamp_max(max_alpha)
    alpha = torch.where(alpha.detach() >= MIN_ALPHA, alpha, 0.0)
    alpha = torch.where((1 - alpha).cumprod(0).detach() > MIN_TRANSMITTANCE, alpha, 0.0)
    after = torch.cat((rho.new_ones(1, width * height), (1 - alpha).cumprod(0)))
    weight = alpha * after[:-1]
    color = weight.T @ colors[order]
    if background is not None:
        color = color + after[-1][:, None] * background
    total, first = weight.sum(0), (weight * depth).sum(0)
    middle = (first / total.clamp_min(1e-30)).detach()
    distortion = total * (weight * (depth - middle).square()).sum(0) - (first - total * middle).square()
    planes = 1 - after[-1], first, distortion, _median(weight, after[:-1], depth)
    return SurfelImage(color.view(height, width, -1), *(v.view(height, width) for v in planes))


def surfel_hits(surfels: Surfels, width: int, height: int, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """(rho, depth, by how much the disc's own rho is above the filter's), each [G, width * height], of the equations of
    the module; the last is inf where the ray does not meet the disc."""
    mean2d, jacobian, slope, z, _, _ = surfels
    y, x = torch.meshgrid(*(torch.arange(n, device=z.device) + 0.5 for n in (height, width)), indexing="ij")
    dx, dy = (p.reshape(1, -1).to(mean2d) - m[:, None] for p, m in zip((x, y), mean2d.unbind(1), strict=True))
    (xu, xv, yu, yv), (su, sv) = jacobian.T[..., None], slope.T[..., None]
    pu, pv, qu, qv = dx * su - xu, dx * sv - xv, dy * su - yu, dy * sv - yv
    cross = pu * qv - pv * qu
    met = cross.detach().abs() > LEAST_CROSS
    cross = torch.where(met, cross, 1.0)
    u, v = (pv * dy - dx * qv) / cross, (dx * qu - pu * dy) / cross
    where_met = z[:, None] * (1 + su * u + sv * v)
    flat, filtered = u * u + v * v, 2 * (dx * dx + dy * dy)
    met = met & (where_met.detach() >= near)
    above = torch.where(met, flat - filtered, torch.inf).detach()
    return torch.where(above <= 0, flat, filtered), torch.where(above <= 0, where_met, z[:, None]), above


def _median(weight: Tensor, before: Tensor, depth: Tensor) -> Tensor:
    """Of the last in each column with weight and more than half of the light before it; 0 where there is none."""
    numbers = torch.arange(1, len(weight) + 1, device=weight.device)[:, None]
    last = torch.where((before.detach() > 0.5) & (weight.detach() > 0), numbers, 0)
    last = torch.cat((last.new_zeros(1, weight.shape[1]), last)).amax(0)
    return torch.cat((depth.new_zeros(1, weight.shape[1]), depth.detach())).gather(0, last[None])[0]


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, records, background, channels, tiles, near, max_alpha):
        size = (tiles.height, tiles.width)
        lists = {"records": records.detach().contiguous(), "entries": tiles.entries, "tile_start": tiles.tile_start}
        lists |= {"background": background, "near": near, "max_alpha": max_alpha}
        image = memory.empty((*size, channels), torch.float32, records.device)
        planes = {
            name: memory.empty(size, torch.float32, records.device)
            for name in ("transmittance", "depth", "distortion", "median")
        }
        last = memory.empty(size, torch.int32, records.device)
        FORWARD(image=image, **planes, last=last, **lists)
        transmittance, depth, distortion, median = planes.values()
        ctx.save_for_backward(transmittance, depth, distortion, last)
        ctx.lists, ctx.tiles = lists, tiles
        ctx.mark_non_differentiable(median)
        return image, 1 - transmittance, depth, distortion, median

    @staticmethod
    @once_differentiable
    def backward(ctx, image, alpha, depth, distortion, _):
        tiles, records = ctx.tiles, ctx.lists["records"]
        saved = dict(zip(("transmittance", "depth", "distortion", "last"), ctx.saved_tensors, strict=True))
        grads = {"image": image, "alpha": alpha, "depth": depth, "distortion": distortion}
        partial = memory.empty((len(tiles.entries), 16), torch.float32, records.device)
        BACKWARD(partial=partial, **{f"grad_{k}": v.contiguous() for k, v in grads.items()}, **saved, **ctx.lists)
        found = torch.empty_like(records)
        GATHER(
            grad_records=found, partial=partial, position=tiles.position, slot_start=tiles.slot_start, records=records
        )
        behind = (image * saved["transmittance"][..., None]).sum((0, 1)) if ctx.needs_input_grad[1] else None
        return found, behind, None, None, None, None


def rasterise_surfels(
    surfels: Surfels,
    colors: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    *,
    near: float = 0.01,
    max_alpha: float = 0.99,
) -> SurfelImage:
    """Draws `surfels` of `colors` [G, C] over `background` [C] (black by default). float32. Normals, where wanted, are
    three of the channels (`gaussian_views.py: gaussian_normals` with a third scale of 0).

    Gradients, once: to mean2d, jacobian, slope, depth, opacity, colors and background, from all but the median. Raises
    `BadInput` on another dtype or shape, and beyond 6 channels.
    """
    if not 0 < max_alpha < 1:
        raise BadInput(f"rasterise_surfels: max_alpha is {max_alpha}; the rule: above 0 and below 1")
    if colors.ndim != 2 or not 1 <= colors.shape[1] <= MOST_CHANNELS:
        raise BadInput(f"rasterise_surfels: colors has shape {list(colors.shape)}; the rule: [G, C] with C from 1 to 6")
    options = {"near": near, "max_alpha": max_alpha}
    if not native(colors):
        return raster_surfels_reference(surfels, colors, width, height, background, **options)
    single = surfels.depth[:, None], surfels.opacity[:, None]
    unused = colors.new_zeros(len(colors), MOST_CHANNELS - colors.shape[1])
    records = torch.cat((surfels.mean2d, surfels.jacobian, surfels.slope, *single, colors, unused), 1)
    outlines = Projected(surfels.mean2d, surfels.jacobian[:, :3], surfels.depth, surfels.radius, surfels.opacity)
    differentiate = torch.is_grad_enabled() and records.requires_grad
    options = {"differentiate": differentiate, "trim": False}
    tiles, _ = make_tiles(outlines, records.detach()[:, :1].T.contiguous(), width, height, **options)
    return SurfelImage(*_Rasterise.apply(records, background, colors.shape[1], tiles, near, max_alpha))
