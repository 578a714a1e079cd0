"""FlexiCubes: a mesh of values on a lattice that can be differentiated by them (Shen et al. 2023, "Flexible Isosurface
Extraction for Gradient-Based Mesh Optimization").

It is dual marching cubes (Nielson 2004) with weights. Cells, their corners and edges are those of cube_cases.py. Where
the values s_i, s_j at the ends x_i, x_j of an edge differ in sign, the surface crosses the edge (sec. 4.2, eq. 3 to 6)

    u_e = (s_i a_i x_j - s_j a_j x_i) / (s_i a_i - s_j a_j)          a: 8 weights of the cell's corners
    v = sum_e b_e u_e / sum_e b_e                                    b: 12 weights of its edges

and each closed line in which the surface cuts a cell has a vertex v. The four vertices around a crossed edge make a
quad, which is split along the diagonal whose cells have the larger product of their weights c; while training each quad
has instead a fifth vertex between the middles of its diagonals, and four triangles:

    m = (c_1 c_3 (v_1 + v_3) / 2 + c_2 c_4 (v_2 + v_4) / 2) / (c_1 c_3 + c_2 c_4)

Where two cells would both pass twice through the face between them, its inside corners are joined instead (Wenger 2013,
sec. 2.3.5): so every edge of the mesh has two triangles. Letters: P points, C cells, K crossings (of a cell and an
edge), D vertices, Q quads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .cube_cases import EDGES, FACES, loops
from .mesh import Mesh


@dataclass(frozen=True)
class Grid:
    """Points low + spacing (i, j, k), x slowest, and the cells between them. cells: how many along each axis."""

    low: tuple[float, float, float]
    spacing: float
    cells: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points along each axis."""
        return tuple(n + 1 for n in self.cells)

    def points(self, dtype=torch.float32) -> Tensor:
        """[P, 3]."""
        place = torch.cartesian_prod(*[torch.arange(n, dtype=dtype) for n in self.shape])
        return torch.tensor(self.low, dtype=dtype) + self.spacing * place

    def places(self) -> Tensor:
        """[C, 3] of the cells: the indices of their lowest corners."""
        return torch.cartesian_prod(*[torch.arange(n) for n in self.cells]).view(-1, 3)

    def number(self, place: Tensor) -> Tensor:
        """The number of the point at the indices place [..., 3]."""
        _, y, z = self.shape
        return (place[..., 0] * y + place[..., 1]) * z + place[..., 2]


@dataclass(frozen=True)
class Weights:
    """corners: [C, 8] (a); edges: [C, 12] (b); splits: [C] (c); all positive."""

    corners: Tensor
    edges: Tensor
    splits: Tensor

    @staticmethod
    def of(raw: Tensor) -> Weights:
        """Of raw parameters [C, 21], any numbers; 0 stands for weights that are all the same. They keep above 0.01."""
        positive = 1.01 + torch.tanh(raw)
        return Weights(positive[:, :8], positive[:, 8:20], positive[:, 20])


@dataclass(frozen=True)
class Extracted:
    """vertices: [D, 3], while training followed by one per quad; triangles: [T, 3], counter-clockwise seen from where
    values are positive. deviation: [K], how far each crossing's distance to its vertex is from the mean of those of the
    same vertex: the regulariser of sec. 4.3."""

    vertices: Tensor
    triangles: Tensor
    deviation: Tensor

    def mesh(self) -> Mesh:
        """Without gradients."""
        return Mesh(self.vertices.detach().double(), self.triangles)


