"""PSNR and SSIM against their definitions, written out once more the slow way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radfield.errors import BadInput
from radfield.metrics import gaussian_window, psnr, ssim, ssim_map


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@given(error=st.floats(1e-4, 1.0))
def test_psnr_of_a_constant_error(error):
    truth = torch.zeros(4, 5, 3, dtype=torch.float64)
    assert psnr(truth + error, truth) == pytest.approx(-20 * math.log10(error), abs=1e-6)


def test_psnr_of_equal_images_and_of_nan():
    a = image(3, 4, 3)
    assert psnr(a, a) == math.inf
    assert math.isnan(psnr(a * math.nan, a))


def test_psnr_is_of_the_mean_error_over_all_pixels():
    truth = torch.zeros(2, 1, 3)
    prediction = torch.tensor([[[0.1] * 3], [[0.3] * 3]])
    assert psnr(prediction, truth) == pytest.approx(-10 * math.log10(0.05), abs=1e-5)


def test_the_window_is_that_of_the_paper():
    window = gaussian_window()
    assert len(window) == 11
    assert window.sum().item() == pytest.approx(1.0, abs=1e-15)
    assert torch.equal(window, window.flip(0))
    assert (window[5] / window[6]).log().item() == pytest.approx(1 / (2 * 1.5**2))


def ssim_of_one_window(x: torch.Tensor, y: torch.Tensor) -> float:
    weight = torch.outer(gaussian_window(), gaussian_window())
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    variance_x = (weight * (x - mean_x) ** 2).sum()
    variance_y = (weight * (y - mean_y) ** 2).sum()
    covariance = (weight * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = 0.0001, 0.0009
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).item()


def test_ssim_window_by_window():
    x, y = image(14, 17, 3).double(), image(14, 17, 3, seed=1).double()
    y = 0.7 * x + 0.3 * y
    result = ssim_map(x, y)
    assert result.shape == (4, 7, 3)
    for row, column, channel in [(0, 0, 0), (3, 6, 2), (1, 4, 1)]:
        window = (slice(row, row + 11), slice(column, column + 11), channel)
        assert result[row, column, channel].item() == pytest.approx(ssim_of_one_window(x[window], y[window]), abs=1e-12)
    assert ssim(x, y) == pytest.approx(result.mean().item())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), noise=st.floats(0.01, 1.0))
def test_ssim_laws(seed, noise):
    x = image(16, 16, 3, seed=seed)
    y = (x + noise * image(16, 16, 3, seed=seed + 1)).clamp(0, 1)
    assert ssim(x, x) == pytest.approx(1.0, abs=1e-12)
    assert ssim(x, y) == pytest.approx(ssim(y, x), abs=1e-12)
    assert ssim(x, y) < 1
    assert ssim(x.flip(1), y.flip(1)) == pytest.approx(ssim(x, y), abs=1e-12)


def test_ssim_of_two_constants_compares_their_luminance():
    x, y = torch.full((11, 11, 1), 0.25), torch.full((11, 11, 1), 0.75)
    assert ssim(x, y) == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4), abs=1e-9)


def test_what_cannot_be_compared():
    with pytest.raises(BadInput, match="equal"):
        psnr(image(2, 3, 3), image(3, 2, 3))
    with pytest.raises(BadInput, match="equal"):
        ssim(image(12, 12, 3), image(12, 12, 1))
    with pytest.raises(BadInput, match=r"\[10, 30, 3\]"):
        ssim(image(10, 30, 3), image(10, 30, 3))
