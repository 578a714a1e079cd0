"""Meshes into files that other programs read: PLY, OBJ and GLB; with a texture OBJ (and its .mtl and .png) and GLB."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import replacing_file
from ..errors import BadInput
from . import gltf
from .mesh import Mesh

ENDINGS = (".ply", ".obj", ".glb")
TEXTURED = (".obj", ".glb")


def check_ending(path: Path, *, textured: bool = False) -> None:
    """BadInput where the ending names no format that meshes, or meshes with a texture, are written in."""
    endings = TEXTURED if textured else ENDINGS
    if path.suffix.lower() not in endings:
        what = "a mesh with a texture" if textured else "a mesh"
        raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: {what} is one of {', '.join(endings)}")
    if textured and any(c.isspace() for c in path.stem) and path.suffix.lower() == ".obj":
        raise BadInput(f"{path}: has a space in its name; the rule: none, as an .obj names its .mtl and .png")


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Writes the mesh, each file atomically, with its texture, else with its colours where it has some. Coordinates
    are float32 in PLY and GLB; colours of points have 8 bits per channel in PLY and OBJ."""
    check_ending(path, textured=mesh.image is not None)
    if path.suffix.lower() == ".glb":
        _write(path, gltf.glb(mesh, None if mesh.image is None else png(mesh.image)))
    elif mesh.image is not None:
        _write_textured_obj(path, mesh)
    else:
        import trimesh

        colors = None if mesh.colors is None else (mesh.colors.clamp(0, 1) * 255).round().byte().numpy()
        arrays = {"vertices": mesh.vertices.numpy(), "faces": mesh.triangles.numpy()}
        made = trimesh.Trimesh(**arrays, vertex_colors=colors, process=False, validate=False)
        content = made.export(file_type=path.suffix.lower()[1:])
        _write(path, content.encode() if isinstance(content, str) else content)


def png(image: Tensor) -> bytes:
    """[H, W, 3] uint8 as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with replacing_file(path) as file:
        file.write(content)


def _write_textured_obj(path: Path, mesh: Mesh) -> None:
    """The picture and the material come first, so that an .obj that is there is whole. Points that differ in their
    place in the texture alone are one `v`."""
    name = path.stem
    _write(path.with_suffix(".png"), png(mesh.image))
    # no light is in the material but what the colours have: they are those of photographs
    material = f"newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {name}.png\n"
    _write(path.with_suffix(".mtl"), material.encode())
    places, place = mesh.vertices.unique(dim=0, return_inverse=True)
    corners = torch.stack((place[mesh.triangles], mesh.triangles), -1).view(-1, 6) + 1
    lines = [f"mtllib {name}.mtl", f"usemtl {name}"]
    lines += ["v {:.9g} {:.9g} {:.9g}".format(*point) for point in places.tolist()]
    lines += ["vt {:.7f} {:.7f}".format(*point) for point in mesh.uv.tolist()]
    lines += ["f {}/{} {}/{} {}/{}".format(*row) for row in corners.tolist()]
    _write(path, ("\n".join(lines) + "\n").encode())
