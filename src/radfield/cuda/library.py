"""Kernels: found in memory, on disk or compiled; loaded into a device; launched on torch's current stream there.

Every status of the driver is checked; an error names the kernel. Nothing here touches the driver before torch has found
a GPU: a driver that is not there may not answer at all.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import warnings
from pathlib import Path

import torch

from ..errors import BadInput
from . import cache, compiler
from .plan import Launch
from .source import flat_source, place

_OLDEST_GPU = 75
#: the options that make a training or a rendering take less of a GPU
SMALLER = "smaller: --ngp.batch-samples, --ngp.log2-size, --memory-gb (decoded images), --max-size"
_FREE_SHARED = 48 << 10  # bytes of dynamic shared memory that a kernel may have without asking


@functools.cache
def unavailable() -> str | None:
    """Why CUDA kernels cannot run here, in one line; None where they can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if reason := _torchs_reason():
        return reason
    if reason := compiler.missing():
        return reason
    arch = architecture(torch.device("cuda", torch.cuda.current_device()))
    if int(arch.removeprefix("sm_")) < _OLDEST_GPU:
        return f"the GPU is {arch}, the rule: sm_{_OLDEST_GPU} or newer"
    try:
        compiler.check_architecture(arch)
    except BadInput as error:
        return str(error)
    return None


def _torchs_reason() -> str | None:
    """Why torch has no GPU, in its own words where it says something, such as that the driver is too old."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    words = [" ".join(str(warning.message).split()) for warning in said]
    return f"torch finds no GPU that it can use: {words[0]:.300}" if words else "torch finds no GPU"


@functools.cache
def architecture(device: torch.device) -> str:
    """ "sm_90" for compute capability 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def build(file: Path, kernel: str, arch: str) -> tuple[bytes, str]:
    """The machine code of one kernel of `file` and its mangled name, from the cache on disk or compiled now."""
    text = flat_source(file)
    entry = cache.key(text, kernel, arch, compiler.OPTIONS, compiler.version())
    found = cache.load(entry)
    if found is None:
        _announce(arch)
        cubin = compiler.compile_cubin(text, place(file), (kernel,), arch)
        found = cubin.code, cubin.symbols[kernel]
        cache.store(entry, *found)
    return found


@functools.cache
def _announce(arch: str) -> None:
    """Says once per process that something is being compiled: the first steps of a first training take seconds longer.
    (Compiling in several threads was measured: no faster, NVRTC 13.5 takes turns.)"""
    print(f"radfield: compiling CUDA kernels for {arch}, once per machine", file=sys.stderr)


class Kernel:
    """A kernel loaded into the context of one device."""

    def __init__(self, file: Path, name: str, device: torch.device):
        self.name, self.device, self._shared = name, device, _FREE_SHARED
        code, symbol = build(file, name, architecture(device))
        self.driver = _driver()
        self._module = self._checked(self.driver.cuModuleLoadData(code), "load")
        self._function = self._checked(self.driver.cuModuleGetFunction(self._module, symbol.encode()), "find")

    def __call__(self, launch: Launch, parameters: int, stream: int) -> None:
        """Launches; `parameters` is the address of the array of addresses of the arguments."""
        if launch.shared > self._shared:
            attribute = self.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            status = self.driver.cuFuncSetAttribute(self._function, attribute, launch.shared)
            self._checked(status, f"set to {launch.shared} bytes of shared memory")
            self._shared = launch.shared
        grid, block = (*launch.grid, 1, 1)[:3], (*launch.block, 1, 1)[:3]
        arguments = (self._function, *grid, *block, launch.shared, stream, parameters, 0)
        status = self.driver.cuLaunchKernel(*arguments)
        if int(status[0]) == 201:  # invalid context: the first launch from a thread that torch has not seen
            torch.cuda.set_device(self.device)
            torch.cuda.current_stream(self.device).synchronize()
            status = self.driver.cuLaunchKernel(*arguments)
        self._checked(status, f"launch with grid {grid}, block {block}, {launch.shared} bytes of shared memory")

    def _checked(self, result: tuple, action: str):
        status = result[0]
        if int(status) == 0:
            return result[1] if len(result) > 1 else None
        if int(status) == 2:
            raise out_of_memory(self.name, self.device, action)
        text = self.driver.cuGetErrorString(status)[1]
        text = text.decode() if isinstance(text, bytes) else text
        raise RuntimeError(f"{self.name}: cannot {action} on {self.device}: {status.name}: {text}")


def out_of_memory(name: str, device: torch.device, action: str) -> BadInput:
    """What was asked, what is free, and what makes it less."""
    free, total = torch.cuda.mem_get_info(device)
    return BadInput(f"{name}: out of memory on {device}: cannot {action}, {free} of {total} bytes are free; {SMALLER}")


@functools.cache
def _driver():
    from cuda.bindings import driver

    return driver


@functools.cache
def kernel(file: Path, name: str, device: torch.device) -> Kernel:
    """The loaded kernel. Raises `BadInput` where CUDA cannot be used here, saying why."""
    if reason := unavailable():
        raise BadInput(f"{name}: {reason}")
    return Kernel(file, name, device)


def call(op, packed: bytes, device: torch.device) -> None:
    """Runs `op` with its packed arguments on torch's current stream of `device`."""
    launches = op.launches(packed)
    if torch.cuda.current_device() == device.index:
        return _run(op, launches, packed, device)
    with torch.cuda.device(device):
        _run(op, launches, packed, device)


def _run(op, launches: tuple[Launch, ...], packed: bytes, device: torch.device) -> None:
    # a raw handle: torch's Stream object costs microseconds
    stream = torch._C._cuda_getCurrentRawStream(device.index)
    scratch = None
    if size := max((launch.scratch for launch in launches), default=0):
        try:
            scratch = torch.empty(size, dtype=torch.uint8, device=device)  # torch reuses it once this stream has passed
        except torch.OutOfMemoryError:
            raise out_of_memory(op.name, device, f"take {size} bytes of scratch memory") from None
    for launch in launches:
        values = parameter_values(launch, packed, 0 if scratch is None else scratch.data_ptr())
        array = addresses_of(values)  # the driver copies the arguments before it returns
        kernel(op.plan.file, launch.kernel, device)(launch, ctypes.addressof(array), stream)


def parameter_values(launch: Launch, packed: bytes, scratch: int) -> tuple:
    """The kernel's arguments as ctypes values: the struct, the scratch memory if asked for, and what is extra."""
    numbers = ([scratch] if launch.scratch else []) + list(launch.extra)
    return (ctypes.create_string_buffer(packed, len(packed)), *map(ctypes.c_int64, numbers))


def addresses_of(values: tuple) -> ctypes.Array:
    """The array of their addresses, as the driver takes arguments."""
    return (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))


def describe() -> dict:
    """What `radfield doctor` shows: why CUDA cannot be used (None where it can), NVRTC's version, and the cache."""
    nvrtc = None if compiler.missing() else ".".join(map(str, compiler.version()))
    return {"unavailable": unavailable(), "nvrtc": nvrtc, "cache": cache.describe()}
