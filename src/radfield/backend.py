"""Which implementation an op runs on: "reference" (plain torch), "cpu" (the C++ library) or "cuda" (CUDA kernels).

`RADFIELD_BACKEND` forces one; without it the tensors' device decides. `use("reference")` forces one within a block.
"tcnn" leaves hash grids and networks to tiny-cuda-nn where that is installed (compat/tcnn_backend.py), "gsplat" the
rasterisation of Gaussians to gsplat (compat/gsplat_backend.py).
"cuda-emulated" runs the CUDA kernels on the host, for tests: there only where a test has set `emulator`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable

import torch

from .errors import BadInput, warn

BACKENDS = ("reference", "cpu", "cuda", "tcnn", "gsplat")
_OTHERS = ("tcnn", "gsplat")  # packages of others do a part; the tensors' device decides for the rest
EMULATED = "cuda-emulated"
#: runs an op on host memory as CUDA would: emulator(op, packed, device)
emulator: Callable | None = None
_forced: list[str] = []


@contextlib.contextmanager
def use(name: str):
    """Within the block every op runs on the backend `name`."""
    _check(name)
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


@contextlib.contextmanager
def unforced():
    """Within the block the tensors' device decides, whatever is forced outside of it."""
    _forced.append("")
    try:
        yield
    finally:
        _forced.pop()


def by_tinycudann() -> bool:
    """Whether hash grids and networks are left to tiny-cuda-nn. Raises `BadInput` where they should and cannot be."""
    if forced() != "tcnn":
        return False
    _check("tcnn")
    return True


def by_gsplat() -> bool:
    """Whether the rasterisation of Gaussians is left to gsplat. Raises `BadInput` where it should and cannot be."""
    if forced() != "gsplat":
        return False
    _check("gsplat")
    return True


def forced() -> str | None:
    """The backend that `use` or `RADFIELD_BACKEND` asks for."""
    return (_forced[-1] if _forced else os.environ.get("RADFIELD_BACKEND")) or None


def backend_for(tensor: torch.Tensor) -> str:
    """The backend for ops on `tensor`; falls back to "reference", announced once, where there is no native library."""
    name = forced()
    if name:
        _check(name)
    if name and name not in _OTHERS:
        if name in ("cpu", EMULATED, "cuda") and tensor.device.type != _DEVICE[name]:
            raise BadInput(
                f"backend is {name!r} and a tensor is on {tensor.device}; the rule: it is on {_DEVICE[name]}"
            )
        return name
    if tensor.device.type == "cuda":
        return _cuda_backend()
    if tensor.device.type != "cpu":
        raise BadInput(f"a tensor is on {tensor.device}; the rule: there are kernels for cpu and cuda")
    return _cpu_backend()


def native(tensor: torch.Tensor) -> bool:
    """Whether ops on `tensor` run on a native backend."""
    return backend_for(tensor) != "reference"


def on_cuda(tensor: torch.Tensor) -> bool:
    """Whether ops on `tensor` run as CUDA kernels, on a GPU or emulated."""
    return backend_for(tensor) in ("cuda", EMULATED)


def check_count(op: str, count: torch.Tensor | None, tensor: torch.Tensor) -> None:
    """Refuses a number of rows that only the device knows where `tensor` is not on one: only CUDA kernels read it."""
    if count is not None and not on_cuda(tensor):
        raise BadInput(f"{op}: count is given; the rule: for CUDA kernels only, elsewhere the rows are cut")


def device(name: str | torch.device) -> tuple[torch.device, str]:
    """The device to compute on, and why: "auto" is the GPU where CUDA kernels can run, else the CPU.

    Raises `BadInput` for a GPU that is not there or cannot be used, and for what is no cpu or cuda.
    """
    if str(name) == "auto":
        why = no_cuda()
        return (torch.device("cpu"), f"no GPU: {why}") if why else (_gpu(None), "CUDA kernels run on this GPU")
    try:
        asked = torch.device(name)
    except RuntimeError:
        raise BadInput(f"device is {name!r:.40}; the rule: auto, cpu or cuda") from None
    if asked.type == "cpu":
        return asked, "asked for"
    if asked.type != "cuda":
        raise BadInput(f"device is {str(asked)!r}; the rule: auto, cpu or cuda")
    if why := no_cuda():
        raise BadInput(f"device is {str(asked)!r}; the rule: auto or cpu here: {why}")
    return _gpu(asked.index), "asked for"


def no_cuda() -> str | None:
    """Why nothing computes on a GPU here, None where it can: CUDA's reason, or that another backend is forced."""
    if forced() not in (None, "cuda", *_OTHERS):
        return f"the backend is forced to be {forced()!r}"
    from .cuda import library

    return library.unavailable()


def _gpu(index: int | None) -> torch.device:
    index, count = torch.cuda.current_device() if index is None else index, torch.cuda.device_count()
    if index >= count:
        raise BadInput(f"device is 'cuda:{index}'; the rule: below cuda:{count}, the number of GPUs here")
    return torch.device("cuda", index)


def runner(device: torch.device) -> Callable:
    """What runs an op whose tensors are on `device`: runner(op, packed, device)."""
    if device.type == "cuda":
        from .cuda import library

        return library.call
    if device.type != "cpu":
        raise BadInput(f"the tensors are on {device}; the rule: there are kernels for cpu and cuda")
    if _forced and _forced[-1] == EMULATED:
        return emulator
    from .cpu import library

    return library.call


_DEVICE = {"cpu": "cpu", EMULATED: "cpu", "cuda": "cuda"}


@functools.cache
def _cpu_backend() -> str:
    from .cpu import library

    if library.library() is not None:
        return "cpu"
    warn(f"no compiled library for this machine ({library.machine()}): ops run as plain torch, slowly")
    return "reference"


@functools.cache
def _cuda_backend() -> str:
    from .cuda import library

    if reason := library.unavailable():
        warn(f"no CUDA kernels here ({reason}): ops on a GPU run as plain torch, slowly")
        return "reference"
    return "cuda"


def _check(name: str) -> None:
    if name == EMULATED and emulator is not None:
        return
    if name not in BACKENDS:
        raise BadInput(f"backend is {name!r}; the rule: one of {', '.join(BACKENDS)}")
    if name in _OTHERS:
        from .compat import gsplat_backend, tcnn_backend

        package = tcnn_backend if name == "tcnn" else gsplat_backend
        if reason := package.unavailable():
            raise BadInput(f"backend is {name!r}: {reason}")
    if name == "cuda":
        from .cuda import library

        if reason := library.unavailable():
            raise BadInput(f"backend is 'cuda': {reason}")
