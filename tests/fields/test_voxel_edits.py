"""Editing sparse voxels: what each operation leaves as it is, and what it must not."""

import pytest
import torch

from radfield.encodings import sparse_voxels
from radfield.fields.voxel_edits import EMPTY, deleted, merged, moved, put, recolored, resampled, voxels_of
from radfield.fields.voxel_occupancy import largest, update_occupancy
from radfield.fields.voxels import VoxelField
from radfield.sampling import occupancy

N = 18


def some_field(seed=0, activation="exp", resolution=N):
    """Dense in two balls, with random values and colours."""
    generator = torch.Generator().manual_seed(seed)
    field = VoxelField(sparse_voxels.Config(resolution=resolution, degree=2, activation=activation))
    with torch.no_grad():
        value = (2 if activation == "exp" else 8) + torch.rand(field.grid.densities.table.shape, generator=generator)
        place = voxels_of(field).positions()
        balls = ((place - 0.25).norm(dim=1) < 0.18) | ((place - 0.75).norm(dim=1) < 0.15)
        rows = len(place)
        field.grid.densities.table.fill_(-5.0 if activation == "exp" else 0.0)
        field.grid.densities.table[:rows][balls] = value[:rows][balls]
        field.grid.colors.table.normal_(generator=generator)
        field.grid.resize(resolution)
    return field


@pytest.fixture
def field():
    return some_field()


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("vertex", "value", "colors"))


def in_ball(voxels, centre=0.25):
    return (voxels.positions() - centre).norm(dim=1) < 0.3


@pytest.mark.parametrize("activation", ["exp", "relu"])
def test_what_is_read_and_put_back_is_the_same_field(activation):
    field, (x, d) = some_field(activation=activation), (torch.rand(300, 3), torch.randn(300, 3))
    before, voxels = (field.density(x), field.color(x, d)), voxels_of(field)
    put(field, voxels)
    assert torch.equal(field.density(x), before[0]) and torch.equal(field.color(x, d), before[1])
    assert same(voxels_of(field), voxels) and 0 < len(voxels) < N**3


def test_deleting_everything_leaves_nothing(field):
    voxels = voxels_of(field)
    everything = torch.ones(len(voxels), dtype=torch.bool)
    assert len(deleted(voxels, everything)) == 0
    assert same(deleted(voxels, ~everything), voxels)
    put(field, deleted(voxels, everything))
    assert (field.grid.index == -1).all()


def test_deleting_empties_what_is_inside_and_nothing_else(field):
    voxels = voxels_of(field)
    inside = in_ball(voxels)
    left = deleted(voxels, inside)
    kept = torch.isin(left.vertex, voxels.vertex[~inside])
    assert same(left.select(kept), voxels.select(~inside))
    assert (left.density[~kept] == EMPTY).all()
    put(field, left)
    x = 0.1 + 0.25 * torch.rand(500, 3)
    assert (field.density(x) <= 1).all()  # 1: what a cell without vertices answers; no ray asks there
    other = 0.75 + 0.1 * torch.randn(200, 3).clamp(-1, 1)
    assert torch.equal(field.density(other), some_field().density(other))


def test_what_is_deleted_and_what_is_kept_make_the_whole(field):
    voxels = voxels_of(field)
    cut = voxels.positions()[:, 0] < 0.27  # through the first ball
    again = merged(deleted(voxels, cut), deleted(voxels, ~cut))
    assert same(again, voxels)


def test_merging_with_nothing_and_in_either_order(field):
    voxels, other = voxels_of(field), voxels_of(some_field(seed=3))
    nothing = deleted(voxels, torch.ones(len(voxels), dtype=torch.bool))
    assert same(merged(voxels, nothing), voxels) and same(merged(nothing, voxels), voxels)
    one, two = merged(voxels, other), merged(other, voxels)
    assert torch.equal(one.vertex, two.vertex)
    torch.testing.assert_close(one.value, two.value)
    torch.testing.assert_close(one.colors, two.colors)
    total = voxels.dense(voxels.density * voxels.solid) + other.dense(other.density * other.solid)
    torch.testing.assert_close(one.dense(one.density * one.solid), total)


def test_merging_with_itself_doubles_densities_and_keeps_colours(field):
    voxels = voxels_of(field)
    twice = merged(voxels, voxels)
    torch.testing.assert_close(twice.density[voxels.solid], 2 * voxels.density[voxels.solid])
    torch.testing.assert_close(twice.colors, voxels.colors)


def test_moving_by_whole_voxels_is_exact(field):
    voxels = voxels_of(field)
    whole = torch.ones(len(voxels), dtype=torch.bool)
    there = moved(voxels, whole, (2.0, -1.0, 1.0))
    expected = (voxels.place + torch.tensor([2, -1, 1])) @ torch.tensor([1, N, N * N])
    solid, ours = voxels.solid, there.select(there.solid)
    order = expected[solid].argsort()
    assert torch.equal(ours.vertex, expected[solid][order])
    assert torch.equal(ours.value, voxels.value[solid][order])
    assert torch.equal(ours.colors, voxels.colors[solid][order])
    back = moved(there, torch.ones(len(there), dtype=torch.bool), (-2.0, 1.0, -1.0))
    assert same(back.select(back.solid), voxels.select(voxels.solid))


