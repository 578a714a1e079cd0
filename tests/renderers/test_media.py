"""Light in media: closed forms, and agreement of the two renderers where both are exact."""

import math

import pytest
import torch

from radfield.rays import Rays
from radfield.renderers.media import Environment, crossing, delta_track, march, phase, scattered, sphere_directions

BOX = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
WHITE = Environment((1, 1, 1), (1, 1, 1), (1, 1, 1), sun_color=(0, 0, 0))


def uniform(sigma, albedo):
    return lambda x: (x.new_full((len(x),), sigma), x.new_full((1, 3), albedo))


def towards_the_middle(count):
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    return Rays(0.5 - 2 * directions, directions)


def along_z(count=1):
    return Rays(torch.tensor([[0.5, 0.5, -1.0]]).repeat(count, 1), torch.tensor([[0.0, 0, 1]]).repeat(count, 1))


@pytest.mark.parametrize("g", [-0.5, 0.0, 0.7])
def test_white_furnace(g):
    """Without absorption under the same light from everywhere, the medium is invisible: to the bit."""
    color = delta_track(uniform(3.0, 1.0), 5.0, BOX, towards_the_middle(500), WHITE, g=g, most_scatterings=10_000)
    assert torch.equal(color, torch.ones(500, 3))


def test_absorption_is_exponential():
    expected = math.exp(-3)
    color = delta_track(uniform(3.0, 0.0), 7.0, BOX, along_z(40_000), WHITE)
    assert abs(color.mean() - expected) < 5 * math.sqrt(expected / 40_000)
    torch.testing.assert_close(march(uniform(3.0, 0.0), BOX, along_z(), WHITE), torch.full((1, 3), expected))


def test_thin_media_scatter_once_as_both_renderers_say():
    """Of a thin medium orders above the first are negligible: tracking converges to the march."""
    sky = Environment(sharpness=4.0)

    def medium(x):
        return 0.08 * x[:, 0], x.new_tensor([[0.9, 0.5, 0.2]])

    exact = march(medium, BOX, along_z(), sky, steps=64, light_directions=512, light_steps=8, g=0.3, least=0.0)
    found = delta_track(medium, 0.08, BOX, along_z(200_000), sky, g=0.3).mean(0)
    behind = sky.radiance(torch.tensor([[0.0, 0, 1]]))
    torch.testing.assert_close(found - behind[0], (exact - behind)[0], rtol=0.05, atol=0.004)


def test_phase_functions():
    directions = sphere_directions(20_000)
    for g in (-0.4, 0.0, 0.8):
        p = phase(directions[:, 2], g)
        assert abs(p.mean() - 1) < 1e-3
        assert abs((p * directions[:, 2]).mean() - g) < 1e-3
        u, v = torch.rand(2, 50_000, generator=torch.Generator().manual_seed(1))
        w = torch.tensor([[0.6, 0.0, -0.8]]).repeat(50_000, 1)
        drawn = scattered(w, u, v, g)
        assert abs((drawn * w).sum(1).mean() - g) < 0.01
        torch.testing.assert_close(drawn.norm(dim=1), torch.ones(50_000))


def test_rays_that_miss_see_the_sky():
    rays = Rays(torch.tensor([[3.0, 3, 3]]), torch.tensor([[1.0, 0, 0]]))
    sky = Environment()
    for color in (delta_track(uniform(5.0, 1.0), 5.0, BOX, rays, sky), march(uniform(5.0, 1.0), BOX, rays, sky)):
        assert torch.equal(color, sky.radiance(rays.directions))
    near, far = crossing(rays.origins, rays.directions, BOX)
    assert near >= far


def test_the_same_seed_gives_two_media_the_same_numbers():
    rays = towards_the_middle(300)
    one, two = (delta_track(uniform(4.0, 0.9), 6.0, BOX, rays, Environment(), seed=s) for s in (3, 3))
    assert torch.equal(one, two)
    other = delta_track(uniform(4.0, 0.9), 6.0, BOX, rays, Environment(), seed=4)
    assert not torch.equal(one, other)


def test_nothing_at_all():
    empty = Rays(torch.zeros(0, 3), torch.zeros(0, 3))
    assert delta_track(uniform(1.0, 1.0), 1.0, BOX, empty, WHITE).shape == (0, 3)
    rays = towards_the_middle(5)
    assert torch.equal(delta_track(uniform(0.0, 1.0), 0.0, BOX, rays, WHITE), torch.ones(5, 3))
