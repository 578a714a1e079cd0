"""How an op runs on CUDA: which kernels of its `.cu` file are launched, with which template arguments and grid.

Beside its declaration an op names a plan, a function of its arguments:

    @FORWARD.cuda
    def _(a):
        return Launch(f"frequency_forward<{a.D}>", blocks(a.M))

`a` has, by name, what the packed struct holds: addresses of tensors (0 where absent), codes of dtypes, scalars, and the
letters' sizes. Kernels stand in namespace `radfield` in the file of the same stem; each takes the op's struct by value,
then the address of the scratch memory if the launch asks for some, then `extra` (int64_t each).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadInput

THREADS = 256  # per block, where a kernel has no reason for another number
_CXX = {
    0: "float",
    1: "radfield::bf16",
    2: "uint8_t",
    3: "int32_t",
    4: "int64_t",
    5: "uint32_t",
    6: "double",
    7: "radfield::f16",
    8: "uint16_t",
}


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    kernel: name with template arguments, without the namespace. grid: blocks in x, y, z. block: threads in x, y, z.
    shared: bytes of dynamic shared memory. scratch: bytes of device memory that all launches of the plan share,
    uninitialised. extra: further int64_t arguments.
    """

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...] = (THREADS,)
    shared: int = 0
    scratch: int = 0
    extra: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to launch: no rows, no blocks."""
        return 0 in self.grid


@dataclass(frozen=True)
class Plan:
    """What `@Op.cuda` keeps: the kernels' file and the function that lists the launches."""

    file: Path
    function: Callable

    def launches(self, arguments) -> tuple[Launch, ...]:
        """The launches of one call that have anything to do, in order."""
        found = self.function(arguments)
        return tuple(launch for launch in ((found,) if isinstance(found, Launch) else found) if not launch.empty)


@dataclass(slots=True)
class Arguments:
    """The fields of a packed struct by name."""

    values: dict = field(default_factory=dict)

    def __getattr__(self, name: str):
        return self.values[name]

    def cxx(self, name: str) -> str:
        """The C++ type of the elements of tensor `name`, which may have several dtypes."""
        return _CXX[self.values[name + "_type"]]

    def aligned(self, name: str, size: int) -> None:
        """Refuses a tensor whose memory does not start at a multiple of `size` bytes: vectors are read from it."""
        if self.values[name] % size:
            raise BadInput(
                f"{name} starts at byte {self.values[name] % size} of a {size}-byte vector; "
                "the rule: it starts at a vector (clone it)"
            )


def blocks(items: int, *others: int, threads: int = THREADS) -> tuple[int, ...]:
    """The grid with a thread for each of `items` along x, and `others` blocks along y and z."""
    return (-(-items // threads), *others)


def flag(value) -> str:
    """A C++ template argument."""
    return "true" if value else "false"
