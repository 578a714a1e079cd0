"""The generalised winding number of a triangle mesh: how often it goes around a point (Jacobson, Kavan and
Sorkine-Hornung 2013, "Robust inside-outside segmentation using generalized winding numbers").

    w(p) = 1 / (4 pi) sum over triangles of their solid angle seen from p

It is 1 inside and 0 outside of a closed surface whose triangles turn counter-clockwise seen from outside, and in
between around the holes of an open one: 1/2 is where a hole would be closed. Triangles that are far away count
together, as one dipole (Barill et al. 2018, "Fast winding numbers for soups and clouds"): where p is further than
`ACCURACY` times their radius from their centre. Letters: N points, T triangles, B nodes, L blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..cuda.plan import Launch, blocks
from ..op import In, Op, Out, Scalar
from ..tensors import check_shape, feature_major
from .wide_bvh import WIDE, WideBvh

ACCURACY = 2.3

WINDING = Op(
    "mesh_winding",
    Out("winding", "f32", "N"),
    In("x", "f32", "3 N"),
    In("child", "i32", "B 16"),
    In("moments", "f32", "B 7 16", "of each child's triangles: centre, sum of the areas' vectors, radius"),
    In("block", "f32", "L 9 16"),
    Scalar("centre_x", "float"),
    Scalar("centre_y", "float"),
    Scalar("centre_z", "float"),
    Scalar("scale", "float"),
    Scalar("accuracy", "float"),
)


@WINDING.cuda
def _(a):
    return Launch("mesh_winding", blocks(WIDE * a.N, threads=128), (128,))


def moments(tree: WideBvh) -> Tensor:
    """[B, 7, 16], as the op wants them: the centre is the triangles' mean weighted by area, where the next term of the
    expansion is least."""
    a, b, c = tree.corners.double().view(-1, 3, 3).unbind(1)
    area = 0.5 * torch.linalg.cross(b - a, c - a)
    size = area.norm(dim=-1, keepdim=True)
    each = torch.cat((area, size, size * (a + b + c) / 3), -1)
    total = torch.cat((each.new_zeros(1, 7), each.cumsum(0)))
    first, count = tree.span.long().unbind(-1)
    found = total[first + count] - total[first]  # [B, 16, 7]
    low, high = tree.box.double()[:, :3].transpose(1, 2), tree.box.double()[:, 3:].transpose(1, 2)
    centre = torch.where(found[..., 3:4] > 0, found[..., 4:] / found[..., 3:4].clamp_min(1e-300), 0.5 * (low + high))
    radius = torch.maximum(high - centre, centre - low).norm(dim=-1)
    there = count > 0
    centre, radius = torch.where(there[..., None], centre, 0.0), torch.where(there, radius, 0.0)
    return torch.cat((centre, found[..., :3], radius[..., None]), -1).transpose(1, 2).float().contiguous()


def mesh_winding(tree: WideBvh, sums: Tensor, x: Tensor) -> Tensor:
    """w [N] at points x [N, 3] float32, to about 0.01; `sums` are the tree's `moments`, where x is."""
    check_shape("mesh winding", "x", x, (None, 3))
    winding, tables = torch.empty(len(x), device=x.device), tree.tables(x.device)
    WINDING(
        winding=winding,
        x=feature_major(x),
        child=tables["child"],
        moments=sums,
        block=tables["block"],
        **dict(zip(("centre_x", "centre_y", "centre_z"), tree.centre, strict=True)),
        scale=tree.scale,
        accuracy=ACCURACY,
    )
    return winding


def mesh_winding_reference(corners: Tensor, x: Tensor) -> Tensor:
    """The specification: every triangle [T, 3, 3] by itself, in the type of x [N, 3]."""
    total = torch.zeros_like(x[:, 0])
    for triangle in corners.to(x):
        a, b, c = (corner - x for corner in triangle)
        la, lb, lc = (side.norm(dim=-1) for side in (a, b, c))
        volume = (a * torch.linalg.cross(b, c)).sum(-1)
        below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        total += 2 * torch.atan2(volume, below)
    return total / (4 * math.pi)
