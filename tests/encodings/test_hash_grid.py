"""Multiresolution hash grid."""

import dataclasses

import pytest
import torch
from checks import EMULATES, OpCase, check_op

from radfield import backend
from radfield.encodings import hash_grid
from radfield.encodings.hash_grid import Config, HashGrid, grid_levels
from radfield.errors import BadInput

SMALL = Config(levels=4, log2_size=8, base_resolution=3, growth=1.7)


def case(dimensions, config, **changes):
    grid = grid_levels(dimensions, config)

    def inputs(size, generator):
        table = torch.randn(grid.entries, config.features, generator=generator)
        return {"x": torch.rand(size, dimensions, generator=generator), "table": table, "grid": grid}

    options = {"gradients": ("x", "table"), "second": ("x", "table"), "wrong_dtype": ("x", "table")}
    return OpCase(hash_grid.hash_grid, hash_grid.hash_grid_reference, inputs, **{**options, **changes}, rtol=2e-4)


@pytest.mark.parametrize("smoothstep", [False, True])
@pytest.mark.parametrize(("dimensions", "features"), [(2, 1), (2, 8), (3, 1), (3, 2), (3, 4), (3, 8), (4, 2), (4, 4)])
def test_agrees_with_reference(dimensions, features, smoothstep):
    config = Config(4, features, log2_size=8, base_resolution=3, growth=1.7, smoothstep=smoothstep)
    check_op(case(dimensions, config, sizes=(0, 1, 7, 33, 300)))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("changes", [{"entries": "dense"}, {"entries": "tiled"}, {"nearest": True}])
def test_dense_tiled_and_nearest_agree_with_reference(dimensions, changes):
    config = Config(4, 2, log2_size=6, base_resolution=4, growth=1.9, **changes)
    check_op(case(dimensions, config, sizes=(0, 1, 7, 33, 300)))


def test_dense_levels_have_an_entry_per_vertex_and_tiled_ones_repeat():
    dense = HashGrid(2, Config(3, 1, 4, 4, 2.0, entries="dense"))
    assert dense.grid.levels[:, 1].tolist() == [16, 64, 256] and (dense.grid.levels[:, 3] == 0).all()
    tiled = HashGrid(2, Config(3, 1, 12, 4, 2.0, entries="tiled"))
    assert tiled.grid.levels[:, 1].tolist() == [16, 16, 16] and tiled.grid.levels[:, 3].tolist() == [0, 2, 2]
    torch.nn.init.normal_(tiled.table)
    x = torch.rand(50, 2) * 0.6
    further = x + torch.tensor([0.0, 2 / 7])  # two vertices on in the level of 8: 16 entries, once round the tile
    assert torch.allclose(tiled(x)[:, 1], tiled(further)[:, 1], atol=1e-5)


def test_nearest_takes_the_vertex_next_to_the_point():
    grid = HashGrid(2, Config(1, 1, 12, 5, 1.0, nearest=True))
    with torch.no_grad():
        grid.table[:25, 0] = torch.arange(25.0)
    x = torch.rand(100, 2)
    nearest = (4 * x + 0.5).floor()
    assert torch.equal(grid(x)[:, 0], nearest[:, 0] + 5 * nearest[:, 1])


def test_a_dense_level_that_cannot_be_counted_is_refused():
    with pytest.raises(BadInput, match="dense level has 8589934592 vertices"):
        grid_levels(3, Config(1, 2, 19, 2048, 1.0, entries="dense"))


@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_16_bit_table_equals_rounded_one(features):
    config = Config(5, features, log2_size=9, base_resolution=4, growth=1.6)
    grid = grid_levels(3, config)
    table = torch.randn(grid.entries, features)
    stored = table.bfloat16()
    x = torch.rand(101, 3)
    ours = hash_grid.hash_grid(x, table, grid, stored=stored)
    assert torch.allclose(ours, hash_grid.hash_grid(x, stored.float(), grid), atol=1e-6)
    rounded = hash_grid.hash_grid(x, table, grid, stored=stored, dtype=torch.bfloat16)
    assert rounded.dtype == torch.bfloat16 and torch.equal(rounded, ours.bfloat16())


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_fp16_is_read_written_and_summed_on_cuda(features):
    """Features of an fp16 table are those of its values, rounded; a table's gradient in fp16 is the sum of roundings,
    two values by one atomic operation. A CPU has none of it."""
    grid = HashGrid(3, Config(3, features, log2_size=8, base_resolution=4, growth=1.6, precision="f16"))
    torch.nn.init.normal_(grid.table)
    x, exact = torch.rand(70, 3), HashGrid(3, dataclasses.replace(grid.config, precision="f32"))
    exact.table.data.copy_(grid.stored().float())
    weights = torch.randn(70, grid.channels).half()
    grid.grad_into = torch.zeros_like(grid.table, dtype=torch.half)
    with backend.use(backend.EMULATED):
        found = grid(x)
        found.backward(weights)
    expected = exact(x)
    expected.backward(weights.float())
    assert found.dtype == torch.half and torch.equal(grid.stored(), grid.table.half())
    torch.testing.assert_close(found.float(), expected, rtol=2**-10, atol=1e-6)
    scale = exact.table.grad.abs().max().item()
    torch.testing.assert_close(grid.grad_into.float(), exact.table.grad, rtol=0, atol=2**-8 * scale)
    with pytest.raises(BadInput, match=r"has dtype torch.float16; the rule: on a CPU float32 or bfloat16"):
        grid(x)
    (group,) = grid.adam_groups()
    assert group["rounded"] is grid.stored() and "shadow" not in group


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (Config(20, 2, 16, 32, 1.5), 2_555_904),
        (Config(8, 4, 19, 16, 2.0), 11_681_792),
        (Config(16, 2, 19, 16, 1.3819), 12_196_240),
        (Config(16, 2, 14, 16, 1.3819), 491_280),
    ],
)
def test_published_parameter_counts(config, parameters):
    assert grid_levels(3, config).entries * config.features == parameters


