"""The backend "cuda-emulated": an op's CUDA kernels, by the plan and the struct that a GPU gets, on host memory.

Every launch runs in the checked build. Outputs are filled with NaN first, so that what a kernel leaves unwritten shows.
"""

from __future__ import annotations

import ctypes
import struct

import torch
from op_memory import tensors

from radfield import backend
from radfield.cuda.library import parameter_values

from .launcher import IN_PLACE, INPUT, OUTPUT, Memory, Reach, compile_file

SCHEDULES = (0, 1, 7)
_ROLES = {"in": INPUT, "inout": IN_PLACE, "out": OUTPUT}


class Emulator:
    """Runs ops; `order` is the schedule, `build` the build, `launched` the kernels seen so far, (file, name) each."""

    def __init__(self, build: str = "checked"):
        self.build, self.order, self.launched, self.defines = build, 0, set(), ()

    def __call__(self, op, packed: bytes, device: torch.device) -> None:
        launches = op.launches(packed)
        scratch = ctypes.create_string_buffer(max((launch.scratch for launch in launches), default=0) + 256)
        start = -(-ctypes.addressof(scratch) // 256) * 256  # as aligned as memory of a GPU
        size = max((launch.scratch for launch in launches), default=0)
        reach = Reach([*memory_of(op, packed), Memory("scratch", start, size, OUTPUT)], self.build == "checked")
        names = tuple(sorted({launch.kernel for launch in launches}))
        kernels = compile_file(op.plan.file, names, self.build, self.defines) if names else {}
        self.launched |= {(op.plan.file, name) for name in names}
        for launch in launches:
            values = parameter_values(launch, packed, start)
            kernels[launch.kernel](launch.grid, launch.block, values, reach, launch.shared, self.order)


def memory_of(op, packed: bytes) -> list[Memory]:
    """The tensors that a packed struct names, outputs filled with NaN. One that is given twice has both roles."""
    fields = struct.unpack(f"={len(packed) // 8}q", packed)
    found: dict[int, Memory] = {}
    for argument, index, size in tensors(op, fields):
        address = fields[index]
        if not address or not size:
            continue
        role = _ROLES[argument.role]
        if role == OUTPUT:
            ctypes.memset(address, 0xFF, size)
        if known := found.get(address):
            role = role if known.role == role else IN_PLACE
        found[address] = Memory(argument.name, address, size, role)
    return list(found.values())


emulator = Emulator()
backend.emulator = emulator
