"""A pytest plugin (`-p remote_library`): every op runs in the driver that `RADFIELD_TEST_DRIVER` starts, a process with
a library of another architecture or build (tests/cpu/driver.cpp), instead of in the library that Python has loaded.

What `Op` packs holds addresses; the declaration tells how many bytes lie there, so the content goes there and back.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
import subprocess

from op_memory import tensors

from radfield.cpu import library

_driver: subprocess.Popen | None = None


def driver() -> subprocess.Popen:
    """The driver's process, started when first needed."""
    global _driver
    if _driver is None:
        command = shlex.split(os.environ["RADFIELD_TEST_DRIVER"])
        _driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return _driver


def call(op, packed: bytes, device=None) -> None:
    """Stands in for `library.call`."""
    fields = list(struct.unpack(f"={len(packed) // 8}q", packed))
    places = tensors(op, fields)
    buffers: dict[int, tuple[int, bool]] = {}  # address -> bytes, written; an address given twice is one buffer
    for argument, index, size in places:
        if fields[index]:
            known, was_written = buffers.get(fields[index], (0, False))
            buffers[fields[index]] = max(known, size), argument.role != "in" or was_written
    numbers = {address: i + 1 for i, address in enumerate(buffers)}
    for _, index, _ in places:
        fields[index] = numbers.get(fields[index], 0)

    name = op.name.encode()
    pipe = driver().stdin
    pipe.write(struct.pack("=q", len(name)) + name)
    pipe.write(struct.pack(f"=q{len(fields)}q", len(packed), *fields))
    pipe.write(struct.pack(f"=q{2 * len(buffers)}q", len(buffers), *(int(n) for b in buffers.values() for n in b)))
    pipe.write(struct.pack(f"=q{len(places)}q", len(places), *(index for _, index, _ in places)))
    for address, (size, _) in buffers.items():
        pipe.write((ctypes.c_char * size).from_address(address))
    pipe.flush()
    for address, (size, written) in buffers.items():
        if written:
            receive(op, (ctypes.c_char * size).from_address(address))


def receive(op, target) -> None:
    """Fills `target` from the driver."""
    got = driver().stdout.readinto(target)
    if got != len(target):
        raise RuntimeError(f"{op.name}: the driver stopped with {driver().wait(10)}")


library.call = call


def pytest_sessionfinish(session) -> None:
    """A run in which no op came here has tested nothing."""
    if _driver is None:
        session.exitstatus = 1
