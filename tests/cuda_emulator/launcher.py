"""Compiles CUDA C++ for the host emulator (emulator.h) and launches its kernels on host memory.

Two builds: "fast" computes values only; in "checked" every access of a kernel goes through the emulator's hooks. An
`order` is a schedule of a block's threads: 0 forward, 1 backward, anything else the seed of a random one.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radfield.cuda.compiler import qualified
from radfield.cuda.source import flat_source, place

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "cuda_emulator"  # in the checkout: what is loaded from it is our own
# no-gnu-unique: statics of templates, such as where a shared array lies, are each library's own
_BASE = [
    *["-std=c++20", "-x", "c++", "-fPIC", "-fno-semantic-interposition", "-fno-gnu-unique", "-fno-strict-aliasing"],
    *["-ffp-contract=off", "-g1", "-w"],
]
BUILDS = {
    "fast": ["-O2"],
    "checked": [
        *("-O1", "-fsanitize=thread", "-fsanitize=alignment,bounds"),
        *("--param", "tsan-instrument-func-entry-exit=0"),
    ],
}
INPUT, IN_PLACE, OUTPUT = 0, 1, 2  # roles of memory: fibers.h
_SHADOW = 24  # bytes that the checked build keeps per byte of memory


class EmulationError(RuntimeError):
    """A kernel broke a rule of CUDA."""


@dataclass(frozen=True)
class Memory:
    """Memory that a kernel may reach: a name for messages, its bytes, and its role."""

    name: str
    address: int
    size: int
    role: int = IN_PLACE


class _Range(ctypes.Structure):
    _fields_ = [
        *(("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("name", ctypes.c_char_p)),
        *(("shadow", ctypes.c_void_p), ("role", ctypes.c_uint)),
    ]


class _Options(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("order", "global_races")]
    _fields_ += [(name, ctypes.c_ulonglong) for name in ("switches", "barriers", "collectives")]
    _fields_ += [("stacks", ctypes.c_void_p)]


class Reach:
    """The memory of one call, with what the checked build remembers of each byte from launch to launch."""

    def __init__(self, memory: list[Memory], checked: bool = True):
        self._shadows = [np.zeros(m.size * _SHADOW, np.uint8) if checked else None for m in memory]
        rows = [
            _Range(m.address, m.address + m.size, m.name.encode(), s.ctypes.data if s is not None else None, m.role)
            for m, s in zip(memory, self._shadows, strict=True)
        ]
        self.ranges, self.count = (_Range * len(rows))(*rows), len(rows)


_of_thread = threading.local()


def _stacks(library: ctypes.CDLL) -> int:
    """The stacks of a block's threads, which all libraries share; each thread of this process has its own."""
    if not hasattr(_of_thread, "stacks"):
        make = library.cuda_emu_stacks
        make.restype = ctypes.c_void_p
        _of_thread.stacks = make()
        if not _of_thread.stacks:
            raise MemoryError("no room for the stacks of the emulator's threads")
    return _of_thread.stacks


class Kernel:
    """One kernel of a compiled file."""

    def __init__(self, library: ctypes.CDLL, i: int, name: str):
        self.name, self._library = name, library
        self._launch = library[f"cuda_emu_launch_{i}"]
        self._launch.restype = ctypes.c_char_p
        sizes = (ctypes.c_uint * 64)()
        count = library[f"cuda_emu_parameters_{i}"](sizes)
        self.sizes = list(sizes[:count])

    def __call__(self, grid, block, values, reach: Reach, shared=0, order=0, global_races=True) -> dict:
        """Runs all blocks; `values` are the arguments as ctypes. Returns counts of switches, barriers, collectives."""
        sizes = [ctypes.sizeof(v) for v in values]
        if sizes != self.sizes:
            raise TypeError(f"{self.name} takes arguments of {self.sizes} bytes, not {sizes}")
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        how = _Options(order, global_races, stacks=_stacks(self._library))
        dims = [(ctypes.c_uint * 3)(*d, *(1,) * (3 - len(d))) for d in (grid, block)]
        error = self._launch(dims[0], dims[1], shared, pointers, reach.ranges, reach.count, ctypes.byref(how))
        if error:
            raise EmulationError(f"{self.name}: {re.sub(' @([0-9a-f]+)$', self._place, error.decode())}")
        return {name: getattr(how, name) for name in ("switches", "barriers", "collectives")}

    def _place(self, match: re.Match) -> str:
        """The source line of an instruction, and that of the kernel into which it was inlined."""
        command = ["addr2line", "-i", "-e", self._library._name, match[1]]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        known = [found[1] for line in lines if (found := re.search(r"([\w.+-]+:\d+)(?: |$)", line))]
        return f" ({known[0]})" if len(set(known)) == 1 else f" ({known[0]}, from {known[-1]})" if known else ""


def compile_text(text: str, kernels: tuple[str, ...], build: str = "checked", defines=()) -> dict[str, Kernel]:
    """Compiles CUDA C++ for the kernels named, with template arguments; {name: Kernel}."""
    exports = "".join(f"CUDA_EMU_EXPORT({i}, ({qualified(k)}))\n" for i, k in enumerate(kernels))
    flags = [*_BASE, *BUILDS[build], *(f"-D{d}" for d in defines)]
    source = f"{text}\n{exports}"
    key = hashlib.sha256(repr((source, flags, _emulator_text(), _compiler())).encode()).hexdigest()[:24]
    library = CACHE / f"{key}.so"
    if not library.exists():
        _build(source, flags, library)
    loaded = ctypes.CDLL(str(library))
    return {name: Kernel(loaded, i, name) for i, name in enumerate(kernels)}


@functools.cache
def compile_file(path: Path, kernels: tuple[str, ...], build: str = "checked", defines=()) -> dict[str, Kernel]:
    """The kernels of a `.cu` file."""
    return compile_text(f'#line 1 "{place(path)}"\n{flat_source(path)}', kernels, build, defines)


def _build(source: str, flags: list[str], library: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = library.with_suffix(f".{os.getpid()}")
    compile_it = [*flags, "-include", str(HERE / "emulator.h"), "-c", "-", "-o", f"{scratch}.o"]
    # Linked without -fsanitize=thread: the hooks of checks.h stand in for libtsan.
    link = ["-shared", "-Wl,--no-undefined", f"{scratch}.o", "-o", f"{scratch}.so"]
    try:
        for command, text in ((compile_it, source), (link, None)):
            done = subprocess.run(["g++", *command], input=text, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[:4000])
        os.replace(f"{scratch}.so", library)
    finally:
        for suffix in (".o", ".so"):
            Path(f"{scratch}{suffix}").unlink(missing_ok=True)


@functools.cache
def _emulator_text() -> list[str]:
    return [path.read_text() for path in sorted(HERE.glob("*.h"))]


@functools.cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
