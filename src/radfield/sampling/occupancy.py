"""Occupancy grid: which cells of space hold density (Mueller et al. 2022, Instant NGP, appendix C).

K cascades of G^3 cells; cascade k is the cube of side 2^k centred at 0.5, so cascade 0 is the unit cube. Cell number
`k G^3 + morton(x, y, z)`: a byte of the bitfield is 2x2x2 cells, 64 bits are a block of 4x4x4. A cell's value is the
largest density met there, decaying, times MIN_STEP (the opacity of one finest step); -1 where no camera sees it, +inf
while it was never evaluated. A cell is occupied where its value exceeds min(limit, mean of the known values).

Letters: K cascades, G cells along an axis, T = K G^3 cells, B = T / 64 words, S words of near blocks, N cells drawn,
M samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import feature_major
from . import occupancy_reference as reference
from .random import stream
from .visibility import seen_cells

MIN_STEP = math.sqrt(3) / 1024
UNKNOWN, UNSEEN = math.inf, -1.0
#: points per call of the density: enough to keep every thread busy, few enough for the features to stay in cache
POINTS_PER_CALL = 1 << 17

UNIFORM_CELLS = Op(
    "occupancy_uniform_cells",
    Out("cells", "i32", "N", "the first `count` are cells, in rising order; the rest is undefined"),
    Out("count", "i64", "1"),
    In("values", "f32", "T"),
    Scalar("stride", "int", "one cell of each run of `stride` cells; N runs"),
    Scalar("update", "int", "number of this update: after `stride` of them every cell had its turn"),
    Scalar("seed", "int"),
)
OCCUPIED_CELLS = Op(
    "occupancy_occupied_cells",
    Out("cells", "i32", "N", "the first `count` are occupied cells, never falling; the rest is undefined"),
    Out("count", "i64", "1", "min(N, occupied cells)"),
    In("bitfield", "i64", "B"),
    Scalar("seed", "int"),
)
POINTS = Op(
    "occupancy_points",
    Out("x", "f32", "3 N", "a random point inside each cell"),
    In("cells", "i32", "N"),
    Scalar("resolution", "int", "G"),
    Scalar("seed", "int"),
)
UPDATE = Op(
    "occupancy_update",
    InOut("values", "f32", "T", "of evaluated cells: max(decay old, largest new); unseen ones stay"),
    In("cells", "i32", "N", "in any order, with any duplicates"),
    In("sigma", "f32", "N", "density in each; NaN counts as 0"),
    Scalar("decay", "float"),
)
OBSERVE = Op(
    "occupancy_observe",
    InOut("values", "f32", "T", "max(old, new) of each sample's cell in its finest cascade"),
    In("x", "f32", "3 M", "samples outside of all cascades are ignored"),
    In("sigma", "f32", "M"),
    Scalar("resolution", "int", "G"),
    Scalar("cascades", "int", "K"),
)
BITFIELD = Op(
    "occupancy_bitfield",
    Out("bitfield", "i64", "B", "64 cells a word"),
    Out("near_blocks", "i32", "S", "4^3 blocks with an occupied cell within 2 cells; bit x of row (k, z, y)"),
    Out("threshold", "f32", "1"),
    In("values", "f32", "T"),
    Scalar("resolution", "int", "G"),
    Scalar("cascades", "int", "K"),
    Scalar("limit", "float"),
)


@UNIFORM_CELLS.cuda
def _(a):
    grid = blocks(a.N)
    counts = {"scratch": 8 * grid[0]}
    return (
        Launch("occupancy_uniform_count", grid, **counts),
        Launch("occupancy_uniform_scan", (1,), (1024,), extra=grid, **{"scratch": max(counts["scratch"], 8)}),
        Launch("occupancy_uniform_write", grid, **counts),
    )


@OCCUPIED_CELLS.cuda
def _(a):
    count = blocks(a.B)
    shared = {"scratch": 8 * (count[0] + 1) + 4 * a.B, "extra": count}
    return (
        Launch("occupancy_occupied_count", count, **shared),
        Launch("occupancy_occupied_scan", (1,), (1024,), **shared),
        Launch("occupancy_occupied_draw", blocks(a.N), **shared),
    )


@POINTS.cuda
def _(a):
    return Launch("occupancy_points", blocks(a.N))


@UPDATE.cuda
def _(a):
    words = -(-a.T // 32)
    return (
        Launch("occupancy_update_clear", blocks(words if a.N else 0), scratch=4 * words),
        Launch("occupancy_update_decay", blocks(a.N), scratch=4 * words),
        Launch("occupancy_update_raise", blocks(a.N)),
    )


@OBSERVE.cuda
def _(a):
    return Launch("occupancy_observe", blocks(a.M))


@BITFIELD.cuda
def _(a):
    sums = -(-a.T // 65536)
    merged = (a.resolution // 8) ** 3
    return (
        Launch("occupancy_sum", (sums,), scratch=16 * sums),
        Launch("occupancy_threshold", (1,), (1,), scratch=16 * sums, extra=(sums,)),
        Launch("occupancy_bits", blocks(a.T)),
        *(Launch("occupancy_merge", blocks(merged), extra=(k,)) for k in range(1, a.cascades)),
        Launch("occupancy_near", blocks(32 * a.S)),
    )


@dataclass(frozen=True)
class Config:
    """The occupancy grid's options."""

    resolution: int = 128  # cells along an axis of each cascade, a power of two from 16 to 256
    cascades: int = 1  # cubes of side 1, 2, 4, ... around the centre, 1 to 8
    decay: float = 0.95  # factor on a cell's old value each time it is evaluated
    threshold: float = 0.01  # a cell is occupied above min(threshold, mean), in opacity of one finest step
    uniform_cells: int = 1 << 17  # cells evaluated per update, taking turns over all cells
    occupied_cells: int = 1 << 17  # cells evaluated per update, at random among the occupied ones

    def __post_init__(self):
        if self.resolution not in (16, 32, 64, 128, 256):
            raise BadInput(f"occupancy resolution is {self.resolution}; the rule: 16, 32, 64, 128 or 256")
        if not 1 <= self.cascades <= 8:
            raise BadInput(f"occupancy cascades is {self.cascades}; the rule: from 1 to 8")
        if not 0 <= self.decay <= 1:
            raise BadInput(f"occupancy decay is {self.decay}; the rule: from 0 to 1")
        if not self.threshold >= 0:
            raise BadInput(f"occupancy threshold is {self.threshold}; the rule: not negative")
        if self.uniform_cells < 0 or self.occupied_cells < 0:
            raise BadInput("occupancy uniform_cells and occupied_cells; the rule: not negative")

    @property
    def cells(self) -> int:
        """T, the cells of all cascades."""
        return self.cascades * self.resolution**3


