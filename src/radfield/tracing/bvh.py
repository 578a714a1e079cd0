"""A bounding volume hierarchy over triangles, and where rays meet it.

The tree: node 0 is the root; a node is a box and two numbers, (first, count). count = 0: an inner node, its children
are first and first + 1. count > 0: a leaf with the triangles order[first : first + count]. It is built from the top by
the surface area heuristic over 16 bins of the triangles' centres (Wald 2007, "On fast construction of SAH-based
bounding volume hierarchies"), by one thread, so that it is the same everywhere.

A ray meets a triangle where the three signed volumes of ray and edge agree in sign: an edge that two triangles share
gives both the same number, so that no ray slips between them. Both sides count. Letters: N rays, T triangles, P points,
K nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .. import backend
from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, InOut, Op, Out
from ..rays import Rays
from ..tensors import feature_major

FAR = 1e30
MOST_TRIANGLES = 1 << 29

BUILD = Op(
    "bvh_build",
    Out("box", "f32", "K 6", "low corner, high corner"),
    Out("node", "i32", "K 2", "first, count"),
    Out("used", "i64", "1", "how many nodes there are; K is at least 2 T - 1, and 1"),
    InOut("order", "i32", "T", "0, 1, ...; permuted"),
    In("bounds", "f32", "T 6", "each triangle's box"),
)
TRACE = Op(
    "bvh_trace",
    Out("depth", "f32", "N", f"distance along the ray, {FAR:g} for a miss"),
    Out("index", "i32", "N", "the triangle met, -1 for a miss"),
    Out("weights", "f32", "2 N", "of the triangle's second and third corner there"),
    In("origins", "f32", "3 N"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("limit", "f32", "N", "hits at or beyond are misses", optional=True),
    In("box", "f32", "K 6"),
    In("node", "i32", "K 2"),
    In("order", "i32", "T"),
    In("corners", "f32", "T 9", "of the triangles in this order"),
)


@TRACE.cuda
def _(a):
    return Launch("bvh_trace", blocks(a.N, threads=128), (128,))


@dataclass(frozen=True)
class TriangleHits:
    """depth: [N], inf for a miss. index: [N] int32, -1 for a miss. weights: [N, 2] of the second and third corner."""

    depth: Tensor
    index: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Bvh:
    """A tree over triangles; names as in the op. vertices: [P, 3] float32; triangles: [T, 3] int64."""

    vertices: Tensor
    triangles: Tensor
    box: Tensor
    node: Tensor
    order: Tensor
    corners: Tensor

    @staticmethod
    def of(vertices: Tensor, triangles: Tensor) -> Bvh:
        """Builds the tree. BadInput for corners that there are not, or coordinates that are not finite."""
        vertices, triangles = vertices.float().contiguous(), triangles.long().contiguous()
        _check(vertices, triangles)
        corners = vertices[triangles]
        bounds = torch.cat((corners.amin(1), corners.amax(1)), -1)
        box, node, order = (build if native(vertices) else build_reference)(bounds)
        return Bvh(vertices, triangles, box, node, order, corners[order.long()].view(-1, 9))

    @cached_property
    def normals(self) -> Tensor:
        """[T, 3] unit normals by the right-hand rule, 0 for triangles without area."""
        a, b, c = self.vertices[self.triangles].unbind(1)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)


def build(bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(box [K, 6], node [K, 2], order [T]) of triangles with bounds [T, 6], on their device; made on the CPU."""
    count = max(2 * len(bounds) - 1, 1)
    box, node = torch.empty(count, 6, device="cpu"), torch.empty(count, 2, dtype=torch.int32, device="cpu")
    used = torch.empty(1, dtype=torch.int64, device="cpu")
    order = torch.arange(len(bounds), dtype=torch.int32, device="cpu")
    with backend.use("cpu"):
        BUILD(box=box, node=node, used=used, order=order, bounds=bounds.cpu().contiguous())
    return tuple(made.to(bounds.device) for made in (box[: int(used)].clone(), node[: int(used)].clone(), order))