def test_a_part_moves_and_the_rest_stays(field):
    voxels = voxels_of(field)
    there = moved(voxels, in_ball(voxels), (1.0, 0.0, 0.0))
    field_there = some_field()
    put(field_there, there)
    x = 0.25 + 0.05 * torch.randn(200, 3).clamp(-1, 1)
    torch.testing.assert_close(field_there.density(x + torch.tensor([1 / (N - 2), 0, 0])), field.density(x))
    other = 0.75 + 0.05 * torch.randn(200, 3).clamp(-1, 1)
    assert torch.equal(field_there.density(other), field.density(other))


def test_what_leaves_the_grid_is_lost(field):
    voxels = voxels_of(field)
    assert not moved(voxels, torch.ones(len(voxels), dtype=torch.bool), (0.0, 0.0, 3.0 * N)).solid.any()


def test_half_a_voxel_is_between_its_neighbours(field):
    voxels = voxels_of(field)
    half = moved(voxels, torch.ones(len(voxels), dtype=torch.bool), (0.5, 0.0, 0.0))
    log = torch.where(voxels.dense(voxels.solid.float()) > 0, voxels.dense(voxels.value), torch.tensor(EMPTY).log())
    middle = 0.5 * (log[:, :, 1:] + log[:, :, :-1])
    found = half.dense(half.value)[:, :, 1:]
    listed = half.dense(torch.ones(len(half)))[:, :, 1:] > 0
    both = (voxels.dense(voxels.solid.float())[:, :, 1:] > 0) & (voxels.dense(voxels.solid.float())[:, :, :-1] > 0)
    torch.testing.assert_close(found[both & listed], middle[both & listed])


def test_a_finer_grid_has_the_coarse_ones_values(field):
    voxels, fine = voxels_of(field), voxels_of(some_field(resolution=2 * (N - 2) + 2))
    ratio = (N - 2) / (fine.resolution - 2)
    offset = 0.5 - 0.5 * ratio
    found = resampled(voxels, fine, (ratio,) * 3, (offset,) * 3)
    finer = some_field(resolution=fine.resolution)
    put(finer, found)
    inner = 0.25 + 0.05 * torch.randn(200, 3).clamp(-1, 1)
    assert (finer.density(inner).log() - field.density(inner).log()).abs().mean() < 0.15
    again = resampled(found, voxels, (1 / ratio,) * 3, (-offset / ratio,) * 3)
    assert len(again) and set(again.vertex.tolist()) <= set(range(N**3))


def test_recolouring_gives_the_hue_and_keeps_the_light(field):
    voxels = voxels_of(field)
    inside, color = in_ball(voxels), (0.9, 0.2, 0.1)
    painted = recolored(voxels, inside, color)
    chosen = inside & voxels.solid
    assert torch.equal(painted.colors[~chosen], voxels.colors[~chosen]) and torch.equal(painted.value, voxels.value)
    channels = painted.colors[chosen].unflatten(1, (3, 4))
    apart = channels[:, :1] - channels
    torch.testing.assert_close(apart, apart[:1].expand_as(apart), atol=1e-4, rtol=0)
    grey = voxels.colors[chosen].unflatten(1, (3, 4)).mean(1)
    torch.testing.assert_close(channels[:, 0] - channels[:1, 0], grey - grey[:1], atol=1e-4, rtol=0)
    weight = voxels.density[chosen] / voxels.density[chosen].sum()
    mean = (weight[:, None] * channels[:, :, 0]).sum(0) * 0.28209479
    torch.testing.assert_close(mean.sigmoid(), torch.tensor(color), atol=1e-4, rtol=0)


def filled(field, cascades=1):
    grid = occupancy.OccupancyGrid(occupancy.Config(resolution=32, cascades=cascades))
    voxels = voxels_of(field)
    bound = torch.cat([_cells(grid, voxels, k) for k in range(cascades)])
    grid.values.copy_(bound * occupancy.MIN_STEP)
    grid.refresh()
    return grid


def _cells(grid, voxels, cascade):
    _, place = occupancy.reference.coordinates_of(torch.arange(32**3), 32)
    x, y, z = place.long().unbind(1)
    return largest(voxels.dense(voxels.density * voxels.solid), 32, cascade, grid.config.cascades)[z, y, x]


@pytest.mark.parametrize("cascades", [1, 2])
def test_no_density_outside_of_occupied_cells_after_an_edit(cascades):
    field = some_field()
    field.cascades = cascades
    grid, voxels = filled(field, cascades), voxels_of(field)
    after = moved(voxels, in_ball(voxels, 0.25 if cascades == 1 else 0.0), (1.0, 1.0, 0.0))
    update_occupancy(grid, voxels, after)
    put(field, after)
    side = 2.0 ** (cascades - 1)
    x = 0.5 + side * (torch.rand(20_000, 3) - 0.5)
    bits = occupancy.reference.unpack(grid.bitfield)
    cascade = occupancy.reference.finest_cascade(x, cascades)
    occupied = bits[occupancy.reference.cell_of(x, cascade, 32)]
    assert 0.01 < occupied.float().mean() < 0.6
    assert (field.density(x)[~occupied] <= 1.001).all() and (field.density(x) > 5).any()


def test_occupancy_stays_where_nothing_changed_and_goes_with_what_is_gone(field):
    grid, voxels = filled(field), voxels_of(field)
    values = grid.values.clone()
    update_occupancy(grid, voxels, voxels)
    assert torch.equal(grid.values, values)
    nothing = deleted(voxels, torch.ones(len(voxels), dtype=torch.bool))
    update_occupancy(grid, voxels, nothing)
    assert grid.occupied_fraction() == 0
