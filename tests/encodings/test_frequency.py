"""Frequency encoding."""

import pytest
import torch
from checks import OpCase, check_op

from radfield.encodings import frequency
from radfield.errors import BadInput


@pytest.mark.parametrize(("dimensions", "frequencies"), [(3, 10), (2, 1), (1, 6)])
def test_agrees_with_reference(dimensions, frequencies):
    def inputs(size, generator):
        return {"x": torch.rand(size, dimensions, generator=generator) * 4 - 2, "frequencies": frequencies}

    scale = 2.0**frequencies  # the angle of a float32 position has an absolute error of 2^k ulp
    check_op(
        OpCase(
            frequency.frequency,
            frequency.frequency_reference,
            inputs,
            gradients=("x",),
            rtol=2e-6 * scale,
            atol=2e-6,
            wrong_dtype=("x",),
        )
    )


def test_sine_and_cosine_lie_on_the_unit_circle():
    x = torch.rand(100, 3)
    encoded = frequency.Frequency(3)(x).view(100, 3, 2, 10)
    assert torch.allclose((encoded**2).sum(2), torch.ones(100, 3, 10), atol=1e-5)


def test_integers_are_zeros_of_the_sine():
    assert frequency.frequency(torch.tensor([[3.0], [-5.0]]), 4)[:, :4].abs().max() < 1e-6


@pytest.mark.parametrize("frequencies", [0, 25])
def test_refuses_frequencies_out_of_range(frequencies):
    with pytest.raises(BadInput, match="frequencies"):
        frequency.frequency(torch.zeros(1, 3), frequencies)
