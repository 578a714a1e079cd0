"""Sparse voxels (Plenoxels, Fridovich-Keil et al. 2022): density and harmonics at the vertices of a grid that
are not in empty space, interpolated in its cells.

A grid of N^3 vertices has an index [N^3] of rows, -1 where a vertex has none. With `p = (N - 2) x + 1/2`, the cell
`floor(p)` and its fraction f, each of B blocks of F values is

    values_b(x) = sum over the 8 corners c with a row of  w_c(f) table[b V + index(c)]

so that empty space is 0: no density, and no gradient to it. Weights are those of the hash grid, whose autograd and
optimiser take this interpolation as they are. `resize` doubles the resolution, and drops vertices next to which nothing
is dense (sec. 3.4); `regularise` is total variation (eq. 6) over neighbours that both have a row.

The density's value s is its logarithm, or with activation "relu" the density itself, as published (exp(s) and max(s, 0)
are taken after interpolation). The optimiser is Adam, at factors on the learning rate that are the encoding's own;
the published RMSProp was not compared. Colours are harmonics of degree n: channel `n^2 c + k` of colour c.

Letters: M samples, N vertices along an axis, V rows, B blocks, F values per block, L levels (the blocks).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import on_device
from . import hash_grid, hash_grid_adam
from .encoding import Encoding
from .hash_grid import GridLevels, GridOps, HashGrid
from .resizing import FIXED, Schedule

_INDEX = In("index", "i32", "I", "the row of each vertex, x fastest; -1: none")


_GRAD_TABLE = InOut("grad_table", "f32", "E F")


def _with_index(op: Op, name: str) -> Op:
    """The hash grid's op with an index in the place of the interpolation's kind, and sums in fp32."""
    ours = {"smoothstep": _INDEX, "grad_table": _GRAD_TABLE}
    return Op(name, *[ours.get(a.name, a) for a in op.arguments])


FORWARD = _with_index(hash_grid.FORWARD, "sparse_voxels_forward")
BACKWARD = _with_index(hash_grid.BACKWARD, "sparse_voxels_backward")
BACKWARD_X = _with_index(hash_grid.BACKWARD_X, "sparse_voxels_backward_x")
STEP = _with_index(hash_grid_adam.STEP, "sparse_voxels_adam")

SMOOTH = Op(
    "sparse_voxels_smooth",
    Out("smoothed", "f32", "E F", "table - step times the gradient of the total variation"),
    In("table", "f32", "E F"),
    _INDEX,
    In("vertex", "i32", "V", "the vertex of each row; -1: none"),
    In("levels", "i64", "L 4"),
    Scalar("step", "float"),
)


@FORWARD.cuda
def _(a):
    a.aligned("table", hash_grid.entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('features')}, {flag(a.tangent)}"
    return Launch(f"sparse_voxels_forward<{a.F}, {types}>", blocks(a.M, a.L))


@BACKWARD.cuda
def _(a):
    a.aligned("grad_table", min(4 * a.F, 16))
    return Launch(f"sparse_voxels_backward<{a.F}, {a.cxx('grad_features')}, {flag(a.tangent)}>", blocks(a.M, a.L))


@BACKWARD_X.cuda
def _(a):
    a.aligned("table", hash_grid.entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('grad_features')}, {flag(a.tangent)}"
    return Launch(f"sparse_voxels_backward_x<{a.F}, {types}>", blocks(a.M))


@STEP.cuda
def _(a):
    return hash_grid_adam.adam_launches(a, "sparse_voxels_adam")


@SMOOTH.cuda
def _(a):
    return Launch(f"sparse_voxels_smooth<{a.F}>", blocks(a.V, a.L))


@dataclass(frozen=True)
class Config:
    """The sparse voxels' options."""

    resolution: int = 352  # vertices N along an axis at the end
    degree: int = 3  # bands of the colours' harmonics: n^2 coefficients per colour, from 1 to 4
    activation: str = "exp"  # of the density, after interpolation; or "relu", as published
    density_rate: float = 10.0  # factor on the learning rate of the densities
    color_rate: float = 4.0  # factor on the learning rate of the coefficients
    rows: int = 3 << 19  # most rows V: where more would be kept, the resolution grows less; in short trainings 2^19
    prune: float = 5.0  # density, per unit of length, below which a vertex and its neighbours are dropped
    tv: float = 0.0  # weight of the total variation
    schedule: Schedule = FIXED  # when the resolution grows
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


