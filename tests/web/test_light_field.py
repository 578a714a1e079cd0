"""A network that answers once per ray."""

import pytest
import torch

from radfield.networks.mlp import mlp_reference
from radfield.rays import Rays
from radfield.web.light_field import Config, LightField, fit
from radfield.web.network_texels import layer_sizes, texels

CENTRE, RADIUS = torch.tensor([0.5, 0.4, 0.6]), 0.3
SMALL = Config(width=16, layers=2, points=3, frequencies=2)


@pytest.fixture
def field():
    return LightField(SMALL, CENTRE, RADIUS)


def towards(count=200, spread=0.25):
    origins = CENTRE + 2 * torch.nn.functional.normalize(torch.randn(count, 3), dim=1)
    directions = torch.nn.functional.normalize(CENTRE + spread * torch.randn(count, 3) - origins, dim=1)
    return Rays(origins, directions)


def test_the_chord_ends_on_the_ball(field):
    rays = towards()
    near, far, hit = field.chord(rays)
    distance = torch.linalg.cross(rays.origins - CENTRE, rays.directions).norm(dim=1)
    assert 10 < hit.sum() < 190 and torch.equal(hit, distance < RADIUS)
    for t in (near, far):
        ends = rays.origins + t[:, None] * rays.directions
        torch.testing.assert_close((ends - CENTRE).norm(dim=1)[hit], torch.full((int(hit.sum()),), RADIUS))
    assert (near < far)[hit].all()


def test_rays_along_one_line_are_one_ray(field):
    rays = towards()
    nearer = Rays(rays.origins + 0.7 * rays.directions, rays.directions)
    torch.testing.assert_close(field(nearer, exact=True), field(rays, exact=True), atol=1e-4, rtol=0)


def test_what_misses_the_ball_or_lies_behind_is_nothing(field):
    rays = towards()
    away = Rays(rays.origins, -rays.directions)
    assert (field(away) == 0).all()
    assert (field(rays)[~field.chord(rays)[2]] == 0).all() and field(rays).any()


def test_texels_hold_the_network(field):
    """As a shader goes through them: 4 outputs and 4 inputs at a time."""
    inputs, hit = field.inputs(towards())
    packed, base, h = texels(field.network).float(), 0, inputs
    sizes = layer_sizes(field.network)
    assert sizes == [[45, 16], [16, 16], [16, 4]] and hit.any()
    for i, (a, b) in enumerate(sizes):
        columns, rows = -(-a // 4), -(-b // 4)
        h = torch.nn.functional.pad(h, (0, -a % 4))
        blocks = packed[base : base + 4 * rows * columns].view(rows, 4 * columns, 4)
        bias = packed[base + 4 * rows * columns :][:rows].flatten()[:b]
        h = torch.einsum("mi,rio->mro", h, blocks).flatten(1)[:, :b] + bias
        h = h if i == len(sizes) - 1 else h.relu()
        base += 4 * rows * columns + rows
    assert base == len(packed)
    expected = mlp_reference(inputs, None, field.network.weights.detach(), field.network.layers)
    torch.testing.assert_close(h, expected, atol=2e-3, rtol=2e-3)


def test_it_learns_a_ball():
    field = LightField(Config(width=32, layers=3, points=4, frequencies=2), CENTRE, RADIUS)
    inner = torch.tensor([0.1, 0.0, 0.0]) + CENTRE

    def batch(step):
        torch.manual_seed(step)
        rays = towards(2048, 0.12)
        seen = torch.linalg.cross(rays.origins - inner, rays.directions).norm(dim=1) < 0.12
        return rays, torch.tensor([0.8, 0.3, 0.1, 1.0]) * seen[:, None]

    errors = []
    steps = fit(field, batch, lambda step: step / 150, lambda step, loss: errors.append(loss))
    assert steps == 150 and sum(errors[-10:]) / 10 < 0.6 * batch(0)[1].var(0).mean()  # of the mean colour everywhere
    half = field.network.weights.detach().half().float()
    assert torch.equal(field.network.weights.detach(), half)  # as a page reads them
