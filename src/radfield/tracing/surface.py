"""A triangle mesh as a surface: made clean, oriented, and asked for signed distances.

Corners in the same place are one point; triangles without area and repeated ones are left out. Which rule says what is
inside is chosen once per mesh (`Surface.rule`):

- "pseudonormal", where every edge has exactly two triangles that turn the same way (a closed surface) and the normals
  agree with the winding number at random points (so that it does not pass through itself): exact, and the faster one;
- "winding", everywhere else: inside is where the winding number is above 1/2, which closes the holes of an open mesh.

Letters: N points, T triangles, P points of the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..backend import native
from ..errors import BadInput, warn
from ..sampling.random import Source, uniform
from ..tensors import on_device
from .mesh_distance import mesh_distance, mesh_distance_reference
from .wide_bvh import WideBvh
from .winding import mesh_winding, mesh_winding_reference, moments

MOST_TRIANGLES = 4_000_000  # about 1 kB each on the way
_PROBES = 2048  # points at which the two rules are compared


@dataclass(frozen=True)
class Surface:
    """vertices: [P, 3] float64; triangles: [T, 3] int64, counter-clockwise seen from outside where that is known.
    left_out: triangles that were degenerate or repeated. open_edges: edges without exactly one neighbour that turns the
    same way; 0 for a closed surface."""

    vertices: Tensor
    triangles: Tensor
    left_out: int
    open_edges: int
    _copies: dict = field(default_factory=dict, init=False, repr=False, compare=False)  # of tables, on other devices

    @staticmethod
    def of(vertices: Tensor, triangles: Tensor) -> Surface:
        """BadInput for no triangles with area, corners that there are not, coordinates that are not finite, and more
        than `MOST_TRIANGLES`."""
        _check(vertices, triangles)
        vertices, triangles, left_out = _cleaned(vertices.double(), triangles.long())
        if not len(triangles):
            raise BadInput(f"mesh: none of its {left_out} triangles has an area; the rule: some have")
        surface = Surface(vertices, triangles, left_out, count_open_edges(triangles, len(vertices)))
        if surface.open_edges == 0 and surface.volume < 0:
            return Surface(vertices, triangles.flip(-1), left_out, 0)
        return surface

    @cached_property
    def corners(self) -> Tensor:
        """[T, 3, 3] float64."""
        return self.vertices[self.triangles]

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(low, high), [3] each, of its box."""
        return self.corners.amin((0, 1)), self.corners.amax((0, 1))

    @cached_property
    def area_vectors(self) -> Tensor:
        """[T, 3]: each triangle's normal by the right-hand rule, as long as its area."""
        a, b, c = self.corners.unbind(1)
        return 0.5 * torch.linalg.cross(b - a, c - a)

    @property
    def volume(self) -> float:
        """Of a closed surface; negative where its triangles turn clockwise seen from outside."""
        middle = self.corners.mean(1) - self.vertices.mean(0)
        return float((middle * self.area_vectors).sum() / 3)

    @cached_property
    def diagonal(self) -> float:
        """Of its box."""
        low, high = self.bounds
        return float((high - low).norm())

    @cached_property
    def tree(self) -> WideBvh:
        """The tree of its triangles."""
        return WideBvh.of(self.corners)

    @cached_property
    def pseudonormals(self) -> Tensor:
        """[T, 7, 3] float32: of face, edges and corners, as `mesh_distance` wants them."""
        return pseudonormals(self)

    @cached_property
    def rule(self) -> str:
        """What says which side a point is on: "pseudonormal" or "winding"."""
        if self.open_edges:
            return "winding"
        generator = torch.Generator().manual_seed(0)
        low, high = self.corners.amin((0, 1)), self.corners.amax((0, 1))
        x = (low + (high - low) * torch.rand(_PROBES, 3, generator=generator, dtype=torch.float64)).float()
        distance = _signed(self, x)
        differ = (distance < 0) != (self.winding(x) > 0.5)
        near = distance.abs() < 1e-4 * self.diagonal  # where the winding number is not to be trusted either
        return "winding" if bool((differ & ~near).any()) else "pseudonormal"

    def announce(self, name: str, signed: bool = True) -> None:
        """Says what a user should know of the mesh before its distances are believed; signed: whether what is inside
        matters."""
        if self.left_out:
            warn(f"{name}: {self.left_out} triangles are degenerate or repeated, and left out")
        if not signed:
            return
        if self.open_edges:
            warn(
                f"{name}: {self.open_edges} edges are open or shared by more than two triangles; what is inside is "
                "decided by the winding number (above 1/2), which closes the holes"
            )
        elif self.rule == "winding":
            warn(f"{name}: passes through itself; what is inside is decided by the winding number (above 1/2)")

    def distance(self, x: Tensor) -> Tensor:
        """[N] unsigned, at x [N, 3] float32 on any device, as in the methods that follow."""
        if not native(x):
            return mesh_distance_reference(self.corners, x.double())[0].to(x.dtype)
        return mesh_distance(self.tree, x)[0]

    def winding(self, x: Tensor) -> Tensor:
        """[N]: how often the surface goes around x [N, 3] float32."""
        if not native(x):
            return mesh_winding_reference(self.corners, x.double()).to(x.dtype)
        return mesh_winding(self.tree, self._on(x.device, "_moments"), x)

    def signed_distance(self, x: Tensor) -> Tensor:
        """[N], negative inside, at x [N, 3] float32."""
        if self.rule == "pseudonormal" and native(x):
            return _signed(self, x)
        distance = self.distance(x)
        return torch.where(self.winding(x) > 0.5, -distance, distance)

    def sample(self, count: int, source: Source) -> Tensor:
        """[count, 3] float32 points on the surface, evenly by area, on the device of the random numbers."""
        size = self._on(source.device, "_areas")
        place = uniform(source, count, dtype=torch.float64) * size[-1]
        triangle = torch.searchsorted(size, place, right=True).clamp_max(len(size) - 1)
        u, v = uniform(source, 2, count, 1, dtype=torch.float64)
        root = u.sqrt()  # Osada et al. 2002, "Shape distributions", eq. 1
        a, b, c = self._on(source.device, "corners")[triangle].unbind(1)
        return ((1 - root) * a + root * (1 - v) * b + root * v * c).float()

    def _on(self, device: torch.device, name: str) -> Tensor:
        # the table `name` on `device`
        return on_device((getattr(self, name),), device, self._copies.setdefault(name, {}))[0]

    @cached_property
    def _areas(self) -> Tensor:
        # the area of the triangles up to each one
        return self.area_vectors.norm(dim=-1).cumsum(0)

    @cached_property
    def _moments(self) -> Tensor:
        return moments(self.tree)