@dataclass(frozen=True)
class VoxelLevels(GridLevels):
    """The derived tables that reference and kernels share."""

    index: Tensor | None = None  # [N^3] int32
    _device: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def ops(self) -> GridOps:
        return OPS

    def tables(self, device: torch.device) -> dict:
        levels, scales = on_device((self.levels, self.scales), device, self._copies)
        (index,) = on_device((self.index,), device, self._device)
        return {"levels": levels, "scales": scales, "index": index}

    def vertices(self) -> Tensor:
        """[V] int32: the vertex of each row, -1 where it has none. Made once."""
        if "vertices" not in self._device:
            vertices = self.index.new_full((int(self.levels[0, 1]),), -1)
            vertex = (self.index >= 0).nonzero()[:, 0]
            vertices[self.index[vertex].long()] = vertex.to(torch.int32)
            self._device["vertices"] = vertices
        return self._device["vertices"]


def voxel_levels(index: Tensor, rows: int, blocks: int, features: int) -> VoxelLevels:
    """The tables of B blocks of F values over `rows` rows, of which `index` [N^3] has the numbers."""
    n = round(len(index) ** (1 / 3))
    levels = torch.tensor([(b * rows, rows, n, 0) for b in range(blocks)], dtype=torch.int64)
    return VoxelLevels(3, features, 0, levels, torch.full((blocks,), float(n - 2)), index=index)


def sparse_voxels_reference(x: Tensor, table: Tensor, grid: VoxelLevels) -> Tensor:
    """The specification: `x` [M, 3], `table` [B V, F] of any float type -> [M, B F]."""
    features = []
    for (offset, _, n, _), scale in zip(grid.levels.tolist(), grid.scales.tolist(), strict=True):
        position = x.clamp(0, 1) * scale + 0.5
        base = position.detach().floor()
        s, total = position - base, 0.0
        for corner in range(8):
            bits = torch.tensor([corner >> d & 1 for d in range(3)], device=x.device)
            row = grid.index[((base.long() + bits) * torch.tensor([1, n, n * n], device=x.device)).sum(1)].long()
            weight = torch.where(bits.bool(), s, 1 - s).prod(1, keepdim=True) * (row >= 0)[:, None]
            total = total + weight * table[offset + row.clamp(min=0)]
        features.append(total)
    return torch.cat(features, 1)


OPS = GridOps(FORWARD, BACKWARD, BACKWARD_X, "sparse_voxels_adam", sparse_voxels_reference)


class _Values(HashGrid):
    """A table of values at the rows, with the autograd, 16-bit copy and optimiser of a hash grid's."""

    def __init__(self, grid: VoxelLevels, table: Tensor, precision: str):
        Encoding.__init__(self, grid.dimensions)
        self.config = hash_grid.Config(precision=precision)
        self.take(grid, table)

    def take(self, grid: VoxelLevels, table: Tensor) -> None:
        self.grid, self.channels, self.table = grid, grid.channels, torch.nn.Parameter(table)
        self.grad_into, self._stored, self._stored_version = None, None, -1


