"""One-blob, triangle wave and composite encodings; the registry."""

import math

import pytest
import torch

from radfield.encodings import composite, frequency, hash_grid, one_blob, registry, simplex, triangle_wave
from radfield.encodings.composite import Composite, Part
from radfield.errors import BadInput


def test_one_blob_is_the_mass_of_each_bin():
    x = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    encoded = one_blob.one_blob(x, 8).view(2, 8)
    bins = torch.linspace(0, 1, 80_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((bins - x.T) * 8) ** 2) * 8 / math.sqrt(2 * math.pi)
    mass = torch.stack(
        [torch.trapezoid(density[:, 10_000 * k : 10_000 * k + 10_001], dx=1 / 80_000) for k in range(8)], 1
    )
    assert torch.allclose(encoded, mass, atol=1e-8)
    assert encoded.argmax(1)[1] in (1, 2)
    assert torch.allclose(encoded[0], encoded[0].flip(0))


def test_triangle_wave_has_its_corners():
    x = torch.tensor([[0.0], [0.25], [0.5], [1.0]])
    assert triangle_wave.triangle_wave(x, 2).tolist() == [[-1, -1], [0, 1], [1, -1], [-1, -1]]


@pytest.mark.parametrize("function", [one_blob.one_blob, triangle_wave.triangle_wave])
def test_gradcheck(function):
    x = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    torch.autograd.gradcheck(lambda x: function(x, 4), (x,))
    assert function(x.detach()[:0], 4).shape == (0, 12)


@pytest.mark.parametrize("module", [one_blob, triangle_wave])
def test_options_out_of_range(module):
    function = module.one_blob if module is one_blob else module.triangle_wave
    with pytest.raises(BadInput, match="is 0"):
        function(torch.zeros(1, 3), 0)
    with pytest.raises(BadInput, match=r"\[4\]"):
        function(torch.zeros(4), 4)


def test_composite_is_its_parts_side_by_side():
    grid = hash_grid.Config(3, 2, 8, 4, 1.6)
    config = composite.Config((Part(grid, (0, 2)), Part(triangle_wave.Config(4)), Part(simplex.Config(2, 4, 8), None)))
    encoding = Composite(3, config)
    x = torch.rand(50, 3)
    ours = encoding(x)
    planes, waves, lattice = encoding.parts
    expected = [planes(x[:, [0, 2]]), waves(x), lattice(x)]
    assert torch.equal(ours, torch.cat(expected, 1)) and encoding.channels == ours.shape[1] == 6 + 12 + 8
    ours.sum().backward()
    assert planes.table.grad.abs().sum() > 0 and lattice.table.grad.abs().sum() > 0
    again = encoding(x, ours.detach())
    assert torch.equal(again, ours)


def test_composite_refuses():
    for config, word in [(composite.Config(()), "empty"), (composite.Config((Part(one_blob.Config(), (3,)),)), "axes")]:
        with pytest.raises(BadInput, match=word):
            Composite(3, config)
    with pytest.raises(BadInput, match="Config of a registered"):
        Composite(3, composite.Config((Part(frequency.Config()),)))


SIZES = {"levels": 4, "features": 2, "log2_size": 10, "base_resolution": 4, "finest_resolution": 128}


@pytest.mark.parametrize("name", registry.ENCODINGS)
def test_every_encoding_learns_in_its_adam_groups(name):
    from radfield.training.adam import Adam

    config = registry.config_of(name, **SIZES)
    generator = torch.Generator().manual_seed(0)
    encoding = registry.build(3, config, generator)
    x = torch.rand(3, 1000, generator=generator).T
    target = torch.sin(7 * x).prod(1)
    mix = torch.randn(encoding.channels, generator=generator)
    groups = encoding.adam_groups()
    if not groups:  # nothing to learn
        assert not list(encoding.parameters())
        return
    assert sum(g["parameter"].numel() for g in groups) == sum(p.numel() for p in encoding.parameters())
    optimizer, losses = Adam(groups), []
    for _ in range(25):
        loss = (encoding(x).float() @ mix - target).square().mean()
        loss.backward()
        optimizer.step(lr=1e-2)
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match="encoding is 'hush'"):
        registry.config_of("hush")
    with pytest.raises(BadInput, match="Config"):
        registry.build(3, frequency.Config())
