"""The points of a lattice near an open sheet, what an unsigned distance says there, and which lattice edges the sheet
passes through.

Close to a sheet the gradient of a trained distance means nothing, and so does the side that a point is on. Points that
are closer than `CLOSE` are therefore moved by `ASIDE` along the axis on which they get furthest from it: the lattice
has points on either side of the sheet, and none on it (Raman and Wenger 2008 snap such points for better triangles).
Of an edge between points a and b, each end says how far the other is on its side of a plane sheet,

    ahead_a = f_a + g_a . (b - a)        ahead_b = f_b + g_b . (a - b)      (g: unit gradients; below 0: beyond it)

and the end that is further from the sheet, whose gradient is the better one, counts more:

    score = -(f_a ahead_a + f_b ahead_b) / ((f_a + f_b) |b - a|)              above 0: the sheet passes between a and b

These are the pseudo-signs of MeshUDF (Guillard et al. 2022) and of LevelSetUDF (Zhou et al. 2023), but of edges, not of
cells, so that the cells around an edge never differ about it. Around a face of a cell the sheet passes an even number
of edges, unless it ends there: faces with an odd number form lines, which are the sheet's rim, or small loops where
scores err. `repaired` gets rid of the loops: edges are changed where that leaves fewer odd faces, against what their
scores are worth. Letters: P points, C cells, E edges; an edge is named axis P + its lower point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .cube_cases import EDGES
from .level_set import asked
from .marching_cubes import BLOCKS_PER_CALL, SIDE, Lattice, blocks_near, corner_of

STEP = 0.2  # of the differences that gradients are found by, in cells
CLOSE = 0.25  # cells: points that are closer to the sheet are moved
ASIDE = 0.45  # cells
FACE = 0.25  # what an odd face less is worth, in scores
LEAST_SCORE = 0.02  # of an edge, so that one that was changed stays so
_ROUNDS = 32
_LEVEL_POINTS = 1 << 12  # points that say what a distance is on the sheet
_SLACK = 1.1  # what a trained distance may be too large by
_CELLS_PER_CALL = 1 << 16
#: corners of a tetrahedron: four values give a gradient (Quilez 2015)
_TETRAHEDRON = ((1.0, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))

Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Band:
    """place: [P, 3] int64, lattice points in the order of their names; x: [P, 3] float64, where they are; f: [P]
    float32, above what the distance is on the sheet; gradient: [P, 3] of length 1; cells: [C, 8] int64, the points at
    the corners of the cells that the sheet may pass through."""

    lattice: Lattice
    place: Tensor
    x: Tensor
    f: Tensor
    gradient: Tensor
    cells: Tensor

    @staticmethod
    def of(distance: Answer, lattice: Lattice, near, progress=None) -> Band:
        """Asks `distance` (of points [M, 3]) at the points of blocks that are `near` the sheet (as `marching_cubes` has
        it). A cell that the sheet passes has no corner further from it than its diagonal, and as far as corners are
        moved aside."""
        reach = (3**0.5 + ASIDE) * lattice.spacing * _SLACK
        blocks = blocks_near(lattice, near)
        names, values, cells = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0)], []
        for begin in range(0, len(blocks), BLOCKS_PER_CALL):
            name, value, cell = _close(distance, lattice, blocks[begin : begin + BLOCKS_PER_CALL], reach)
            names.append(name), values.append(value), cells.append(cell)
            if progress:
                progress(min(begin + BLOCKS_PER_CALL, len(blocks)), len(blocks))
        name, number = torch.cat(names).unique(return_inverse=True)
        f = torch.zeros(len(name)).index_copy_(0, number, torch.cat(values))  # a point of two blocks has one value
        place = torch.stack([name // s % n for s, n in zip(_strides(lattice), _sizes(lattice), strict=True)], -1)
        corners = torch.cat([torch.zeros(0, 8, dtype=torch.int64), *cells])
        x = lattice.points(place)
        level = _level(distance, x[f < lattice.spacing].float(), lattice.spacing)

        def above(y: Tensor) -> Tensor:
            return (asked(distance, y) - level).clamp_min(0)

        x, f = _aside(above, x, (f - level).clamp_min(0), lattice.spacing)
        gradient = gradients(distance, STEP * lattice.spacing, x.float())
        return Band(lattice, place, x, f, gradient, torch.searchsorted(name, corners))

    @cached_property
    def after(self) -> Tensor:
        """[P, 3]: the next point along each axis, -1 where it is not of the band."""
        return self._beside(1)

    @cached_property
    def before(self) -> Tensor:
        """[P, 3]: the one before."""
        return self._beside(-1)

    def _beside(self, way: int) -> Tensor:
        strides, sizes = _strides(self.lattice), _sizes(self.lattice)
        name = (self.place * torch.tensor(strides)).sum(-1)
        found = torch.full_like(self.place, -1)
        for axis in range(3):
            at = torch.searchsorted(name, name + way * strides[axis]).clamp_max(len(name) - 1)
            inside = (self.place[:, axis] + way >= 0) & (self.place[:, axis] + way < sizes[axis])
            found[:, axis] = torch.where(inside & (name[at] == name + way * strides[axis]), at, -1)
        return found

    def scores(self) -> Tensor:
        """[3 P], the module's equation; 0 for edges that the band does not have."""
        found = torch.zeros(3, len(self.f))
        for axis in range(3):
            a = (self.after[:, axis] >= 0).nonzero()[:, 0]
            b = self.after[a, axis]
            f_a, f_b, between = self.f[a], self.f[b], (self.x[b] - self.x[a]).float()
            ahead_a = f_a + (self.gradient[a] * between).sum(-1)
            ahead_b = f_b - (self.gradient[b] * between).sum(-1)
            found[axis, a] = -(f_a * ahead_a + f_b * ahead_b) / ((f_a + f_b) * between.norm(dim=-1)).clamp_min(1e-12)
        return found.view(-1)

    def cases(self, passed: Tensor, scores: Tensor) -> Tensor:
        """[C] int64, the cells' cases: the two sides of their corners that fit the edges best, corner 7 outside."""
        sides = torch.arange(128)
        differ = torch.stack([(sides >> k ^ sides >> (k | 1 << axis)) & 1 for k, axis in EDGES]) * 2.0 - 1  # [12, 128]
        size = scores.abs().clamp_min(LEAST_SCORE)
        worth = torch.where(passed, size, -size)
        found = torch.zeros(len(self.cells), dtype=torch.int64)
        for begin in range(0, len(self.cells), _CELLS_PER_CALL):
            edges = self.edges_of(self.cells[begin : begin + _CELLS_PER_CALL])
            some = passed[edges].any(-1).nonzero()[:, 0]
            found[begin + some] = (worth[edges[some]] @ differ).argmax(-1)
        return found

    def edges_of(self, cells: Tensor) -> Tensor:
        """[C, 12] names of the edges of cells [C, 8], in the order of `cube_cases.EDGES`."""
        return torch.stack([axis * len(self.f) + cells[:, k] for k, axis in EDGES], -1)


