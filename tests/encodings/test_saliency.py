"""The saliency mask over any grid."""

import pytest
import torch

from radfield.encodings import hash_grid, registry
from radfield.encodings.hash_grid import grid_levels
from radfield.encodings.saliency import Config, Saliency
from radfield.errors import BadInput
from radfield.fields import radiance
from radfield.networks import mlp
from radfield.training.adam import Adam

SMALL = hash_grid.Config(levels=4, log2_size=8, base_resolution=3, growth=1.7)


@pytest.mark.parametrize(("log2_size", "count"), [(17, 3_597_776), (18, 6_481_360)])
def test_published_parameter_counts(log2_size, count):
    """HollowNeRF: 16 levels from 16 to 1024, a vertex more per axis, and networks 32-64-16 and 31-64-64-3."""
    grid = hash_grid.Config(16, 2, log2_size, growth=64 ** (1 / 15), border=True)
    encoding = Saliency(3, Config(grid, 64))
    density, color = mlp.MLP(32, 16, mlp.Config(64, 1)), mlp.MLP(31, 3, mlp.Config(64, 2))
    networks = density.weights.numel() + color.weights.numel()
    assert networks == 9_344
    assert sum(p.numel() for p in encoding.parameters()) + networks == count


def test_parameter_count_of_the_plain_grid():
    grid = hash_grid.Config(16, 2, 19, growth=64 ** (1 / 15), border=True)
    assert grid_levels(3, grid).entries * 2 + 9_344 == 11_487_072


def test_features_are_those_of_the_grid_times_the_mask():
    encoding = Saliency(3, Config(SMALL, 8), torch.Generator().manual_seed(1))
    torch.nn.init.normal_(encoding.mask.table)
    x = torch.rand(100, 3)
    p = encoding.mask(x)[:, :1].sigmoid()
    assert torch.allclose(encoding(x), p * encoding.masked(x), atol=1e-7)
    assert torch.allclose(encoding.saliency(x), p[:, 0])


@pytest.mark.parametrize("name", ["hash", "simplex", "probe", "vm", "composite"])
def test_masks_any_encoding(name):
    config = registry.config_of(name, levels=2, features=2, log2_size=8, base_resolution=4, finest_resolution=8)
    field = radiance.RadianceField(radiance.Config(grid=Config(config, 8), precision="bf16"))
    x = torch.rand(50, 3)
    density = field.density(x)
    assert density.shape == (50,) and (density >= 0).all()
    density.sum().backward()
    assert field.grid.mask.table.grad.isfinite().all() and (field.grid.mask.table.grad != 0).any()


def test_space_is_empty_where_the_mask_is_0():
    """The gate is 1 where features are, and takes the density away where they are not."""
    field = radiance.RadianceField(radiance.Config(grid=Config(SMALL, 8)), generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(field.grid.masked.table)
    x = torch.rand(100, 3)
    torch.nn.init.constant_(field.grid.mask.table, 20.0)
    encoded = field.encode(x)
    ungated = field.density_network(encoded, head=1)[1].squeeze(1).exp()
    assert torch.allclose(field.density(x), ungated, rtol=1e-5)
    torch.nn.init.constant_(field.grid.mask.table, -80.0)
    assert field.density(x).max() < 1e-6


def test_pruning_reaches_the_part_that_may_stay():
    """Where data want little of the mask, its mean goes to C, and what they want stays."""
    encoding = Saliency(2, Config(SMALL, 16, kept=0.1, rho=1e-3))
    optimizer = Adam(encoding.adam_groups())
    wanted = torch.rand(10, 2)
    means = []
    for step in range(500):
        (-1e-3 * encoding.saliency(wanted).sum()).backward()
        encoding.add_gradients()
        optimizer.step(lr=3e-2 * 0.1 ** (step / 500))
        means.append(float(encoding.mean()))
    assert means[0] > 0.4 and abs(means[-1] - 0.1) < 0.04
    assert encoding.saliency(wanted).min() > 0.9


def test_multiplier_and_gradient_are_those_of_the_penalty():
    """L + rho / 2 max(S - C, 0)^2 + gamma (S - C), differentiated by autograd."""
    encoding = Saliency(2, Config(SMALL, 6, kept=0.3, rho=0.5))
    encoding.adam_groups()
    torch.nn.init.normal_(encoding.mask.table)
    encoding.multiplier.fill_(0.2)
    g = encoding.mask.table.detach().clone().double().requires_grad_()
    excess = g[:36].sigmoid().mean() - 0.3
    (0.25 * excess.clamp(min=0) ** 2 + 0.2 * excess).backward()
    encoding.add_gradients()
    assert torch.allclose(encoding.mask.grad_into.double(), g.grad, atol=1e-7)
    assert torch.allclose(encoding.multiplier.double(), (0.2 + 0.5 * excess.detach()).clamp(min=0).float().double())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"resolution": 1}, "resolution is 1"),
        ({"kept": 0.0}, "kept is 0.0"),
        ({"kept": float("nan")}, "kept is nan"),
        ({"rho": -1.0}, "rho is -1.0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"grid": Config()}, "grid is Config; the rule: an encoding that is not masked"),
    ],
)
def test_refuses_options_out_of_range(changes, word):
    with pytest.raises(BadInput, match=word):
        Saliency(3, Config(**changes))
