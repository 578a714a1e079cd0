"""The small MLP."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks import EMULATES, OpCase, assert_close, check_op, to_float64

from radfield import backend
from radfield.cpu import library
from radfield.errors import BadInput
from radfield.networks import mlp
from radfield.networks.mlp import MLP, Config, layers_of

SHAPES = [
    (32, 0, 16, Config(64, 1)),
    (16, 16, 3, Config(64, 2)),
    (3, 0, 1, Config(16, 0)),
    (5, 2, 7, Config(17, 3, bias=True)),
    (9, 0, 4, Config(33, 3, skip=2, bias=True)),
    (7, 6, 5, Config(24, 2, skip=1)),
    (40, 0, 2, Config(256, 2)),
]


def case(first, second, outputs, config, **changes):
    layers = layers_of(first + second, outputs, config)

    def inputs(size, generator):
        values = {"x0": torch.randn(size, first, generator=generator), "x1": None, "layers": layers}
        if second:
            values["x1"] = torch.randn(size, second, generator=generator)
        module = MLP(first + second, outputs, config, generator)
        noise = torch.randn(layers.parameters, generator=generator) * 0.1  # biases too
        return {**values, "parameters": module.weights.detach() + noise}

    gradients = ("x0", "x1", "parameters") if second else ("x0", "parameters")
    options = {"gradients": gradients, "rtol": 5e-5, "atol": 1e-5, "sizes": (0, 1, 33, 700), "wrong_dtype": ("x0",)}
    return OpCase(mlp.mlp, mlp.mlp_reference, inputs, **{**options, **changes})


@pytest.mark.parametrize(("first", "second", "outputs", "config"), SHAPES)
def test_agrees_with_reference(first, second, outputs, config):
    check_op(case(first, second, outputs, config, most_emulated=100 if config.width < 256 else 1))


@pytest.mark.parametrize("activation", ["none", "silu", "softplus", "sine", "relu"])
def test_activations(activation):
    config = Config(32, 2, activation, output_activation=activation, bias=True)
    check_op(case(6, 3, 5, config))


@pytest.mark.parametrize(
    ("first", "second", "outputs", "config"),
    [
        (5, 2, 3, Config(16, 2, "softplus", bias=True)),
        (6, 0, 4, Config(32, 3, "silu", output_activation="sine", skip=2)),
        (4, 3, 2, Config(17, 1, "sine", skip=1, bias=True)),
        (3, 0, 1, Config(24, 2, "relu")),
    ],
)
@pytest.mark.usefixtures("each_backend_once")
def test_second_derivatives(first, second, outputs, config):
    """Gradients of the inputs' gradient, as surfaces need them for normals."""
    test = case(first, second, outputs, config)
    inputs = test.inputs(300, torch.Generator().manual_seed(3))
    names = ["x0", "parameters"] + (["x1"] if second else [])

    def derivatives(function, values):
        values = {k: v.clone().requires_grad_() if k in names else v for k, v in values.items()}
        y = function(**values)
        positions = [values[k] for k in ("x0", "x1") if values[k] is not None]
        normals = torch.autograd.grad((y * weights[: len(y)].to(y)).sum(), positions, create_graph=True)
        scalar = sum((n.square() * 0.5).sum() for n in normals) + y.sum()
        return torch.autograd.grad(scalar, [values[k] for k in names], allow_unused=True)

    weights = torch.randn(300, outputs)
    ours = derivatives(mlp.mlp, inputs)
    with backend.use("reference"):
        theirs = derivatives(mlp.mlp_reference, {k: to_float64(v) for k, v in inputs.items()})
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert_close(f"second derivative of {name}", a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.usefixtures("each_backend_once")
def test_second_derivatives_where_the_head_alone_is_used():
    """As those of all outputs with no gradient but the head's."""
    net, x = MLP(3, 4, Config(16, 2, "softplus", bias=True)), torch.randn(40, 3, requires_grad=True)
    found = []
    for head in (lambda: net(x, head=1)[1], lambda: net(x)[:, :1]):
        (slope,) = torch.autograd.grad(head().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, net.weights]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_derivative_of_the_parameters_gradient_is_refused():
    net = MLP(3, 1, Config(16, 1, "silu"))
    (gradient,) = torch.autograd.grad(net(torch.randn(5, 3)).sum(), net.weights, create_graph=True)
    with pytest.raises(BadInput, match="parameters"):
        gradient.square().sum().backward()


@pytest.mark.parametrize(("first", "second", "outputs", "config"), SHAPES)
def test_16_bit_kernels_agree_with_their_rounding_in_fp32(first, second, outputs, config):
    """Products of bf16 operands, summed in fp32, by every kernel: they differ by the order of sums alone, but a
    difference in the last bit can round an activation the other way (2^-8)."""
    inputs = case(first, second, outputs, config).inputs(700, torch.Generator().manual_seed(1))
    inputs |= {k: inputs[k].bfloat16() for k in ("x0", "x1") if inputs[k] is not None}
    names = [k for k in ("x0", "x1", "parameters") if inputs[k] is not None]

    def run(kernel):
        values = {k: v.clone().requires_grad_() if k in names else v for k, v in inputs.items()}
        y = mlp.mlp(**values, kernel=kernel)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        return y, *torch.autograd.grad((y * weights).sum(), [values[k] for k in names])

    exact = run(0)
    for kernel in range(1, max(mlp.best_kernel("bf16"), 1) + 1):
        for name, value, full in zip(["y", *names], run(kernel), exact, strict=True):
            error = (value.float() - full.float()).norm() / full.float().norm()
            assert error < 0.1, f"kernel {kernel}, {name}: {error:.4f}"
    for name, value, rounded in zip(["y", *names], run(max(mlp.best_kernel("bf16"), 1)), run(1), strict=True):
        error = (value.float() - rounded.float()).norm() / rounded.float().norm()
        assert error < 0.01, f"{name}: {error:.4f}"


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(("first", "second", "outputs", "config"), SHAPES)
def test_fp16_tensor_cores_round_their_operands_alone(first, second, outputs, config):
    """fp16 has 3 bits more than bf16: values by emulated mma of it are that much nearer to those of fp32."""
    inputs = case(first, second, outputs, config).inputs(75, torch.Generator().manual_seed(1))
    inputs |= {k: inputs[k].half() for k in ("x0", "x1") if inputs[k] is not None}
    names = [k for k in ("x0", "x1", "parameters") if inputs[k] is not None]

    def run(kind, **options):
        values = {k: v.to(kind) if k in ("x0", "x1") and v is not None else v for k, v in inputs.items()}
        values = {k: v.clone().requires_grad_() if k in names else v for k, v in values.items()}
        y = mlp.mlp(**values, **options)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        return y, *torch.autograd.grad((y * weights).sum(), [values[k] for k in names])

    with backend.use(backend.EMULATED):
        ours = run(torch.half, kernel=mlp.FP16, dtype=torch.half)
    for name, value, full in zip(["y", *names], ours, run(torch.float32), strict=True):
        assert value.dtype == (torch.float32 if name == "parameters" else torch.half)
        error = (value.float() - full).norm() / full.norm()
        # a rounded sum can fall on the other side of a ReLU, which shows in gradients
        assert error < (0.005 if name == "y" else 0.15), f"{name}: {error:.4f}"
    with pytest.raises(BadInput, match=r"on a CPU float32 or bfloat16|fp16 operands on CUDA alone"):
        run(torch.half)
    with pytest.raises(BadInput, match="fp16 operands on CUDA alone"):
        run(torch.float32, kernel=mlp.FP16)


@pytest.mark.parametrize(("first", "second", "outputs", "config"), [*SHAPES, (48, 0, 20, Config(128, 2, "silu"))])
def test_tensor_cores_agree_with_the_same_rounding(each_backend, first, second, outputs, config):
    """Emulated mma of bf16 operands, in every schedule, against the CPU's kernel that rounds the same operands."""
    inputs = case(first, second, outputs, config).inputs(75, torch.Generator().manual_seed(1))
    inputs |= {k: inputs[k].bfloat16() for k in ("x0", "x1") if inputs[k] is not None}
    names = [k for k in ("x0", "x1", "parameters") if inputs[k] is not None]

    def run():
        values = {k: v.clone().requires_grad_() if k in names else v for k, v in inputs.items()}
        y, head = mlp.mlp(**values, kernel=1, head=min(outputs, 2))
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        return y, head, *torch.autograd.grad((y * weights).sum() + head.square().sum(), [values[k] for k in names])

    ours = run()
    with backend.use("cpu"):
        theirs = run()
    for name, value, rounded in zip(["y", "head", *names], ours, theirs, strict=True):
        error = (value.float() - rounded.float()).norm() / rounded.float().norm()
        assert error < 0.01, f"{name}: {error:.4f}"


@pytest.mark.parametrize("kernel", ["f32", "bf16"])
def test_same_bits_with_any_number_of_threads(threads, kernel):
    net = MLP(32, 16, Config(64, 2, precision=kernel))
    x = torch.randn(20_000, 32, requires_grad=True)

    def run():
        y = net(x)
        return y.detach(), *torch.autograd.grad(y.square().sum(), [x, net.weights])

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_samples_without_gradient_are_skipped_exactly():
    net = MLP(8, 4, Config(32, 1))
    x = torch.randn(5000, 8, requires_grad=True)
    weights = torch.randn(5000, 4) * (torch.arange(5000)[:, None] % 1000 < 100)
    grad_x, grad_w = torch.autograd.grad((net(x) * weights).sum(), [x, net.weights])
    kept = weights.abs().sum(1) > 0
    assert (grad_x[~kept] == 0).all()
    (expected,) = torch.autograd.grad((net(x[kept]) * weights[kept]).sum(), net.weights)
    assert torch.allclose(grad_w, expected, rtol=1e-4, atol=1e-4)


def test_gradient_goes_into_a_workspace_and_adds_up():
    net = MLP(8, 4, Config(32, 1))
    x = torch.randn(100, 8)
    (expected,) = torch.autograd.grad(net(x).sum(), net.weights)
    net.grad_into = torch.zeros_like(net.weights)
    for _ in range(2):
        net(x).sum().backward()
    assert net.weights.grad is None and torch.allclose(net.grad_into, 2 * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"width": 8}, "width"),
        ({"activation": "tanh"}, "activation"),
        ({"skip": 5}, "skip"),
        ({"hidden_layers": 16}, "layers"),
    ],
)
def test_refuses_options_out_of_range(changes, word):
    with pytest.raises(BadInput, match=word):
        layers_of(3, 1, Config(**changes))


def test_refuses_inputs_of_another_width():
    with pytest.raises(BadInput, match=r"\[3, 4\] channels"):
        MLP(8, 1)(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.slow
def test_amx_kernel_on_emulated_tiles(tmp_path):
    """The AMX kernel's packing, tiling and transposes, with every tile instruction in plain C++: what a CPU without AMX
    can show of it."""
    if library.choose_isa() != "x86-64-v4" or "avx512_bf16" not in library.cpu_features():
        pytest.skip("needs a CPU with AVX512-BF16")
    root = Path(__file__).parents[2]
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    options = ["-DRADFIELD_ISA=x86-64-v4", "-DCMAKE_CXX_FLAGS=-DRADFIELD_EMULATE_AMX"]
    subprocess.run([cmake, "-S", root, "-B", tmp_path, *options], check=True, capture_output=True)
    subprocess.run([cmake, "--build", tmp_path, "-j2"], check=True, capture_output=True)
    environment = {**os.environ, "RADFIELD_LIBRARY_FOLDER": str(tmp_path)}
    check = "from radfield.networks.mlp import best_kernel as best; assert best('bf16') == 3 and best('f32') == 5"
    subprocess.run([sys.executable, "-c", check], check=True, env=environment)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", __file__]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
