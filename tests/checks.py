"""The one test body of every op: `check_op` runs an op on each native backend against its torch reference."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from cuda_emulator.backend import SCHEDULES, emulator

from radfield import backend
from radfield.cuda import library as cuda
from radfield.errors import BadInput

# The emulator is x86-64 code for GCC on Linux; a run that tests a library of another machine is about that library, and
# one with RADFIELD_TEST_EMULATED=0 about a GPU.
EMULATES = sys.platform == "linux" and platform.machine() == "x86_64" and "RADFIELD_TEST_DRIVER" not in os.environ
EMULATES = EMULATES and os.environ.get("RADFIELD_TEST_EMULATED") != "0"
emulated = pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
on_gpu = pytest.mark.skipif(cuda.unavailable() is not None, reason="needs a GPU that CUDA kernels run on")
NATIVE_BACKENDS = ("cpu", *([backend.EMULATED] if EMULATES else []), *([] if cuda.unavailable() else ["cuda"]))
CPU_ONLY = ("cpu",)
SIZES = (0, 1, 7, 33, 1000)


@dataclass
class OpCase:
    """An op under test.

    function    the public function; called with the inputs as keyword arguments, on each native backend
    reference   the specification: same arguments, called in float64
    inputs      (size, generator) -> dict of the arguments; floating tensors in float32
    gradients   names of the inputs whose gradients are compared
    outputs     result -> tuple of tensors to compare
    second      names of the inputs whose second derivatives (through the gradient of each `gradients`) are compared
    """

    function: Callable
    reference: Callable
    inputs: Callable[[int, torch.Generator], dict]
    gradients: tuple[str, ...] = ()
    outputs: Callable = lambda result: result if isinstance(result, tuple) else (result,)
    second: tuple[str, ...] = ()
    rtol: float = 2e-5
    atol: float = 2e-6
    sizes: tuple[int, ...] = SIZES
    most_emulated: int = 100  # samples of an emulated run: some warps and a part of one show what there is to see
    wrong_dtype: tuple[str, ...] = field(default_factory=tuple)  # inputs that must be refused as float64
    backends: tuple[str, ...] = NATIVE_BACKENDS  # `CPU_ONLY` for an op without CUDA kernels
    gradcheck: bool = True  # off where the gradient is, on purpose, not that of the value (straight-through)


def check_op(case: OpCase) -> None:
    """Values and derivatives on every size and backend; layouts; dtypes; the reference's gradcheck."""
    for name in case.backends:
        with backend.use(name):
            for schedule in SCHEDULES if name == backend.EMULATED else (0,):
                emulator.order = schedule
                most = case.most_emulated if name == backend.EMULATED else max(case.sizes)
                for size in sorted({min(size, most) for size in case.sizes}):
                    check_values(case, case.inputs(size, torch.Generator().manual_seed(size)), name)
            check_layouts(case, name)
            check_dtypes(case, name)
    check_reference(case)


