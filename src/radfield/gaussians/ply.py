"""3DGS PLY files, read and written: one vertex per Gaussian, raw parameters (Kerbl et al. 2023; the de facto standard).

Properties: x y z, f_dc_0..2, f_rest_* (0, 9, 24, 45 or 72 of them: degree 0 to 4; all of red, then green, then blue),
opacity (logit), scale_0..2 (logarithms), rot_0..3 (w, x, y, z; any length), and nx ny nz, written as zeros and not
read. They are read by name: in any order and number type, little or big endian, with others between them and with
other elements before and after, as long as these have no lists.

A file is untrusted: nothing is allocated that its bytes do not hold; what is degenerate: untrusted.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..atomic import replacing_file
from ..errors import BadInput, warn
from .compressed_ply import packed_scene
from .packing import columns
from .scene import DEGREES, GaussianScene
from .untrusted import sound

_NUMBER_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_MOST_HEADER_BYTES = 1 << 16
_ELEMENTS = ("vertex", "chunk", "sh")
_NAMES = {
    "means": ("x", "y", "z"),
    "base": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity_logits": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quaternions": ("rot_0", "rot_1", "rot_2", "rot_3"),
}


def read_ply(path: Path | str) -> GaussianScene:
    """The Gaussians of a 3DGS PLY file, as such or packed (compressed_ply.py). Raises `BadInput`, in one line, for what
    is none."""
    path = Path(path)
    found = _read_elements(path)
    if "vertex" not in found:
        raise BadInput(f"{path}: has no element vertex; the rule: a 3DGS PLY file")
    packed = "chunk" in found and "packed_position" in (found["vertex"].dtype.names or ())
    return sound(path, packed_scene(path, found) if packed else _scene(path, found["vertex"]))


def _read_elements(path: Path) -> dict[str, np.ndarray]:
    """The elements of _ELEMENTS by name, each an array of records."""
    try:
        with open(path, "rb") as file:
            order, elements = _parse_header(path, _header_lines(path, file))
            return _read_records(path, file, order, elements)
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from None


def _read_records(path: Path, file: BinaryIO, order: str, elements: list) -> dict[str, np.ndarray]:
    found, left = {}, os.fstat(file.fileno()).st_size - file.tell()
    for name, count, properties in elements:
        try:
            record = np.dtype([(each, order + kind) for each, kind in properties])
        except ValueError:
            raise BadInput(f"{path}: element {name} names a property twice; the rule: each once") from None
        size = count * record.itemsize
        if size > left:
            raise BadInput(f"{path}: the header claims {count} of {name}, {size} bytes; the file has {left} more")
        left -= size
        if name in _ELEMENTS:
            found[name] = np.fromfile(file, record, count)
        else:
            file.seek(size, os.SEEK_CUR)
    if left and elements and elements[-1][0] in _ELEMENTS:
        warn(f"{path}: {left} bytes after the last {elements[-1][0]} are not read")
    return found


def _header_lines(path: Path, file: BinaryIO) -> list[str]:
    start = file.read(_MOST_HEADER_BYTES)
    if start[:4] not in (b"ply\n", b"ply\r"):
        raise BadInput(f"{path}: begins with {start[:4]!r}; the rule: a PLY file begins with the line ply")
    end = start.find(b"\nend_header")
    close = start.find(b"\n", end + 1)
    if end < 0 or close < 0:
        raise BadInput(f"{path}: has no line end_header in its first {_MOST_HEADER_BYTES} bytes")
    file.seek(close + 1)
    return start[:end].decode("latin-1").splitlines()[1:]


def _parse_header(path: Path, lines: list[str]) -> tuple[str, list[tuple[str, int, list]]]:
    """(byte order, elements as (name, count, [(property, number type)]))."""
    order, elements = None, []
    for line in lines:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3:
            order = _BYTE_ORDERS.get(words[1])
            if order is None:
                raise BadInput(f"{path}: format is {words[1]:.40}; the rule: {' or '.join(_BYTE_ORDERS)}")
        elif (
            words[0] == "element"
            and len(words) == 3
            and words[2].isascii()
            and words[2].isdigit()
            and len(words[2]) < 19
        ):
            elements.append((words[1], int(words[2]), []))
        elif words[0] == "property" and len(words) == 3 and elements and words[1] in _NUMBER_TYPES:
            elements[-1][2].append((words[2], _NUMBER_TYPES[words[1]]))
        else:
            raise BadInput(
                f"{path}: the header has {line.strip()!r:.80}; the rule: format, element and property lines, no lists"
            )
    if order is None:
        raise BadInput(f"{path}: the header names no format; the rule: {' or '.join(_BYTE_ORDERS)}")
    return order, elements


def _scene(path: Path, vertices: np.ndarray) -> GaussianScene:
    names = vertices.dtype.names or ()
    missing = [name for group in _NAMES.values() for name in group if name not in names]
    if missing:
        raise BadInput(f"{path}: has no property {', '.join(missing):.80}; the rule: those of a 3DGS PLY file")
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in DEGREES or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise BadInput(
            f"{path}: has {rest} properties f_rest_*; the rule: {', '.join(map(str, DEGREES))}, numbered from 0"
        )
    # red, green and blue one after the other in the file; side by side in the scene
    rest_names = [f"f_rest_{channel * (rest // 3) + k}" for k in range(rest // 3) for channel in range(3)]
    groups = {**_NAMES, "rest": rest_names}
    values = {key: columns(vertices, group) for key, group in groups.items()}
    values["opacity_logits"] = values["opacity_logits"][0]
    return GaussianScene(**values)


def write_ply(path: Path | str, scene: GaussianScene) -> None:
    """Writes a 3DGS PLY file in the order and layout of the original, atomically. Raises `BadInput` where the disk is
    full or the folder cannot be written."""
    rest = len(scene.rest)
    names = ["x", "y", "z", "nx", "ny", "nz", *_NAMES["base"], *(f"f_rest_{i}" for i in range(rest))]
    names += [*_NAMES["opacity_logits"], *_NAMES["log_scales"], *_NAMES["quaternions"]]
    by_channel = scene.rest.view(rest // 3, 3, len(scene)).transpose(0, 1).reshape(rest, len(scene))
    streams = (scene.means, torch.zeros_like(scene.means), scene.base, by_channel, scene.opacity_logits[None])
    rows = torch.cat([*streams, scene.log_scales, scene.quaternions]).detach().T.contiguous()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(scene)}"]
    header += [*(f"property float {name}" for name in names), "end_header"]
    with replacing_file(path) as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(rows.numpy().astype("<f4").tobytes())
