"""Spherical harmonics."""

import math

import numpy as np
import pytest
import torch
from checks import OpCase, check_op

from radfield.encodings import spherical_harmonics as sh
from radfield.errors import BadInput


def unit(size, generator=None):
    return torch.nn.functional.normalize(torch.randn(size, 3, generator=generator), dim=1)


def sphere_quadrature(degree):
    """Nodes [Q, 3] and weights [Q] that integrate polynomials of twice the degree exactly: Gauss-Legendre in z, equal
    steps around."""
    z, w = np.polynomial.legendre.leggauss(degree + 1)
    around = 2 * degree + 1
    phi = 2 * math.pi * (torch.arange(around) + 0.3) / around
    z, w = torch.tensor(z)[:, None], torch.tensor(w)[:, None]
    r = (1 - z * z).sqrt()
    nodes = torch.stack([r * phi.cos(), r * phi.sin(), z.expand(-1, around)], -1).reshape(-1, 3)
    return nodes.float(), (w * 2 * math.pi / around).expand(-1, around).flatten()


@pytest.mark.parametrize("degree", range(1, 9))
def test_agrees_with_reference(degree):
    def inputs(size, generator):
        return {"directions": unit(size, generator), "degree": degree}

    gradients = ("directions",) if degree > 1 else ()  # the reference's constant has none
    options = {"gradients": gradients, "wrong_dtype": ("directions",)}
    check_op(OpCase(sh.spherical_harmonics, sh.spherical_harmonics_reference, inputs, **options))


def test_first_bands_are_those_of_tiny_cuda_nn():
    x, y, z = (d := unit(50)).double().unbind(1)
    expected = [
        0.28209479177387814 + 0 * x,
        -0.48860251190291987 * y,
        0.48860251190291987 * z,
        -0.48860251190291987 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.94617469575755997 * z * z - 0.31539156525251999,
        -1.0925484305920792 * x * z,
        0.54627421529603959 * (x * x - y * y),
        0.59004358992664352 * y * (-3 * x * x + y * y),
        2.8906114426405538 * x * y * z,
        0.45704579946446572 * y * (1 - 5 * z * z),
        0.3731763325901154 * z * (5 * z * z - 3),
        0.45704579946446572 * x * (1 - 5 * z * z),
        1.4453057213202769 * z * (x * x - y * y),
        0.59004358992664352 * x * (-x * x + 3 * y * y),
    ]
    assert torch.allclose(sh.spherical_harmonics(d, 4).double(), torch.stack(expected, 1), atol=1e-6)


def test_orthonormal_on_the_sphere():
    nodes, weights = sphere_quadrature(8)
    values = sh.spherical_harmonics(nodes, 8).double()
    gram = values.T @ (weights[:, None] * values)
    assert torch.allclose(gram, torch.eye(64, dtype=torch.float64), atol=2e-6)


def test_addition_theorem():
    a, b = unit(40), unit(40)
    ours = (sh.spherical_harmonics(a, 8) * sh.spherical_harmonics(b, 8)).double()
    cosine = (a.double() * b.double()).sum(1).numpy()
    for band in range(8):
        legendre = np.polynomial.legendre.Legendre.basis(band)(cosine) * (2 * band + 1) / (4 * math.pi)
        assert np.allclose(ours[:, band**2 : (band + 1) ** 2].sum(1), legendre, atol=2e-6)


def test_rotation_keeps_the_energy_of_a_band():
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0].float()
    nodes, weights = sphere_quadrature(8)
    coefficients = torch.randn(64, dtype=torch.float64)
    rotated = sh.spherical_harmonics(nodes @ rotation.T, 8).double() @ coefficients
    back = sh.spherical_harmonics(nodes, 8).double().T @ (weights * rotated)
    for band in range(8):
        own = slice(band**2, (band + 1) ** 2)
        assert math.isclose(back[own].norm(), coefficients[own].norm(), rel_tol=1e-5)


def test_16_bit_channels_are_the_rounded_ones():
    d = unit(77)
    rounded = sh.SphericalHarmonics(sh.Config(5, "bf16"))(d)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, sh.spherical_harmonics(d, 5).bfloat16())


def test_gradient_from_16_bit_channels():
    d = unit(77).requires_grad_()
    weights = torch.randn(77, 16).bfloat16()
    (ours,) = torch.autograd.grad(sh.spherical_harmonics(d, 4, torch.bfloat16), d, weights)
    (expected,) = torch.autograd.grad(sh.spherical_harmonics(d, 4), d, weights.float())
    assert torch.equal(ours, expected)


def test_the_constant_has_no_gradient():
    d = unit(5).requires_grad_()
    assert (torch.autograd.grad(sh.spherical_harmonics(d, 1).sum(), d)[0] == 0).all()


def test_same_bits_with_any_number_of_threads(threads):
    d = unit(20_000).requires_grad_()

    def run():
        encoded = sh.spherical_harmonics(d, 4)
        return encoded, *torch.autograd.grad((encoded**3).sum(), d)

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_not_a_number_is_seen():
    assert sh.spherical_harmonics(torch.full((3, 3), float("nan")), 3)[:, 1:].isnan().all()


@pytest.mark.parametrize("degree", [0, 9])
def test_refuses_degrees_out_of_range(degree):
    with pytest.raises(BadInput, match="degree"):
        sh.spherical_harmonics(unit(2), degree)


def test_refuses_an_unknown_precision():
    with pytest.raises(BadInput, match="precision"):
        sh.SphericalHarmonics(sh.Config(4, "f16"))
