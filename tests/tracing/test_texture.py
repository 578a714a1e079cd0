"""Procedural textures: both implementations, and what patterns promise."""

import pytest
import torch
from checks import OpCase, check_op

from radfield.errors import BadInput
from radfield.tracing.solids import Shape, Solids
from radfield.tracing.texture import PATTERNS, Material, Textures, noise, octaves, pattern_weight, texture

COLORS = ((0.1, 0.2, 0.3), (0.8, 0.7, 0.6))


def textures(**options) -> Textures:
    materials = [Material(name, COLORS, 3.0, **options) for name in PATTERNS]
    shapes = [Shape("sphere", (1.0,), (0.1 * i, 0.2, 0.3)) for i in range(len(PATTERNS))]
    return Textures.of(materials, Solids.of(shapes).placement)


def inputs(n: int, generator) -> dict:
    return dict(
        x=torch.randn(n, 3, generator=generator),
        width=0.1 * torch.rand(n, generator=generator),
        index=torch.randint(-1, len(PATTERNS), (n,), generator=generator, dtype=torch.int32),
    )


def test_native_agrees_with_reference():
    tables = textures(detail=0.5, detail_frequency=4.0)

    def function(x, width, index):
        return texture(tables, x, width, index)

    check_op(OpCase(function, function, inputs, wrong_dtype=("x", "width"), rtol=1e-4, atol=1e-5))


def test_colours_lie_between_the_two():
    given = inputs(5000, torch.Generator().manual_seed(0))
    color = texture(textures(), **given)
    low, high = (torch.tensor(c) for c in COLORS)
    inside = given["index"] >= 0
    tiles = given["index"] == PATTERNS.index("tiles")  # dark along the joints
    assert (color[inside] <= high + 1e-6).all() and (color[inside & ~tiles] >= low - 1e-6).all()
    assert (color[~inside] == 0).all()
    assert (texture(textures(detail=1.0), **given) >= 0).all()


@pytest.mark.parametrize("name", PATTERNS[1:])
def test_a_pattern_varies_and_fades_to_its_mean_when_pixels_are_wide(name):
    p = 4 * torch.rand(4000, 3, dtype=torch.float64)
    sharp, _ = pattern_weight(name, p, torch.zeros(4000, dtype=torch.float64))
    faded, shade = pattern_weight(name, p, torch.ones(4000, dtype=torch.float64))
    assert sharp.std() > 0.1 and 0 <= sharp.min() <= sharp.max() <= 1
    torch.testing.assert_close(faded, torch.full_like(faded, 0.5))
    torch.testing.assert_close(shade, torch.ones_like(shade))


def test_noise_is_continuous_and_takes_the_lattice_values():
    p = torch.rand(2000, 3, dtype=torch.float64) * 20 - 10
    step = 1e-4 * torch.randn_like(p)
    assert ((noise(p + step, 0) - noise(p, 0)).abs() <= 3 * step.norm(dim=-1)).all()
    corner = torch.randint(-5, 5, (100, 3)).double()
    values = noise(corner, 0)
    assert values.unique().numel() > 90 and 0 <= values.min() <= values.max() < 1
    assert 0 <= octaves(p, 0 * p[:, 0]).min() <= octaves(p, 0 * p[:, 0]).max() <= 1


def test_bits_do_not_depend_on_threads(threads):
    given = inputs(5000, torch.Generator().manual_seed(0))
    tables = textures(detail=0.5)
    for a, b in threads(lambda: [texture(tables, **given)]):
        assert torch.equal(a, b)


def test_an_unknown_pattern_is_refused():
    with pytest.raises(BadInput, match="pattern is 'plaid'; the rule: one of plain, checker"):
        Material("plaid")
