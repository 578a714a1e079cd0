"""Simplex and permutohedral encodings."""

import math

import pytest
import torch
from checks import CPU_ONLY, NATIVE_BACKENDS, OpCase, check_op

from radfield.encodings import simplex
from radfield.encodings.hash_grid_adam import SampleGradients
from radfield.encodings.simplex import Config, Simplex, simplex_levels
from radfield.errors import BadInput
from radfield.training.adam import Adam

#: (dimensions, features) of which CUDA kernels are compiled for the emulator, which takes seconds each
EMULATED = ((2, 8), (3, 2), (5, 4))
SMALL = Config(levels=4, log2_size=8, base_resolution=3, growth=1.7)


def points_inside_simplices(size, grid, generator):
    """Random points [size, n] that lie in the inside of a simplex in every level: on a face between two simplices the
    gradient of a position jumps, and rounding decides."""
    x = torch.rand(20 * size + 100, grid.dimensions, generator=generator)
    inside = torch.ones(len(x), dtype=torch.bool)
    for map in grid.maps.double().view(len(grid.maps), -1, grid.dimensions):
        y = x.double() @ map[:-1].T + map[-1]
        f = torch.cat([torch.zeros(len(x), 1), y - y.floor(), torch.ones(len(x), 1)], 1)
        inside &= f.sort(1).values.diff(dim=1).min(1).values > 1e-3
    return x[inside][:size]


def case(dimensions, config, **changes):
    grid = simplex_levels(dimensions, config)

    def inputs(size, generator):
        table = torch.randn(grid.entries, config.features, generator=generator)
        return {"x": points_inside_simplices(size, grid, generator), "table": table, "grid": grid}

    options = {"gradients": ("x", "table"), "second": ("x", "table"), "wrong_dtype": ("x", "table")}
    return OpCase(simplex.simplex, simplex.simplex_reference, inputs, **{**options, **changes}, rtol=1e-4)


@pytest.mark.parametrize("ordering", ["simplex", "permutohedral"])
@pytest.mark.parametrize(("dimensions", "features"), [(2, 1), (2, 8), (3, 1), (3, 2), (3, 4), (4, 2), (5, 4), (6, 2)])
def test_agrees_with_reference(dimensions, features, ordering):
    config = Config(4, features, log2_size=9, base_resolution=3, growth=1.7, ordering=ordering)
    backends = NATIVE_BACKENDS if (dimensions, features) in EMULATED else CPU_ONLY
    check_op(case(dimensions, config, sizes=(0, 1, 7, 33, 300), most_emulated=33, backends=backends))


@pytest.mark.parametrize("ordering", ["simplex", "permutohedral"])
@pytest.mark.parametrize("dimensions", [2, 3, 4, 5, 6])
def test_partition_of_unity(dimensions, ordering):
    encoding = Simplex(dimensions, Config(3, 1, 8, 4, 1.9, ordering=ordering))
    torch.nn.init.ones_(encoding.table)
    assert torch.allclose(encoding(torch.rand(500, dimensions)), torch.ones(500, 3), atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3, 4, 5, 6])