class SparseVoxels(Encoding):
    """The encoding as a module: [M, 3] in [0, 1] -> [M, C], density's value first, then the 3 n^2 coefficients.

    Buffers: index [N^3] int32; how many of the schedule's steps were taken. A fresh one has a row for every vertex.
    Densities start at INITIAL, coefficients at 0.
    """

    RECORD = 8  # values per block of the coefficients

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions)
        _check(dimensions, config)
        self.config = config
        n = self._resolution(0.0)
        rows = _padded(n**3)
        self.register_buffer("index", torch.arange(n**3, dtype=torch.int32))
        self.register_buffer("grown", torch.tensor([0]))
        self.coefficients = 3 * config.degree**2
        self._blocks = -(-self.coefficients // self.RECORD)
        initial = math.log(INITIAL) if config.activation == "exp" else INITIAL
        density, colors = torch.full((rows, 1), initial), torch.zeros(self._blocks * rows, self.RECORD)
        self.densities, self.colors = (
            _Values(grid, table, config.precision)
            for grid, table in zip(self._levels(self.index, rows), (density, colors), strict=True)
        )
        self.channels = 1 + self.coefficients

    @property
    def rows(self) -> int:
        """V, padded to a multiple of 8."""
        return len(self.densities.table)

    @property
    def resolution(self) -> int:
        """N, now."""
        return self.densities.grid.levels[0, 2].item()

    def density_logit(self, x: Tensor, computed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logarithm of the density [M] at x [M, 3], float32, and the value [M, 1] that was interpolated, which may
        be handed back as `computed`."""
        value = self.densities(x, computed)
        s = value.squeeze(1).float()
        return (s if self.config.activation == "exp" else s.clamp(min=LEAST).log()), value

    def harmonics(self, x: Tensor) -> Tensor:
        """The coefficients [M, 3 n^2] at x [M, 3]."""
        return self.colors(x).T[: self.coefficients].T

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        return torch.cat([self.densities(x).T, self.harmonics(x).T]).T

    def adam_groups(self) -> list[dict]:
        """Densities and coefficients, each at its own factor on the learning rate."""
        parts = (self.densities, self.config.density_rate), (self.colors, self.config.color_rate)
        return [{**group, "scale": rate} for part, rate in parts for group in part.adam_groups()]

    def refine(self, progress: float, occupied_box: Callable[[], Tensor], samples: float = math.inf) -> bool:
        """Prunes and grows as the schedule says, as soon as anything is dense; to fewer rows where the training is too
        short for the config's."""
        if self.config.schedule.passed(progress) <= int(self.grown) or not self._dense_vertices().any():
            return False
        self.resize(self._resolution(progress), max(samples / SAMPLES_PER_ROW, SHORT_ROWS))
        self.grown.fill_(self.config.schedule.passed(progress))
        return True

    @torch.no_grad()
    def resize(self, resolution: int, limit: float = math.inf) -> None:
        """Drops the vertices next to which nothing is dense, and gives the others `resolution` along an axis, or what
        fewer make no more rows than `limit`, or than the config allows."""
        dense = self._dense_vertices()
        index = kept_index(dense, resolution)
        most = min(limit, self.config.rows)
        while (found := int(index.max()) + 1) > most:
            resolution = int(resolution * min((most / found) ** (1 / 3), 0.99))
            index = kept_index(dense, resolution)
        vertex = (index >= 0).nonzero()[:, 0]
        points = _positions(vertex, resolution)
        rows = _padded(len(vertex))
        density = self.densities.table.new_zeros(rows, 1)
        density[: len(vertex)] = self._read(self.densities, points)
        colors = self.colors.table.new_zeros(self._blocks, rows, self.RECORD)
        values = self._read(self.colors, points).view(len(vertex), self._blocks, self.RECORD)
        colors[:, : len(vertex)] = values.transpose(0, 1)
        self._take(index, density, colors.view(-1, self.RECORD))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Makes index and tables as large as those of a checkpoint."""
        index, density, colors = (tensors.get(k) for k in ("index", "densities.table", "colors.table"))
        if index is None or density is None or colors is None or index.dtype != torch.int32 or index.ndim != 1:
            return
        n = round(len(index) ** (1 / 3))
        fits = density.shape[1:] == (1,) and colors.shape == (len(density) * self._blocks, self.RECORD)
        if n**3 != len(index) or not 8 <= n <= 1024 or not fits or len(density) % 8:
            return
        if index.min() < -1 or index.max() >= len(density):
            raise BadInput("sparse voxels: the index leads beyond the table; the rule: from -1 to the number of rows")
        like = self.index.device
        self._take(index.to(like), density.to(like, torch.float32), colors.to(like, torch.float32))

    @torch.no_grad()
    def regularise(self, rate: float) -> None:
        """A step of length `rate` against the total variation of density and coefficients, where the config has one."""
        if self.config.tv:
            for part in (self.densities, self.colors):
                part.table.data.copy_(smoothed(part.table.data, part.grid, rate * self.config.tv))
                if part.stored() is not None:
                    part.stored().copy_(part.table.data)

    def _resolution(self, progress: float) -> int:
        return round(self.config.resolution * self.config.schedule.part(progress))

    def _levels(self, index: Tensor, rows: int) -> tuple[VoxelLevels, VoxelLevels]:
        return voxel_levels(index, rows, 1, 1), voxel_levels(index, rows, self._blocks, self.RECORD)

    def _read(self, part: _Values, points: Tensor) -> Tensor:
        return hash_grid.hash_grid(points, part.table.data, part.grid)

    def _dense_vertices(self) -> Tensor:
        """[N, N, N] bool (z, y, x): which vertices have a density above the limit."""
        limit = math.log(self.config.prune) if self.config.activation == "exp" else self.config.prune
        index, n = self.index.long(), self.resolution
        return ((index >= 0) & (self.densities.table[index.clamp(min=0), 0] > limit)).view(n, n, n)

    def _take(self, index: Tensor, density: Tensor, colors: Tensor) -> None:
        self.index = index
        density_levels, color_levels = self._levels(index, len(density))
        self.densities.take(density_levels, density)
        self.colors.take(color_levels, colors)


#: density at the start, per unit of scene length; the least density that activation "relu" gives
INITIAL, LEAST = 0.5, 1e-4
#: a row that fewer samples of the training could reach makes its steps slower than its detail is worth: lego gains from
#: 3 * 2^19 rows after 4 minutes of a core and loses by them after 2 (`benchmarks/encodings.py`); rows of any training
SAMPLES_PER_ROW, SHORT_ROWS = 128, 1 << 19


def _padded(rows: int) -> int:
    return max(-(-rows // 8) * 8, 8)


def _positions(vertex: Tensor, n: int) -> Tensor:
    """[V, 3] in [0, 1] of the vertices' numbers [V]; the outermost lie beyond and take the border's place."""
    place = torch.stack([vertex % n, vertex // n % n, vertex // n**2], 1)
    return ((place.float() - 0.5) / (n - 2)).clamp(0, 1)


def kept_index(dense: Tensor, resolution: int) -> Tensor:
    """The index [N'^3] of a grid of N' = `resolution` vertices along an axis with rows where a vertex of the old grid
    [N, N, N], at most a cell away, is dense, or next to one that is."""
    near = torch.nn.functional.max_pool3d(dense[None, None].float(), 3, 1, 1)[0, 0]
    n, device = len(dense), dense.device
    # an old vertex i lies at (i - 1/2) / (n - 2)
    place = ((torch.arange(resolution, device=device) - 0.5) / (resolution - 2)).clamp(0, 1) * (n - 2) + 0.5
    at = place.round().long().clamp(0, n - 1)
    kept = near[at][:, at][:, :, at].flatten() > 0
    number = kept.cumsum(0, dtype=torch.int64) - 1
    return torch.where(kept, number, -1).to(torch.int32)


def smoothed(table: Tensor, grid: VoxelLevels, step: float) -> Tensor:
    """`table` [B V, F] minus `step` times the gradient of  1/2 sum over neighbours that both have a row of
    (difference)^2.  (Plenoxels takes the root over the three axes, eq. 6; the square has no kink at 0 and the same
    minimum.)"""
    if not native(table):
        return smoothed_reference(table, grid, step)
    out, tables = torch.empty_like(table), grid.tables(table.device)
    vertex = grid.vertices().to(table.device)
    SMOOTH(smoothed=out, table=table, index=tables["index"], vertex=vertex, levels=tables["levels"], step=step)
    return out


def smoothed_reference(table: Tensor, grid: VoxelLevels, step: float) -> Tensor:
    """The specification of `smoothed`, for any float type."""
    gradient, n = torch.zeros_like(table), grid.levels[0, 2].item()
    index = grid.index.view(n, n, n)
    for axis in range(3):
        low, high = index.narrow(axis, 0, n - 1).flatten(), index.narrow(axis, 1, n - 1).flatten()
        both = ((low >= 0) & (high >= 0)).nonzero()[:, 0]
        low, high = low[both].long(), high[both].long()
        for offset in grid.levels[:, 0].tolist():
            difference = table[offset + high] - table[offset + low]
            gradient.index_add_(0, offset + high, difference)
            gradient.index_add_(0, offset + low, difference, alpha=-1)
    return table - step * gradient


def _check(dimensions: int, config: Config) -> None:
    rules = [
        ("dimensions", dimensions, dimensions == 3, "3"),
        ("resolution", config.resolution, 8 <= config.resolution <= 1024, "from 8 to 1024"),
        ("degree", config.degree, 1 <= config.degree <= 4, "from 1 to 4"),
        ("activation", config.activation, config.activation in ("exp", "relu"), "exp or relu"),
        ("rows", config.rows, 1 << 12 <= config.rows <= 1 << 26, "from 2^12 to 2^26"),
        ("density_rate", config.density_rate, 0 < config.density_rate < math.inf, "positive"),
        ("color_rate", config.color_rate, 0 < config.color_rate < math.inf, "positive"),
        ("prune", config.prune, 0 < config.prune < math.inf, "positive"),
        ("tv", config.tv, 0 <= config.tv < math.inf, "not negative"),
        ("precision", config.precision, config.precision in ("f32", "bf16"), "f32 or bf16"),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"sparse voxels: {name} is {value}; the rule: {rule}")
    if not 512 <= round(config.resolution * config.schedule.part(0.0)) ** 3 <= 1 << 24:
        raise BadInput(
            f"sparse voxels: schedule.start is {config.schedule.start}; the rule: from 8 to 256 vertices at first"
        )
