"""What a GLB file claims, checked against its size before anything is allocated for it.

trimesh fills an accessor that has no data with zeros, as many as the header says. After the glTF 2.0 specification:
a file is a header of 12 bytes and chunks (length, type, content), of which the first is JSON.
"""

from __future__ import annotations

import json
import struct
from typing import BinaryIO

#: bytes of a number by componentType, and numbers of an element by type (glTF 2.0, 3.6.2.2)
_NUMBER = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_NUMBERS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_JSON = 0x4E4F534A


def check_glb(file: BinaryIO) -> None:
    """ValueError where chunks or accessors are larger than the file, or an accessor has no data in it. The file's
    position is its beginning before and after."""
    size = file.seek(0, 2)
    file.seek(0)
    if size < 20 or file.read(4) != b"glTF":
        raise ValueError("it does not begin as a GLB does")
    file.seek(12)
    text = None
    while file.tell() + 8 <= size:
        length, kind = struct.unpack("<II", file.read(8))
        if length > size - file.tell():
            raise ValueError(f"a chunk of {length} bytes ends beyond the file's {size}")
        if text is None:
            if kind != _JSON:
                raise ValueError("its first chunk is not JSON")
            text = file.read(length)
        else:
            file.seek(length, 1)
    file.seek(0)
    _check_accessors(json.loads(text), size)


def _check_accessors(content, size: int) -> None:
    accessors = content.get("accessors", []) if isinstance(content, dict) else None
    if not isinstance(accessors, list) or not all(isinstance(accessor, dict) for accessor in accessors):
        raise ValueError("its accessors are no list of objects")
    for i, accessor in enumerate(accessors):
        if "bufferView" not in accessor:
            raise ValueError(f"accessor {i} has no bufferView; the rule: a mesh's numbers lie in the file")
        count, number, kind = (accessor.get(key) for key in ("count", "componentType", "type"))
        if type(count) is not int or count < 0 or number not in _NUMBER or kind not in _NUMBERS:
            raise ValueError(f"accessor {i} is not one of glTF 2.0")
        if count * _NUMBER[number] * _NUMBERS[kind] > size:
            raise ValueError(f"accessor {i} has {count} elements, which end beyond the file's {size} bytes")
