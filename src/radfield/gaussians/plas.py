"""Gaussians in the cells of a grid so that neighbours are alike: Parallel Linear Assignment Sorting (Morgenstern et al.
2023, "Compact 3D Scene Representation via Self-Organizing Gaussian Grids", sec. 3.2; after Barthel et al. 2023).

The grid is filled at random. For a radius r from half the grid down to 1, each time `shrink` of it:

    target = mean of the cells at most r away, in rows and in columns
    again and again: parts the cells of each block (about r on a side) into groups of four at random, and gives the
    four Gaussians of a group to its cells so that sum |cell - target|^2 is least: the best of 24 orders

until a round gains less than `least_gain` of that sum. Groups share no cell, so they are served in parallel, and the
result is the same whatever the number of threads.

The grid has `width` columns and is filled row by row: its last row may be shorter. A sort that begins at a smaller
radius keeps what is further apart as it is, and can begin with a given order.

Letters: G Gaussians (cells), K numbers of each, a multiple of 16; Q groups.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import native
from ..cpu.library import one_torch_thread
from ..cuda.plan import Launch
from ..op import In, InOut, Op, Out
from .order import grid_width
from .scene import GaussianScene

WIDE = 16
EXCHANGE = Op(
    "plas_exchange",
    Out("gain", "f32", "Q", "by how much the sum of squares of each group has become less"),
    InOut("order", "i32", "G", "the Gaussian in each cell"),
    InOut("cells", "f32", "G K", "what it is like"),
    In("target", "f32", "G K", "what each cell should be like"),
    In("groups", "i32", "Q 4", "numbers of cells, each in one group at most"),
)
_TEAMS = 8  # groups of a block on CUDA, 16 threads each
_PLACES = torch.tensor(list(itertools.permutations(range(4))))  # in the order of plas.h


@EXCHANGE.cuda
def _(a):
    for name in ("cells", "target"):
        a.aligned(name, 16)
    return Launch("plas_exchange", (-(-a.Q // _TEAMS),), (16 * _TEAMS,))


@dataclass(frozen=True)
class Config:
    """How thoroughly to sort. With 0.95 and 1e-4 neighbours are 6 to 7 % nearer, in three times the time."""

    shrink: float = 0.9  # a radius as a part of the one before
    least_gain: float = 1e-3  # part of the sum of squares that a round gains, or else the next radius begins
    most_rounds: int = 40  # of one radius
    least_block: int = 16  # cells on a block's side
    most_block: int = 256


DEFAULT = Config()


def exchange_reference(order: Tensor, cells: Tensor, target: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(gain [Q], order [G], cells [G, K]) after the best exchange in each of `groups` [Q, 4]. Sums of squares differ by
    the dot products alone; of equal orders the first one is taken."""
    groups = groups.long()
    dots = cells[groups] @ target[groups].mT
    scores = torch.stack([dots[:, [0, 1, 2, 3], place].sum(1) for place in _PLACES.tolist()], 1)
    best, most = torch.zeros_like(groups[:, 0]), scores[:, 0].clone()
    for p in range(1, len(_PLACES)):
        better = scores[:, p] > most
        best[better], most[better] = p, scores[better, p]
    to = groups.gather(1, _PLACES.to(groups.device)[best])
    order, cells, before = order.clone(), cells.clone(), (order[groups], cells[groups])
    order[to], cells[to] = before
    return 2 * (most - scores[:, 0]), order, cells


def exchange(order: Tensor, cells: Tensor, target: Tensor, groups: Tensor) -> Tensor:
    """Exchanges in place; returns the gain [Q]."""
    gain = cells.new_empty(len(groups))
    if native(cells):
        EXCHANGE(gain=gain, order=order, cells=cells, target=target, groups=groups)
        return gain
    gain, new_order, new_cells = exchange_reference(order, cells, target, groups)
    order.copy_(new_order), cells.copy_(new_cells)
    return gain