def _level(distance: Answer, x: Tensor, spacing: float) -> float:
    """What `distance` is on the sheet, where a trained one is nowhere quite 0: the median of what points x [M, 3] near
    it come to when each goes towards it as far as it says; at most half a cell, which is no sheet any more."""
    x = x[:: -(-len(x) // _LEVEL_POINTS) or 1]
    for _ in range(2):
        x = x - asked(distance, x)[:, None] * gradients(distance, STEP * spacing, x)
    return min(float(asked(distance, x).median()), 0.5 * spacing) if len(x) else 0.0


def _aside(distance: Answer, x: Tensor, f: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """(places [P, 3], values [P]) of points x with the values f, those close to the sheet moved; upwards, where both
    ways are about as good."""
    close = (f < CLOSE * spacing).nonzero()[:, 0]
    ways = torch.cat((torch.eye(3), -torch.eye(3))).to(x) * ASIDE * spacing
    there = torch.stack([asked(distance, (x[close] + way).float()) for way in ways], -1)
    there[:, 3:] -= 0.5 * CLOSE * spacing
    best = there.argmax(-1)
    x, f = x.clone(), f.clone()
    x[close] += ways[best]
    f[close] = asked(distance, x[close].float())
    return x, f


def gradients(distance: Answer, step: float, x: Tensor) -> Tensor:
    """[M, 3] unit gradients of `distance` at x [M, 3], by differences."""
    corners = x.new_tensor(_TETRAHEDRON)
    values = torch.stack([asked(distance, x + step * corner) for corner in corners], -1)
    return torch.nn.functional.normalize(values @ corners, dim=-1)


def repaired(band: Band, scores: Tensor) -> Tensor:
    """[3 P] bool: which edges the sheet passes through, with few odd faces but along its rim. In a round an edge is
    changed where that is worth most around all of its faces."""
    passed = scores > 0
    for _ in range(_ROUNDS):
        odd = _odd_faces(band, passed)
        edges = _edges_of_faces(band, odd.nonzero()[:, 0]).unique()
        faces = _faces_of_edges(band, edges)  # [E, 4], -1 for none
        there = faces >= 0
        fewer = (2 * (odd[faces.clamp_min(0)] & there).sum(-1) - there.sum(-1)).float()
        kept = passed[edges] == (scores[edges] > 0)
        worth = FACE * fewer - torch.where(kept, 1, -1) * scores[edges].abs()
        good = (worth > 1e-6).nonzero()[:, 0]
        if not len(good):
            break
        passed[edges[good][_best_of_their_faces(worth[good], faces[good])]] ^= True
    return passed


def _best_of_their_faces(worth: Tensor, faces: Tensor) -> Tensor:
    """[E] bool: the edges that are worth most (the first of equals) among those that share a face with them."""
    rank = torch.empty(len(worth), dtype=torch.int64)
    rank[worth.argsort(stable=True)] = torch.arange(len(worth))
    _, number = faces.unique(return_inverse=True)
    most = torch.full((int(number.max()) + 1,), -1).scatter_reduce_(
        0, number.view(-1), rank[:, None].expand_as(number).reshape(-1), "amax"
    )
    return ((most[number] == rank[:, None]) | (faces < 0)).all(-1)


#: the axes of a face; face pair P + p has the lowest point p
_PAIRS = ((0, 1), (0, 2), (1, 2))


def _odd_faces(band: Band, passed: Tensor) -> Tensor:
    """[3 P] bool, by name; False for faces that the band does not have."""
    points = len(band.f)
    passed = passed.view(3, points)
    odd = torch.zeros(3, points, dtype=torch.bool)
    for pair, (u, v) in enumerate(_PAIRS):
        at_u, at_v = band.after[:, u], band.after[:, v]
        there = (at_u >= 0) & (at_v >= 0)
        there &= band.after[at_u.clamp_min(0), v] >= 0
        odd[pair] = there & (passed[u] ^ passed[v] ^ passed[v][at_u] ^ passed[u][at_v])
    return odd.view(-1)


def _edges_of_faces(band: Band, faces: Tensor) -> Tensor:
    """[F, 4] names of the edges of faces, given by name."""
    points = len(band.f)
    u, v = torch.tensor(_PAIRS)[faces // points].unbind(-1)
    p = faces % points
    return torch.stack(
        (u * points + p, v * points + p, v * points + band.after[p, u], u * points + band.after[p, v]), 1
    )


def _faces_of_edges(band: Band, edges: Tensor) -> Tensor:
    """[E, 4] names of the faces around edges, -1 where the band has none."""
    points = len(band.f)
    axis, p = edges // points, edges % points
    found = []
    for other in (1, 2):
        v = (axis + other) % 3
        pair = axis + v - 1  # 0, 1, 2 of the pairs 0 1, 0 2, 1 2
        for at in (p, band.before[p, v]):
            low = at.clamp_min(0)
            there = (at >= 0) & (band.after[low, axis] >= 0) & (band.after[low, v] >= 0)
            there &= band.after[band.after[low, axis].clamp_min(0), v] >= 0
            found.append(torch.where(there, pair * points + low, -1))
    return torch.stack(found, -1)


def _close(distance: Answer, lattice: Lattice, blocks: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of some blocks: the names [M] and values [M] of the points of cells all of whose corners are within `reach` of
    the sheet, and the names of these cells' corners [C, 8]."""
    side = torch.arange(SIDE + 1)
    at = blocks[:, None] + torch.cartesian_prod(side, side, side)
    shape = (len(blocks), SIDE + 1, SIDE + 1, SIDE + 1)
    values = asked(distance, lattice.points(at).view(-1, 3).float()).view(shape)
    names = (at * torch.tensor(_strides(lattice))).sum(-1).view(shape)
    inside = (at < torch.tensor(lattice.cells)).all(-1).view(shape)  # the lattice ends in a block
    close = corner_of(inside, 0) & torch.stack([corner_of(values <= reach, k) for k in range(8)]).all(0)
    corners = torch.stack([corner_of(names, k)[close] for k in range(8)], -1)
    used = torch.zeros(shape, dtype=torch.bool)
    for k in range(8):
        corner_of(used, k).logical_or_(close)
    return names[used], values[used], corners


def _sizes(lattice: Lattice) -> list[int]:
    return [n + 1 for n in lattice.cells]


def _strides(lattice: Lattice) -> tuple[int, int, int]:
    _, y, z = _sizes(lattice)
    return y * z, z, 1
