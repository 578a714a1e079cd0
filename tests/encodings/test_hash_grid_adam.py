"""Adam on the hash grid straight from the gradients of its features."""

import pytest
import torch

from radfield import backend
from radfield.encodings import hash_grid, hash_grid_adam
from radfield.encodings.hash_grid import HashGrid
from radfield.encodings.hash_grid_adam import SampleGradients
from radfield.training.adam import Adam

CONFIGS = [
    hash_grid.Config(levels=5, features=2, log2_size=9, base_resolution=4, growth=1.7),
    hash_grid.Config(levels=3, features=1, log2_size=6, base_resolution=5, growth=1.9, smoothstep=True),
    hash_grid.Config(levels=2, features=4, log2_size=10, base_resolution=8, growth=2.0, precision="bf16"),
    hash_grid.Config(levels=2, features=8, log2_size=8, base_resolution=3, growth=2.5),
]


def train(config, dimensions, collect, mode, samples=(70, 1000), steps=3):
    """A grid after some steps on a sum of its features, with every gradient noted or summed at once."""
    generator = torch.Generator().manual_seed(7)
    grid = HashGrid(dimensions, config, generator)
    grid.grad_into = SampleGradients(grid.grid) if collect else torch.zeros_like(grid.table)
    group = {"parameter": grid.table.data, "grad": grid.grad_into, "shadow": grid.stored(), "mode": mode, "l2": 1e-4}
    optimizer = Adam([group])
    for _ in range(steps):
        for m in samples:
            x = torch.rand(dimensions, m, generator=generator).T
            weights = torch.randn(grid.channels, m, generator=generator).T
            features = grid(x)
            features.backward(weights.to(features.dtype))
        assert optimizer.step(lr=1e-2) == 0
    return grid, optimizer


@pytest.mark.parametrize("mode", ["dense", "skip"])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("config", CONFIGS)
def test_same_bits_as_gradient_and_then_adam(config, dimensions, mode):
    ours, first = train(config, dimensions, True, mode, samples=(1000,))
    theirs, second = train(config, dimensions, False, mode, samples=(1000,))
    assert torch.equal(ours.table, theirs.table)
    assert ours.stored() is None or torch.equal(ours.stored(), theirs.stored())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_agrees_with_reference():
    ours, _ = train(CONFIGS[0], 3, True, "dense")
    with backend.use("reference"):
        theirs, _ = train(CONFIGS[0], 3, True, "dense")
    assert torch.allclose(ours.table, theirs.table, atol=1e-5)
    assert not torch.allclose(ours.table, HashGrid(3, CONFIGS[0], torch.Generator().manual_seed(7)).table, atol=1e-3)


def test_several_backward_passes_are_summed():
    ours, _ = train(CONFIGS[0], 3, True, "dense", samples=(70, 1000, 3))
    theirs, _ = train(CONFIGS[0], 3, False, "dense", samples=(70, 1000, 3))
    assert torch.allclose(ours.table, theirs.table, atol=1e-6)


def test_large_levels_take_two_passes(monkeypatch):
    ours, _ = train(CONFIGS[0], 3, True, "skip")
    monkeypatch.setattr(hash_grid_adam, "LARGEST_LEVEL", 0)
    theirs, _ = train(CONFIGS[0], 3, True, "skip")
    assert torch.equal(ours.table, theirs.table)


def test_a_step_without_samples_moves_by_momentum_alone():
    grid, optimizer = train(CONFIGS[0], 3, True, "dense", steps=1)
    before = grid.table.clone()
    optimizer.step(lr=1e-2)
    assert not torch.equal(grid.table, before)
    untouched, optimizer = train(CONFIGS[0], 3, True, "skip", steps=1)
    before = untouched.table.clone()
    optimizer.step(lr=1e-2)
    assert torch.equal(untouched.table, before)


def test_same_bits_with_any_number_of_threads(threads):
    threads(lambda: train(CONFIGS[0], 3, True, "skip")[0].table.detach())


def test_counts_what_is_not_finite_and_leaves_it():
    grid = HashGrid(3, CONFIGS[0])
    grid.grad_into = SampleGradients(grid.grid)
    before = grid.table.detach().clone()
    optimizer = Adam([{"parameter": grid.table.data, "grad": grid.grad_into}])
    x = torch.rand(3, 40).T
    grid(x).backward(torch.full((40, grid.channels), float("nan")))
    assert optimizer.step(lr=1e-2) > 0
    assert grid.table.isfinite().all() and torch.equal(grid.table, before)
