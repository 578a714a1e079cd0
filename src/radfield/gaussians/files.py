"""Files of Gaussians by their endings.

A scene's axes, and those of PLY, .splat, .ksplat and SOG files, are what the cameras' are, right, down, front; SPZ and
glTF files are turned on the way. What a format rounds, and what it leaves out, stands in its module.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import BadInput
from .compressed_ply import write_compressed_ply
from .gltf_splats import read_gltf, write_gltf
from .ksplat import read_ksplat
from .ply import read_ply, write_ply
from .scene import GaussianScene
from .sog import read_sog
from .sog_levels import read_sog_levels
from .sog_writer import VERSIONS as SOG_VERSIONS
from .sog_writer import write_sog
from .splat_file import read_splat, write_splat
from .spz import VERSIONS as SPZ_VERSIONS
from .spz import read_spz, write_spz

READERS = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz, ".sog": read_sog, ".ksplat": read_ksplat}
READERS |= {".glb": read_gltf, ".gltf": read_gltf, "lod-meta.json": read_sog_levels}
READERS["meta.json"] = read_sog  # the folder of a SOG, unpacked
WRITERS = {".compressed.ply": write_compressed_ply, ".ply": write_ply, ".splat": write_splat, ".spz": write_spz}
WRITERS |= {".sog": write_sog, "meta.json": write_sog, ".glb": write_gltf, ".gltf": write_gltf}
#: versions of a format that can be written, where there are several; the writer's default is the one most programs read
VERSIONS = {".spz": SPZ_VERSIONS, ".sog": SOG_VERSIONS, "meta.json": SOG_VERSIONS}


def read_gaussians(path: Path | str) -> GaussianScene:
    """The Gaussians of a file; the axes are those of a PLY file. Raises `BadInput` for what is none."""
    path = Path(path)
    return READERS[check_ending(path, READERS)](path)


def write_gaussians(path: Path | str, scene: GaussianScene, version: int | None = None) -> None:
    """Writes a file in the format that its ending names, of a version of it where there are several. Raises `BadInput`
    for another ending, or version."""
    path = Path(path)
    ending = check_target(path, version)
    WRITERS[ending](path, scene, **({} if version is None else {"version": version}))


def check_target(path: Path, version: int | None = None) -> str:
    """The ending of a file to write. Raises `BadInput` where it names no format, or one without that version."""
    ending = check_ending(path, WRITERS)
    known = VERSIONS.get(ending, ())
    if version is not None and version not in known:
        rule = f"{', '.join(map(str, known))} for {ending}" if known else f"none for {ending}"
        raise BadInput(f"{path}: the version is {version}; the rule: {rule}")
    return ending


def check_ending(path: Path, known: dict) -> str:
    """The ending of `path` among `known`, in small letters, the first that fits. Raises `BadInput` where none does."""
    for ending in known:
        if path.name.lower().endswith(ending):
            return ending
    raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: {', '.join(known)}")
