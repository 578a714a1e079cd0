"""Positions outside [0, 1] and NaN, the same for every encoding; options that make no sense."""

import pytest
import torch

from radfield import backend
from radfield.encodings import hash_grid, learned_probe, registry, simplex
from radfield.encodings.outside import POLICIES
from radfield.errors import BadInput
from radfield.networks.grid_mlp import grid_mlp
from radfield.networks.mlp import MLP

SIZES = {"levels": 3, "features": 2, "log2_size": 8, "base_resolution": 4, "finest_resolution": 64}
GRIDS = [name for name in registry.ENCODINGS if name not in ("one-blob", "triangle-wave", "composite", "saliency")]
OUTSIDE = torch.tensor([[-0.25, 0.5, 0.5], [0.5, 1.75, -3.5], [float("nan"), 0.5, 0.5], [0.2, float("inf"), 0.5]])


def encoding(name, policy):
    module = registry.build(3, registry.config_of(name, **SIZES), outside=policy)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    return module


@pytest.mark.parametrize("name", GRIDS)
def test_every_policy_of_every_grid(name):
    inside, module = torch.rand(20, 3), encoding(name, "clamp")

    def by(policy, x):
        module.outside = policy
        return module(x)

    assert all(torch.equal(by(policy, inside), by("clamp", inside)) for policy in POLICIES)
    as_read = torch.where(OUTSIDE <= 1, OUTSIDE, 1).clamp(0, 1)
    assert torch.equal(by("clamp", OUTSIDE), by("clamp", as_read))
    assert (by("zero", OUTSIDE) == 0).all()
    finite = OUTSIDE[:2]
    assert torch.allclose(by("wrap", finite), by("clamp", finite - finite.floor()), atol=1e-5)
    assert by("wrap", OUTSIDE).isfinite().all()
    for rows, text in ((OUTSIDE[:2], r"x\[0\] is \[-0.25, 0.5, 0.5\], one of 2"), (OUTSIDE[2:], r"x\[0\] is \[nan")):
        with pytest.raises(BadInput, match=text):
            by("error", rows)


@pytest.mark.parametrize("name", ["hash", "simplex", "probe"])
def test_reference_reads_the_same(name):
    module = encoding(name, "clamp")
    native = module(OUTSIDE)
    with backend.use("reference"):
        assert torch.allclose(module(OUTSIDE), native, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES[:1] + POLICIES[2:])
def test_gradients_are_finite_and_only_what_is_inside_learns(policy):
    module = encoding("hash", policy)
    x = OUTSIDE.clone().requires_grad_()
    by_x, by_table = torch.autograd.grad(module(x).square().sum(), (x, module.table))
    assert by_x.isfinite().all() and by_table.isfinite().all()
    assert (by_table != 0).any() != (policy == "zero")
    assert policy != "zero" or (by_x == 0).all()
    assert policy != "clamp" or (by_x[OUTSIDE.clamp(0, 1) != OUTSIDE] == 0).all()


def test_a_border_is_inside():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    assert torch.equal(encoding("hash", "error")(corners), encoding("hash", "zero")(corners))


def test_one_pass_with_a_network_keeps_the_policy():
    module = encoding("hash", "zero")
    network = MLP(module.channels, 4)
    assert torch.equal(grid_mlp(OUTSIDE, module, network), network(module(OUTSIDE)))


def test_refuses_a_policy_that_is_none():
    with pytest.raises(BadInput, match="outside is 'mirror'; the rule: clamp, error, wrap or zero"):
        registry.build(3, hash_grid.Config(), outside="mirror")
    with pytest.raises(BadInput, match="outside is None"):
        hash_grid.HashGrid(3).outside = None


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kind", [hash_grid.Config, simplex.Config, learned_probe.Config])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"levels": 0}, "levels is 0; the rule: a whole number from 1 to 64"),
        ({"levels": -3}, "levels is -3; the rule"),
        ({"levels": 10**9}, "levels is 1000000000; the rule"),
        ({"levels": 2.5}, "levels is 2.5; the rule"),
        ({"features": 3}, "features is 3; the rule: 1, 2, 4 or 8"),
        ({"base_resolution": 0}, "base_resolution is 0; the rule"),
        ({"base_resolution": 2**40}, "base_resolution is 1099511627776; the rule"),
        ({"growth": 0.0}, "growth is 0.0; the rule: from 1 to 16"),
        ({"growth": NAN}, "growth is nan; the rule"),
        ({"growth": INF}, "growth is inf; the rule"),
        ({"levels": 64, "growth": 16.0}, "the finest resolution is 1.16e.77; the rule: at most 2.24"),
        ({"precision": "f8"}, "precision is f8; the rule: f32"),
    ],
)
def test_refuses_options_that_make_no_sense(kind, changes, text):
    make = {hash_grid.Config: hash_grid.grid_levels, simplex.Config: simplex.simplex_levels}
    with pytest.raises(BadInput, match=text):
        make.get(kind, learned_probe.probe_levels)(3, kind(**changes))


def test_vertices_are_counted_without_overflow():
    """(2^24)^4 = 2^96 vertices are no dense level, not the remainder of one."""
    grid = hash_grid.grid_levels(4, hash_grid.Config(2, 2, 19, 4096, 16.0))
    assert grid.levels[:, 3].tolist() == [1, 1] and grid.entries == 2 * 2**19
    grid = simplex.simplex_levels(6, simplex.Config(2, 2, 19, 4096, 16.0))
    assert grid.levels[:, 3].tolist() == [1, 1]
    with pytest.raises(BadInput, match=f"dense level has {4096**4} vertices; the rule: at most 2.28"):
        hash_grid.grid_levels(4, hash_grid.Config(1, 2, 19, 4096, 1.0, entries="dense"))


@pytest.mark.parametrize("name", ["base_resolution", "finest_resolution", "levels"])
@pytest.mark.parametrize("value", [0, NAN])
def test_refuses_sizes_that_have_no_growth(name, value):
    with pytest.raises(BadInput, match=f"{name} is {value}; the rule: at least 1"):
        registry.config_of("hash", **{**SIZES, name: value})
