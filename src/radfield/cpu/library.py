"""Loads the C++ library of the best instruction set that this CPU has, and calls its functions.

One library per instruction set stands in this folder (`libradfield-<isa>.so`). `RADFIELD_ISA` forces one,
`RADFIELD_NUM_THREADS` sets the size of the thread pool, `RADFIELD_AMX=0` keeps networks off AMX's tiles. After
`os.fork()` the child has a pool of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import math
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
    """Where the library of an instruction set stands, or None: in `RADFIELD_LIBRARY_FOLDER` (for tests of special
    builds), in this folder, or, for an editable install, where the installer put the built files."""
    name = f"libradfield-{isa}{_SUFFIX}"
    if folder := os.environ.get("RADFIELD_LIBRARY_FOLDER"):
        return Path(folder) / name if (Path(folder) / name).exists() else None
    beside = Path(__file__).parent / name
    if beside.exists():
        return beside
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = Path(importlib.metadata.distribution("radfield").locate_file("radfield/cpu")) / name
        return installed if installed.exists() else None
    return None


def usable_isas() -> list[str]:
    """The instruction sets that are built and that this CPU has, best first."""
    known = INSTRUCTION_SETS.get(machine(), {})
    return [isa for isa, needs in known.items() if needs <= cpu_features() and library_path(isa)]


def choose_isa() -> str | None:
    """The instruction set to load: `RADFIELD_ISA`, or the best usable one; None where there is none."""
    usable = usable_isas()
    forced = os.environ.get("RADFIELD_ISA")
    if forced and forced not in usable:
        raise BadInput(f"RADFIELD_ISA is {forced!r}; the rule: one that is built and that this CPU has, of {usable}")
    return forced or next(iter(usable), None)


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
    return loaded


def default_num_threads() -> int:
    """`RADFIELD_NUM_THREADS`, or the CPUs that this process may use."""
    text = os.environ.get("RADFIELD_NUM_THREADS")
    if text:
        if not text.isdecimal() or not 1 <= int(text) <= 1024:
            raise BadInput(f"RADFIELD_NUM_THREADS is {text!r}; the rule: a whole number from 1 to 1024")
        return int(text)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, _cpu_quota() or cpus, 1024)


def amx_wanted() -> bool:
    """Whether the tiles of AMX are used where the CPU has them: unless `RADFIELD_AMX` is 0."""
    text = os.environ.get("RADFIELD_AMX") or "1"
    if text not in ("0", "1"):
        raise BadInput(f"RADFIELD_AMX is {text!r}; the rule: 0 or 1")
    return text == "1"


def _cpu_quota() -> int | None:
    """The CPU time that a container is given, in CPUs rounded up; None without a limit. Its affinity still shows all
    CPUs of the machine, and a pool that size would be stopped for most of every period."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # another system, or "max 100000": no limit
        return None


def set_num_threads(threads: int) -> None:
    """Sets the size of the thread pool, from 1 to 1024, the calling thread included."""
    if not 1 <= threads <= 1024:
        raise BadInput(f"threads is {threads}; the rule: a whole number from 1 to 1024")
    if library() is not None:
        library().radfield_set_num_threads(threads)


def num_threads() -> int:
    """The size of the thread pool."""
    return library().radfield_num_threads() if library() is not None else 1


@contextlib.contextmanager
def one_torch_thread():
    """Within the block torch computes on the calling thread alone: its waiting threads would take CPUs from ours (see
    parallel.h), and its sums would depend on the number of threads. For loops that call our ops over and over."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def _function(name: str, size: int):
    loaded = library()
    if loaded is None:
        raise BadInput(f"{name}: no compiled library for {machine()}; the rule: use RADFIELD_BACKEND=reference here")
    if not hasattr(loaded, name):
        raise RuntimeError(f"{name}: the library {library_path(choose_isa())} has no such function: build it again")
    native_size = getattr(loaded, name + "_size")
    native_size.restype = ctypes.c_int64
    if native_size() != size:
        raise RuntimeError(
            f"{name}: the library's struct has {native_size()} bytes, the declaration {size}: build it again"
        )
    function = getattr(loaded, name)
    function.argtypes, function.restype = [ctypes.c_char_p], None
    return function


def call(op, packed: bytes, device=None) -> None:
    """Calls the native function of `op` with its packed arguments, without the GIL; costs 0.4 us beyond the op."""
    _function(op.name, op.size)(packed)


def describe() -> dict:
    """What `radfield doctor` shows: isa, path, threads, and the features that are chosen at run time."""
    isa = choose_isa()
    chosen = {"avx512_bf16", "avx512_fp16"} | ({"amx_bf16"} if amx_wanted() else set())
    extra = sorted(cpu_features() & chosen)
    return {
        "isa": isa,
        "path": str(library_path(isa)) if isa else None,
        "threads": num_threads(),
        "features": extra,
        "machine": machine(),
    }
