"""Occupancy grid: the same bits as in torch, and the laws of each operation."""

import math

import pytest
import torch

from radfield import backend
from radfield.cpu import library
from radfield.errors import BadInput
from radfield.sampling import occupancy
from radfield.sampling import occupancy_reference as reference
from radfield.sampling.occupancy import MIN_STEP, Config, OccupancyGrid

SHAPES = [(16, 1), (32, 3), (64, 2)]


def random_grid(resolution, cascades, seed=0, sparsity=0.5):
    """Values of every kind: unseen, unknown, zero, small, large."""
    grid = OccupancyGrid(Config(resolution=resolution, cascades=cascades))
    generator = torch.Generator().manual_seed(seed)
    u, kind = (torch.rand(grid.config.cells, generator=generator) for _ in range(2))
    values = torch.where(kind < sparsity, 0, u * 0.05)
    values = torch.where(kind > 0.9, -1.0, values)
    grid.values.copy_(torch.where(kind > 0.97, math.inf, values))
    return grid


def both(call):
    """The result of `call()` natively and in torch."""
    ours = call()
    with backend.use("reference"):
        return ours, call()


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(("resolution", "cascades"), SHAPES)
def test_cells_and_their_points(resolution, cascades):
    cells = torch.randperm(cascades * resolution**3, generator=torch.Generator().manual_seed(0))[:1001].int()
    ours, theirs = both(lambda: occupancy.points(cells, resolution, seed=3))
    assert torch.equal(ours, theirs)
    cascade, coordinate = reference.coordinates_of(cells, resolution)
    assert torch.equal(reference.cell_of(ours, cascade, resolution), cells.long())
    place = ((ours - 0.5) / 2.0 ** cascade[:, None] + 0.5) * resolution - coordinate
    assert place.min() > 0 and place.max() < 1 and (place.mean(0) - 0.5).abs().max() < 0.05


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(("resolution", "cascades"), SHAPES)
@pytest.mark.parametrize("number", [1, 100, 5000, 10**7])
def test_uniform_cells(resolution, cascades, number):
    grid = random_grid(resolution, cascades)
    stride = -(-grid.config.cells // number)
    ours, theirs = both(lambda: occupancy.uniform_cells(grid.values, stride, 17, seed=5))
    assert torch.equal(ours, theirs) and (ours.diff() > 0).all()


def test_uniform_cells_take_turns():
    grid = random_grid(16, 3)
    met = torch.zeros(grid.config.cells, dtype=torch.int64)
    for update in range(40, 40 + 13):
        met[occupancy.uniform_cells(grid.values, 13, update, seed=2).long()] += 1
    assert torch.equal(met, (grid.values >= 0).long())


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("number", [0, 1, 500, 10**6])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 1.0])
def test_occupied_cells(number, fraction):
    occupied = torch.rand(3 * 32**3, generator=torch.Generator().manual_seed(1)) < fraction
    bits = reference.pack(occupied).view(torch.uint8)
    ours, theirs = both(lambda: occupancy.occupied_cells(bits, number, seed=9))
    assert torch.equal(ours, theirs)
    assert len(ours) == min(number, int(occupied.sum())) and occupied[ours.long()].all() and (ours.diff() >= 0).all()
    if number == 10**6:  # one of each of equal parts, each part one cell
        assert len(ours.unique()) == len(ours)


