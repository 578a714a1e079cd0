"""Analytic solids met by rays: constructive geometry of signed distance functions.

A *shape* is a primitive (`KINDS`) turned and placed; a *solid* is one shape joined with others in order by union,
intersection or subtraction; the scene is the union of its solids. Lone planes, spheres and boxes are intersected in
closed form, everything else is sphere traced (Hart 1996, "Sphere tracing: a geometric method for the antialiased ray
tracing of implicit surfaces"), which is safe because every distance used is a lower bound: max and min of distances
are, and so is the smooth union (its gradient is a convex combination). Two Newton steps then bring the hit to the
precision of the numbers.

Distances of a point p in the axes of its shape, with sizes s, a = |(x, y)|:

- plane: z. sphere (radius): |p| - s0. box (half sides, rounding r): |max(q, 0)| + min(max q, 0) - r, q = |p| - s + r;
- torus (ring, tube): |(a - s0, z)| - s1. capsule (radius, half length): |p - clamp(z, -s1, s1) e_z| - s0;
- cylinder (radius, half height, rounding): as the box, with q = (a - s0 + r, |z| - s1 + r);
- gyroid (periods per unit f, half thickness): |g| / (2 pi f sqrt(3)) - s1, with u = 2 pi f p and
  g = sin u_x cos u_y + sin u_y cos u_z + sin u_z cos u_x, whose gradient is at most 2 pi f sqrt(3) long;
- smooth union with blend k: min(a, b) - h^2 k / 4, h = max(k - |a - b|, 0) / k.

Letters: N rays, Q shapes, S solids. Units: the world's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..rays import Rays
from ..tensors import feature_major, on_device

#: kind -> number of its sizes; the code of a kind is its place
KINDS = {"plane": 0, "sphere": 1, "box": 4, "torus": 2, "cylinder": 3, "capsule": 2, "gyroid": 2}
OPERATIONS = ("union", "intersect", "subtract")
FAR = 1e30  # the distance of a miss, natively; `Hits` say inf

TRACE = Op(
    "solids_trace",
    Out("depth", "f32", "N", f"distance along the ray, {FAR:g} for a miss"),
    Out("normal", "f32", "3 N", "outward unit vectors, 0 for a miss", optional=True),
    Out("index", "i32", "N", "the shape met, -1 for a miss"),
    In("origins", "f32", "3 N"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("limit", "f32", "N", "hits at or beyond are misses", optional=True),
    In("kind", "i32", "Q", "place in KINDS"),
    In("operation", "i32", "Q", "place in OPERATIONS; the first of a solid's is not used"),
    In("sizes", "f32", "Q 5", "the kind's sizes, and last the blend of a smooth union (0 for none)"),
    In("placement", "f32", "Q 12", "rotation from world to the shape's axes by rows, then the shape's centre"),
    In("first", "i32", "S+1", "each solid's first shape"),
    In("bound", "f32", "S 4", "sphere around the solid: centre, radius; a radius below 0 is no bound"),
    Scalar("inside", "int", "whether rays start inside solids and are traced to where they leave"),
)


@TRACE.cuda
def _(a):
    return Launch("solids_trace", blocks(a.N, threads=128), (128,))


@dataclass(frozen=True)
class Shape:
    """One primitive. `kind`: a key of KINDS, with its sizes; box and cylinder may leave out the rounding.

    rotation: 3x3 by rows, from the shape's axes to the world's. material: any object, for who shades the hit.
    """

    kind: str
    sizes: tuple[float, ...]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    operation: str = "union"
    blend: float = 0.0
    material: object = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise BadInput(f"shape: kind is {self.kind!r}; the rule: one of {', '.join(KINDS)}")
        if self.operation not in OPERATIONS:
            raise BadInput(f"shape: operation is {self.operation!r}; the rule: one of {', '.join(OPERATIONS)}")
        if not 0 <= KINDS[self.kind] - len(self.sizes) <= (self.kind in ("box", "cylinder")):
            raise BadInput(f"shape: a {self.kind} has {len(self.sizes)} sizes; the rule: {KINDS[self.kind]}")
        if not all(map(math.isfinite, self.sizes)) or self.blend < 0:
            raise BadInput(f"shape: sizes, blend are {self.sizes}, {self.blend}; the rule: finite, at least 0")

    def join(self, operation: str, blend: float = 0.0) -> Shape:
        """The same shape, joined in this way with the shapes before it."""
        return replace(self, operation=operation, blend=blend)

    @property
    def reach(self) -> float:
        """The radius of a sphere about the centre that holds the shape."""
        s = self.sizes
        if self.kind in ("plane", "gyroid"):
            return math.inf
        if self.kind == "box":
            return math.hypot(*s[:3])
        return {"sphere": s[0], "cylinder": math.hypot(*s[:2])}.get(self.kind, sum(s[:2]))


@dataclass(frozen=True)
class Hits:
    """Where N rays meet a surface. depth: [N], inf for a miss. normal: [N, 3] outward, 0 for a miss, None where it was
    not asked for. index: [N] int32, the shape or triangle met, -1 for a miss."""

    depth: Tensor
    normal: Tensor | None
    index: Tensor


@dataclass(frozen=True)
class Solids:
    """The tables of a scene's shapes; make them with `Solids.of`. Names as in the op."""

    shapes: tuple[Shape, ...]
    kind: Tensor
    operation: Tensor
    sizes: Tensor
    placement: Tensor
    first: Tensor
    bound: Tensor
    _copies: dict = field(default_factory=dict, repr=False, compare=False)  # of the tables, on other devices

    @staticmethod
    def of(solids: Sequence[Shape | Sequence[Shape]]) -> Solids:
        """Each solid is a shape, or shapes that are joined in order. BadInput for an endless one that is joined."""
        groups = [[s] if isinstance(s, Shape) else list(s) for s in solids]
        shapes = tuple(shape for group in groups for shape in group)
        rows = [[*(*s.sizes, 0.0, 0.0, 0.0, 0.0)[:4], s.blend] for s in shapes]
        placement = [[s.rotation[r][c] for c in range(3) for r in range(3)] + list(s.centre) for s in shapes]
        start = [0]
        for group in groups:
            start.append(start[-1] + len(group))
        return Solids(
            shapes,
            kind=torch.tensor([list(KINDS).index(s.kind) for s in shapes], dtype=torch.int32),
            operation=torch.tensor([OPERATIONS.index(s.operation) for s in shapes], dtype=torch.int32),
            sizes=torch.tensor(rows, dtype=torch.float32).view(-1, 5),
            placement=torch.tensor(placement, dtype=torch.float32).view(-1, 12),
            first=torch.tensor(start, dtype=torch.int32),
            bound=torch.tensor([_bound(group) for group in groups], dtype=torch.float32).view(-1, 4),
        )

    def tables(self, device: torch.device) -> dict[str, Tensor]:
        """The op's arguments, on `device`; copied there once."""
        names = ("kind", "operation", "sizes", "placement", "first", "bound")
        tables = on_device(tuple(getattr(self, name) for name in names), device, self._copies)
        return dict(zip(names, tables, strict=True))