def test_weights_are_not_negative(dimensions):
    """The feature that is 1 at one vertex and 0 at all others is that vertex's weight, and lies in [0, 1]."""
    encoding = Simplex(dimensions, Config(1, 1, 16, 3, 1.0))
    assert encoding.grid.levels[0, 3] == 0
    x = torch.rand(4000, dimensions)
    total = torch.zeros(4000)
    resolution = int(encoding.grid.levels[0, 2])
    for entry in range(0, resolution**dimensions, max(1, resolution**dimensions // 64)):
        with torch.no_grad():
            encoding.table.zero_()[entry] = 1
            weight = encoding(x)[:, 0]
        assert weight.min() >= 0 and weight.max() <= 1
        total += weight
    assert total.max() <= 1 + 1e-6


@pytest.mark.parametrize("convention", ["cells", "vertices"])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_interpolates_a_linear_function_exactly(dimensions, convention):
    encoding = Simplex(dimensions, Config(1, 1, 18, 6, 1.0, convention=convention))
    _, size, resolution, rule = encoding.grid.levels[0].tolist()
    assert rule == 0
    matrix = encoding.grid.maps[0].view(dimensions + 1, dimensions)[:dimensions]
    slope = torch.arange(1.0, dimensions + 1)
    number = torch.arange(size)
    vertices = torch.stack([number // resolution**d % resolution for d in range(dimensions)], 1).float()
    with torch.no_grad():
        encoding.table[:, 0] = torch.linalg.solve(matrix, vertices.T).T @ slope
    x = torch.rand(500, dimensions, requires_grad=True)
    features = encoding(x)
    assert torch.allclose(features[:, 0], x @ slope, atol=1e-5)
    (gradient,) = torch.autograd.grad(features.sum(), x)
    assert torch.allclose(gradient, slope.expand_as(gradient), atol=1e-3)


@pytest.mark.parametrize("ordering", ["simplex", "permutohedral"])
def test_is_continuous_across_cells_and_simplices(ordering):
    """Along a line the features change by at most the steepest slope times the step, also where simplices end."""
    encoding = Simplex(3, Config(1, 1, 12, 12, 1.0, ordering=ordering))
    torch.nn.init.uniform_(encoding.table, -1, 1)
    t = torch.linspace(0, 1, 200_001)[:, None]
    x = torch.tensor([[0.1, 0.2, 0.9]]) + t * torch.tensor([[0.8, 0.7, -0.8]])
    steps = encoding(x)[:, 0].diff().abs().max()
    slope = 2 * 2 * encoding.grid.maps[0, :9].view(3, 3).abs().sum()  # weights change by at most |A|, values by 2
    assert steps <= slope * 1.4 / 200_000 + 1e-5


def elevated_vertices(x, cells, shift):
    """PermutoSDF's own algorithm for one level: per sample the n + 1 keys [M, n + 1, n] and weights [M, n + 1]."""
    m, n = x.shape
    sigma = 1 / (cells * (n + 1) ** ((n - 0.5) / n))
    scale = torch.tensor([1 / (math.sqrt((i + 1) * (i + 2)) * sigma) for i in range(n)], dtype=torch.float64)
    cf = (x.double() + shift) * scale
    e, total = torch.zeros(m, n + 1, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    for i in range(n, 0, -1):
        e[:, i] = total - i * cf[:, i - 1]
        total = total + cf[:, i - 1]
    e[:, 0] = total
    v = e / (n + 1)
    up, down = v.ceil() * (n + 1), v.floor() * (n + 1)
    rem0 = torch.where(up - e < e - down, up, down).long()
    sums = rem0.sum(1) // (n + 1)
    rank = torch.zeros(m, n + 1, dtype=torch.int64)
    for i in range(n):
        for j in range(i + 1, n + 1):
            less = (e[:, i] - rem0[:, i]) < (e[:, j] - rem0[:, j])
            rank[:, i] += less
            rank[:, j] += ~less
    rank = rank + sums[:, None]
    low, high = rank < 0, rank > n
    rem0 = rem0 + (n + 1) * low - (n + 1) * high
    rank = rank + (n + 1) * low - (n + 1) * high
    delta = (e - rem0) / (n + 1)
    weights = torch.zeros(m, n + 2, dtype=torch.float64)
    for i in range(n + 1):
        weights.scatter_add_(1, (n - rank[:, i])[:, None], delta[:, i, None])
        weights.scatter_add_(1, (n + 1 - rank[:, i])[:, None], -delta[:, i, None])
    weights[:, 0] += 1 + weights[:, n + 1]
    keys = torch.stack([rem0 + r - (n + 1) * (rank > n - r) for r in range(n + 1)], 1)[:, :, :n]
    return keys, weights[:, : n + 1]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_permutohedral_ordering_is_that_of_permutosdf(n):
    config = Config(1, 1, 14, 20, 1.0, ordering="permutohedral", seed=3)
    encoding = Simplex(n, config)
    torch.nn.init.normal_(encoding.table)
    shift = 10 * torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = torch.rand(500, n)
    keys, weights = elevated_vertices(x, 19, shift)
    assert weights.min() > -1e-9 and torch.allclose(weights.sum(1), torch.ones(500, dtype=torch.float64))
    entry = torch.zeros(500, n + 1, dtype=torch.int64)
    for i in range(n):
        entry = (entry + keys[:, :, i]) * 2531011 & 0xFFFFFFFF
    expected = (weights * encoding.table[:, 0].double()[entry % 2**14]).sum(1)
    assert torch.allclose(encoding(x)[:, 0].double(), expected, atol=2e-3)  # y reaches 2000, in float32


@pytest.mark.parametrize(("dimensions", "touched"), [(2, 1.03), (3, 1.09)])
def test_equal_vertex_count(dimensions, touched):
    """Convention "vertices" touches about as many vertices as the grid has; "cells" (n + 1)^(-(n - 1) / 2) of them."""
    cells = 64 if dimensions == 3 else 128
    counts = {}
    for convention in ("vertices", "cells"):
        encoding = Simplex(dimensions, Config(1, 1, 24, cells + 1, 1.0, convention=convention))
        assert encoding.grid.levels[0, 3] == 0
        x = torch.rand(3_000_000 if dimensions == 3 else 500_000, dimensions)
        (gradient,) = torch.autograd.grad(encoding(x).sum(), encoding.table)
        counts[convention] = int((gradient != 0).sum()) / cells**dimensions
    assert abs(counts["vertices"] - touched) < 0.04
    assert abs(counts["cells"] - {2: 0.60, 3: 0.29}[dimensions]) < 0.02


@pytest.mark.parametrize("ordering", ["simplex", "permutohedral"])
@pytest.mark.parametrize("dimensions", [2, 3, 6])
def test_adam_from_samples_has_the_bits_of_two_passes(dimensions, ordering):
    tables = []
    for collect in (True, False):
        generator = torch.Generator().manual_seed(7)
        config = Config(3, 2, 9, 4, 1.7, ordering=ordering, precision="bf16")
        encoding = Simplex(dimensions, config, generator)
        encoding.grad_into = SampleGradients(encoding.grid) if collect else torch.zeros_like(encoding.table)
        group = {"parameter": encoding.table.data, "grad": encoding.grad_into, "shadow": encoding.stored()}
        optimizer = Adam([{**group, "mode": "skip"}])
        for _ in range(2):
            x = torch.rand(dimensions, 1000, generator=generator).T
            encoding(x).backward(torch.randn(encoding.channels, 1000, generator=generator).T.bfloat16())
            assert optimizer.step(lr=1e-2) == 0
        tables.append((encoding.table.detach().clone(), encoding.stored().clone()))
    for ours, theirs in zip(*tables, strict=True):
        assert torch.equal(ours, theirs)


def test_coarse_to_fine_window():
    encoding = Simplex(3, SMALL)
    torch.nn.init.normal_(encoding.table)
    x = torch.rand(50, 3)
    full = encoding(x).view(50, 4, 2)
    encoding.window = 1.5
    weights = torch.tensor([1.0, 0.5, 0.0, 0.0])
    assert torch.allclose(encoding(x).view(50, 4, 2), full * weights[:, None], atol=1e-6)
    encoding.window = 4.0
    assert torch.allclose(encoding(x).view(50, 4, 2), full)


def test_batch_order_and_threads_change_no_bit(threads):
    encoding = Simplex(3, Config(4, 2, 12))
    x = torch.rand(30_000, 3)
    order = torch.randperm(30_000)
    assert torch.equal(encoding(x)[order], encoding(x[order]))

    def run():
        features = encoding(x)
        (gradient,) = torch.autograd.grad((features**2).sum(), encoding.table)
        return features, gradient

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_not_a_number_and_points_outside_stay_inside_the_table():
    encoding = Simplex(3, SMALL)
    assert encoding(torch.full((5, 3), float("nan"))).isfinite().all()
    outside = torch.tensor([[-0.5, 0.3, 2.0], [1e9, -1e9, 0.5]])
    assert torch.equal(encoding(outside), encoding(outside.clamp(0, 1)))


@pytest.mark.parametrize(
    ("dimensions", "changes", "word"),
    [
        (7, {}, "dimensions is 7"),
        (1, {}, "dimensions is 1"),
        (3, {"convention": "corners"}, "convention"),
        (3, {"ordering": "sorted"}, "ordering"),
        (3, {"log2_size": 25}, "log2_size"),
        (3, {"growth": 0.5}, "growth"),
    ],
)
def test_refuses_options_out_of_range(dimensions, changes, word):
    with pytest.raises(BadInput, match=word):
        simplex_levels(dimensions, Config(**changes))


def test_default_options_are_its_own():
    assert Simplex(2).config == Config()
