"""The buffers of a glTF file: numbers in a .glb file itself, in a data URI of its text (base64), or in a file of the
same folder or below.

Untrusted: nothing else is read, each file once, and a buffer has what `byteLength` says and its bytes hold.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from ..errors import BadInput
from .gltf_nodes import objects
from .untrusted import below, read_bytes


class Buffers:
    """Of the file at `path`, whose JSON is `content`; binary: the numbers of a .glb file, None for a text. A buffer is
    read when it is first asked for."""

    def __init__(self, path: Path, content: dict, binary: memoryview | None):
        self.path, self.binary, self.listed = path, binary, objects(path, content, "buffers")
        self._read: dict[int | Path, memoryview] = {}

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def size(self) -> int:
        """Bytes of all that has been read."""
        return sum(map(len, self._read.values()))

    def of(self, number: int) -> memoryview:
        """The bytes of a buffer. Raises `BadInput` where it cannot be read, or has fewer than it claims."""
        length = self.listed[number].get("byteLength")
        found = self._bytes(number, self.listed[number].get("uri"))
        if type(length) is not int or not 0 <= length <= len(found):
            raise BadInput(f"{self.path}: buffer {number} has byteLength {length!r:.40}; its bytes are {len(found)}")
        return found[:length]

    def _bytes(self, number: int, uri) -> memoryview:
        key: int | Path = number
        if uri is None and number == 0 and self.binary is not None:
            self._read.setdefault(key, self.binary)
        elif isinstance(uri, str) and uri[:5].lower() == "data:":
            if key not in self._read:
                self._read[key] = memoryview(self._decoded(number, uri))
        else:
            name = unquote(uri) if isinstance(uri, str) and ":" not in uri else None  # a scheme ends with a colon
            key = below(self.path, name, f"a file below the same folder, for the uri {uri!r:.60} of buffer {number}")
            if key not in self._read:
                self._read[key] = memoryview(read_bytes(key))
        return self._read[key]

    def _decoded(self, number: int, uri: str) -> bytes:
        kind, _, text = uri.partition(",")
        if not kind.lower().endswith(";base64"):
            raise BadInput(f"{self.path}: the uri of buffer {number} begins with {kind!r:.60}; the rule: base64")
        try:
            return base64.b64decode(unquote_to_bytes(text), validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadInput(f"{self.path}: the uri of buffer {number} is no base64: {error}") from None