def extract(
    grid: Grid, values: Tensor, weights: Weights | None = None, points: Tensor | None = None, training: bool = False
) -> Extracted:
    """The surface between negative values (inside) and others. values: [P]; weights: all the same if not given; points:
    [P, 3] moved ones, else those of the grid. Where the surface leaves the grid it is open."""
    points = grid.points(values.dtype) if points is None else points
    place, number, loop, count = _surface_cells(grid, values.detach() < 0)
    if weights is None:
        weights = Weights.of(values.new_zeros(len(number), 21))
    else:
        weights = Weights(*(each[number] for each in (weights.corners, weights.edges, weights.splits)))
    cell, edge = (loop >= 0).nonzero().T
    first = count.cumsum(0) - count
    dual = first[cell] + loop[cell, edge]
    crossing = _crossings(grid, values, points, weights, place, cell, edge)
    vertices, deviation = _vertices(crossing, weights.edges[cell, edge], dual, int(count.sum()))
    quads, of_cell = _quads(grid, values, place, cell, edge, dual)
    return Extracted(*_triangles(vertices, quads, weights.splits[of_cell], training), deviation)


def moved(grid: Grid, raw: Tensor) -> Tensor:
    """[P, 3] points moved by less than half of a cell along each axis; raw: [P, 3], 0 for none."""
    return grid.points(raw.dtype) + 0.499 * grid.spacing * torch.tanh(raw)


def sign_changes(grid: Grid, values: Tensor) -> Tensor:
    """The mean over crossed edges of the cross entropy between one end's sign and the other's value: the regulariser
    that keeps loose surfaces from staying (Munkberg et al. 2022, eq. 2); 0 where there is no edge."""
    cube = values.view(grid.shape)
    parts = []
    for axis in range(3):
        a, b = cube.narrow(axis, 0, cube.shape[axis] - 1), cube.narrow(axis, 1, cube.shape[axis] - 1)
        crossed = (a < 0) != (b < 0)
        for one, other in ((a[crossed], b[crossed]), (b[crossed], a[crossed])):
            wanted = (other > 0).to(one)
            parts.append(torch.nn.functional.binary_cross_entropy_with_logits(one, wanted, reduction="none"))
    joined = torch.cat(parts)
    return joined.mean() if len(joined) else values.sum() * 0


@functools.cache
def tables() -> tuple[Tensor, Tensor, Tensor]:
    """(loop [2, 256, 12]: which closed line of a case an edge is on, -1 for none; count [2, 256] of these lines; twice
    [256]: the face that one line passes twice, -1 for none). First inside corners apart, then joined: the lines of
    the complement."""
    loop, count = torch.full((2, 256, 12), -1), torch.zeros(2, 256, dtype=torch.int64)
    twice = torch.full((256,), -1)
    for case in range(1, 255):
        for joined, lines in enumerate((loops(case), loops(255 - case))):
            count[joined, case] = len(lines)
            for i, line in enumerate(lines):
                for edge in line:
                    loop[joined, case, EDGES.index(edge)] = i
        for number, face in enumerate(FACES):
            around = [EDGES.index(_edge(a, b)) for a, b in zip(face, face[1:] + face[:1], strict=True)]
            found = loop[0, case, around]
            if bool((found >= 0).all()) and len(found.unique()) == 1:
                twice[case] = number
    return loop, count, twice


def _edge(a: int, b: int) -> tuple[int, int]:
    return min(a, b), (a ^ b).bit_length() - 1