def test_occupied_cells_are_met_equally_often():
    occupied = torch.rand(16**3, generator=torch.Generator().manual_seed(1)) < 0.1
    met = torch.zeros(16**3)
    for seed in range(300):
        cells = occupancy.occupied_cells(reference.pack(occupied).view(torch.uint8), 100, seed)
        met += cells.long().bincount(minlength=16**3)
    expected = 300 * 100 / occupied.sum()
    assert (met[occupied] - expected).abs().max() < 5 * expected.sqrt()


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(("resolution", "cascades"), SHAPES)
def test_update(resolution, cascades):
    def call():
        grid, generator = random_grid(resolution, cascades), torch.Generator().manual_seed(1)
        n = grid.config.cells // 3
        cells = torch.randint(grid.config.cells, (n,), generator=generator).int()
        cells[: n // 4] = cells[n // 4 : n // 4 * 2]  # duplicates
        sigma = torch.rand(n, generator=generator) * 30 - 1
        sigma[5], sigma[6] = math.nan, math.inf
        grid.record(cells, sigma)
        return grid.values

    ours, theirs = both(call)
    assert torch.equal(ours, theirs)
    before = random_grid(resolution, cascades).values
    assert torch.equal(before < 0, ours < 0)
    assert (ours[(before >= 0) & before.isfinite()] >= before[(before >= 0) & before.isfinite()] * 0.95 - 1e-9).all()


@pytest.mark.usefixtures("each_backend")
def test_update_decays_once_and_replaces_unknown():
    grid = OccupancyGrid(Config(resolution=16))
    grid.values[:4] = torch.tensor([1.0, 1.0, -1.0, math.inf])
    grid.record(torch.tensor([0, 0, 0, 1, 2, 3, 3]).int(), torch.tensor([0.0, 0.1, 0, 2 / MIN_STEP, 5, 0, 1]))
    assert torch.allclose(grid.values[:4], torch.tensor([0.95, 2.0, -1.0, MIN_STEP]))
    assert grid.values[4:].isinf().all()


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(("resolution", "cascades"), SHAPES)
@pytest.mark.parametrize("m", [0, 1, 5, 20000])
def test_observe(resolution, cascades, m):
    def call():
        grid, generator = random_grid(resolution, cascades), torch.Generator().manual_seed(2)
        x = (torch.rand(m, 3, generator=generator) - 0.5) * 1.1 * 2 ** (cascades - 1) + 0.5
        sigma = torch.rand(m, generator=generator) * 30
        if m > 2:
            x[0], x[1], sigma[2] = math.nan, 0.5, math.nan
        grid.observe(x, sigma)
        return grid.values

    ours, theirs = both(call)
    assert torch.equal(ours, theirs)
    assert m < 10 or not torch.equal(ours, random_grid(resolution, cascades).values)


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(("resolution", "cascades"), [*SHAPES, (16, 8)])
def test_bitfield(resolution, cascades):
    def call():
        grid = random_grid(resolution, cascades, sparsity=0.9)
        grid.refresh()
        return grid.bitfield, grid.near_blocks

    for ours, theirs in zip(*both(call), strict=True):
        assert torch.equal(ours, theirs)


def test_near_blocks_of_the_finest_grid():
    # rows of more than 32 blocks: the words of a row meet without a seam
    grid = OccupancyGrid(Config(resolution=256))
    grid.values.zero_()
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    x[:40] = torch.tensor([0.5, 0.3, 0.7]) + (x[:40] - 0.5) * torch.tensor([0.03, 1, 1]) * 0.5
    grid.values[reference.cell_of(x, torch.zeros(200, dtype=torch.long), 256)] = 1
    grid.refresh()
    expected = torch.zeros(64, 64, 64, dtype=torch.bool)
    for cx, cy, cz in (x * 256).int().tolist():
        low, high = ([min(max((c + d) // 4, 0), 63) for c in (cz, cy, cx)] for d in (-2, 2))
        expected[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    bits = grid.near_blocks.view(64, 64, 2, 1) >> torch.arange(32) & 1
    assert torch.equal(bits.view(64, 64, 64).bool(), expected)


def test_threshold_is_the_mean_of_known_cells_or_the_limit():
    grid = OccupancyGrid(Config(resolution=16))
    assert grid.threshold.item() == pytest.approx(0.01) and grid.occupied_fraction() == 1
    grid.values[:] = -1
    grid.values[:4] = torch.tensor([0.0, 0.004, 0.008, math.inf])
    grid.refresh()
    assert grid.threshold.item() == pytest.approx(0.004)
    assert reference.unpack(grid.bitfield).nonzero()[:, 0].tolist() == [2, 3]
    grid.values[0] = 1
    grid.refresh()
    assert grid.threshold.item() == pytest.approx(0.01)


def test_coarser_cascades_contain_finer_ones():
    grid = OccupancyGrid(Config(resolution=16, cascades=4))
    grid.values.zero_()
    grid.values[:4096] = (torch.rand(4096, generator=torch.Generator().manual_seed(0)) < 0.02).float()
    grid.refresh()
    occupied = reference.unpack(grid.bitfield)
    x = occupancy.points(occupied[:4096].nonzero()[:, 0].int(), 16, seed=1)
    for k in range(4):
        cells = reference.cell_of(x, torch.full((len(x),), k), 16)
        assert occupied[cells].all()
        assert occupied[k * 4096 : (k + 1) * 4096].sum() == len(cells.unique())


def test_any_number_of_threads_gives_the_same_bits():
    def run():
        grid = OccupancyGrid(Config(resolution=32, cascades=2, uniform_cells=20000, occupied_cells=20000))
        for _ in range(3):
            grid.update(lambda x: 200 * (x.norm(dim=-1) < 0.5) * x[:, 0].abs())
        x = torch.rand(50000, 3, generator=torch.Generator().manual_seed(2))
        grid.observe(x, 100 * x[:, 1])
        grid.refresh()
        return grid.values, grid.bitfield

    before = library.num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            library.set_num_threads(threads)
            found.append(run())
    finally:
        library.set_num_threads(before)
    with backend.use("reference"):
        found.append(run())
    for other in found[1:]:
        assert torch.equal(found[0][0], other[0]) and torch.equal(found[0][1], other[1])


def test_updates_find_a_ball():
    grid = OccupancyGrid(Config(resolution=32, cascades=2, uniform_cells=2 * 32**3, occupied_cells=0))
    for _ in range(3):
        assert grid.update(lambda x: 1000.0 * ((x - 0.5).norm(dim=-1) < 0.4)) == 2 * 32**3
    expected = (4 / 3 * math.pi * 0.4**3) * (1 + 1 / 8) / 2
    assert expected < grid.occupied_fraction() < 1.35 * expected
    assert int(grid.updates) == 3


def test_state_can_be_saved_and_loaded():
    grid, other = random_grid(32, 2), OccupancyGrid(Config(resolution=32, cascades=2))
    grid.refresh()
    grid.updates += 5
    other.load_state_dict(grid.state_dict())
    for name, value in grid.named_buffers():
        assert torch.equal(value, dict(other.named_buffers())[name]), name


@pytest.mark.parametrize(
    "options",
    [{"resolution": 100}, {"cascades": 0}, {"cascades": 9}, {"decay": 2.0}, {"threshold": -1.0}, {"uniform_cells": -1}],
)
def test_bad_options(options):
    with pytest.raises(BadInput, match=next(iter(options))):
        Config(**options)


@pytest.mark.parametrize("cascades", [1, 2])
def test_occupied_box_holds_the_occupied_cells(cascades):
    grid = occupancy.OccupancyGrid(occupancy.Config(resolution=16, cascades=cascades))
    grid.values.zero_()
    grid.refresh()
    half = 2 ** (cascades - 1) / 2
    whole = torch.tensor([[0.5 - half] * 3, [0.5 + half] * 3])
    assert torch.equal(grid.occupied_box(), whole)
    x = torch.tensor([[0.41, 0.5, 0.6], [0.59, 0.52, 0.7]])
    grid.observe(x, torch.full((2,), 1e4))
    grid.refresh()
    box = grid.occupied_box()
    assert (box[0] < x.amin(0)).all() and (box[1] > x.amax(0)).all()
    most = 2 * 2 ** (cascades - 1) / 16 + 1e-6  # two cells of the outermost cascade, which holds what finer ones do
    assert (x.amin(0) - box[0] < most).all() and (box[1] - x.amax(0) < most).all()
