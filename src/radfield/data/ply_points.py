"""Points and their colours in a PLY file, as nerfstudio's sparse_pc.ply has them: ASCII or binary, read and written.

Only the element `vertex` with scalar properties is read, where it comes first; x, y, z and, where they are there, red,
green, blue as bytes. Nothing is made of the stated count before the file is known to be long enough.
"""

from pathlib import Path

import numpy as np

from ..errors import BadInput
from .paths import read_bytes
from .points import Points

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}


def read_points(path: Path) -> Points:
    """The points of a PLY file that are finite; BadInput where it is none."""
    rows, count = _rows(path)
    channels = [rows[name] for name in ("red", "green", "blue") if name in rows]
    color = np.stack(channels, 1) if len(channels) == 3 else np.full((count, 3), 128)
    return Points(_positions(rows), np.clip(color, 0, 255).astype(np.uint8)).finite()


def read_positions(path: Path) -> np.ndarray:
    """[P, 3] float64, all of them, be they finite or not; BadInput where it is no PLY file of points."""
    return _positions(_rows(path)[0])


def _positions(rows: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([rows[name].astype(np.float64) for name in "xyz"], 1)


def _rows(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """(the properties of the points by name, how many points there are)."""
    data = read_bytes(path)
    order, count, properties, start = _header(data, path)
    names = [name for name, _ in properties]
    if not {"x", "y", "z"} <= set(names):
        raise BadInput(f"{path} has the properties {', '.join(names)[:80]}; points must have x, y, z")
    if not order:
        return _ascii(data[start:], count, names, path), count
    row = np.dtype([(name, order + kind) for name, kind in properties])
    if count * row.itemsize > len(data) - start:
        raise BadInput(f"{path} states {count} points of {row.itemsize} bytes but holds {len(data) - start} bytes")
    rows = np.frombuffer(data, row, count, start)
    return {name: rows[name] for name in names}, count


def write_points(path: Path, points: Points) -> None:
    """Writes points as binary PLY: double x, y, z; uchar red, green, blue."""
    row = np.dtype([("position", "<f8", 3), ("color", "u1", 3)])
    rows = np.empty(len(points), row)
    rows["position"], rows["color"] = points.position, points.color
    properties = [f"property double {a}" for a in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    path.write_bytes("\n".join(header).encode() + rows.tobytes())


def _header(data: bytes, path: Path) -> tuple[str, int, list[tuple[str, str]], int]:
    end = data.find(b"end_header", 0, 1 << 16)
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise BadInput(f"{path} is not a PLY file")
    order, count, properties, element = None, None, [], None
    for line in data[:end].decode("latin-1").splitlines():
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            order = _ORDERS.get(words[1])
        elif words[:1] == ["element"] and len(words) == 3:
            if element is None and words[1] == "vertex" and words[2].isdigit():
                count = int(words[2])
            element = words[1]
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                raise BadInput(f"{path} has the vertex property {line.strip()[:40]!r}; it must be a number")
            properties.append((words[2], _TYPES[words[1]]))
    if order is None or count is None or not properties or len(dict(properties)) != len(properties):
        raise BadInput(f"{path} has no format or does not begin with the element vertex")
    return order, count, properties, newline + 1


def _ascii(data: bytes, count: int, names: list[str], path: Path) -> dict[str, np.ndarray]:
    lines = data.split(b"\n")[:count]
    try:
        rows = np.array([line.split()[: len(names)] for line in lines], dtype=np.float64)
    except ValueError:
        rows = np.empty((0, 0))
    if rows.shape != (count, len(names)) and count:
        raise BadInput(f"{path} states {count} points of {len(names)} numbers, but its lines are not so")
    return {name: rows[:, i] if count else np.empty(0) for i, name in enumerate(names)}
