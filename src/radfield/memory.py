"""Memory of large streams: blocks on huge pages that are used again.

A training step makes and drops a dozen streams of megabytes. From malloc each is fresh pages, which the system clears
one by one at first touch, and on pages of 4 KB dozens of streams that are read side by side need more address
translations than a CPU remembers. Here a dropped block is kept and handed out again.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections import defaultdict

import torch

#: smaller tensors come from torch's own allocator
SMALLEST = 1 << 20
#: bytes of unused blocks that are kept at most; what is freed beyond that goes back to the system
KEPT = 1 << 29
_HUGE_PAGE = 1 << 21

_free: dict[int, list[mmap.mmap]] = defaultdict(list)
_kept = 0


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
    """An uninitialised contiguous tensor; on the CPU, which it is without `device`, from a kept block where one of that
    size is free."""
    if device is not None and device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    count = 1
    for n in shape:
        count *= n
    size = count * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(_lease(_block_size(size)), dtype=dtype, count=count).view(shape)


def _block_size(size: int) -> int:
    # whole huge pages, in steps of an eighth of the power of two below, so that sizes that vary a little share blocks
    step = max(_HUGE_PAGE, 1 << max(size.bit_length() - 4, 0))
    return -(-size // step) * step


def _lease(size: int) -> ctypes.Array:
    """A buffer on a block; the block is free again when nobody holds the buffer (a tensor on it does)."""
    global _kept
    blocks = _free[size]
    if blocks:
        block = blocks.pop()
        _kept -= size
    else:
        block = _map(size)
    buffer = (ctypes.c_char * size).from_buffer(block)
    weakref.finalize(buffer, _take_back, block, size).atexit = False
    return buffer


def _map(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _take_back(block: mmap.mmap, size: int) -> None:
    global _kept
    if _kept + size <= KEPT:
        _free[size].append(block)
        _kept += size
