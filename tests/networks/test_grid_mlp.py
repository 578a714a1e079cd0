"""Hash grid and MLP in one pass."""

import pytest
import torch

from radfield import backend
from radfield.encodings.hash_grid import Config as GridConfig
from radfield.encodings.hash_grid import HashGrid
from radfield.errors import BadInput
from radfield.networks.grid_mlp import grid_mlp
from radfield.networks.mlp import MLP, Config


def pair(precision="f32", dimensions=3, features=2):
    grid = HashGrid(dimensions, GridConfig(4, features, 10, precision=precision))
    torch.nn.init.normal_(grid.table)
    return grid, MLP(grid.channels, 5, Config(32, 2, "silu", bias=True, precision=precision))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize(("dimensions", "features"), [(2, 1), (3, 2), (3, 4), (4, 8)])
@pytest.mark.parametrize("size", [0, 1, 33, 70_000])
def test_same_bits_as_grid_then_network(each_backend_once, size, dimensions, features, precision):
    grid, network = pair(precision, dimensions, features)
    size = size if each_backend_once == "cpu" else min(size, 200)
    x = torch.rand(size, dimensions)
    for dtype in (torch.float32, torch.bfloat16):
        together = grid_mlp(x, grid, network, dtype=dtype)
        assert together.dtype == dtype and not together.requires_grad
        assert torch.equal(together, network(grid(x), dtype=dtype))


@pytest.mark.usefixtures("each_backend")
def test_agrees_with_reference():
    grid, network = pair()
    x = torch.rand(500, 3)
    ours = grid_mlp(x, grid, network)
    with backend.use("reference"):
        assert torch.allclose(ours, grid_mlp(x, grid, network), atol=1e-5)


def test_same_bits_with_any_number_of_threads(threads):
    grid, network = pair()
    x = torch.rand(100_000, 3)
    for ours, expected in threads(lambda: (grid_mlp(x, grid, network),)):
        assert torch.equal(ours, expected)


def test_refuses_a_network_of_other_inputs():
    with pytest.raises(BadInput, match="8 channels"):
        grid_mlp(torch.rand(3, 3), pair()[0], MLP(9, 1))


def test_a_simplex_grid_takes_two_passes():
    from radfield.encodings.simplex import Config, Simplex

    grid = Simplex(3, Config(4, 2, 10))
    network = MLP(grid.channels, 16)
    x = torch.rand(50, 3)
    assert torch.equal(grid_mlp(x, grid, network), network(grid(x)))
