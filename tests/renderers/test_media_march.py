"""Ray marching of a field's medium in one pass gives what one stage after another gives."""

import dataclasses
import math

import pytest
import torch
from checks import EMULATES
from cuda_emulator.backend import SCHEDULES, emulator

from radfield import backend
from radfield.encodings.dense_grid import Config as DenseConfig
from radfield.encodings.hash_grid import Config
from radfield.errors import BadInput
from radfield.fields.values import Config as FieldConfig
from radfield.fields.values import ValueField
from radfield.rays import Rays
from radfield.renderers.media import Environment, FieldMedium, march

BOX = torch.tensor([[0.0, 0, 0], [1, 0.8, 0.6]])
GRIDS = {"hash": Config(4, 2, log2_size=10), "dense": DenseConfig(3, 4)}
SKY = Environment()


def medium_of(kind="hash", channels=4, precision="f32"):
    """Empty here, thick there."""
    field = ValueField(3, FieldConfig(grid=GRIDS[kind], channels=channels, width=16, precision=precision))
    with torch.no_grad():
        field.grid.table.normal_()
        field.network.weights.mul_(2)
    field.grid.loaded()
    return FieldMedium(field, 12.0)


def rays_through(pixels=23):
    """Of a camera that sees all of the box and what is beside it; three along the axes."""
    side = torch.linspace(-0.4, 0.4, pixels)
    towards = torch.stack([torch.ones(pixels, pixels), side.expand(pixels, -1), side[:, None].expand(-1, pixels)], 2)
    directions = torch.nn.functional.normalize(towards.view(-1, 3), dim=1)
    directions[:3] = torch.eye(3)
    return Rays(torch.tensor([[-1.5, 0.35, 0.25]]).expand(len(directions), 3), directions)


def both(medium, rays, **options):
    options = {"steps": 20, "light_directions": 5, "light_steps": 3, **options}
    return march(medium, BOX, rays, SKY, **options), march(lambda x: medium(x), BOX, rays, SKY, **options)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize(("kind", "channels"), [("hash", 4), ("dense", 1)])
def test_agrees_with_one_stage_after_another(kind, channels, precision):
    ours, theirs = both(medium_of(kind, channels, precision), rays_through(), g=0.4)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    seen = (theirs - SKY.radiance(rays_through().directions)).abs().amax(1) > 0.02
    assert 0.1 < seen.float().mean() < 0.95


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(
    ("order", "channels", "precision"), [*((order, 4, "f32") for order in SCHEDULES), (0, 1, "bf16")]
)
def test_on_cuda_it_agrees_with_the_cpu(order, channels, precision):
    medium, rays = medium_of("hash", channels, precision), rays_through(7)
    options = {"steps": 5, "light_directions": 2, "light_steps": 2, "g": 0.4}
    theirs = march(medium, BOX, rays, SKY, **options)
    emulator.order = order
    with backend.use(backend.EMULATED):
        ours = march(medium, BOX, rays, SKY, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 if precision == "f32" else 2e-2)
    assert ((theirs - SKY.radiance(rays.directions)).abs().amax(1) > 0.02).float().mean() > 0.1


def test_agrees_with_plain_torch():
    medium, rays = medium_of(), rays_through(11)
    ours, _ = both(medium, rays, least=0.0)
    with backend.use("reference"):
        theirs, _ = both(medium, rays, least=0.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_more_steps_to_the_light_than_a_batch_has():
    medium, rays = medium_of(), rays_through(5)
    ours, theirs = both(medium, rays, steps=3, light_directions=1, light_steps=1500)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_ray_does_not_depend_on_the_others(threads):
    medium, rays = medium_of(), rays_through(40)
    options = {"steps": 12, "light_directions": 2, "light_steps": 2}
    whole = march(medium, BOX, rays, SKY, **options)
    assert torch.equal(march(medium, BOX, rays, SKY, width=40, **options), whole)
    order = torch.randperm(len(rays))[:77]
    assert torch.equal(march(medium, BOX, rays[order], SKY, **options), whole[order])
    for ours, expected in threads(lambda: (march(medium, BOX, rays, SKY, width=40, **options),)):
        assert torch.equal(ours, expected)


def test_absorption_is_exponential():
    """A field that is 1 everywhere, black under a white sky without a sun."""
    medium = medium_of()
    with torch.no_grad():
        medium.field.network.weights.zero_()
        medium.field.network.weights[-4:] = torch.tensor([1.0, 0, 0, 0])  # the last layer's bias
    white = Environment((1, 1, 1), (1, 1, 1), (1, 1, 1), sun_color=(0, 0, 0))
    along = Rays(torch.tensor([[0.5, 0.4, -1.0]]), torch.tensor([[0.0, 0, 1]]))
    found = march(dataclasses.replace(medium, extinction=3.0), BOX, along, white)
    torch.testing.assert_close(found, torch.full((1, 3), math.exp(-3 * 0.6)), rtol=1e-5, atol=1e-6)


def test_refuses_what_does_not_belong_together():
    medium, rays = medium_of(), rays_through(5)
    for name, value in (("width", 4), ("steps", 0), ("light_steps", 0), ("light_directions", 0)):
        with pytest.raises(BadInput, match=f"{name} is {value}"):
            march(medium, BOX, rays, SKY, **{name: value})


def test_nothing_to_meet():
    rays = rays_through()
    away = Rays(-rays.origins + 3, rays.directions)
    for some in (away, away[:0]):
        ours = march(medium_of(), BOX, some, SKY)
        torch.testing.assert_close(ours, SKY.radiance(some.directions), rtol=1e-5, atol=1e-5)