def _surface_cells(grid: Grid, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the cells that the surface passes: their places [C, 3] and numbers [C], the line of each edge [C, 12], and how
    many lines [C]."""
    cube = inside.view(grid.shape)
    case = torch.zeros(grid.cells, dtype=torch.int64)
    for k in range(8):
        x, y, z = (slice(k >> axis & 1, n + (k >> axis & 1)) for axis, n in enumerate(grid.cells))
        case |= cube[x, y, z].long() << k
    loop, count, twice = tables()
    face = twice[case]
    joined = torch.zeros_like(case)
    for number in range(6):  # faces 2 a and 2 a + 1 are those at the lower and upper end of axis a
        axis, step = number // 2, 1 if number % 2 else -1
        beside = face.roll(-step, axis)
        beside.select(axis, -1 if step == 1 else 0).fill_(-1)
        joined[(face == number) & (beside == (number ^ 1))] = 1
    place = ((case > 0) & (case < 255)).nonzero()
    case, joined = case[tuple(place.T)], joined[tuple(place.T)]
    _, y, z = grid.cells
    return place, (place[:, 0] * y + place[:, 1]) * z + place[:, 2], loop[joined, case], count[joined, case]


def _crossings(grid: Grid, values, points, weights: Weights, place, cell, edge) -> Tensor:
    """[K, 3]: u_e."""
    start = torch.tensor([k for k, _ in EDGES])[edge]
    end = start | 1 << torch.tensor([axis for _, axis in EDGES])[edge]
    ends, weighted = [], []
    for corner in (start, end):
        bits = torch.stack([corner >> axis & 1 for axis in range(3)], -1)
        number = grid.number(place[cell] + bits)
        ends.append(points[number])
        weighted.append((values[number] * weights.corners[cell, corner])[:, None])
    (x_i, x_j), (s_i, s_j) = ends, weighted
    return (s_i * x_j - s_j * x_i) / (s_i - s_j)


def _vertices(crossing: Tensor, weight: Tensor, dual: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(v [D, 3], deviation [K]); dual: the vertex of each crossing."""
    total = crossing.new_zeros(count).index_add(0, dual, weight)
    vertices = crossing.new_zeros(count, 3).index_add(0, dual, weight[:, None] * crossing) / total[:, None]
    # The square root's slope at 0 is not a number, and a vertex may lie on a crossing.
    distance = ((crossing - vertices[dual]).square().sum(-1) + torch.finfo(crossing.dtype).tiny).sqrt()
    members = torch.bincount(dual, minlength=count).to(crossing)
    mean = crossing.new_zeros(count).index_add(0, dual, distance) / members
    return vertices, (distance - mean[dual]).abs()


def _quads(grid: Grid, values, place, cell, edge, dual) -> tuple[Tensor, Tensor]:
    """(vertices [Q, 4], cells [Q, 4]) around each edge that four cells share, counter-clockwise seen from outside."""
    corner = torch.tensor([[k >> axis & 1 for axis in range(3)] for k, _ in EDGES])[edge]
    axis = torch.tensor([axis for _, axis in EDGES])[edge]
    start = grid.number(place[cell] + corner)
    names, group, shared = (start * 3 + axis).unique(return_inverse=True, return_counts=True)
    # A cell whose corner 1 along an axis is on the edge lies below the edge there.
    below = [corner.gather(1, ((axis + turn) % 3)[:, None])[:, 0] for turn in (1, 2)]
    slot = torch.tensor([[2, 3], [1, 0]])[below[1], below[0]]  # (+,+), (-,+); (+,-), (-,-)
    quads, cells = (torch.full((len(names), 4), -1) for _ in range(2))
    quads[group, slot], cells[group, slot] = dual, cell
    outwards = values.detach()[names // 3] < 0  # the normal is along the axis
    order = torch.where(outwards[:, None], torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 0]))
    whole = shared == 4
    return quads.gather(1, order)[whole], cells.gather(1, order)[whole]


def _triangles(vertices: Tensor, quads: Tensor, splits: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    """(vertices, triangles) of quads [Q, 4] whose cells have the weights splits [Q, 4]."""
    one, other = splits[:, 0] * splits[:, 2], splits[:, 1] * splits[:, 3]
    if not training:
        along = torch.where((one >= other)[:, None], torch.tensor([0, 1, 2, 0, 2, 3]), torch.tensor([0, 1, 3, 1, 2, 3]))
        return vertices, quads.gather(1, along).view(-1, 3)
    a, b, c, d = vertices[quads].unbind(1)
    middle = 0.5 * (one[:, None] * (a + c) + other[:, None] * (b + d)) / (one + other)[:, None]
    centre = len(vertices) + torch.arange(len(quads))
    sides = [torch.stack((quads[:, i], quads[:, (i + 1) % 4], centre), -1) for i in range(4)]
    return torch.cat((vertices, middle)), torch.stack(sides, 1).view(-1, 3)
