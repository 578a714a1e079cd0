"""Clouds of points without faces: .ply, .xyz and .npy from anyone.

.xyz has a point per line, three numbers and whatever follows (normals, colours), between spaces, tabs or commas; lines
that begin with # say nothing. .npy has [P, 3] numbers or more per point. Letter: P points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadInput
from .array_files import read_npy
from .paths import read_bytes
from .ply_points import read_positions

ENDINGS = (".ply", ".xyz", ".npy")
_HEADER = 1 << 16  # bytes that a PLY header may have


def is_cloud(path: Path) -> bool:
    """Whether a file is a cloud, by its ending, or a .ply whose header names no faces."""
    kind = path.suffix.lower()
    if kind != ".ply" or not path.is_file():
        return kind in ENDINGS[1:]
    with open(path, "rb") as file:
        header, end, _ = file.read(_HEADER).partition(b"end_header")
    if not header.startswith(b"ply") or not end:
        return False
    faces = [line.split()[2:] for line in header.splitlines() if line.startswith(b"element face")]
    return not faces or faces[0] == [b"0"]


def read_cloud(path: Path) -> np.ndarray:
    """[P, 3] float64 as the file has them, be they finite or not. Raises `BadInput` for what is no such file."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist; the rule: a cloud is one of {', '.join(ENDINGS)}")
    kind = path.suffix.lower()
    if kind == ".ply":
        return read_positions(path)
    if kind == ".xyz":
        return _read_xyz(path)
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] < 3:
        raise BadInput(f"{path} holds an array of shape {list(rows.shape)}; the rule: [points, 3] or more columns")
    return np.ascontiguousarray(rows[:, :3])


def _read_xyz(path: Path) -> np.ndarray:
    lines = (line.replace(b",", b" ").split()[:3] for line in read_bytes(path).splitlines())
    rows = [row for row in lines if row and not row[0].startswith(b"#")]
    try:
        return np.array(rows, dtype=np.float64).reshape(-1, 3)
    except ValueError:
        bad = next(row for row in rows if not _is_point(row))
        shown = b" ".join(bad).decode("latin-1")
        raise BadInput(f"{path} has the line {shown!r:.80}; the rule: three numbers or more per line") from None


def _is_point(row: list[bytes]) -> bool:
    try:
        return len([float(word) for word in row]) == 3
    except ValueError:
        return False
