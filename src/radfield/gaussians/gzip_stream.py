"""A gzip stream packed by several threads: one member, whose blocks are packed side by side, each with the 32 KB before
it as its dictionary, and joined at bytes (as pigz does; RFC 1951 and 1952). The bytes do not depend on the number of
threads, and are about those of one thread: a block more costs five bytes.
"""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

from ..cpu.library import num_threads

_BLOCK, _WINDOW = 1 << 20, 1 << 15  # bytes
_HEADER = b"\x1f\x8b\x08\0" + bytes(4) + b"\0\xff"  # deflate, no flags, no time, from an unknown system


def gzipped(content: bytes, level: int) -> bytes:
    """`content` as one gzip stream; `level` is zlib's, 0 to 9."""
    with ThreadPoolExecutor(num_threads()) as pool:  # zlib works without Python's lock
        starts = range(0, max(len(content), 1), _BLOCK)
        blocks = list(pool.map(lambda start: _block(memoryview(content), start, level), starts))
    return b"".join([_HEADER, *blocks, struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)])


def _block(content: memoryview, start: int, level: int) -> bytes:
    """The bytes of the deflate stream for the block at `start`; that of the last one ends the stream."""
    end = start + _BLOCK
    before = {"zdict": content[max(0, start - _WINDOW) : start]} if start else {}
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, **before)  # raw: header and checksum are the whole's
    return packer.compress(content[start:end]) + packer.flush(
        zlib.Z_FINISH if end >= len(content) else zlib.Z_SYNC_FLUSH
    )