class OccupancyGrid(nn.Module):
    """The grid. At the start every cell is unknown, which counts as occupied.

    values: [T] float32. bitfield: [T / 8] uint8. Both, and the number of updates made, are in the state_dict.
    """

    def __init__(self, config: Config = Config(), device: torch.device | str = "cpu"):
        super().__init__()
        self.config = config
        full, zeros = (functools.partial(make, device=device) for make in (torch.full, torch.zeros))
        rows = config.cascades * (config.resolution // 4) ** 2
        self.register_buffer("values", full((config.cells,), UNKNOWN))
        self.register_buffer("bitfield", zeros(config.cells // 8, dtype=torch.uint8))
        self.register_buffer("updates", zeros(1, dtype=torch.int64))
        # derived from the bitfield, for skipping (march.h)
        near = zeros(rows * -(-config.resolution // 128), dtype=torch.int32)
        self.register_buffer("near_blocks", near, persistent=False)
        self.register_buffer("threshold", zeros(1), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())
        self.refresh()

    @torch.no_grad()
    def update(
        self,
        density: Callable[[Tensor], Tensor],
        *,
        uniform: int | None = None,
        occupied: int | None = None,
        seed: int = 0,
    ) -> int:
        """Evaluates some cells and refreshes the bitfield; returns how many densities were asked for.

        density: [n, 3] points -> [n] densities. uniform, occupied: numbers of cells, instead of the config's;
        `uniform=config.cells` evaluates each cell once. seed: one for all updates of a run; which cells and where in
        them follows from it and the number of the update.
        """
        number = int(self.updates)
        cells = torch.cat((self._uniform(uniform, number, seed), self._occupied(occupied, number, seed)))
        sigma = torch.empty(len(cells), device=cells.device)
        for begin in range(0, len(cells), POINTS_PER_CALL):
            part = cells[begin : begin + POINTS_PER_CALL]
            x = points(part, self.config.resolution, stream(seed, 2, number, begin))
            sigma[begin : begin + POINTS_PER_CALL] = density(x)
        self.record(cells, sigma)
        self.updates += 1
        self.refresh()
        return len(cells)

    @torch.no_grad()
    def record(self, cells: Tensor, sigma: Tensor) -> None:
        """values[cells] = max(decay * values, sigma * MIN_STEP); does not refresh the bitfield.

        cells: [N] int32, any order and duplicates; sigma: [N] densities.
        """
        arguments = dict(values=self.values, cells=cells, sigma=sigma.float().contiguous(), decay=self.config.decay)
        (UPDATE if native(self.values) else reference.update)(**arguments)

    @torch.no_grad()
    def observe(self, x: Tensor, sigma: Tensor) -> None:
        """Raises the cells of samples x [M, 3] to the densities sigma [M] measured there, without decay.

        Each sample counts in its finest cascade. The bitfield follows at the next `update` or `refresh`.
        """
        arguments = dict(
            values=self.values, x=feature_major(x), sigma=sigma.detach().float().contiguous(), **self._shape
        )
        (OBSERVE if native(self.values) else reference.observe)(**arguments)

    @torch.no_grad()
    def refresh(self) -> None:
        """Makes the bitfield from the values."""
        arguments = dict(
            bitfield=self.bitfield.view(torch.int64),
            near_blocks=self.near_blocks,
            threshold=self.threshold,
            values=self.values,
            limit=self.config.threshold,
            **self._shape,
        )
        (BITFIELD if native(self.values) else reference.bitfield)(**arguments)

    @torch.no_grad()
    def mark_invisible(self, cameras) -> None:
        """Gives up the cells that none of `cameras` (in scene coordinates) sees: they are never occupied again.
        That is found on the CPU, so that it is the same everywhere."""
        seen = seen_cells(cameras.to(torch.device("cpu")), self.config.resolution, self.config.cascades)
        self.values.masked_fill_(~seen.to(self.values.device), UNSEEN)
        self.refresh()

    def occupied_fraction(self) -> float:
        """The share of occupied cells among all cells of all cascades, 0 to 1."""
        counts = torch.tensor([bin(i).count("1") for i in range(256)], device=self.bitfield.device)
        return counts[self.bitfield.long()].sum().item() / self.config.cells

    def occupied_box(self) -> Tensor:
        """[2, 3]: low and high corner of the occupied cells, a cell wider, in scene coordinates; the outermost cascade
        where no cell is occupied."""
        n, side = self.config.resolution, 2 ** (self.config.cascades - 1)
        whole = torch.tensor([[0.5 - side / 2] * 3, [0.5 + side / 2] * 3], device=self.values.device)
        bits = (self.bitfield[:, None] >> torch.arange(8, device=self.values.device)) & 1
        cells = bits.flatten().nonzero()[:, 0]
        if len(cells) == 0:
            return whole
        cascade, place = reference.coordinates_of(cells, n)
        size = 2.0 ** cascade[:, None]
        low = 0.5 + ((place - 1) / n - 0.5) * size
        high = 0.5 + ((place + 2) / n - 0.5) * size
        return torch.stack([low.min(0).values.clamp(min=whole[0]), high.max(0).values.clamp(max=whole[1])])

    @property
    def _shape(self) -> dict:
        return {"resolution": self.config.resolution, "cascades": self.config.cascades}

    def _uniform(self, cells: int | None, number: int, seed: int) -> Tensor:
        cells = self.config.uniform_cells if cells is None else cells
        if cells == 0:
            return torch.empty(0, dtype=torch.int32, device=self.values.device)
        stride = -(-self.config.cells // cells)
        return uniform_cells(self.values, stride, number, stream(seed, 0, number // stride))

    def _occupied(self, cells: int | None, number: int, seed: int) -> Tensor:
        cells = self.config.occupied_cells if cells is None else cells
        return occupied_cells(self.bitfield, cells, stream(seed, 1, number))


def uniform_cells(values: Tensor, stride: int, update: int, seed: int) -> Tensor:
    """[n] int32, rising: one cell of each run of `stride` cells, without those that no camera sees.

    With the same seed, updates u to u + stride - 1 meet every cell once.
    """
    runs = -(-len(values) // stride)
    cells, count = _counted(runs, values.device)
    arguments = dict(cells=cells, count=count, values=values, stride=stride, update=update, seed=seed)
    (UNIFORM_CELLS if native(values) else reference.uniform_cells)(**arguments)
    return cells[: int(count)]


def occupied_cells(bitfield: Tensor, number: int, seed: int) -> Tensor:
    """[min(number, occupied cells)] int32, never falling: occupied cells at random, one of each of equal parts."""
    cells, count = _counted(number, bitfield.device)
    arguments = dict(cells=cells, count=count, bitfield=bitfield.view(torch.int64), seed=seed)
    (OCCUPIED_CELLS if native(bitfield) else reference.occupied_cells)(**arguments)
    return cells[: int(count)]


def _counted(number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.empty(number, dtype=torch.int32, device=device), torch.empty(1, dtype=torch.int64, device=device)


def points(cells: Tensor, resolution: int, seed: int) -> Tensor:
    """[N, 3] scene coordinates: a random point inside each cell [N] int32."""
    x = torch.empty(3, len(cells), device=cells.device)
    (POINTS if native(cells) else reference.points)(x=x, cells=cells, resolution=resolution, seed=seed)
    return x.T
