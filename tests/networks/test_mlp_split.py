"""fp32 products by AMX, each operand split into three bf16 numbers, against plain fp32 and float64."""

import pytest
import torch

from radfield.networks import mlp
from radfield.networks.mlp import MLP, SPLIT, Config, layers_of, mlp_reference

pytestmark = pytest.mark.skipif(mlp.best_kernel("f32") != SPLIT, reason="needs a CPU with AMX")


def plain(generator, *shape):
    return torch.randn(*shape, generator=generator)


def scaled(generator, *shape):
    """Channels of very different sizes, from 1e-6 to 1e6."""
    return plain(generator, *shape) * 10 ** (12 * torch.rand(shape[-1], generator=generator) - 6)


def cancelling(generator, *shape):
    """Neighbouring channels that cancel but for the last bits of their sums."""
    x = plain(generator, *shape)
    x[..., 1::2] = -x[..., : 2 * (shape[-1] // 2) : 2] * (1 + 1e-6 * torch.rand(shape[-1] // 2, generator=generator))
    return x


def offset(generator, *shape):
    """All of one sign: what every product leaves out would add up."""
    return 1 + torch.rand(*shape, generator=generator)


def results(kernel, x, weights, upstream, layers):
    """y and the gradients of inputs and parameters; by the reference in float64 where kernel is None."""
    double = kernel is None
    x, weights, upstream = (v.double() if double else v.clone() for v in (x, weights, upstream))
    x.requires_grad_(), weights.requires_grad_()
    y = mlp_reference(x, None, weights, layers) if double else mlp.mlp(x, None, weights, layers, kernel=kernel)
    return y.detach(), *torch.autograd.grad(y, [x, weights], upstream)


def assert_no_worse(x, weights, upstream, layers, factor=1.5):
    exact = results(None, x, weights, upstream, layers)
    fp32, split = (results(kernel, x, weights, upstream, layers) for kernel in (0, SPLIT))
    for name, truth, *found in zip(("y", "grad_x", "grad_parameters"), exact, fp32, split, strict=True):
        plain_error, error = ((value - truth).abs() for value in found)
        assert error.max() <= factor * plain_error.max(), f"{name}: {error.max():.3g}, fp32 {plain_error.max():.3g}"
        assert error.square().mean() <= factor**2 * plain_error.square().mean(), f"{name}: in the mean of squares"


@pytest.mark.parametrize("numbers", [plain, scaled, cancelling, offset])
@pytest.mark.parametrize(("inputs", "outputs", "factor"), [(64, 64, 1.5), (256, 40, 1.5), (33, 130, 1.5), (200, 2, 3)])
def test_products_are_as_exact_as_fp32(numbers, inputs, outputs, factor):
    """One layer without activation: outputs, and both gradients, are one product each. The gradient of the inputs is a
    sum over the outputs: of two terms fp32 is all but exact."""
    generator = torch.Generator().manual_seed(inputs)
    layers = layers_of(inputs, outputs, Config(64, 0))
    x, upstream = numbers(generator, 3000, inputs), numbers(generator, 3000, outputs)
    assert_no_worse(x, numbers(generator, layers.parameters), upstream, layers, factor)


@pytest.mark.parametrize(
    "config",
    [
        Config(64, 2, "softplus", bias=True),
        Config(32, 4, "silu", skip=2),
        Config(100, 3, "sine", "softplus"),
        Config(256, 1, "none"),
    ],
)
def test_networks_are_as_exact_as_fp32(config):
    generator = torch.Generator().manual_seed(5)
    net = MLP(35, 16, config, generator)
    assert_no_worse(plain(generator, 2000, 35), net.weights.detach(), plain(generator, 2000, 16), net.layers)


def test_operands_of_three_pieces_are_exact():
    """A weight that is a power of two gives every operand back, bit for bit, up to the largest numbers."""
    layers = layers_of(64, 64, Config(64, 0))
    bits = torch.randint(-(2**31), 2**31 - 1, (500, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    x = bits.to(torch.int32).view(torch.float32)
    x = torch.where(x.isfinite() & (x.abs() > 2.0**-100), x, torch.zeros(()))
    assert x.abs().max() > 1e38
    assert torch.equal(mlp.mlp(x, None, torch.eye(64).flatten(), layers, kernel=SPLIT), x)


def test_tiny_operands_lose_no_more_than_tiles_take_as_0():
    layers = layers_of(32, 32, Config(32, 0))
    x = torch.randn(100, 32, generator=torch.Generator().manual_seed(0)) * 2.0**-120
    y = mlp.mlp(x, None, torch.eye(32).flatten(), layers, kernel=SPLIT)
    assert (y - x).abs().max() <= 2.0**-125
    assert (mlp.mlp(x * 2.0**-20, None, torch.eye(32).flatten(), layers, kernel=SPLIT).abs() <= 2.0**-125).all()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("activation", ["relu", "none", "silu"])
def test_what_is_not_finite_shows(value, activation):
    """In its own sample alone, also through ReLU."""
    net = MLP(40, 8, Config(64, 2, activation), torch.Generator().manual_seed(0))
    x = torch.randn(100, 40, generator=torch.Generator().manual_seed(1))
    expected = mlp.mlp(x, None, net.weights, net.layers, kernel=SPLIT)
    x[37, 5] = value
    y = mlp.mlp(x, None, net.weights, net.layers, kernel=SPLIT)
    assert not y[37].isfinite().any()
    assert torch.equal(y[torch.arange(100) != 37], expected[torch.arange(100) != 37])


def test_a_sample_s_result_does_not_depend_on_its_neighbours():
    """Fields in one pass ask for a few samples at a time what others ask for at once, and must get the same bits."""
    net = MLP(32, 16, Config(64, 2), torch.Generator().manual_seed(0))
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(1))
    whole = net(x)
    for first, last in ((0, 1), (31, 65), (64, 200), (199, 200)):
        assert torch.equal(net(x[first:last]), whole[first:last])


def test_it_runs_where_it_is_faster_and_wanted(monkeypatch):
    x = torch.randn(50, 40)
    net = MLP(40, 8, Config(64, 2))
    assert mlp.kernel_of(net.config, x) == SPLIT and mlp.kernel_of(Config(16, 2), x) == 0
    assert torch.equal(net(x), mlp.mlp(x, None, net.weights, net.layers, kernel=SPLIT))
    monkeypatch.setenv("RADFIELD_AMX", "0")
    assert mlp.kernel_of(net.config, x) == 0 and mlp.best_kernel("bf16") in (0, 2)
    assert torch.equal(net(x), mlp.mlp(x, None, net.weights, net.layers, kernel=0))