def pseudonormals(surface: Surface) -> Tensor:
    """[T, 7, 3] float32 (Baerentzen and Aanaes 2005, sec. 3). An edge that is not closed has its own face's."""
    triangles, corners = surface.triangles, surface.corners
    face = torch.nn.functional.normalize(surface.area_vectors, dim=-1)
    total = torch.zeros_like(surface.vertices)
    for i in range(3):
        to, back = corners[:, (i + 1) % 3] - corners[:, i], corners[:, i - 1] - corners[:, i]
        angle = torch.atan2(torch.linalg.cross(to, back).norm(dim=-1), (to * back).sum(-1))
        total.index_add_(0, triangles[:, i], angle[:, None] * face)
    code, opposite = _half_edges(triangles, len(surface.vertices))
    order = code.argsort()
    at = torch.searchsorted(code[order], opposite).clamp_max(len(code) - 1)
    other = torch.where(code[order][at] == opposite, order[at], torch.arange(len(code))) // 3
    edge = face.repeat_interleave(3, 0) + face[other]
    return torch.cat((face[:, None], edge.view(-1, 3, 3), total[triangles]), 1).float().contiguous()


def _signed(surface: Surface, x: Tensor) -> Tensor:
    if not native(x):
        distance = surface.distance(x)
        return torch.where(surface.winding(x) > 0.5, -distance, distance)
    return mesh_distance(surface.tree, x, surface._on(x.device, "pseudonormals"))[0]


def _half_edges(triangles: Tensor, points: int) -> tuple[Tensor, Tensor]:
    # A number for each of the edges ab, bc, ca of each triangle, [3 T], and for the same edge the other way round.
    start, end = triangles.reshape(-1), triangles.roll(-1, 1).reshape(-1)
    return start * points + end, end * points + start


def count_open_edges(triangles: Tensor, points: int) -> int:
    """Edges of triangles [T, 3] without exactly one neighbour that turns the same way; `points`: of the mesh."""
    code, opposite = _half_edges(triangles, points)
    _, count = code.unique(return_counts=True)
    partners = torch.isin(code, opposite)
    return int((~partners).sum()) + int((count - 1).sum())


def _cleaned(vertices: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor, int]:
    """Points in one place made one, and triangles that say nothing left out."""
    before = len(triangles)
    used, triangles = triangles.unique(return_inverse=True)
    vertices, place = vertices[used].unique(dim=0, return_inverse=True)
    triangles = place[triangles]
    a, b, c = vertices[triangles].unbind(1)
    flat = (torch.linalg.cross(b - a, c - a) == 0).all(-1)
    triangles = triangles[~flat]
    _, group = triangles.sort(-1).values.unique(dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1 if len(group) else 0,), len(group))
    first.scatter_reduce_(0, group, torch.arange(len(group)), "amin")
    triangles = triangles[first.sort().values]
    return vertices, triangles, before - len(triangles)


def _check(vertices: Tensor, triangles: Tensor) -> None:
    if not len(triangles):
        raise BadInput("mesh: it has no triangles; the rule: at least one")
    if len(triangles) > MOST_TRIANGLES:
        raise BadInput(
            f"mesh: it has {len(triangles)} triangles; the rule: at most {MOST_TRIANGLES} (simplify it first)"
        )
    if int(triangles.min()) < 0 or int(triangles.max()) >= len(vertices):
        found = f"{int(triangles.min())} to {int(triangles.max())}"
        raise BadInput(f"mesh: triangles name the points {found}; the rule: from 0 to {len(vertices) - 1}")
    bad = int((~vertices.isfinite().all(-1)).sum())
    if bad:
        raise BadInput(f"mesh: {bad} of its {len(vertices)} points are not finite; the rule: finite coordinates")
