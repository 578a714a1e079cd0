"""Sparse voxels: interpolation through an index, pruning, growth, total variation."""

import math

import pytest
import torch
from checks import OpCase, check_op

from radfield.encodings import hash_grid, sparse_voxels
from radfield.encodings.resizing import Schedule
from radfield.encodings.sparse_voxels import (
    Config,
    SparseVoxels,
    kept_index,
    smoothed,
    smoothed_reference,
    voxel_levels,
)
from radfield.errors import BadInput
from radfield.training.adam import Adam

SMALL = Config(resolution=16, degree=2)


def some_voxels(n=9, blocks=2, features=4, share=0.6, seed=0):
    """Levels over an index in which `share` of the vertices have a row."""
    kept = torch.rand(n**3, generator=torch.Generator().manual_seed(seed)) < share
    index = torch.where(kept, kept.cumsum(0) - 1, -1).to(torch.int32)
    return voxel_levels(index, -(-int(kept.sum()) // 8) * 8, blocks, features)


def inside_cells(size, n, generator):
    """Points that are not on the border of a cell, where the gradient of a position jumps."""
    cell = torch.randint(1, n - 2, (size, 3), generator=generator)
    return (cell + 0.02 + 0.96 * torch.rand(size, 3, generator=generator) - 0.5) / (n - 2)


@pytest.mark.parametrize(("features", "blocks"), [(1, 1), (2, 2), (8, 1)])
def test_agrees_with_reference(features, blocks):
    grid = some_voxels(blocks=blocks, features=features)

    def inputs(size, generator):
        table = torch.randn(grid.entries, features, generator=generator)
        return {"x": inside_cells(size, 9, generator), "table": table, "grid": grid}

    options = {"gradients": ("x", "table"), "second": ("x", "table"), "wrong_dtype": ("x", "table")}
    options |= {"sizes": (0, 1, 33, 300), "most_emulated": 33}
    check_op(OpCase(hash_grid.hash_grid, sparse_voxels.sparse_voxels_reference, inputs, **options, rtol=1e-4))


def test_weights_sum_to_one_where_all_vertices_are_there_and_empty_space_is_zero():
    x = torch.rand(500, 3)
    full, empty = some_voxels(share=1.0), some_voxels(share=-1.0)
    assert torch.allclose(hash_grid.hash_grid(x, torch.ones(full.entries, 4), full), torch.ones(500, 8), atol=1e-6)
    table = torch.ones(16, 4, requires_grad=True)
    empty = voxel_levels(empty.index, 8, 2, 4)
    features = hash_grid.hash_grid(x, table, empty)
    features.sum().backward()
    assert not features.any() and not table.grad.any()


def test_adam_from_samples_is_adam():
    noting, whole = (SparseVoxels(3, SMALL) for _ in range(2))
    groups = noting.adam_groups()
    assert [g["scale"] for g in groups] == [SMALL.density_rate, SMALL.color_rate]
    parts = (whole.densities.table, SMALL.density_rate), (whole.colors.table, SMALL.color_rate)
    gradients = [torch.zeros_like(table) for table, _ in parts]
    theirs = [
        {"parameter": table.data, "grad": grad, "mode": "skip", "scale": rate}
        for (table, rate), grad in zip(parts, gradients, strict=True)
    ]
    ours, theirs = Adam(groups), Adam(theirs)
    for step in range(3):
        x = torch.rand(300, 3, generator=torch.Generator().manual_seed(step))
        for encoding in (noting, whole):
            (encoding(x) - 1).square().sum().backward()
        for (table, _), grad in zip(parts, gradients, strict=True):
            grad += table.grad
            table.grad = None
        ours.step(lr=1e-2), theirs.step(lr=1e-2)
    for a, b in zip(noting.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def ball(encoding, radius=0.3, density=50.0):
    """Gives the vertices within a ball of the centre a density, and all coefficients a linear function."""
    index = encoding.index
    x = sparse_voxels._positions(torch.arange(len(index)), encoding.resolution)
    dense = (x - 0.5).norm(dim=1) < radius
    with torch.no_grad():
        rows = index[index >= 0].long()
        encoding.densities.table[rows, 0] = torch.where(dense, density, 0.01).log()[index >= 0]
        part = encoding.colors.table.view(-1, encoding.rows, 8)
        part[:, rows] = (x @ torch.tensor([1.0, 2.0, 3.0]))[index >= 0, None]
    return x, dense


def test_growing_prunes_empty_space_and_keeps_what_is_near_density():
    encoding = SparseVoxels(3, Config(resolution=32, schedule=Schedule(0.5, (0.3,))))
    ball(encoding)
    x = (torch.rand(2000, 3) - 0.5) * 0.8 + 0.5
    x = x[(x - 0.5).norm(dim=1) < 0.3]
    before = encoding(x).detach()
    assert not encoding.refine(0.1, None) and encoding.resolution == 16
    assert encoding.refine(0.3, None) and encoding.resolution == 32
    volume = 4 / 3 * math.pi * 0.3**3
    kept = (encoding.index >= 0).float().mean().item()
    assert volume < kept < 4 * volume  # a vertex next to a dense one stays
    colors = encoding(x)[:, 1:]
    assert torch.allclose(colors, before[:, 1:], atol=1e-4)  # linear, so exact between vertices
    outside = torch.tensor([[0.02, 0.02, 0.02]])
    assert not encoding(outside).any()


def test_waits_until_something_is_dense():
    encoding = SparseVoxels(3, Config(resolution=16, schedule=Schedule(0.5, (0.3,))))
    assert not encoding.refine(1.0, None) and encoding.resolution == 8
    with torch.no_grad():
        encoding.densities.table[300] = 9.0
    assert encoding.refine(1.0, None) and encoding.resolution == 16
    assert not encoding.refine(1.0, None)


def test_rows_are_no_more_than_the_config_allows():
    encoding = SparseVoxels(3, Config(resolution=64, rows=1 << 12, schedule=Schedule(0.5, (0.3,))))
    ball(encoding)
    assert encoding.refine(0.3, None)
    assert 1 << 11 < encoding.rows <= 1 << 12 and encoding.resolution < 64
    assert not encoding.refine(0.4, None)


def test_a_short_training_has_fewer_rows(monkeypatch):
    monkeypatch.setattr(sparse_voxels, "SHORT_ROWS", 1 << 11)
    rows = []
    for samples in (0.0, 4000.0 * sparse_voxels.SAMPLES_PER_ROW, math.inf):
        encoding = SparseVoxels(3, Config(resolution=64, schedule=Schedule(0.5, (0.3,))))
        ball(encoding)
        assert encoding.refine(0.3, None, samples)
        rows.append(encoding.rows)
    assert rows[0] <= 1 << 11 < rows[1] <= 4000 < rows[2]


def test_index_of_a_finer_grid_has_the_neighbourhood_of_what_is_dense():
    dense = torch.zeros(8, 8, 8, dtype=torch.bool)
    dense[4, 4, 4] = True
    same = kept_index(dense, 8).view(8, 8, 8) >= 0
    expected = torch.zeros_like(dense)
    expected[3:6, 3:6, 3:6] = True
    assert torch.equal(same, expected)
    finer = kept_index(dense, 16)
    rows = finer[finer >= 0]
    assert torch.equal(rows, torch.arange(len(rows), dtype=torch.int32))


def test_smoothing_steps_against_the_sum_of_squared_differences():
    grid = some_voxels(n=5, blocks=2, features=2)
    table = torch.randn(grid.entries, 2, dtype=torch.float64, requires_grad=True)
    index, total = grid.index.view(5, 5, 5).long(), 0.0
    for axis in range(3):
        low, high = index.narrow(axis, 0, 4), index.narrow(axis, 1, 4)
        both = (low >= 0) & (high >= 0)
        for offset in grid.levels[:, 0].tolist():
            total = total + (table[offset + high[both]] - table[offset + low[both]]).square().sum() / 2
    (gradient,) = torch.autograd.grad(total, table)
    table = table.detach()
    assert torch.allclose(smoothed_reference(table, grid, 0.1), table - 0.1 * gradient)


@pytest.mark.parametrize("features", [1, 8])
def test_smoothing_agrees_with_reference(each_backend_once, features):
    grid = some_voxels(n=9, blocks=2, features=features)
    table = torch.randn(grid.entries, features)
    expected = smoothed_reference(table.double(), grid, 0.1)
    assert torch.allclose(smoothed(table, grid, 0.1).double(), expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_regularising_smooths_and_keeps_the_copies(precision):
    encoding = SparseVoxels(3, Config(resolution=8, tv=0.1, precision=precision))
    torch.nn.init.normal_(encoding.colors.table)
    before = encoding.colors.table.std()
    encoding.stored()
    encoding.regularise(1.0)
    assert encoding.colors.table.std() < 0.9 * before
    if precision == "bf16":
        assert torch.equal(encoding.colors.stored(), encoding.colors.table.to(torch.bfloat16))


def test_checkpoints_of_another_size_are_taken_and_wrong_ones_refused():
    one, other = (SparseVoxels(3, Config(resolution=16, schedule=Schedule(0.5, (0.3,)))) for _ in range(2))
    ball(one)
    one.refine(0.5, None)
    state = one.state_dict()
    other.restore(state)
    other.load_state_dict(state)
    x = torch.rand(100, 3)
    assert torch.equal(one(x), other(x))
    state["index"] = state["index"] + one.rows
    with pytest.raises(BadInput, match="index"):
        other.restore(state)


def test_activation_relu_is_the_density_itself():
    encoding = SparseVoxels(3, Config(resolution=8, activation="relu"))
    with torch.no_grad():
        encoding.densities.table.fill_(7.0)
    assert torch.allclose(encoding.density_logit(torch.rand(20, 3))[0].exp(), torch.tensor(7.0))
    with torch.no_grad():
        encoding.densities.table.fill_(-7.0)
    x = torch.rand(20, 3)
    logit = encoding.density_logit(x)[0]
    assert (logit.exp() < 1e-3).all()
    logit.sum().backward()
    assert not encoding.densities.table.grad.any()


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 4},
        {"rows": 7},
        {"density_rate": 0.0},
        {"color_rate": -1.0},
        {"degree": 5},
        {"activation": "sin"},
        {"prune": 0.0},
        {"tv": -1.0},
        {"precision": "f16"},
    ],
)
def test_refuses(changes):
    ((name, value),) = changes.items()
    with pytest.raises(BadInput, match=f"{name} is {value}"):
        SparseVoxels(3, Config(**changes))
    with pytest.raises(BadInput, match="dimensions is 2"):
        SparseVoxels(2)
