"""Samples of a neural surface along rays: which of them are seen."""

import torch

from radfield import backend
from radfield.encodings import hash_grid
from radfield.encodings.slope_gradients import SlopeGradients
from radfield.fields import neural_surface
from radfield.fields.neural_surface import Config, NeuralSurface
from radfield.rays import Rays, Samples
from radfield.renderers import surface_volume


def through_the_sphere(rays=7, steps=300):
    """Rays through the middle of the unit cube, from 0.45 before it to 0.45 behind."""
    generator = torch.Generator().manual_seed(0)
    d = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=1)
    t = torch.linspace(-0.45, 0.45, steps + 1)
    x = 0.5 + d[:, None] * (0.5 * (t[1:] + t[:-1]))[None, :, None]
    streams = x.reshape(-1, 3).T.contiguous().T, d.repeat_interleave(steps, 0).T.contiguous().T
    starts = torch.arange(rays + 1, dtype=torch.int32) * steps
    return Samples(*streams, t[:-1].repeat(rays) + 1, t[1:].repeat(rays) + 1, starts)


def sphere(sharpness):
    grid = hash_grid.Config(levels=4, log2_size=10)
    config = Config(grid=grid, radius=0.2, sharpness=sharpness)
    return NeuralSurface(config, torch.Generator().manual_seed(0))


def test_what_lies_behind_the_surface_is_left_out():
    samples = through_the_sphere()
    kept = surface_volume.visible(sphere(1000.0), None, samples, 1e-4)
    assert kept.ray_count == samples.ray_count and 0 < len(kept) < 0.4 * len(samples)
    inside = 0.2 - (kept.x - 0.5).norm(dim=1)
    assert float(inside.max()) < 0.05 and float(inside.min()) < -0.2  # up to a little below the surface


def test_a_soft_surface_hides_nothing_in_front_of_it():
    samples = through_the_sphere()
    kept = surface_volume.visible(sphere(20.0), None, samples, 1e-4)
    assert len(kept) > 0.6 * len(samples)


def test_rays_see_the_same_without_the_hidden_samples():
    surface, samples = sphere(300.0), through_the_sphere()
    colors = []
    for seen in (samples, surface_volume.visible(surface, None, samples, 1e-4)):
        found = surface_volume.ask(surface, None, seen)
        colors.append(found.composited(1e-4))
    assert torch.allclose(colors[0].opacity, colors[1].opacity, atol=2e-3)
    assert torch.allclose(colors[0].color, colors[1].color, atol=2e-3)


def test_rays_without_samples_stay():
    whole = through_the_sphere(rays=2, steps=100)
    starts = torch.tensor([0, 0, 100, 100, 200], dtype=torch.int32)
    samples = Samples(whole.x, whole.directions, whole.t_start, whole.t_end, starts)
    kept = surface_volume.visible(sphere(1000.0), None, samples, 1e-4)
    count = kept.ray_start.diff()
    assert count[0] == count[2] == 0 and count[1] > 0 and count[3] > 0


def test_surroundings_count_with_their_density():
    class Fog:
        """Opaque where x > 1."""

        def geometry(self, x):
            return torch.full((len(x),), 14.0), None

    samples = through_the_sphere(rays=3, steps=100)
    moved = Samples(samples.x + 1.0, samples.directions, samples.t_start, samples.t_end, samples.ray_start)
    kept = surface_volume.visible(sphere(1000.0), Fog(), moved, 1e-4)
    assert kept.ray_count == 3 and int(kept.ray_start.diff().max()) <= 60
    first = moved.x[moved.ray_start[:-1].long()]
    fog = ((first < 0) | (first > 1)).any(1)
    assert bool((kept.ray_start.diff()[fog] <= 2).all())


