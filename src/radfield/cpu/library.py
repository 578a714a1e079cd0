"""Loads the C++ library of the best instruction set that this CPU has, and calls its functions.

One library per instruction set stands in this folder (`libradfield-<isa>.so`). `RADFIELD_ISA` forces one,
`RADFIELD_NUM_THREADS` sets the size of the thread pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from ..errors import BadInput

#: instruction sets per machine, best first, with the CPU features each needs (names of /proc/cpuinfo)
_V2 = {"sse4_2", "ssse3", "popcnt"}
_V3 = _V2 | {"avx2", "fma", "bmi2", "f16c"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
INSTRUCTION_SETS = {
    "x86_64": {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2},
    "aarch64": {"arm64": set()},
}
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


@functools.cache
def cpu_features() -> frozenset[str]:
    """The CPU's features by their Linux names; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset(_V3) if sys.platform in ("darwin", "win32") else frozenset()
    for line in text.splitlines():
        if line.lower().startswith(("flags", "features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def machine() -> str:
    """ "x86_64" or "aarch64", or the system's own word for another machine."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def library_path(isa: str) -> Path | None:
    """Where the library of an instruction set stands, or None: in this folder, or, for an editable install, where the
    installer put the built files."""
    name = f"libradfield-{isa}{_SUFFIX}"
    folders = [Path(__file__).parent]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        folders.append(Path(importlib.metadata.distribution("radfield").locate_file("radfield/cpu")))
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def choose_isa() -> str | None:
    """The instruction set to load: `RADFIELD_ISA`, or the best that is built and that the CPU has; None where none is."""
    known = INSTRUCTION_SETS.get(machine(), {})
    forced = os.environ.get("RADFIELD_ISA")
    if forced:
        if forced not in known or library_path(forced) is None:
            built = [isa for isa in known if library_path(isa)]
            raise BadInput(f"RADFIELD_ISA is {forced!r}; the rule: one that is built here, of {built}")
        return forced
    return next((isa for isa, needs in known.items() if needs <= cpu_features() and library_path(isa)), None)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library with its thread pool started, or None where this platform has none."""
    isa = choose_isa()
    if isa is None:
        return None
    loaded = ctypes.CDLL(str(library_path(isa)))
    loaded.radfield_set_num_threads.argtypes = [ctypes.c_int64]
    loaded.radfield_set_num_threads.restype = None
    loaded.radfield_num_threads.restype = ctypes.c_int64
    loaded.radfield_set_num_threads(default_num_threads())
    os.register_at_fork(after_in_child=lambda: _restart_after_fork(loaded))
    return loaded


def _restart_after_fork(loaded: ctypes.CDLL) -> None:
    loaded.radfield_forget_threads()
    loaded.radfield_set_num_threads(default_num_threads())


def default_num_threads() -> int:
    """`RADFIELD_NUM_THREADS`, or the CPUs that this process may use."""
    text = os.environ.get("RADFIELD_NUM_THREADS")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise BadInput(f"RADFIELD_NUM_THREADS is {text!r}; the rule: a whole number from 1 to 1024")
    return int(text)


def set_num_threads(threads: int) -> None:
    """Sets the size of the thread pool, from 1 to 1024, the calling thread included."""
    if not 1 <= threads <= 1024:
        raise BadInput(f"threads is {threads}; the rule: a whole number from 1 to 1024")
    if library() is not None:
        library().radfield_set_num_threads(threads)


def num_threads() -> int:
    """The size of the thread pool."""
    return library().radfield_num_threads() if library() is not None else 1


@functools.cache
def _function(name: str, size: int):
    loaded = library()
    if loaded is None:
        raise BadInput(f"{name}: no compiled library for {machine()}; the rule: use RADFIELD_BACKEND=reference here")
    native_size = getattr(loaded, name + "_size")
    native_size.restype = ctypes.c_int64
    if native_size() != size:
        raise RuntimeError(f"{name}: the library's struct has {native_size()} bytes, the declaration {size}: rebuild")
    function = getattr(loaded, name)
    function.argtypes, function.restype = [ctypes.c_char_p], None
    return function


def call(op, packed: bytes) -> None:
    """Calls the native function of `op` with its packed arguments, without the GIL."""
    _function(op.name, op.size)(packed)


def describe() -> dict:
    """What `radfield doctor` shows: isa, path, threads, and the features that are chosen at run time."""
    isa = choose_isa()
    extra = sorted(cpu_features() & {"avx512_bf16", "amx_bf16", "avx512_fp16"})
    return {
        "isa": isa,
        "path": str(library_path(isa)) if isa else None,
        "threads": num_threads(),
        "features": extra,
        "machine": machine(),
    }
