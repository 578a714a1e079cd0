"""Encodings that grow while they train: more vertices, and a box that shrinks to what is not empty (TensoRF, Chen et
al. 2022, sec. 4.4 and appendix; Plenoxels, Fridovich-Keil et al. 2022, sec. 3.4).

`resize` gives the encoding another resolution, or another box, and fills the new entries by interpolating the old
ones. The box [2, 3] is the part of [0, 1]^3 that the vertices span: `u = (x - low) / (high - low)`. A buffer keeps it,
another the resolution, so that a checkpoint says what its tables are; `restore` makes room for those of a checkpoint.

Letters: M samples, D dimensions, F features per level, N vertices along an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import BadInput
from . import hash_grid
from .encoding import Encoding
from .hash_grid import GridLevels


@dataclass(frozen=True)
class Schedule:
    """When an encoding grows, as parts of the training's budget, so that short and long trainings go the same way."""

    start: float = 1.0  # the first resolution, as a part of the final one
    at: tuple[float, ...] = ()  # when the resolution grows, by equal factors, to the final one
    shrink: float | None = None  # when the box shrinks to the occupied cells

    def part(self, progress: float) -> float:
        """The resolution at `progress` in [0, 1], as a part of the final one."""
        return self.start ** (1 - self.passed(progress) / len(self.at)) if self.at else 1.0

    def passed(self, progress: float) -> int:
        """How often the resolution has grown at `progress`."""
        return sum(progress >= when for when in self.at)


def finest_resolution(config) -> int:
    """Vertices along an axis of the finest of a config's levels."""
    return round(config.base_resolution * config.growth ** (config.levels - 1))


def resized_config(config, resolution: int) -> hash_grid.Config:
    """The hash grid's options with those of `config` that it has, and `resolution` vertices in the finest level."""
    options = {f.name: getattr(config, f.name) for f in fields(hash_grid.Config) if hasattr(config, f.name)}
    if resolution != finest_resolution(config):
        options["growth"] = (resolution / config.base_resolution) ** (1 / max(config.levels - 1, 1))
    return hash_grid.Config(**options)


#: always the final resolution, in the whole box
FIXED = Schedule()


