"""Which cells of the occupancy grid any camera sees (instant-ngp: cells that no camera sees stay empty).

A cell counts as seen when its centre or a corner projects into some image in front of its camera, or when it is so
near a camera that its corners may all lie outside of the image. Blocks of 4x4x4 cells are decided first: they are not
seen outside of the cone around every image, and seen within the cone inside of one. With many views a block that the
cone around any image meets counts as a whole: of a capture of 120 views that keeps 0.81 of the cells, 0.71 being seen.

Letters: T cells, K cascades, G cells along an axis, V views.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..cameras import distort
from .occupancy_reference import coordinates_of

#: points projected at a time: what fits in cache several times over
POINTS_PER_PASS = 1 << 16
#: with more views than this, blocks decide: cells one by one took 0.2 s per view (5 cascades), minutes for thousands
MANY_VIEWS = 150


def seen_cells(cameras, resolution: int, cascades: int) -> Tensor:
    """[T] bool, in the grid's order, with a little margin: no cell that a camera sees is missing.

    cameras: `Cameras` in scene coordinates. Done once per scene, in seconds.
    """
    cameras = replace(cameras, camera_to_world=cameras.camera_to_world.float())
    whole, part = _blocks_in_cones(cameras, resolution, cascades)
    if len(cameras) > MANY_VIEWS:
        return (whole | part).repeat_interleave(64)
    cells = (part.nonzero() * 64 + torch.arange(64)).flatten()
    cascade, coordinate = coordinates_of(cells, resolution)
    side = 2.0**cascade / resolution
    centre = (coordinate + 0.5 - resolution / 2) * side[:, None] + 0.5
    seen = whole.repeat_interleave(64)
    seen[cells[_seen(cameras, centre, side)]] = True
    return seen


def _blocks_in_cones(cameras, resolution: int, cascades: int) -> tuple[Tensor, Tensor]:
    # (whole, part), each [T / 64] bool: the blocks of 4^3 cells whose sphere lies in the cone within the image of some
    # camera, and the others whose sphere meets the cone around an image
    cascade, coordinate = coordinates_of(torch.arange(cascades * (resolution // 4) ** 3), resolution // 4)
    side = 2.0**cascade * 4 / resolution
    centre = (coordinate + 0.5 - resolution / 8) * side[:, None] + 0.5
    whole, meets = torch.zeros(len(side), dtype=torch.bool), torch.zeros(len(side), dtype=torch.bool)
    for i in range(len(cameras)):
        inside, touches = _in_cones(cameras, i, centre, side)
        whole |= inside
        meets |= touches
    return whole, meets & ~whole


def _in_cones(cameras, i: int, centre: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    # each [n] bool: whether the sphere around a cube lies in the inner cone of view i, and whether it meets the outer
    pose, (inner, outer) = cameras.camera_to_world[i], _cones(cameras, i)
    offset, radius = centre - pose[:3, 3], side * math.sqrt(3) / 2
    distance = offset.norm(dim=-1)
    angle = torch.acos((offset @ pose[:3, 2] / distance).clamp(-1, 1))
    sphere = torch.asin((radius / distance).clamp_max(1))
    return (distance > radius) & (angle + sphere <= inner), (distance <= radius) | (angle - sphere <= outer)


def _cones(cameras, i: int) -> tuple[float, float]:
    # the angles between the axis and the nearest and farthest ray through the border of image i, with a margin
    if cameras.model_of(i) == "equirectangular":  # it sees all around
        return math.inf, math.inf
    width, height = cameras.size[i].tolist()
    t = torch.linspace(0, 1, 33)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    border = torch.stack((torch.cat((t, t, zero, one)) * width, torch.cat((zero, one, t, t)) * height), -1)
    rays = cameras.rays(torch.full((len(border),), i), border)
    angle = torch.acos((rays.directions @ cameras.camera_to_world[i, :3, 2]).clamp(-1, 1))
    return float(angle.min()) - 1e-2, float(angle.max()) + 1e-2


def _seen(cameras, centre: Tensor, side: Tensor) -> Tensor:
    # [n] bool; cells found are left out of what follows, so that most are projected a few times only
    found = torch.zeros(len(side), dtype=torch.bool)
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    for offsets in (torch.zeros(1, 3), corners):
        for i in range(len(cameras)):
            left = (~found).nonzero()[:, 0]
            if not len(left):
                return found
            left = left[_in_cones(cameras, i, centre[left], side[left])[1]]
            for part in left.split(POINTS_PER_PASS):
                found[part] = _seen_by(cameras, i, centre[part], side[part], offsets)
    return found


def _seen_by(cameras, i: int, centre: Tensor, side: Tensor, offsets: Tensor) -> Tensor:
    # [n] bool: whether view i sees one of the points centre + side * offsets, or has them right before it
    points = (centre[:, None] + side[:, None, None] * offsets).view(-1, 3)
    size = cameras.size[i].float()
    x, y = _project(cameras, i, points)
    inside = (x >= 0) & (y >= 0) & (x <= size[0]) & (y <= size[1])
    # A cell larger than the view's cross-section may have no corner in it; twice the distance where that can be.
    reach = math.sqrt(3) * (1 + 2 * float(cameras.focal[i].max() / size.min()))
    near = (centre - cameras.camera_to_world[i, :3, 3]).norm(dim=-1) < reach * side
    return inside.view(-1, len(offsets)).any(-1) | near


def _project(cameras, i: int, points: Tensor) -> tuple[Tensor, Tensor]:
    # the pixel coordinates (x [n], y [n]) of points [n, 3] in view i, NaN behind a perspective camera
    if cameras.model_of(i) != "perspective":
        return cameras.project(torch.full((len(points),), i), points)[0].unbind(-1)
    # the same as `project`, which gathers a pose and a lens per point: that would take most of the time
    pose = cameras.camera_to_world[i]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = torch.where(local[:, 2] > 0, local[:, 2], math.nan)
    q = distort(local[:, :2] / depth[:, None], cameras.distortion[i : i + 1])
    return (q * cameras.focal[i] + cameras.principal[i]).unbind(-1)