def blurred(cells: Tensor, width: int, radius: int) -> Tensor:
    """[G, K] the mean of the cells at most `radius` rows and columns away, of those that there are."""
    count, rows = len(cells), -(-len(cells) // width)
    sums = cells.new_zeros(rows * width, cells.shape[1] + 1)
    sums[:count, :-1], sums[:count, -1] = cells, 1
    sums = sums.view(rows, width, -1)
    for axis in (0, 1):
        sums = _windows(sums, axis, radius)
    sums = sums.reshape(rows * width, -1)[:count]
    return (sums[:, :-1] / sums[:, -1:]).contiguous()


def _windows(values: Tensor, axis: int, radius: int) -> Tensor:
    """The sum of the values at most `radius` away along an axis."""
    size = values.shape[axis]
    below = torch.nn.functional.pad(values.cumsum(axis), (0, 0, 1, 0) if axis == 1 else (0, 0, 0, 0, 1, 0))
    at = torch.arange(size, device=values.device)
    ends = (at + radius + 1).clamp_max(size), (at - radius).clamp_min(0)
    return below.index_select(axis, ends[0]) - below.index_select(axis, ends[1])


def groups_of(count: int, width: int, block: int, generator: torch.Generator) -> Tensor:
    """[Q, 4] int32: cells of the same block, in random order; blocks begin at a random cell, and go on at the grid's
    other side."""
    rows = -(-count // width)
    shift = torch.randint(block, (2,), generator=generator).tolist()
    slot = torch.randperm(block * block, generator=generator, dtype=torch.int32)
    down, along = slot // block, slot % block
    y = torch.arange(0, rows, block, dtype=torch.int32)[:, None, None] + down
    x = torch.arange(0, width, block, dtype=torch.int32)[None, :, None] + along
    inside = (y < rows) & (x < width)
    cells = ((y + shift[0]) % rows) * width + (x + shift[1]) % width
    cells = cells[inside & (cells < count)]
    return cells[: len(cells) // 4 * 4].view(-1, 4)


def plas_sort(
    features: Tensor,
    width: int,
    config: Config = DEFAULT,
    *,
    order: Tensor | None = None,
    radius: int | None = None,
    seed: int = 0,
    progress=None,
) -> Tensor:
    """[G] int64: the number of the row of `features` [G, C], float32, for each cell.

    All is done where the features are, but for random numbers. order: where rows are at first, at random by default;
    radius: the first one, half of the grid by default. progress: called with the part that is done.
    """
    count = len(features)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator) if order is None else order
    order = order.to(features.device, torch.int32)
    wide = torch.nn.functional.pad(features.float(), (0, -features.shape[1] % WIDE))
    cells = wide[order.long()].contiguous()
    rows = -(-count // width)
    largest = max(1, max(width, rows) // 2) if radius is None else radius
    now = float(largest)
    with one_torch_thread():
        while count >= 4 and now >= 1:
            _sort_at(order, cells, width, int(now), config, generator)
            now *= config.shrink
            if progress is not None:
                progress(1 - max(now - 1, 0) / largest)
    return order.long()


def _sort_at(order: Tensor, cells: Tensor, width: int, radius: int, config: Config, generator) -> None:
    """Rounds of exchanges towards the means of one radius."""
    target = blurred(cells, width, radius)
    left = float((cells - target).square().sum(dtype=torch.float64))
    block = min(max(radius + 1, config.least_block), config.most_block)
    for _ in range(config.most_rounds):
        groups = groups_of(len(cells), width, block, generator).to(cells.device)
        gain = float(exchange(order, cells, target, groups).sum(dtype=torch.float64))
        left -= gain
        if gain <= config.least_gain * left:
            return


def neighbour_distance(features: Tensor, width: int) -> float:
    """The mean length of the difference between cells side by side, of `features` [G, C] in the order of the cells."""
    features = features.cpu()
    right = torch.arange(len(features) - 1)
    right = right[(right + 1) % width != 0]
    pairs = [(right, right + 1), (torch.arange(max(len(features) - width, 0)), torch.arange(width, len(features)))]
    lengths = [(features[a] - features[b]).norm(dim=1) for a, b in pairs if len(a)]
    return float(torch.cat(lengths).mean()) if lengths else 0.0


#: how much the parameters count in the order: images of positions gain most by it
WEIGHTS = {"means": 3.0, "base": 1.0, "log_scales": 1.0, "opacity_logits": 0.5, "quaternions": 1.0}
_FARTHEST = 3.0  # standard deviations from which on all counts as equally far


def sort_features(scene: GaussianScene) -> Tensor:
    """[G, 14] what is compared: parameters in units of their standard deviation, by `WEIGHTS`."""
    quaternions = torch.nn.functional.normalize(scene.quaternions, dim=0)
    values = dataclasses.replace(scene, quaternions=quaternions * quaternions[:1].sign().where(quaternions[:1] != 0, 1))
    parts = []
    for name, weight in WEIGHTS.items():
        value = getattr(values, name).detach().float().reshape(-1, len(scene))
        if name == "means":  # as SOG files hold them
            value = value.sign() * value.abs().log1p()
        value = (value - value.mean(1, keepdim=True)) / value.std(1, keepdim=True, correction=0).clamp_min(1e-6)
        parts.append(weight * value.clamp(-_FARTHEST, _FARTHEST) / len(value) ** 0.5)
    return torch.cat(parts).T.contiguous()


def plas_order(scene: GaussianScene, config: Config = DEFAULT, *, seed: int = 0, progress=None) -> Tensor:
    """[G] int64: the Gaussians of a scene row by row on a grid of `grid_width(G)` columns."""
    return plas_sort(sort_features(scene), grid_width(len(scene)), config, seed=seed, progress=progress)
