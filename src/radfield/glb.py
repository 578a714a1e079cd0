"""The container of glTF 2.0 files: what describes numbers, as JSON, and the numbers; in one binary file (.glb), written
and read, or as a text (.gltf) beside a file of numbers, written.

Untrusted: what is read is bounded by the file's own bytes.
"""

from __future__ import annotations

import json
import struct

import numpy as np

from .errors import BadInput

MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_NUMBER = {"|i1": 5120, "|u1": 5121, "<i2": 5122, "<u2": 5123, "<u4": 5125, "<f4": 5126}  # componentType
NUMBER_TYPES = {code: np.dtype(name) for name, code in _NUMBER.items()}
SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}  # type of an accessor, by components
ARRAY, ELEMENTS = 34962, 34963  # what a view is used for


class Buffer:
    """The file's numbers, one view after another, and what describes them."""

    def __init__(self):
        self.parts, self.views, self.accessors, self.size = [], [], [], 0

    def view(self, content: bytes, **options) -> int:
        """Adds bytes; returns the number of their view."""
        self.views.append({"buffer": 0, "byteOffset": self.size, "byteLength": len(content), **options})
        content += b"\0" * (-len(content) % 4)
        self.parts.append(content)
        self.size += len(content)
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, kind: str, target: int = ARRAY, **options) -> int:
        """Adds numbers [n] or [n, c]; returns the number of their accessor."""
        about = {"componentType": _NUMBER[values.dtype.str], "count": len(values), "type": kind, **options}
        self.accessors.append({"bufferView": self.view(values.tobytes(), target=target), **about})
        return len(self.accessors) - 1


def described(content: dict, buffer: Buffer, **where) -> bytes:
    """The JSON of `content`, which names accessors of `buffer`; where: a `uri` where the numbers have a file."""
    content |= {"bufferViews": buffer.views, "accessors": buffer.accessors}
    return json.dumps(content | {"buffers": [{"byteLength": buffer.size, **where}]}, separators=(",", ":")).encode()


def packed(content: dict, buffer: Buffer) -> bytes:
    """The .glb file of `content`, which names accessors of `buffer`."""
    text = described(content, buffer)
    text += b" " * (-len(text) % 4)
    head = struct.pack("<III", MAGIC, 2, 12 + 8 + len(text) + 8 + buffer.size)
    parts = (struct.pack("<II", len(text), _JSON), text, struct.pack("<II", buffer.size, _BINARY), *buffer.parts)
    return b"".join((head, *parts))


def unpacked(name, data: bytes) -> tuple[dict, memoryview]:
    """(the JSON object, the numbers) of the file `name`. Raises `BadInput` where `data` is no whole .glb file."""
    if len(data) < 20 or struct.unpack_from("<II", data) != (MAGIC, 2):
        raise BadInput(f"{name}: begins with {data[:8]!r}; the rule: a .glb file begins with glTF and version 2")
    chunks, at = {}, 12
    while at + 8 <= len(data):
        size, kind = struct.unpack_from("<II", data, at)
        if at + 8 + size > len(data):
            raise BadInput(f"{name}: a chunk claims {size} bytes; the file has {len(data) - at - 8} more")
        chunks.setdefault(kind, memoryview(data)[at + 8 : at + 8 + size])
        at += 8 + size
    try:
        content = json.loads(bytes(chunks.get(_JSON, b"")))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}: its first chunk is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{name}: its JSON is {content!r:.60}; the rule: an object")
    return content, chunks.get(_BINARY, memoryview(b""))
