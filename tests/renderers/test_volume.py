"""Volume rendering: laws of light that hold for any field, and agreement of the ways to render."""

import math

import pytest
import torch

from radfield import backend
from radfield.cameras import Cameras, look_at
from radfield.encodings import hash_grid
from radfield.fields.radiance import Config as FieldConfig
from radfield.fields.radiance import RadianceField
from radfield.rays import Rays
from radfield.renderers import volume
from radfield.renderers.composite import composite_raw
from radfield.sampling.march import march
from radfield.sampling.occupancy import Config as GridConfig
from radfield.sampling.occupancy import OccupancyGrid

STEP = 1 / 128


class ConstantField:
    """Density and colour the same everywhere: opacity and colour of a ray are known in closed form."""

    def __init__(self, density, color=(0.2, 0.5, 0.9)):
        self.logit, self.colors = math.log(density), torch.logit(torch.tensor(color))

    def encode(self, x):
        return x.clone()

    def geometry(self, x, encoded=None):
        return torch.full((len(x),), self.logit), torch.zeros(len(x), 2)

    def color_logits(self, features, d):
        return self.colors.repeat(len(features), 1)


def grid_of(value, cascades=1):
    """A grid whose cells are all empty (0) or all occupied (1)."""
    grid = OccupancyGrid(GridConfig(resolution=32, cascades=cascades))
    grid.values.fill_(value)
    grid.refresh()
    return grid


class CloudyField(RadianceField):
    """Denser here and thinner there than random weights make it: some rays end, some go through."""

    def geometry(self, x, encoded=None):
        logit, features = super().geometry(x, encoded)
        return 4 * logit + 1, features


def small_field():
    generator = torch.Generator().manual_seed(0)
    grid = hash_grid.Config(levels=4, features=2, log2_size=10, base_resolution=4)
    field = CloudyField(FieldConfig(grid=grid), 1, generator)
    with torch.no_grad():
        field.grid.table.copy_(torch.randn(field.grid.table.shape, generator=generator))
    return field


def rays_through(n, seed=0):
    """Rays from outside through the unit cube."""
    generator = torch.Generator().manual_seed(seed)
    towards = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    origins = 0.5 + 2 * towards
    targets = 0.25 + 0.5 * torch.rand(n, 3, generator=generator)
    return Rays(origins, torch.nn.functional.normalize(targets - origins, dim=1))


def cameras_around(size=(16, 12), count=2):
    angle = torch.arange(count) * 2.0
    origins = torch.stack([0.5 + 2 * angle.cos(), 0.5 + 2 * angle.sin(), torch.full((count,), 0.9)], 1)
    return Cameras(
        camera_to_world=look_at(origins, torch.full((3,), 0.5), torch.tensor([0.0, 0.0, 1.0])),
        focal=torch.full((count, 2), 18.0),
        principal=torch.tensor([[s / 2 for s in size]] * count),
        size=torch.tensor([size] * count),
        distortion=torch.zeros(count, 6),
    )


CONFIG = volume.Config(step=STEP)


def test_empty_space_shows_the_background_exactly():
    background = torch.rand(50, 3)
    color, opacity, depth = volume.render_rays(small_field(), grid_of(0.0), rays_through(50), background, CONFIG)
    assert torch.equal(color, background)
    assert not opacity.any() and not depth.any()


def test_rays_that_miss_show_the_background_exactly():
    away = Rays(torch.full((5, 3), 3.0), torch.nn.functional.normalize(torch.ones(5, 3), dim=1))
    background = torch.tensor([0.1, 0.7, 0.3])
    color, opacity, _ = volume.render_rays(ConstantField(50.0), grid_of(1.0), away, background, CONFIG)
    assert torch.equal(color, background.expand(5, 3)) and not opacity.any()


@pytest.mark.parametrize("density", [0.3, 3.0, 300.0])
def test_a_constant_field_has_the_analytic_opacity(density):
    # Along an axis through the unit cube: 1 / STEP whole steps, each in the cube.
    y = torch.linspace(0.1, 0.9, 7)
    rays = Rays(torch.stack([torch.full((7,), -1.0), y, y], 1), torch.tensor([[1.0, 0.0, 0.0]]).repeat(7, 1))
    field, background = ConstantField(density), torch.tensor([1.0, 0.0, 0.5])
    color, opacity, depth = volume.render_rays(field, grid_of(1.0), rays, background, CONFIG)
    seen = 1 - math.exp(-density)
    expected = seen * field.colors.sigmoid() + (1 - seen) * background
    tolerance = max(CONFIG.stop, density * STEP * math.exp(-density))  # one step more or less at the far side
    torch.testing.assert_close(opacity, torch.full((7,), seen), rtol=0, atol=tolerance)
    torch.testing.assert_close(color, expected.expand(7, 3), rtol=0, atol=tolerance)
    # The mean of t under the weights: 1/density less what lies beyond the cube, counted from the camera at -1.
    mean = 1 + 1 / density - math.exp(-density) / seen
    torch.testing.assert_close(depth, torch.full((7,), mean), rtol=0, atol=2 * STEP)


