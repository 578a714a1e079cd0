"""The distance of points to a triangle mesh, and the side they are on.

    |d(p)| = min over triangles t, q in t of |p - q|

The tree (wide_bvh.py) is descended from the nearest box on; what is farther than a triangle already met is left out. On
which side a point is, is said by the normal at the nearest point: of the face, of the edge (the sum of its two faces'),
of the corner (the sum of its faces' weighted by their angles there), which is right for closed surfaces (Baerentzen and
Aanaes 2005, "Signed distance computation using the angle weighted pseudonormal"). Distances are negative inside.

Distances are in the mesh's unit, float32, exact to about 1e-7 of its size. A position that is not finite gets NaN.
Letters: N points, T triangles, B nodes, L blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import on_cuda
from ..cuda.plan import Launch, blocks
from ..op import In, Op, Out, Scalar
from ..tensors import check_shape, feature_major
from .wide_bvh import WIDE, WideBvh

DISTANCE = Op(
    "mesh_distance",
    Out("distance", "f32", "N", "negative on the side that the normals point away from"),
    Out("index", "i32", "N", "the nearest triangle of the mesh; -1 where x is not finite"),
    Out("places", "i32", "2 N", "scratch of the CPU: the order of asking, and the points' cells", optional=True),
    In("x", "f32", "3 N"),
    In("box", "f32", "B 6 16"),
    In("child", "i32", "B 16"),
    In("block", "f32", "L 9 16"),
    In("triangle", "i32", "L 16"),
    In("order", "i32", "T"),
    In("corners", "f32", "T 9"),
    In("normals", "f32", "T 7 3", "of face, edges ab, bc, ca, corners a, b, c; absent: unsigned", optional=True),
    Scalar("centre_x", "float"),
    Scalar("centre_y", "float"),
    Scalar("centre_z", "float"),
    Scalar("scale", "float"),
)


@DISTANCE.cuda
def _(a):
    return Launch("mesh_distance", blocks(WIDE * a.N, threads=128), (128,))


def mesh_distance(tree: WideBvh, x: Tensor, normals: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(distance [N], index [N] int32) of points x [N, 3] float32; signed by `normals` [T, 7, 3] of the mesh's triangles
    where they are given, which are where x is. Where there are native ops (`mesh_distance_reference` elsewhere)."""
    check_shape("mesh distance", "x", x, (None, 3))
    distance, index = (torch.empty(len(x), dtype=kind, device=x.device) for kind in (torch.float32, torch.int32))
    DISTANCE(
        distance=distance,
        index=index,
        places=None if on_cuda(x) else torch.empty(2, len(x), dtype=torch.int32),
        x=feature_major(x),
        normals=normals,
        **tree.tables(x.device),
        **dict(zip(("centre_x", "centre_y", "centre_z"), tree.centre, strict=True)),
        scale=tree.scale,
    )
    return distance, index


def mesh_distance_reference(corners: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The specification, without the sign, in the type of x [N, 3]: all of the triangles [T, 3, 3]."""
    best = torch.full_like(x[:, 0], torch.inf)
    index = torch.full_like(best, -1, dtype=torch.int32)
    for i, (a, b, c) in enumerate(corners.to(x)):
        off = torch.stack([_to_edge(x, p, q) for p, q in ((a, b), (b, c), (c, a))]).amin(0)
        off = torch.minimum(off, _to_face(x, a, b, c))
        index = torch.where(off < best, i, index)
        best = torch.minimum(off, best)
    unknown = ~x.isfinite().all(-1)
    return torch.where(unknown, torch.nan, best.sqrt()), torch.where(unknown, -1, index).int()


def _to_edge(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    e = q - p
    t = ((x - p) @ e / (e @ e).clamp_min(1e-300)).clamp(0, 1)
    return (x - p - t[:, None] * e).square().sum(-1)


def _to_face(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    # The square of the distance to the plane, inf where the foot is outside the triangle.
    n = torch.linalg.cross(b - a, c - a)
    foot = x - ((x - a) @ n / (n @ n).clamp_min(1e-300))[:, None] * n
    edges = ((a, b), (b, c), (c, a))
    inside = torch.stack([torch.linalg.cross((q - p).expand_as(x), foot - p) @ n >= 0 for p, q in edges]).all(0)
    return torch.where(inside & (n @ n > 0), (x - foot).square().sum(-1), torch.inf)