def on_backend(inputs: dict, name: str) -> dict:
    """The inputs where a backend's tensors are."""
    return {k: v.cuda() if name == "cuda" and isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


def check_values(case: OpCase, inputs: dict, name: str = "cpu") -> None:
    """The native result and its derivatives equal those of the reference in float64."""
    inputs = on_backend(inputs, name)
    ours = derivatives(case, case.function, inputs)
    with backend.use("reference"):
        theirs = derivatives(case, case.reference, {k: to_float64(v) for k, v in inputs.items()})
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert_close(name, value, theirs[name], case.rtol, case.atol)


def derivatives(case: OpCase, function: Callable, inputs: dict) -> dict[str, torch.Tensor]:
    """Outputs, gradients of a fixed random combination of them, and second derivatives, by name."""
    inputs = {k: v.detach().clone().requires_grad_() if k in case.gradients else v for k, v in inputs.items()}
    outputs = case.outputs(function(**inputs))
    found = {f"output {i}": o.detach() for i, o in enumerate(outputs)}
    if not case.gradients:
        return found
    scalar = sum(combine(o, i) for i, o in enumerate(outputs))
    wanted = [inputs[k] for k in case.gradients]
    grads = torch.autograd.grad(scalar, wanted, create_graph=bool(case.second), allow_unused=True)
    for k, g in zip(case.gradients, grads, strict=True):
        found[f"gradient of {k}"] = torch.zeros_like(inputs[k]) if g is None else g.detach()
    if case.second:
        scalar = sum(combine(g, 10 + i) for i, g in enumerate(grads) if g is not None and g.requires_grad)
        seconds = torch.autograd.grad(scalar, [inputs[k] for k in case.second], allow_unused=True)
        for k, g in zip(case.second, seconds, strict=True):
            found[f"second derivative of {k}"] = torch.zeros_like(inputs[k]) if g is None else g.detach()
    return found


def combine(x: torch.Tensor, seed: int) -> torch.Tensor:
    """A fixed random linear combination of `x`, the same in every float type."""
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(torch.float32)
    return (x * weights.to(x)).sum()


def check_layouts(case: OpCase, name: str) -> None:
    """Non-contiguous tensors give the same bits as contiguous ones."""
    inputs = on_backend(case.inputs(33, torch.Generator().manual_seed(5)), name)
    strided = {k: spread(v) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    for a, b in zip(case.outputs(case.function(**inputs)), case.outputs(case.function(**strided)), strict=True):
        assert torch.equal(a, b)


def spread(x: torch.Tensor) -> torch.Tensor:
    """The same values with a gap after each."""
    return torch.stack([x, x], dim=-1)[..., 0]


def check_dtypes(case: OpCase, name: str) -> None:
    """A wrong dtype is refused with a message that names the argument."""
    inputs = on_backend(case.inputs(7, torch.Generator().manual_seed(5)), name)
    for argument in case.wrong_dtype:
        with pytest.raises(BadInput, match=argument):
            case.function(**{**inputs, argument: inputs[argument].double()})


def check_reference(case: OpCase) -> None:
    """The reference's derivatives agree with finite differences."""
    if not (case.gradients and case.gradcheck):
        return
    inputs = {k: to_float64(v) for k, v in case.inputs(3, torch.Generator().manual_seed(7)).items()}
    points = tuple(inputs[k].requires_grad_() for k in case.gradients)

    def function(*values):
        with backend.use("reference"):
            return case.outputs(case.reference(**{**inputs, **dict(zip(case.gradients, values, strict=True))}))

    torch.autograd.gradcheck(function, points, eps=1e-6, atol=1e-5, fast_mode=True)
    if case.second:
        torch.autograd.gradgradcheck(function, points, eps=1e-6, atol=1e-4, fast_mode=True)


def to_float64(value):
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().double() if floating else value


def assert_close(name: str, ours: torch.Tensor, theirs: torch.Tensor, rtol: float, atol: float) -> None:
    """|ours - theirs| <= atol + rtol * (the largest magnitude of theirs, or its own): sums round by their terms."""
    assert ours.shape == theirs.shape, f"{name}: shape {list(ours.shape)}, expected {list(theirs.shape)}"
    if ours.numel() == 0:
        return
    difference = (ours.double() - theirs.double()).abs()
    scale = theirs.double().abs().max()
    worst = difference.max().item()
    assert worst <= atol + rtol * scale.item(), f"{name}: off by {worst:.3g} where values reach {scale.item():.3g}"


def require_pycolmap() -> None:
    """Skips the module or the test on machines that pycolmap has no wheels for (pyproject.toml); elsewhere it is there,
    as every dependency is."""
    machine = (sys.platform, platform.machine())
    if machine not in (("linux", "x86_64"), ("darwin", "arm64")) and sys.platform != "win32":
        pytest.skip(f"pycolmap has no wheels for {' '.join(machine)}", allow_module_level=True)
    import pycolmap  # noqa: F401
