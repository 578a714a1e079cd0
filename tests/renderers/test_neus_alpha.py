"""Density of a signed distance along a ray: agreement with the reference, and the laws of NeuS's opacity."""

import math

import pytest
import torch
from checks import OpCase, check_op

from radfield.errors import BadInput
from radfield.renderers.composite import composite
from radfield.renderers.neus_alpha import neus_alpha, neus_alpha_reference


def inputs(size, generator, annealed):
    def random(*shape):
        return torch.randn(*shape, generator=generator)

    t_start = torch.rand(size, generator=generator) * 3
    return {
        "f": random(size) * 0.1,
        "normal": random(size, 3),
        "logits": random(size, 3) * 2,
        "directions": torch.nn.functional.normalize(random(size, 3), dim=-1),
        "t_start": t_start,
        "t_end": t_start + 0.002 + 0.02 * torch.rand(size, generator=generator),
        "sharpness": torch.tensor([30.0]),
        "annealed": annealed,
    }


@pytest.mark.parametrize("annealed", [0.0, 0.3, 1.0])
def test_agrees_with_reference(annealed):
    check_op(
        OpCase(
            neus_alpha,
            neus_alpha_reference,
            lambda size, generator: inputs(size, generator, annealed),
            gradients=("f", "normal", "logits", "sharpness"),
            outputs=tuple,
            wrong_dtype=("f", "normal", "t_start"),
            rtol=1e-4,
        )
    )


def plane(sharpness, annealed=1.0, tilt=0.0, steps=400):
    """A ray through the plane z = 0, from t = 0 to 2, the plane at t = 1 / cos(tilt)."""
    t = torch.linspace(0, 2, steps + 1)
    middle = 0.5 * (t[1:] + t[:-1])
    d = torch.tensor([math.sin(tilt), 0.0, -math.cos(tilt)])
    z = 1 + middle * d[2]
    normal = torch.tensor([0.0, 0, 1]).expand(steps, 3)
    found = neus_alpha(
        z,
        normal,
        torch.zeros(steps, 3),
        d.expand(steps, 3),
        t[:-1],
        t[1:],
        sharpness=torch.tensor([sharpness]),
        annealed=annealed,
    )
    ends = torch.tensor([0, steps], dtype=torch.int32)
    return found, composite(found.sigma, found.rgb, t[:-1], t[1:], ends, stop=0.0)


@pytest.mark.parametrize("tilt", [0.0, 0.7])
def test_a_plane_is_seen_where_it_is(tilt):
    # NeuS, sec. 3.1: unbiased, the weights peak at the zero level; their integral is 1 - Phi(f_end) / Phi(f_start)
    _, seen = plane(200.0, tilt=tilt)
    assert abs(float(seen.depth / seen.opacity) - 1 / math.cos(tilt)) < 5e-3
    assert abs(float(seen.opacity) - 1) < 1e-4
    assert abs(int(seen.weights.argmax()) * 0.005 - 1 / math.cos(tilt)) < 0.02


def test_opacity_telescopes():
    # products of Phi(f_next) / Phi(f_prev) along a ray through a plane leave the ends alone, whatever the steps
    for steps in (7, 400):
        _, seen = plane(5.0, steps=steps)
        expected = 1 - torch.sigmoid(torch.tensor(-5.0)) / torch.sigmoid(torch.tensor(5.0))
        assert abs(float(seen.opacity) - float(expected)) < 1e-5


def test_a_surface_left_behind_is_transparent():
    m = 50
    t = torch.linspace(0, 1, m + 1)
    f = 0.5 * (t[1:] + t[:-1]) - 0.5  # rising: the ray leaves the inside
    d = torch.tensor([[0.0, 0, 1]]).expand(m, 3)
    found = neus_alpha(f, d, torch.zeros(m, 3), d, t[:-1], t[1:], sharpness=torch.tensor([100.0]))
    assert float(found.sigma.abs().max()) == 0


def test_deep_inside_nothing_is_lost():
    # Phi is 0 in float32 on both sides; the optical depth is s k dt all the same
    one = torch.ones(1)
    d = torch.tensor([[0.0, 0, -1]])
    found = neus_alpha(-10 * one, -d, torch.zeros(1, 3), d, 0 * one, 0.01 * one, sharpness=torch.tensor([500.0]))
    assert torch.allclose(found.sigma, 500 * one, rtol=1e-4)


def test_gradient_by_the_cosine_while_annealing():
    # (1 - a) / 2 + a for c < 0, (1 - a) / 2 for 0 <= c < 1, 0 beyond (gradients longer than 1)
    a, s, dt = 0.3, 20.0, 0.01
    for c, slope in ((-0.5, (1 - a) / 2 + a), (0.5, (1 - a) / 2), (1.5, 0.0)):
        normal = torch.tensor([[0.0, 0, c]], requires_grad=True)
        d = torch.tensor([[0.0, 0, 1]])
        found = neus_alpha(
            torch.zeros(1),
            normal,
            torch.zeros(1, 3),
            d,
            torch.zeros(1),
            torch.full((1,), dt),
            sharpness=torch.tensor([s]),
            annealed=a,
        )
        (grad,) = torch.autograd.grad(found.sigma.sum(), normal)
        k = max(0.5 - c / 2, 0) * (1 - a) + max(-c, 0) * a
        half = s * k * dt / 2
        by_k = s / 2 * (torch.sigmoid(torch.tensor(-half)) + torch.sigmoid(torch.tensor(half)))
        assert abs(float(grad[0, 2]) + slope * float(by_k)) < 1e-4 * s


def test_annealing_out_of_range_is_refused():
    with pytest.raises(BadInput, match=r"annealed is 1\.5"):
        neus_alpha(**inputs(3, torch.Generator().manual_seed(0), 1.5))