def trace_solids(
    solids: Solids, rays: Rays, *, limit: Tensor | None = None, inside: bool = False, normals: bool = True
) -> Hits:
    """The first surface along each ray. limit: [N], hits at or beyond it do not count.

    inside: where rays that start inside a solid leave it, instead (rays that start outside "leave" at 0).
    Not differentiable; float32 natively.
    """
    if not native(rays.origins):
        from .solids_reference import trace_solids_reference

        return trace_solids_reference(solids, rays, limit=limit, inside=inside, normals=normals)
    n, device = len(rays), rays.origins.device
    depth, index = (torch.empty(n, dtype=kind, device=device) for kind in (torch.float32, torch.int32))
    normal = torch.empty(3, n, device=device) if normals else None
    TRACE(
        depth=depth,
        normal=normal,
        index=index,
        origins=feature_major(rays.origins),
        directions=feature_major(rays.directions),
        limit=None if limit is None else limit.clamp_max(FAR).contiguous(),
        inside=inside,
        **solids.tables(device),
    )
    return Hits(torch.where(index < 0, torch.inf, depth), None if normal is None else normal.T, index)


def _bound(group: list[Shape]) -> list[float]:
    # What holds the union of the shapes; an intersection only takes away, so any one shape's bound will do.
    centre, reach = group[0].centre, group[0].reach
    for shape in group[1:]:
        if shape.operation == "union":
            distance = math.dist(centre, shape.centre) + shape.reach + shape.blend / 4
            reach = max(reach, distance)
        elif shape.operation == "intersect" and shape.reach < reach:
            centre, reach = shape.centre, shape.reach
    if math.isfinite(reach):
        return [*centre, reach * 1.001 + max(s.blend for s in group) / 4]
    if len(group) > 1 or group[0].kind != "plane":
        raise BadInput(f"solid: a {group[0].kind} without end; the rule: it stands alone or is intersected")
    return [0.0, 0.0, 0.0, -1.0]
