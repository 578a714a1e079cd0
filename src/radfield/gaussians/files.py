"""Files of Gaussians by their endings."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadInput
from .compressed_ply import write_compressed_ply
from .ksplat import read_ksplat
from .ply import read_ply, write_ply
from .scene import GaussianScene
from .sog import read_sog
from .splat_file import read_splat, write_splat
from .spz import read_spz, write_spz

READERS = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz, ".sog": read_sog, ".ksplat": read_ksplat}
READERS["meta.json"] = read_sog  # the folder of a SOG, unpacked
WRITERS = {".compressed.ply": write_compressed_ply, ".ply": write_ply, ".splat": write_splat, ".spz": write_spz}


def read_gaussians(path: Path | str) -> GaussianScene:
    """The Gaussians of a file; the axes are those of a PLY file. Raises `BadInput` for what is none."""
    path = Path(path)
    return READERS[check_ending(path, READERS)](path)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Writes a file in the format that its ending names. Raises `BadInput` for another ending."""
    path = Path(path)
    WRITERS[check_ending(path, WRITERS)](path, scene)


def check_ending(path: Path, known: dict) -> str:
    """The ending of `path` among `known`, in small letters, the first that fits. Raises `BadInput` where none does."""
    for ending in known:
        if path.name.lower().endswith(ending):
            return ending
    raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: {', '.join(known)}")
