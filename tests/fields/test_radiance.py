"""The radiance field: ranges, what its parts share, and that every parameter learns."""

import pytest
import torch

from radfield import backend
from radfield.encodings import hash_grid
from radfield.errors import BadInput
from radfield.fields.radiance import Config, RadianceField

GRID = hash_grid.Config(levels=4, features=2, log2_size=10, base_resolution=4)


def small_field(precision="f32", cascades=1, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    field = RadianceField(Config(grid=GRID, precision=precision, **options), cascades, generator)
    with torch.no_grad():  # a fresh table is almost zero, and its field the same everywhere
        field.grid.table.copy_(torch.randn(field.grid.table.shape, generator=generator) * 0.5)
    return field


def queries(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=generator)
    return x, torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_density_and_color_are_in_range(precision):
    field, (x, d) = small_field(precision), queries(500)
    density, color = field.density(x), field.color(x, d)
    assert density.shape == (500,) and color.shape == (500, 3)
    assert (density > 0).all() and density.std() > 0.01
    assert ((color >= 0) & (color <= 1)).all() and color.std() > 0.01


def test_queries_are_the_parts_that_renderers_use():
    field, (x, d) = small_field(), queries(100)
    logit, features = field.geometry(x)
    assert features.shape == (100, 16)
    assert torch.equal(logit, features[:, 0])
    assert torch.equal(field.features(x), features)
    assert torch.equal(field.density(x), logit.exp())
    assert torch.equal(field.color(x, d), field.color_logits(features, d).sigmoid())


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_features_found_earlier_change_nothing(precision):
    field, (x, _) = small_field(precision), queries(300)
    gradients = []
    for encoded in (None, field.encode(x).detach()):
        field.zero_grad()
        logit, features = field.geometry(x, encoded)
        (logit.sum() + features.square().sum()).backward()
        gradients.append((logit.detach(), field.grid.table.grad.clone()))
    (logit, grad), (logit_again, grad_again) = gradients
    assert torch.equal(logit, logit_again)
    torch.testing.assert_close(grad_again, grad)


def test_the_density_does_not_depend_on_the_direction_and_the_color_does():
    field, (x, d) = small_field(), queries(100)
    assert not torch.allclose(field.color(x, d), field.color(x, -d))


def test_gradients_reach_every_parameter():
    field, (x, d) = small_field(), queries(2000)
    (field.density(x).log().square().mean() + field.color(x, d).square().mean()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_native_equals_reference():
    field, (x, d) = small_field(), queries(257)
    results = []
    for name in ("cpu", "reference"):
        with backend.use(name):
            field.zero_grad()
            density, color = field.density(x), field.color(x, d)
            (density.log().sum() + color.sum()).backward()
            gradients = [parameter.grad.clone() for parameter in field.parameters()]
            results.append([density.detach(), color.detach(), *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_grid_spans_all_cascades():
    field = small_field(cascades=3)
    corners = torch.tensor([[0.5 - 2.0] * 3, [0.5] * 3, [0.5 + 2.0] * 3])
    assert torch.equal(field.grid_positions(corners), torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3]))
    one = small_field()
    assert torch.equal(one.density(queries(50)[0]), field.density((queries(50)[0] - 0.5) * 4 + 0.5))


def test_the_seed_makes_the_field():
    states = [small_field(seed=seed).density_network.weights for seed in (0, 0, 1)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize("options", [{"width": 1000}, {"degree": 9}, {"precision": "f64"}, {"features": 0}])
def test_options_out_of_range(options):
    with pytest.raises(BadInput):
        RadianceField(Config(grid=GRID, **options))
