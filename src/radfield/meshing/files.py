"""Meshes into files that other programs read: PLY, OBJ and GLB."""

from __future__ import annotations

from pathlib import Path

from ..atomic import replacing_file
from ..errors import BadInput
from .mesh import Mesh

ENDINGS = (".ply", ".obj", ".glb")


def check_ending(path: Path) -> None:
    """BadInput where the ending names no format that meshes are written in."""
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: a mesh is one of {', '.join(ENDINGS)}")


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Writes the mesh, atomically, with colours where it has some: 8 bits per channel. Coordinates are float32 in PLY
    and GLB."""
    check_ending(path)
    import trimesh

    colors = None if mesh.colors is None else (mesh.colors.clamp(0, 1) * 255).round().byte().numpy()
    arrays = {"vertices": mesh.vertices.numpy(), "faces": mesh.triangles.numpy()}
    made = trimesh.Trimesh(**arrays, vertex_colors=colors, process=False, validate=False)
    content = made.export(file_type=path.suffix.lower()[1:])
    with replacing_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
