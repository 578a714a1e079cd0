"""Colours of Gaussians: agreement with the reference, and their laws."""

import pytest
import torch
from checks import CPU_ONLY, NATIVE_BACKENDS, OpCase, check_op

from radfield.errors import BadInput
from radfield.renderers.gaussian_color import HARMONIC_0, gaussian_color, gaussian_color_reference, rest_rows


@pytest.mark.parametrize("degree", range(5))
def test_agrees_with_reference(degree):
    def inputs(size, generator):
        radius = torch.ones(size, 2)
        radius[::5] = 0
        return {
            "means": torch.randn(size, 3, generator=generator),
            "base": torch.randn(3, size, generator=generator),
            "rest": torch.randn(rest_rows(degree), size, generator=generator) * 0.2,
            "radius": radius,
            "position": torch.tensor([0.3, -3.0, 0.5]),
            "degree": degree,
        }

    names = ("means", "base", "rest")
    gradients = (*names, "position")
    functions = gaussian_color, gaussian_color_reference
    options = {"wrong_dtype": names, "sizes": (0, 1, 33, 1000), "most_emulated": 33}
    backends = NATIVE_BACKENDS if degree in (0, 3) else CPU_ONLY  # the emulator's compiler takes seconds for each
    check_op(OpCase(*functions, inputs, gradients, backends=backends, **options))


def test_degree_0_is_the_same_from_everywhere():
    means, base, radius = torch.randn(40, 3), torch.rand(3, 40), torch.ones(40, 2)
    rest = torch.empty(0, 40)
    found = [gaussian_color(means, base, rest, radius, torch.randn(3), degree=0) for _ in range(2)]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], 0.5 + HARMONIC_0 * base.T)


def test_a_camera_at_the_centre_gives_no_nan():
    means = torch.zeros(1, 3, requires_grad=True)
    rest = torch.ones(rest_rows(2), 1)
    found = gaussian_color(means, torch.ones(3, 1), rest, torch.ones(1, 2), torch.zeros(3), degree=2)
    found.sum().backward()
    assert bool(found.isfinite().all()) and bool(means.grad.isfinite().all())


def test_degree_out_of_range():
    with pytest.raises(BadInput, match="degree is 5"):
        gaussian_color(
            torch.zeros(1, 3), torch.zeros(3, 1), torch.zeros(0, 1), torch.ones(1, 2), torch.zeros(3), degree=5
        )
