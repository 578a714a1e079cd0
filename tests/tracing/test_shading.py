"""Light: both implementations, and what the equations promise."""

import pytest
import torch
from checks import OpCase, check_op

from radfield.srgb import decode_srgb, encode_srgb
from radfield.tracing.shading import AMBIENT, Light, shade, sky

LIGHT = Light().table()
GLOSS = torch.tensor([[0.0, 10.0, 0.0], [0.5, 40.0, 0.0], [0.2, 80.0, 0.3]])


def unit(n: int, generator) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


def inputs(n: int, generator) -> dict:
    return dict(
        albedo=torch.rand(n, 3, generator=generator),
        normal=unit(n, generator),
        directions=unit(n, generator),
        visible=torch.rand(n, generator=generator),
        index=torch.randint(0, 3, (n,), generator=generator, dtype=torch.int32),
    )


def test_shade_agrees_with_reference():
    def function(**given):
        return shade(**given, gloss=GLOSS, light=LIGHT)

    check_op(OpCase(function, function, inputs, wrong_dtype=("albedo", "normal"), rtol=1e-4, atol=1e-5))


def test_sky_agrees_with_reference():
    def function(directions):
        return sky(directions, LIGHT)

    check_op(OpCase(function, function, lambda n, g: dict(directions=unit(n, g)), wrong_dtype=("directions",)))


def one(normal, direction, visible=1.0, index=0) -> torch.Tensor:
    row = [torch.nn.functional.normalize(torch.tensor([v]), dim=-1) for v in (normal, direction)]
    given = dict(visible=torch.tensor([visible]), index=torch.tensor([index], dtype=torch.int32))
    return decode_srgb(shade(torch.full((1, 3), 0.5), *row, gloss=GLOSS, light=LIGHT, **given))[0]


def test_a_matt_surface_looks_the_same_from_everywhere_and_follows_the_cosine():
    up, views = (0.0, 0.0, 1.0), ((0.0, 0.0, -1.0), (0.6, 0.0, -0.8))
    assert torch.equal(one(up, views[0]), one(up, views[1]))
    sun = LIGHT[1] * LIGHT[0, 2]
    expected = 0.5 * (AMBIENT[1] + sun)
    torch.testing.assert_close(one(up, views[0]), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(one(up, views[0], visible=0.0), torch.full((3,), 0.5 * AMBIENT[1]), atol=1e-4, rtol=0)
    below = one((0.0, 0.0, -1.0), (0.0, 0.0, 1.0))
    torch.testing.assert_close(below, torch.full((3,), 0.5 * AMBIENT[0]), atol=1e-4, rtol=0)


def test_a_highlight_is_seen_in_the_mirror_direction_only():
    up, sun = torch.tensor([0.0, 0, 1]), LIGHT[0]
    towards_mirror = sun - 2 * (sun @ up) * up  # a view along it is mirrored to the sun
    glint = one(up.tolist(), (-towards_mirror * torch.tensor([-1.0, -1, -1])).tolist(), index=1)
    elsewhere = one(up.tolist(), (0.8, 0.0, -0.6), index=1)
    assert (glint - elsewhere).min() > 0.2
    torch.testing.assert_close(elsewhere, one(up.tolist(), (0.8, 0.0, -0.6)), atol=1e-3, rtol=0)


def test_srgb_there_and_back():
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(decode_srgb(encode_srgb(x)), x, atol=1e-7, rtol=0)
    assert encode_srgb(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([0.0, 1.0])
    assert encode_srgb(torch.tensor(0.5)).item() == pytest.approx(0.735357, abs=1e-5)


def test_the_sky_is_brightest_at_the_horizon():
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, -1]])
    color = decode_srgb(sky(directions, LIGHT))
    torch.testing.assert_close(color, LIGHT[[3, 2, 4]], atol=1e-5, rtol=0)
