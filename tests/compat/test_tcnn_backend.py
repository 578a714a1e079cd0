"""The backend "tcnn", with a package in the place of tinycudann that is made of radfield's stand-in."""

import sys
import types

import pytest
import torch

from radfield import backend, compat
from radfield.compat import tcnn_backend
from radfield.compat import tinycudann as stand_in
from radfield.encodings.hash_grid import Config, HashGrid
from radfield.errors import BadInput
from radfield.networks import mlp
from radfield.training.adam import Adam


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the package."""
    made, package = [], types.ModuleType("tinycudann")

    def noting(kind):
        return lambda *sizes: made.append((kind.__name__, *sizes)) or kind(*sizes)

    package.Encoding, package.Network = noting(stand_in.Encoding), noting(stand_in.Network)
    monkeypatch.setitem(sys.modules, "tinycudann", package)
    for cached in (tcnn_backend._encoding, tcnn_backend._network):
        cached.cache_clear()
    return made


def gradients(module, x, **options):
    x = x.clone().requires_grad_()
    y = module(x, **options)
    parameter = next(module.parameters())
    return [y, *torch.autograd.grad((y * torch.linspace(0.5, 1, y.shape[1])).sum(), (x, parameter))]


@pytest.mark.parametrize("smoothstep", [False, True])
def test_grids_are_its_encodings(calls, smoothstep):
    grid = HashGrid(3, Config(levels=5, features=2, log2_size=9, base_resolution=4, growth=1.5, smoothstep=smoothstep))
    torch.nn.init.normal_(grid.table)
    x = torch.rand(40, 3)
    expected = gradients(grid, x)
    with backend.use("tcnn"):
        found = gradients(grid, x)
    assert [call[0] for call in calls] == ["Encoding"] and calls[0][2]["n_levels"] == 5
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "outputs", "width", "kind"), [(7, 3, 32, "FullyFusedMLP"), (16, 16, 48, "CutlassMLP")]
)
def test_networks_are_its_networks(calls, inputs, outputs, width, kind):
    network = mlp.MLP(inputs, outputs, mlp.Config(width=width))
    x = torch.rand(20, inputs)
    expected = gradients(network, x)
    with backend.use("tcnn"):
        found = gradients(network, x)
        y, head = network(x[:, :4], x[:, 4:], dtype=torch.bfloat16, head=2)
    assert calls[0][0] == "Network" and calls[0][3]["otype"] == kind and len(calls) == 1
    assert y.dtype == torch.bfloat16 and torch.equal(head, found[0][:, :2])
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_training_gives_the_same_table(calls):
    tables = []
    for name in ("cpu", "tcnn"):
        torch.manual_seed(0)
        grid = HashGrid(2, Config(levels=3, features=2, log2_size=8, base_resolution=4))
        optimizer, x = Adam(grid.adam_groups()), torch.rand(30, 2)
        for _ in range(2):
            with backend.use(name):
                (grid(x) - 1).square().sum().backward()
                assert optimizer.step(lr=0.1) == 0
        tables.append(grid.table.detach())
    torch.testing.assert_close(*tables, rtol=1e-3, atol=1e-4)


def test_what_it_has_not_is_refused(calls):
    with backend.use("tcnn"):
        for config in (mlp.Config(bias=True), mlp.Config(skip=1), mlp.Config(activation="softplus")):
            with pytest.raises(BadInput, match="the rule: none of them"):
                mlp.MLP(4, 4, config)(torch.rand(3, 4))
        with pytest.raises(BadInput, match="hashed or dense"):
            HashGrid(2, Config(levels=9, base_resolution=4, entries="tiled"))(torch.rand(3, 2))


def test_without_the_package_it_cannot_be_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "tinycudann", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="backend is 'tcnn': tinycudann is not installed"), backend.use("tcnn"):
        pass
    monkeypatch.undo()
    compat.install(replace=True)
    try:
        with pytest.raises(BadInput, match="radfield's own stand-in"), backend.use("tcnn"):
            pass
    finally:
        compat.uninstall()
