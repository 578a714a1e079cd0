"""Which implementation an op runs on: "reference" (plain torch), "cpu" (the C++ library) or, later, "cuda".

`RADFIELD_BACKEND` forces one; without it the tensors' device decides. `use("reference")` forces one within a block.
"""

from __future__ import annotations

import contextlib
import functools
import os

import torch

from .errors import BadInput, warn

BACKENDS = ("reference", "cpu", "cuda")
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


def backend_for(tensor: torch.Tensor) -> str:
    """The backend for ops on `tensor`; falls back to "reference", announced once, where there is no native library."""
    name = _forced[-1] if _forced else os.environ.get("RADFIELD_BACKEND")
    if name:
        _check(name)
        return name
    if tensor.device.type != "cpu":
        raise BadInput(f"a tensor is on {tensor.device}; the rule: this version has kernels for cpu only")
    return _cpu_backend()


def native(tensor: torch.Tensor) -> bool:
    """Whether ops on `tensor` run on a native backend."""
    return backend_for(tensor) != "reference"


@functools.cache
def _cpu_backend() -> str:
    from .cpu import library

    if library.library() is not None:
        return "cpu"
    warn(f"no compiled library for this machine ({library.machine()}): ops run as plain torch, slowly")
    return "reference"


def _check(name: str) -> None:
    if name not in BACKENDS:
        raise BadInput(f"backend is {name!r}; the rule: one of {', '.join(BACKENDS)}")
    if name == "cuda":
        raise BadInput("backend is 'cuda'; the rule: this version has kernels for cpu only")
