"""Spherical harmonics."""

import math

import pytest
import torch
from checks import OpCase, check_op

from radfield import backend
from radfield.encodings import spherical_harmonics as module
from radfield.encodings.spherical_harmonics import Config, SphericalHarmonics, spherical_harmonics
from radfield.errors import BadInput


def directions(count, generator=None):
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


def quadrature(order):
    """Points [Q, 3] and weights [Q] that integrate polynomials of degree 2 order - 1 exactly over the unit sphere:
    Gauss-Legendre in z times equidistant angles."""
    beta = torch.arange(1, order, dtype=torch.float64)
    beta = beta / (4 * beta**2 - 1).sqrt()
    z, vectors = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))  # Golub and Welsch 1969
    angle = torch.arange(2 * order, dtype=torch.float64) * (math.pi / order)
    radius = (1 - z**2).sqrt()
    points = [radius[:, None] * angle.cos(), radius[:, None] * angle.sin(), z[:, None].expand(order, 2 * order)]
    weights = 2 * vectors[0] ** 2 * math.pi / order
    return torch.stack(points, -1).reshape(-1, 3), weights.repeat_interleave(2 * order)


@pytest.mark.parametrize("degree", range(1, 9))
def test_agrees_with_reference(degree):
    def inputs(size, generator):
        return {"directions": directions(size, generator), "degree": degree}

    reference = module.spherical_harmonics_reference
    gradients, wrong = ("directions",), ("directions",)
    check_op(OpCase(spherical_harmonics, reference, inputs, gradients, wrong_dtype=wrong, atol=2e-5))


def test_first_bands_of_tiny_cuda_nn():
    """Its polynomials for bands 0 to 3, from its source (BSD-3), at a direction without symmetry."""
    x, y, z = (torch.tensor([0.36, -0.48, 0.8]).double()).tolist()
    expected = [
        0.28209479177387814,
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
    ours = spherical_harmonics(torch.tensor([[x, y, z]]), 4)
    assert torch.allclose(ours, torch.tensor([expected]), atol=1e-6)


def test_orthonormal_on_the_sphere():
    points, weights = quadrature(8)  # exact up to degree 15; products have degree 14 at most
    values = spherical_harmonics(points.float(), 8).double()
    assert torch.allclose(values.T @ (weights[:, None] * values), torch.eye(64, dtype=torch.float64), atol=2e-6)


def test_addition_theorem():
    """The sum over a band of Y(a) Y(b) is (2 l + 1) / (4 pi) P_l(a . b); at a = b it is constant."""
    a, b = directions(200), directions(200)
    products = spherical_harmonics(a, 5) * spherical_harmonics(b, 5)
    t = (a * b).sum(1)
    legendre = [torch.ones_like(t), t, (3 * t**2 - 1) / 2, (5 * t**3 - 3 * t) / 2, (35 * t**4 - 30 * t**2 + 3) / 8]
    for band, expected in enumerate(legendre):
        total = products[:, band**2 : (band + 1) ** 2].sum(1)
        assert torch.allclose(total, (2 * band + 1) / (4 * math.pi) * expected, atol=5e-6)


def test_energy_of_a_band_does_not_change_under_rotation():
    """Coefficients of f(R d), by quadrature, have in every band the energy of those of f."""
    points, weights = quadrature(10)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    coefficients = torch.randn(64, dtype=torch.float64)
    turned = spherical_harmonics((points @ rotation.T).float(), 8).double() @ coefficients
    projected = (weights * turned) @ spherical_harmonics(points.float(), 8).double()
    for band in range(8):
        before, after = (c[band**2 : (band + 1) ** 2].square().sum() for c in (coefficients, projected))
        assert torch.allclose(after, before, rtol=1e-5)


def test_16_bits_are_the_rounded_32():
    d = directions(77)
    encoding = SphericalHarmonics(Config(degree=4, precision="bf16"))
    assert encoding.channels == 16
    assert torch.equal(encoding(d), spherical_harmonics(d, 4).bfloat16())


def test_gradient_of_16_bit_features():
    d, grad = directions(77).requires_grad_(), torch.randn(77, 9).bfloat16()
    (ours,) = torch.autograd.grad(spherical_harmonics(d, 3, dtype=torch.bfloat16), d, grad)
    (expected,) = torch.autograd.grad(spherical_harmonics(d, 3), d, grad.float())
    assert torch.equal(ours, expected)


def test_same_bits_with_any_number_of_threads(threads):
    d, grad = directions(20_001).requires_grad_(), torch.randn(20_001, 25)

    def run():
        encoded = spherical_harmonics(d, 5)
        return encoded.detach(), torch.autograd.grad(encoded, d, grad)[0]

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_reference_backend_gives_the_same():
    d = directions(10)
    ours = spherical_harmonics(d, 4)
    with backend.use("reference"):
        assert torch.allclose(spherical_harmonics(d, 4), ours, atol=1e-6)
        assert spherical_harmonics(d, 4, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("degree", [0, 9])
def test_refuses_degrees_out_of_range(degree):
    with pytest.raises(BadInput, match="degree"):
        spherical_harmonics(torch.zeros(1, 3), degree)