def test_partition_of_unity():
    grid = HashGrid(3, SMALL)
    torch.nn.init.ones_(grid.table)
    assert torch.allclose(grid(torch.rand(500, 3)), torch.ones(500, grid.channels), atol=1e-6)


def test_interpolates_a_linear_function_exactly():
    grid = HashGrid(2, Config(1, 1, 12, 17, 1.0))
    row = torch.arange(17.0)
    corners = row[None, :] + 3 * row[:, None]  # entry x + 17 y holds x + 3 y, in units of cells
    with torch.no_grad():
        grid.table[: 17 * 17, 0] = corners.flatten()
    x = torch.rand(200, 2) * 0.95
    expected = (16 * x + 0.5) @ torch.tensor([1.0, 3.0])
    assert torch.allclose(grid(x)[:, 0], expected, atol=1e-4)


def test_points_outside_are_clamped_and_do_not_move():
    grid = HashGrid(3, SMALL)
    torch.nn.init.normal_(grid.table)
    outside = torch.tensor([[-0.5, 0.3, 2.0], [1e9, -1e9, 0.5]], requires_grad=True)
    features = grid(outside)
    assert torch.equal(features, grid(outside.detach().clamp(0, 1)))
    (gradient,) = torch.autograd.grad(features.sum(), outside)
    assert (gradient[0, [0, 2]] == 0).all() and (gradient[1, :2] == 0).all() and gradient[1, 2] != 0


def test_not_a_number_stays_inside_the_table():
    assert HashGrid(3, SMALL)(torch.full((5, 3), float("nan"))).isfinite().all()


def test_finest_levels_do_not_overflow_32_bits():
    config = Config(levels=2, log2_size=19, base_resolution=2048, growth=2.0)  # 2048^3 = 2^33 vertices
    check_op(case(3, config, sizes=(64,), second=(), gradients=("table",)))


def test_gradient_goes_into_a_workspace_and_adds_up():
    grid = HashGrid(3, SMALL)
    x = torch.rand(64, 3)
    (expected,) = torch.autograd.grad(grid(x).sum(), grid.table)
    grid.grad_into = torch.zeros_like(grid.table)
    for _ in range(2):
        grid(x).sum().backward()
    assert grid.table.grad is None
    assert torch.allclose(grid.grad_into, 2 * expected, rtol=1e-6)


def test_same_bits_with_any_number_of_threads(threads):
    grid = HashGrid(3, Config(4, 2, 12))
    x = torch.rand(40_000, 3)

    def run():
        features = grid(x)
        (gradient,) = torch.autograd.grad((features**2).sum(), grid.table)
        return features, gradient

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_copy_follows_changes_of_the_table():
    grid = HashGrid(3, Config(4, 2, 8, precision="bf16"))
    x = torch.rand(10, 3)
    before = grid(x)
    with torch.no_grad():
        grid.table.mul_(3.0)
    assert torch.allclose(grid(x).float(), 3 * before.float(), rtol=2e-2, atol=3e-6)


def test_reference_backend_gives_the_same():
    grid = HashGrid(3, SMALL)
    x = torch.rand(10, 3)
    native = grid(x)
    with backend.use("reference"):
        assert torch.allclose(grid(x), native, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"features": 3}, "features"),
        ({"levels": 0}, "levels"),
        ({"log2_size": 25}, "log2_size"),
        ({"growth": 40.0}, "growth"),
        ({"entries": "sparse"}, "entries"),
        ({"entries": "tiled", "base_resolution": 12}, "base_resolution is 12"),
        ({"nearest": True, "smoothstep": True}, "nearest"),
    ],
)
def test_refuses_options_out_of_range(changes, word):
    with pytest.raises(BadInput, match=word):
        grid_levels(3, Config(**changes))