def build_reference(bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The plainest tree: one leaf. Any tree whose boxes hold their triangles gives the same hits."""
    box = torch.cat((bounds[:, :3].amin(0), bounds[:, 3:].amax(0)))[None]
    return box, torch.tensor([[0, len(bounds)]], dtype=torch.int32), torch.arange(len(bounds), dtype=torch.int32)


def trace_triangles(bvh: Bvh, rays: Rays, *, limit: Tensor | None = None) -> TriangleHits:
    """The first triangle along each ray, from either side. limit: [N], hits at or beyond it do not count."""
    if not native(rays.origins):
        return trace_triangles_reference(bvh, rays, limit=limit)
    n, device = len(rays), rays.origins.device
    depth, weights = (torch.empty(*shape, device=device) for shape in ((n,), (2, n)))
    index = torch.empty(n, dtype=torch.int32, device=device)
    TRACE(
        depth=depth,
        index=index,
        weights=weights,
        origins=feature_major(rays.origins),
        directions=feature_major(rays.directions),
        limit=None if limit is None else limit.clamp_max(FAR).contiguous(),
        box=bvh.box,
        node=bvh.node,
        order=bvh.order,
        corners=bvh.corners,
    )
    return TriangleHits(torch.where(index < 0, torch.inf, depth), index, weights.T)


def trace_triangles_reference(bvh: Bvh, rays: Rays, *, limit: Tensor | None = None) -> TriangleHits:
    """The specification, in the rays' type: every triangle of the mesh, one after another."""
    o, d = rays.origins, rays.directions
    depth = torch.full_like(o[:, 0], torch.inf) if limit is None else limit.to(o).clone()
    index = torch.full_like(depth, -1, dtype=torch.int32)
    weights = torch.zeros_like(o[:, :2])
    for i, corners in enumerate(bvh.vertices[bvh.triangles].to(o)):
        a, b, c = (corner - o for corner in corners)
        u, v, w = (_volume(p, q, d) for p, q in ((c, a), (a, b), (b, c)))
        total = u + v + w
        normal = torch.linalg.cross(b - a, c - a)
        across = (normal * d).sum(-1)
        t = (normal * a).sum(-1) / torch.where(across == 0, torch.inf, across)
        agree = ((u >= 0) & (v >= 0) & (w >= 0)) | ((u <= 0) & (v <= 0) & (w <= 0))
        nearer = agree & (total != 0) & (across != 0) & (t > 0) & (t < depth)
        depth = torch.where(nearer, t, depth)
        index = torch.where(nearer, i, index)
        weights = torch.where(nearer[:, None], torch.stack((u, v), -1) / total[:, None], weights)
    return TriangleHits(torch.where(index < 0, torch.inf, depth), index, weights)


def _volume(p: Tensor, q: Tensor, d: Tensor) -> Tensor:
    # The signed volume of the edge from p to q and the direction d; -_volume(q, p, d) to the bit.
    return (torch.linalg.cross(p + q, q - p) * d).sum(-1)


def _check(vertices: Tensor, triangles: Tensor) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        found = f"{list(vertices.shape)}, {list(triangles.shape)}"
        raise BadInput(f"mesh: vertices, triangles have shapes {found}; the rule: [P, 3] and [T, 3]")
    if not 1 <= len(triangles) <= MOST_TRIANGLES:
        raise BadInput(f"mesh: it has {len(triangles)} triangles; the rule: from 1 to {MOST_TRIANGLES}")
    if int(triangles.min()) < 0 or int(triangles.max()) >= len(vertices):
        found = f"{int(triangles.min())} to {int(triangles.max())}"
        raise BadInput(f"mesh: triangles name the points {found}; the rule: from 0 to {len(vertices) - 1}")
    if not vertices.isfinite().all():
        raise BadInput("mesh: a point is not finite; the rule: finite coordinates")