class Resizable(Encoding):
    """An encoding of linearly interpolated levels, with an entry per vertex, in one `table`. A class has
    `final_resolution`, `levels_at(N)`, and `grids_with_axes`: per grid its levels, its axes, and where its table
    starts. Buffers: resolution, box, and whether it shrank."""

    def start_box(self, resolution: int) -> None:
        """Makes the buffers, for tables of `resolution`; call it at the end of __init__."""
        self.register_buffer("resolution", torch.tensor([resolution]))
        self.register_buffer("box", torch.tensor([[0.0] * 3, [1.0] * 3]))
        self.register_buffer("shrunk", torch.tensor([0]))
        self.register_load_state_dict_post_hook(lambda module, _: module._note_box())
        self._note_box()

    def loaded(self) -> None:
        self._note_box()
        self.stored()

    def in_box(self, x: Tensor) -> Tensor:
        """Positions [M, 3] in [0, 1] as parts of the box."""
        if not self._boxed:
            return x
        low, high = self.box[:, :, None]
        return ((x.T - low) / (high - low)).T

    def resize(self, resolution: int | None = None, box: Tensor | None = None) -> None:
        """Gives the encoding `resolution` vertices along an axis, in `box` [2, 3]; what is not given stays. Optimisers
        must take the parameters anew. Raises `BadInput` for an empty box or one beyond [0, 1]."""
        resolution = int(self.resolution) if resolution is None else resolution
        box = self.box if box is None else box.to(self.box)
        if not ((box[0] >= 0) & (box[0] < box[1]) & (box[1] <= 1)).all():
            raise BadInput(f"the box is {box[0].tolist()} to {box[1].tolist()}; the rule: within [0, 1], not empty")
        levels, old = self.levels_at(resolution), (self.grids_with_axes, self.table.detach(), self.box)
        self.grid = levels
        size = sum(grid.entries for grid, *_ in self.grids_with_axes)
        table = old[1].new_zeros(size, old[1].shape[1])
        for (before, axes, first), (after, _, start) in zip(old[0], self.grids_with_axes, strict=True):
            inner = (box - old[2][0])[:, list(axes)] / (old[2][1] - old[2][0])[list(axes)]
            part = old[1][first : first + before.entries]
            for level in range(len(after.levels)):
                offset, values = resampled(before, after, level, part, inner)
                table[start + offset : start + offset + len(values)] = values
        self._take(table, resolution, box)

    def refine(self, progress: float, occupied_box: Callable[[], Tensor], samples: float = math.inf) -> bool:
        """Grows and shrinks as the config's schedule says."""
        schedule = self.config.schedule
        resolution = round(self.final_resolution * schedule.part(progress))
        shrinks = schedule.shrink is not None and progress >= schedule.shrink and not self.shrunk
        if resolution == int(self.resolution) and not shrinks:
            return False
        self.resize(resolution, occupied_box() if shrinks else None)
        self.shrunk |= shrinks
        return True

    @torch.no_grad()
    def regularise(self, rate: float) -> None:
        """A step of length `rate` against the L1 norm and the total variation, where the config has their weights."""
        l1, tv = self.config.l1, self.config.tv
        if not (l1 or tv):
            return
        table = self.table.data
        if l1:  # the proximal step: values below its length become 0
            table.copy_(torch.nn.functional.softshrink(table, rate * l1))
        if tv:
            for grid, axes, start in self.grids_with_axes:
                for offset, size, n, _ in grid.levels.tolist():
                    _smooth(table[start + offset : start + offset + size], n, len(axes), rate * tv)
        if self.config.precision == "bf16":
            self.stored().copy_(table)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Makes the tables as large as those of a checkpoint, by the resolution that it states. What does not belong
        together is left to whoever copies the tensors."""
        resolution, table = tensors.get("resolution"), tensors.get("table")
        if resolution is None or table is None or resolution.shape != (1,) or not 2 <= int(resolution) <= 4096:
            return
        if int(resolution) == int(self.resolution):
            return
        levels, now = self.levels_at(int(resolution)), self.grid
        self.grid = levels
        size = sum(grid.entries for grid, *_ in self.grids_with_axes)
        if size != len(table):  # the file does not hold what it states
            self.grid = now
            return
        self._take(self.table.new_zeros(size, self.table.shape[1]), int(resolution), self.box)

    def _take(self, table: Tensor, resolution: int, box: Tensor) -> None:
        self.table = torch.nn.Parameter(table)
        self._stored, self.grad_into = None, None
        self.resolution.fill_(resolution)
        self.box.copy_(box)
        self._note_box()

    def _note_box(self) -> None:
        low, high = self.box
        self._boxed = bool(low.any() or (high != 1).any())


def _smooth(values: Tensor, n: int, dimensions: int, step: float) -> None:
    """values -= step times the gradient of  1/2 sum over neighbours of (difference)^2, of a level's [N^D, F] values."""
    lattice = values[: n**dimensions].view(*[n] * dimensions, -1)
    gradient = torch.zeros_like(lattice)
    for axis in range(dimensions):
        difference = lattice.diff(dim=axis)
        gradient.narrow(axis, 1, n - 1).add_(difference)
        gradient.narrow(axis, 0, n - 1).sub_(difference)
    lattice.sub_(gradient, alpha=step)


@torch.no_grad()
def resampled(before: GridLevels, after: GridLevels, level: int, table: Tensor, box: Tensor) -> tuple[int, Tensor]:
    """Offset and entries [N^D, F] of a level of `after`, interpolated from those of `before` in its box [2, D]."""
    offset, _, n, _ = after.levels[level].tolist()
    # vertex i lies at (i - 1/2) / scale; the outermost ones beyond the cube take its border's value
    line = ((torch.arange(n) - 0.5) / after.scales[level]).clamp(0, 1).to(table.device)
    mesh = torch.meshgrid(*[line] * after.dimensions, indexing="ij")
    points = box[0] + torch.stack([m.flatten() for m in mesh][::-1], 1).to(box) * (box[1] - box[0])
    alone = replace(
        before, levels=before.levels[level : level + 1], scales=before.scales[level : level + 1], _copies={}
    )
    return offset, hash_grid.hash_grid(points, table[: alone.entries], alone)
