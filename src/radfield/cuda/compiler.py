"""NVRTC: CUDA C++ to a cubin for one architecture, through NVIDIA's package `cuda.core`. No GPU or driver is needed."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass

from ..errors import BadInput

# As the CPU's kernels are compiled and run: no contraction (a fused multiply-add stands where the source says fma),
# numbers below 2^-126 are 0; division and square root are rounded correctly.
OPTIONS = {
    "std": "c++20",
    "fma": False,
    "ftz": True,
    "prec_div": True,
    "prec_sqrt": True,
    "device_as_default_execution_space": True,  # constexpr and other plain functions of headers are for the device too
}
_OLDEST = (12, 8)


@dataclass(frozen=True)
class Cubin:
    """Machine code, and the mangled name of each kernel in it."""

    code: bytes
    symbols: dict[str, str]


def _core():
    """The package's module that has `Program`: of older releases, which other packages may have brought, the
    experimental one."""
    import cuda.core

    return cuda.core if hasattr(cuda.core, "Program") else importlib.import_module("cuda.core.experimental")


def missing() -> str | None:
    """Why nothing can be compiled, in one line; None where NVRTC is there."""
    try:
        found = version()
    except ImportError as error:
        return f"cuda.core is not installed ({_line(error)}): pip install 'cuda-core[cu13]'"
    except (OSError, RuntimeError, AttributeError) as error:  # the package is there, its library is not, or is another
        return f"NVRTC cannot be loaded ({_line(error)}): pip install nvidia-cuda-nvrtc"
    if found < _OLDEST:
        return f"NVRTC is {found[0]}.{found[1]}, the rule: 12.8 or newer"
    return None


@functools.cache
def version() -> tuple[int, int]:
    """NVRTC's version. Raises what its package raises where it cannot be loaded."""
    _core()  # pip brings the bindings' NVRTC with it
    from cuda.bindings import nvrtc

    status, major, minor = nvrtc.nvrtcVersion()
    if int(status):
        raise OSError(f"nvrtcVersion: {status}")
    return int(major), int(minor)


@functools.cache
def architectures() -> tuple[int, ...]:
    """The compute capabilities, as 75 for 7.5, that this NVRTC knows."""
    from cuda.bindings import nvrtc

    status, *found = nvrtc.nvrtcGetSupportedArchs()
    if int(status):
        raise OSError(f"nvrtcGetSupportedArchs: {status}")
    return tuple(sorted(int(a) for a in found[-1]))


def check_architecture(arch: str) -> None:
    """Raises `BadInput` where NVRTC does not know "sm_<number>"."""
    known = architectures()
    if int(arch.removeprefix("sm_")) not in known:
        raise BadInput(
            f"the GPU is {arch}; the rule: NVRTC {version()[0]}.{version()[1]} compiles for sm_{known[0]} to "
            f"sm_{known[-1]} (update nvidia-cuda-nvrtc)"
        )


def compile_cubin(text: str, name: str, kernels: tuple[str, ...], arch: str) -> Cubin:
    """Compiles `text` (of the file `name`) for `kernels`, names with template arguments, and `arch`, "sm_<number>".

    Raises `BadInput` without NVRTC or for an architecture that it does not know, and `RuntimeError` with NVRTC's log
    where the source has an error.
    """
    if reason := missing():
        raise BadInput(reason)
    check_architecture(arch)
    core = _core()
    errors = importlib.import_module(f"{core.__name__}._utils.cuda_utils")  # what Program raises; it has no public name

    names = [qualified(kernel) for kernel in kernels]
    try:
        program = core.Program(text, "c++", core.ProgramOptions(arch=arch, name=name, **OPTIONS))
        found = program.compile("cubin", name_expressions=names)
    except errors.CUDAError as error:
        raise RuntimeError(f"{name} does not compile for {arch} ({', '.join(kernels)}): {error}") from None
    symbols = {kernel: _text(found.symbol_mapping[full]) for kernel, full in zip(kernels, names, strict=True)}
    return Cubin(bytes(found.code), symbols)


def qualified(kernel: str) -> str:
    """The kernel's name in C++: all of them stand in namespace radfield."""
    return f"radfield::{kernel}"


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
