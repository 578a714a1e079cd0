"""Which cells of the occupancy grid any camera sees (instant-ngp: cells that no camera sees stay empty).

A cell counts as seen when its centre or a corner projects into some image in front of its camera, or when it is so
near a camera that its corners may all lie outside of the image. Blocks of 4x4x4 cells that lie outside of the cone
around every image are left out first. Letters: T cells, K cascades, G cells along an axis, V views.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .occupancy_reference import coordinates_of

#: points projected at a time: what fits in cache several times over
POINTS_PER_PASS = 1 << 16


def seen_cells(cameras, resolution: int, cascades: int) -> Tensor:
    """[T] bool, in the grid's order, with a little margin: no cell that a camera sees is missing.

    cameras: `Cameras` in scene coordinates. Done once per scene, in seconds.
    """
    cameras = replace(cameras, camera_to_world=cameras.camera_to_world.float())
    seen = torch.zeros(cascades * resolution**3, dtype=torch.bool)
    blocks = _blocks_in_cones(cameras, resolution, cascades)
    cells = (blocks[:, None] * 64 + torch.arange(64)).flatten()
    cascade, coordinate = coordinates_of(cells, resolution)
    side = 2.0**cascade / resolution
    centre = (coordinate + 0.5 - resolution / 2) * side[:, None] + 0.5
    seen[cells[_seen(cameras, centre, side)]] = True
    return seen


def _blocks_in_cones(cameras, resolution: int, cascades: int) -> Tensor:
    # [n] int64: the blocks of 4^3 cells whose sphere meets the cone around the image of a camera
    blocks = torch.arange(cascades * (resolution // 4) ** 3)
    cascade, coordinate = coordinates_of(blocks, resolution // 4)
    side = 2.0**cascade * 4 / resolution
    centre = (coordinate + 0.5 - resolution / 8) * side[:, None] + 0.5
    radius = side * math.sqrt(3) / 2
    found = torch.zeros(len(blocks), dtype=torch.bool)
    for i in range(len(cameras)):
        pose = cameras.camera_to_world[i]
        offset = centre - pose[:3, 3]
        distance = offset.norm(dim=-1)
        angle = torch.acos((offset @ pose[:3, 2] / distance).clamp(-1, 1))
        sphere = torch.asin((radius / distance).clamp_max(1))
        found |= (distance <= radius) | (angle - sphere <= _half_angle(cameras, i))
    return blocks[found]


def _half_angle(cameras, i: int) -> float:
    # the largest angle between the axis and a ray through the border of image i
    width, height = cameras.size[i].tolist()
    t = torch.linspace(0, 1, 33)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    border = torch.stack((torch.cat((t, t, zero, one)) * width, torch.cat((zero, one, t, t)) * height), -1)
    rays = cameras.rays(torch.full((len(border),), i), border)
    cosine = rays.directions @ cameras.camera_to_world[i, :3, 2]
    return float(torch.acos(cosine.clamp(-1, 1)).max()) + 1e-2


def _seen(cameras, centre: Tensor, side: Tensor) -> Tensor:
    # [n] bool; cells found are left out of what follows, so that most are projected a few times only
    found = torch.zeros(len(side), dtype=torch.bool)
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    for offsets in (torch.zeros(1, 3), corners):
        for i in range(len(cameras)):
            left = (~found).nonzero()[:, 0]
            if not len(left):
                return found
            for part in left.split(POINTS_PER_PASS):
                found[part] = _seen_by(cameras, i, centre[part], side[part], offsets)
    return found


def _seen_by(cameras, i: int, centre: Tensor, side: Tensor, offsets: Tensor) -> Tensor:
    # [n] bool: whether view i sees one of the points centre + side * offsets, or has them right before it
    points = (centre[:, None] + side[:, None, None] * offsets).view(-1, 3)
    pixel, depth = cameras.project(torch.full((len(points),), i), points)
    size = cameras.size[i].to(pixel)
    inside = (pixel >= 0).all(-1) & (pixel <= size).all(-1)
    if cameras.model == "perspective":
        inside &= depth > 0
    # A cell larger than the view's cross-section may have no corner in it; twice the distance where that can be.
    reach = math.sqrt(3) * (1 + 2 * float(cameras.focal[i].max() / size.min()))
    near = (centre - cameras.camera_to_world[i, :3, 3]).norm(dim=-1) < reach * side
    return inside.view(len(centre), -1).any(-1) | near
