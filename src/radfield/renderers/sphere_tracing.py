"""Rays that meet the zero level of a signed distance field in [0, 1]^3 (Hart 1996, "Sphere tracing").

    t += RELAXED f(o + t d)   until f < HIT, or the ray leaves the box

Two things keep the number of questions low. Far from the surface a grid of cells says how far a ray can go without
asking the field: |f| at the cell's centre, less what f can change within the cell if its slope is at most 1, and some.
And only rays that are still under way are asked for at all. Rays do not depend on one another.

An unsigned distance is never below 0, and a trained one is nowhere quite 0: rays end where it is less than
`HIT_UNSIGNED`, which keeps them from passing through, and normals are found a little before that, where both ends of
the differences are on the ray's side of the sheet. Depth is that of the last step's end.

On the CPU a signed field's surface is shown in one pass (`FieldDistance`, op `sphere_trace`): tiles of rays step, ask
grid and network, find normals and are shaded without anything but their colours being in memory. What `render_rays`
does with any other distance, one stage after another over all rays, is its specification.

On CUDA it is one pass as well, in which a block asks for one point of each of 32 rays (`field_rays_device.h`).

Letters: N rays (R in the op, whose other letters are those of networks/grid_mlp.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera_rays import image_rays
from ..cameras import Cameras
from ..fields.distance import DistanceField
from ..geometry import intersect_box
from ..networks.grid_mlp import FIELD, RAYS_IN_A_ROW, field_arguments, frame_launches, takes
from ..op import In, InOut, Op, Out, Scalar
from ..rays import Rays, check_width
from ..tensors import check_shape, feature_major
from .volume import View

RELAXED = 0.95  # of f is gone at a time, as a trained field's slope is not exactly 1
HIT = 2e-4  # f below this is the surface
HIT_UNSIGNED = 1 / 512  # the same where f is unsigned
BEFORE = 8 / 1024  # the hit, along the ray: where an unsigned distance is asked for its normal
UNSIGNED_STEP = 3 / 1024  # of the differences there
MOST_STEPS = 128
CELLS = 128
_SLOPE = 1.2  # what a trained field's slope is trusted not to exceed between a cell's centre and its corners
_FREE_STEPS = 16  # steps by cells between two questions to the field
_POINTS_PER_CALL = 1 << 18
NORMAL_STEP = 1 / 1024  # of the differences that normals are found by
#: corners of a tetrahedron: four values give a gradient (Quilez 2015)
_TETRAHEDRON = ((1.0, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))
ALBEDO = (0.80, 0.78, 0.75)

Distance = Callable[[Tensor], Tensor]
TRACE = Op(
    "sphere_trace",
    Out("color", "f32", "R 3"),
    Out("opacity", "f32", "R"),
    Out("depth", "f32", "R", "0 where nothing is"),
    InOut("nanoseconds", "i64", "3", "CPU time of all threads: grid, network, altogether; not on CUDA", optional=True),
    In("origins", "f32", "3 R"),
    In("directions", "f32", "3 R"),
    In("free", "f32", "K", "cells^3, see FreeSpace"),
    In("box", "f32", "2 3", "that the surface is looked for in"),
    In("crop", "f32", "2 3", "nothing is outside this box", optional=True),
    In("background", "f32", "3"),
    In("albedo", "f32", "3"),
    In("corners", "f32", "4 3", "of a tetrahedron"),
    Scalar("level", "float", "of the distance, where the surface is"),
    Scalar("relaxed", "float"),
    Scalar("hit", "float"),
    Scalar("normal_step", "float"),
    Scalar("most_steps", "int"),
    Scalar("free_steps", "int"),
    Scalar("cells", "int"),
    Scalar("width", "int", "of the image whose pixels, row by row, the rays are; 0: of none"),
    *FIELD,
)


@TRACE.cuda
def _(a):
    return frame_launches(a, "sphere_trace", -(-a.R // RAYS_IN_A_ROW), beside=3)


@dataclass(frozen=True)
class FieldDistance:
    """The distance that is shown of a field: to where its own is `level`, within the box `crop` (low, high). hit: what
    an unsigned one is below where the surface is."""

    field: DistanceField
    level: float = 0.0
    crop: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    hit: float = HIT_UNSIGNED

    @property
    def unsigned(self) -> bool:
        """Whether it is nowhere below 0."""
        return self.field.config.unsigned and self.level <= 0

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """[M] at scene positions [M, 3]."""
        f = self.field.distance(x) - self.level
        if self.crop is None:
            return f
        low, high = (x.new_tensor(corner) for corner in self.crop)
        return f.maximum(torch.stack([x - high, low - x]).amax((0, 2)))


@dataclass(frozen=True)
class FreeSpace:
    """free: [CELLS^3] float32, x slowest: how far one can go from anywhere in the cell; 0: the field must be asked."""

    free: Tensor

    @staticmethod
    def of(distance: Distance, device: torch.device | str = "cpu") -> FreeSpace:
        """Asks `distance` once per cell, at points on `device`."""
        side = (torch.arange(CELLS, dtype=torch.float32, device=device) + 0.5) / CELLS
        centres = torch.cartesian_prod(side, side, side)
        value = torch.cat([distance(part) for part in centres.split(_POINTS_PER_CALL)])
        return FreeSpace((value.abs() - _SLOPE * 0.5 * 3**0.5 / CELLS).clamp_min(0))

    def at(self, x: Tensor) -> Tensor:
        """[N] at positions [N, 3]."""
        x, y, z = (x * CELLS).int().clamp_(0, CELLS - 1).unbind(-1)
        return self.free[(x * CELLS + y) * CELLS + z]


def trace(distance: Distance, space: FreeSpace, rays: Rays, box: tuple[Tensor, Tensor]) -> Tensor:
    """Depth [N] where rays meet the surface within `box` (low, high: [3] each, in [0, 1]), inf where they do not."""
    low, high = (corner.to(rays.origins) for corner in box)
    near, far = intersect_box(rays.origins, rays.directions, low, high)
    depth = torch.full_like(near, torch.inf)
    unsigned = getattr(distance, "unsigned", False)
    least = getattr(distance, "hit", HIT_UNSIGNED) if unsigned else HIT
    going = (far > near).nonzero()[:, 0]
    o, d, t, far = rays.origins[going], rays.directions[going], near[going], far[going]
    for _ in range(MOST_STEPS):
        o, d, t, far, going = _through_free_space(space, o, d, t, far, going)
        if not len(going):
            break
        f = _asked(distance, o + t[:, None] * d)
        hit = f < least
        depth[going[hit]] = t[hit] + f[hit] if unsigned else t[hit]
        t = t + RELAXED * f
        o, d, t, far, going = _kept(~hit & (t < far), o, d, t, far, going)
    return depth


def _through_free_space(space: FreeSpace, o: Tensor, d: Tensor, t: Tensor, far: Tensor, going: Tensor):
    """Moves rays on while their cells are free; those that leave the box are left out."""
    under_way = torch.arange(len(t), device=t.device)
    for _ in range(_FREE_STEPS):
        if not len(under_way):
            break
        step = space.at(o[under_way] + t[under_way, None] * d[under_way])
        moved = t[under_way] + step
        t[under_way] = moved
        under_way = under_way[(step > 0) & (moved < far[under_way])]
    return _kept(t < far, o, d, t, far, going)


def _kept(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    rows = mask.nonzero()[:, 0]
    return [tensor[rows] for tensor in tensors]


def _asked(distance: Distance, x: Tensor) -> Tensor:
    return torch.cat([distance(part) for part in x.split(_POINTS_PER_CALL)])


def normals(distance: Distance, x: Tensor, step: float = NORMAL_STEP) -> Tensor:
    """[N, 3] unit gradients at x [N, 3], by differences of that step."""
    corners = x.new_tensor(_TETRAHEDRON)
    values = [_asked(distance, x + step * corner) for corner in corners]
    return torch.nn.functional.normalize(torch.stack(values, 1) @ corners, dim=-1)


def shade(normal: Tensor, directions: Tensor) -> Tensor:
    """[N, 3] sRGB: grey under a light at the camera, and a little from everywhere; normals [N, 3] face either way."""
    facing = (normal * directions).sum(-1, keepdim=True).abs()
    return normal.new_tensor(ALBEDO) * (0.1 + 0.9 * facing)


def render_view(
    distance: Distance,
    space: FreeSpace,
    box: tuple[Tensor, Tensor],
    cameras: Cameras,
    view: int,
    background: Tensor,
) -> View:
    """A shaded picture of one view of `cameras` (in scene coordinates), on `background` [3]; box: as in `trace`."""
    width, height = cameras.size[view].tolist()
    color, opacity, depth = render_rays(distance, space, image_rays(cameras, view), box, background, width=width)
    shape = (height, width)
    return View(color.view(*shape, 3), opacity.view(shape), depth.view(shape))


@torch.no_grad()
def render_rays(
    distance: Distance,
    space: FreeSpace,
    rays: Rays,
    box: tuple[Tensor, Tensor],
    background: Tensor,
    *,
    width: int = 0,
    nanoseconds: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [N, 3] on `background` [3], opacity [N] and depth [N] (0 where nothing is) along rays; box: as in `trace`.
    width: of the image whose pixels, row by row, the rays are, which lets neighbours go together. nanoseconds: [3]
    int64, to which the CPU time of the stages is added, where all is one pass."""
    unsigned = getattr(distance, "unsigned", False)
    signed_field = isinstance(distance, FieldDistance) and not distance.field.config.unsigned
    if signed_field and takes(distance.field.grid, rays.origins):
        return _in_one_pass(distance, space, rays, box, background, width, nanoseconds)
    depth = trace(distance, space, rays, box)
    met = depth.isfinite().nonzero()[:, 0]
    directions = rays.directions[met]
    at, step = (depth[met] - BEFORE, UNSIGNED_STEP) if unsigned else (depth[met], NORMAL_STEP)
    normal = normals(distance, rays.origins[met] + at[:, None] * directions, step)
    color = background.expand(len(depth), 3).clone()
    color[met] = shade(normal, directions)
    return color, depth.isfinite().float(), depth.nan_to_num(posinf=0.0)


def _in_one_pass(distance, space, rays, box, background, width, nanoseconds):
    check_width("render_rays", width, rays)
    check_shape("render_rays", "free", space.free, (CELLS**3,))
    device = rays.origins.device
    color, opacity, depth = (torch.empty(len(rays), *more, device=device) for more in ((3,), (), ()))
    TRACE(
        color=color,
        opacity=opacity,
        depth=depth,
        nanoseconds=nanoseconds,
        origins=feature_major(rays.origins),
        directions=feature_major(rays.directions),
        free=space.free.to(device),
        box=torch.stack(box).to(device, torch.float32),
        crop=None if distance.crop is None else torch.tensor(distance.crop, dtype=torch.float32, device=device),
        background=background.to(device, torch.float32).contiguous(),
        albedo=torch.tensor(ALBEDO, device=device),
        corners=torch.tensor(_TETRAHEDRON, device=device),
        level=distance.level,
        relaxed=RELAXED,
        hit=HIT,
        normal_step=NORMAL_STEP,
        most_steps=MOST_STEPS,
        free_steps=_FREE_STEPS,
        cells=CELLS,
        width=width,
        **field_arguments(distance.field.grid, distance.field.network, rays.origins, 3),
    )
    return color, opacity, depth
