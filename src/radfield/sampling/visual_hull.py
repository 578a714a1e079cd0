"""Which cells of the unit cube masks say are empty: those outside of the visual hull (Laurentini 1994), the largest
object whose silhouettes the masks are. No sample is spent there, and what no camera sees of a surface ends there.

A cell is empty where AGREEING views look through it, and nothing of the object is within a cell's reach of it in their
masks: a single bad mask takes nothing away.

Letters: n cells, G cells along an axis, V views.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .occupancy_reference import coordinates_of

AGREEING = 2  # views that must say so


def empty_cells(cameras, images, cells: Tensor, resolution: int) -> Tensor:
    """[n] bool, of `cells` [n] (numbers in the grid's order) of the unit cube with `resolution` cells along an axis.

    cameras: `Cameras` in scene coordinates; images: what gives [H, W, 4] uint8 of view i as images[i]. Views that are
    not perspective say nothing. Cells are asked for by blocks of 2^3. Done once per scene, in seconds."""
    _, place = coordinates_of(cells, resolution)
    block, where = (place.long() // 2 @ torch.tensor([resolution**2, resolution, 1])).unique(return_inverse=True)
    side = 2 / resolution
    x = (torch.stack((block // resolution**2, block // resolution % resolution, block % resolution), 1) + 0.5) * side
    count = torch.zeros(len(block), dtype=torch.int64)
    for view in range(len(cameras)):
        left = (count < AGREEING).nonzero()[:, 0]
        if not len(left):
            break
        if cameras.model_of(view) == "perspective":
            count[left] += _is_background(cameras, view, images[view][..., 3] > 0, x[left], side)
    return (count >= AGREEING)[where]


def _is_background(cameras, view: int, shown: Tensor, x: Tensor, side: float) -> Tensor:
    """[n] bool: whether nothing of the object, which is where shown [H, W], is in the view within the reach of a cell
    of that side around each of x [n, 3]."""
    distance = float((x - cameras.camera_to_world[view, :3, 3]).norm(dim=1).min())
    reach = math.ceil(float(cameras.focal[view].max()) * side * math.sqrt(3) / 2 / max(distance, side)) + 1
    height, width = shown.shape
    if 2 * reach >= min(height, width):  # the camera stands among the cells
        return torch.zeros(len(x), dtype=torch.bool)
    pixel, depth = cameras.project(torch.full((len(x),), view), x)
    u, v = pixel.nan_to_num(nan=-1.0).clamp(-1.0, float(max(width, height))).floor().long().unbind(1)
    inside = (depth > 0) & (u >= reach) & (v >= reach) & (u < width - reach) & (v < height - reach)
    near = _widened(shown, reach)
    return inside & ~near[v.clamp(0, height - 1), u.clamp(0, width - 1)]


def _widened(mask: Tensor, reach: int) -> Tensor:
    """The mask [H, W] with what is within `reach` pixels of it, along each axis."""
    wide = mask[None, None].float()
    for size in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        padding = (size[0] // 2, size[1] // 2)
        wide = torch.nn.functional.max_pool2d(wide, size, stride=1, padding=padding)
    return wide[0, 0] > 0