@pytest.mark.parametrize("stop", [1e-4, 1e-2])
def test_a_few_samples_at_a_time_equal_all_at_once(stop):
    field, grid, rays = small_field(), grid_of(1.0), rays_through(200)
    background = torch.rand(200, 3)
    config = volume.Config(step=STEP, stop=stop)
    with torch.no_grad():
        samples = march(rays, grid, step=STEP)
        logit, features = field.geometry(samples.x)
        colors = field.color_logits(features, samples.directions)
        whole = composite_raw(
            logit, colors, samples.t_start, samples.t_end, samples.ray_start, background=background, stop=0.0
        )
    color, opacity, depth = volume.render_rays(field, grid, rays, background, config)
    assert opacity.min() < 0.9 < opacity.max()
    tolerance = {"rtol": 0, "atol": 1.01 * stop + 1e-5}
    torch.testing.assert_close(color, whole.color, **tolerance)
    torch.testing.assert_close(opacity, whole.opacity, **tolerance)
    torch.testing.assert_close(depth * opacity, whole.depth, rtol=0, atol=4 * stop + 1e-4)


def test_training_and_rendering_agree():
    """A training render differs by its jitter and by what it leaves behind the end of a ray."""
    field, grid, rays, background = small_field(), grid_of(1.0), rays_through(100), torch.rand(100, 3)
    fine = volume.Config()
    with torch.no_grad():
        render = volume.render_training(field, grid, rays, background, fine, 3, volume.TrainingBuffers(1 << 18))
    color = volume.render_rays(field, grid, rays, background, fine)[0]
    assert render.rays == 100 and 0 < render.live <= render.marched
    torch.testing.assert_close(render.color, color, rtol=0, atol=0.02)


def test_a_full_buffer_leaves_the_last_rays_out():
    field, grid, rays, background = small_field(), grid_of(1.0), rays_through(100), torch.rand(100, 3)
    whole = volume.render_training(field, grid, rays, background, CONFIG, 3, volume.TrainingBuffers(1 << 16))
    part = volume.render_training(field, grid, rays, background, CONFIG, 3, volume.TrainingBuffers(whole.marched // 2))
    assert 0 < part.rays < 100 and part.marched < whole.marched
    torch.testing.assert_close(part.color, whole.color[: part.rays])


def test_gradients_reach_every_parameter():
    field, grid, rays = small_field(), grid_of(1.0), rays_through(200)
    render = volume.render_training(field, grid, rays, torch.rand(200, 3), CONFIG, 0, volume.TrainingBuffers(1 << 16))
    render.color.square().mean().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_native_equals_reference():
    rays, background = rays_through(40), torch.rand(40, 3)
    results = []
    for name in ("cpu", "reference"):
        with backend.use(name):
            field, grid = small_field(), grid_of(1.0)
            rendered = volume.render_rays(field, grid, rays, background, CONFIG)
            render = volume.render_training(field, grid, rays, background, CONFIG, 0, volume.TrainingBuffers(1 << 14))
            render.color.sum().backward()
            gradients = [parameter.grad for parameter in field.parameters()]
            results.append([*rendered, render.color.detach(), *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)


def test_the_same_bits_with_any_number_of_threads(threads):
    field, grid, rays, background = small_field(), grid_of(1.0), rays_through(500), torch.rand(500, 3)
    for one, other in threads(lambda: volume.render_rays(field, grid, rays, background, CONFIG)):
        assert torch.equal(one, other)


def test_nothing_nearer_than_near_is_seen():
    rays = Rays(torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]]))
    config = volume.Config(step=STEP, near=1.75)
    _, opacity, depth = volume.render_rays(ConstantField(4.0), grid_of(1.0), rays, torch.zeros(3), config)
    assert opacity.item() == pytest.approx(1 - math.exp(-1.0), abs=0.03)
    assert depth.item() > 1.75


def test_far_ends_a_ray():
    rays = Rays(torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]]), None, torch.tensor([1.25]))
    _, opacity, depth = volume.render_rays(ConstantField(4.0), grid_of(1.0), rays, torch.zeros(3), CONFIG)
    assert opacity.item() == pytest.approx(1 - math.exp(-1.0), abs=0.03)
    assert depth.item() < 1.25


def test_a_view_is_its_rays(monkeypatch):
    field, grid, cameras = small_field(), grid_of(1.0), cameras_around()
    background = torch.tensor([0.2, 0.4, 0.6])
    whole = volume.render_view(field, grid, cameras, 1, background, CONFIG)
    assert whole.color.shape == (12, 16, 3) and whole.opacity.shape == whole.depth.shape == (12, 16)
    color, opacity, _ = volume.render_rays(field, grid, cameras.image_rays(1), background, CONFIG)
    torch.testing.assert_close(whole.color, color.view(12, 16, 3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.opacity, opacity.view(12, 16), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(volume, "RAYS_PER_CALL", 50)
    parts = volume.render_view(field, grid, cameras, 1, background, CONFIG)
    assert torch.equal(parts.color, whole.color) and torch.equal(parts.depth, whole.depth)