def test_what_hardly_counts_is_left_out_and_rays_see_nearly_the_same():
    surface, samples = sphere(300.0), through_the_sphere()
    reached = surface_volume.visible(surface, None, samples, 1e-4)
    kept = surface_volume.visible(surface, None, samples, 1e-4, least=1e-3)
    assert kept.ray_count == samples.ray_count and 0 < len(kept) < 0.3 * len(reached)
    whole, part = (surface_volume.ask(surface, None, each).composited(1e-4) for each in (reached, kept))
    assert torch.allclose(whole.opacity, part.opacity, atol=1e-2)
    assert torch.allclose(whole.color, part.color, atol=1e-2)
    rows = {tuple(x) for x in reached.x.tolist()}
    assert all(tuple(x) in rows for x in kept.x.tolist())
    ray = kept.ray_index()
    assert torch.equal(kept.directions, samples.directions[ray * 300])


def test_rays_begin_where_they_enter_the_cube():
    origins = torch.tensor([[-1.0, 0.5, 0.5], [-1.0, 0.5, 0.5], [0.5, 0.5, 0.5], [2.0, 0.5, 0.5], [0.5, 1.0, -1.0]])
    d = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0], [0, 0, 1.0]])
    rays = Rays(origins, d)
    near = surface_volume.from_the_cube(rays).near
    assert near.tolist() == [1.0, 0.0, 0.0, 0.0, 1.0]  # misses, from within, away from it, along a face
    assert surface_volume.from_the_cube(rays, near=1.5).near.tolist() == [1.5] * 5


def test_samples_behind_others_stay_in_order():
    def samples(starts, first):
        count = starts[-1]
        t = first + torch.arange(count, dtype=torch.float32)
        return Samples(
            t[:, None].repeat(1, 3), -t[:, None].repeat(1, 3), t, t + 0.5, torch.tensor(starts, dtype=torch.int32)
        )

    joined = surface_volume.behind(samples([0, 2, 2, 3, 7], 0), samples([0, 1, 4, 4], 100))
    assert joined.ray_start.tolist() == [0, 3, 6, 7]  # of the rays that both have
    assert joined.t_start.tolist() == [0, 1, 100, 101, 102, 103, 2]
    assert torch.equal(joined.x[:, 1], joined.t_start) and torch.equal(joined.directions[:, 2], -joined.t_start)
    assert torch.equal(joined.t_end, joined.t_start + 0.5)


def test_extra_points_and_bends_have_the_gradients_of_automatic_differentiation():
    generator = torch.Generator().manual_seed(0)
    surface = sphere(50.0)
    surface.grid.grad_into = SlopeGradients(surface.grid.grid)
    with torch.no_grad():
        surface.grid.table.uniform_(-0.3, 0.3, generator=generator)
        for network in surface.networks:
            network.weights += 0.1 * torch.randn(network.weights.shape, generator=generator)
            network.grad_into = torch.zeros_like(network.weights)
    samples = through_the_sphere(rays=2, steps=50)
    partner, x = torch.randint(0, 100, (30,), generator=generator), torch.rand(40, 3, generator=generator)
    seen = surface_volume.ask(surface, None, samples, more=lambda _: surface_volume.Extra(x, partner))
    assert torch.equal(seen.composited(0.0).color, surface_volume.ask(surface, None, samples).composited(0.0).color)
    bend = torch.randn(3, 30, generator=generator)
    seen.sigma.grad, seen.rgb.grad = torch.zeros(100), torch.zeros(3, 100)
    surface_volume.backward(surface, seen, 0.7, bend)

    leaves = {"table": surface.grid.table, "sdf": surface.sdf_network.weights, "color": surface.color_network.weights}
    leaves = {k: v.detach().double().requires_grad_() for k, v in leaves.items()}
    at = torch.cat((samples.x, x)).double().requires_grad_()
    with backend.use("reference"):
        n = neural_surface.reference(surface, at, torch.zeros_like(at), leaves).normal
    loss = 0.7 * (n.norm(dim=1) - 1).square().sum() + ((n[partner] - n[100:130]) * bend.T).sum()
    table, sdf = torch.autograd.grad(loss, [leaves["table"], leaves["sdf"]])
    for ours, theirs in (
        (surface.grid.grad_into.gradient(surface.grid.table), table),
        (surface.sdf_network.grad_into, sdf),
    ):
        assert float((ours.double() - theirs).abs().max() / theirs.abs().max()) < 1e-4
    assert float(surface.color_network.grad_into.abs().max()) == 0.0
