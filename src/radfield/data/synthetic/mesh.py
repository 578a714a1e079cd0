"""Textured triangle meshes from OBJ, PLY and GLB files, brought to the size of a scene.

Letters: N rays, T triangles, P points. Colours of textures and points are sRGB, but for those of points in GLB files,
which are linear light (glTF 2.0, 3.7.2.1); the texture repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import BadInput
from ...rays import Rays
from ...srgb import decode_srgb
from ...tracing.bvh import Bvh, TriangleHits, trace_triangles
from ...tracing.texture import Material
from .glb import check_glb

ENDINGS = (".obj", ".ply", ".glb")
# A corner whose mean normal is further than 34 degrees from the triangle's is on an edge. So cubes stay cubes: there it
# is 35.3 degrees or more (two triangles of a face meet one of each neighbouring face).
CREASE = math.cos(math.radians(34))


@dataclass(frozen=True)
class TexturedMesh:
    """bvh: over triangles in the world. smooth: [T, 3, 3] unit normals at the corners. uv: [T, 3, 2] or None. image:
    [H, W, 3] linear light. colors: [T, 3, 3] linear light, or None. world: similarity from the file's coordinates,
    [4, 4]."""

    bvh: Bvh
    smooth: Tensor
    uv: Tensor | None
    image: Tensor | None
    colors: Tensor | None
    world: Tensor
    material: Material = field(default_factory=lambda: Material(highlight=0.12, shininess=25.0))

    def trace(self, rays: Rays, limit: Tensor | None = None) -> TriangleHits:
        """The first triangle along each ray."""
        return trace_triangles(self.bvh, rays, limit=limit)

    def normal(self, hits: TriangleHits) -> Tensor:
        """[N, 3] the met triangles' unit normals, by the right-hand rule; 0 for misses."""
        return self.bvh.normals[hits.index.long().clamp_min(0)] * (hits.index >= 0)[:, None]

    def look(self, hits: TriangleHits, where: Tensor, mine: Tensor, albedo: Tensor, normal: Tensor, directions: Tensor):
        """(albedo, normal), each [N, 3], with this mesh's put in where `mine` is set; `where`: rows of `hits`. Normals
        are smooth, and turned towards the viewer."""
        rows = mine.nonzero()[:, 0]
        triangle = hits.index[where[rows]].long()
        second = hits.weights[where[rows]]
        weights = torch.cat((1 - second.sum(-1, keepdim=True), second), -1)[:, :, None]
        flat = normal[rows]
        bent = torch.nn.functional.normalize((self.smooth[triangle] * weights).sum(1), dim=-1)
        away = (flat * directions[rows]).sum(-1) > 0
        normal = normal.contiguous().index_copy(0, rows, torch.where(away[:, None], -bent, bent))
        if self.image is not None:
            found = _bilinear(self.image, (self.uv[triangle] * weights).sum(1))
        elif self.colors is not None:
            found = (self.colors[triangle] * weights).sum(1)
        else:
            found = torch.full_like(flat, 0.5)
        return albedo.contiguous().index_copy(0, rows, found), normal


def load_mesh(path: Path, up: str = "y") -> TexturedMesh:
    """Reads a mesh and brings it, with the axis `up` ("y" or "z") upwards, into the ball of radius 1 around the origin.

    BadInput, in one line, where the file is none, is damaged, or has no triangles.
    """
    vertices, triangles, uv, image, colors = read_mesh(path)
    turn = torch.eye(3) if up == "z" else torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    try:
        Bvh.of(vertices, triangles)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    vertices = vertices @ turn.T
    centre = 0.5 * (vertices.amin(0) + vertices.amax(0))
    radius = float((vertices - centre).norm(dim=-1).max())
    if not 1e-12 < radius < 1e18:
        raise BadInput(f"{path}: its radius is {radius:g}; the rule: from 1e-12 to 1e18")
    world = torch.eye(4)
    world[:3, :3], world[:3, 3] = turn / radius, -centre / radius
    bvh = Bvh.of((vertices - centre) / radius, triangles)
    return TexturedMesh(
        bvh,
        _smooth_normals(bvh),
        None if uv is None else uv[triangles],
        image,
        None if colors is None else colors[triangles],
        world,
    )


def read_mesh(path: Path, dtype=torch.float32):
    # (vertices [P, 3], triangles [T, 3], uv [P, 2] or None, image [H, W, 3] or None, colours [P, 3] or None); dtype: of
    # the vertices, float64 where they may lie far from the origin
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: a mesh is one of {', '.join(ENDINGS)}")
    if not path.is_file():
        raise BadInput(f"{path} does not exist; the rule: a mesh's file")
    import trimesh

    class Inside(trimesh.resolvers.FilePathResolver):
        """Materials and textures lie beside the mesh: a downloaded file must not reach the user's others."""

        def get(self, name):
            folder = path.parent.resolve()
            if not (folder / name.strip()).resolve().is_relative_to(folder):
                raise ValueError(f"{name!r} leaves the mesh's folder")
            return super().get(name)

    try:
        with open(path, "rb") as file:
            kind = path.suffix.lower()[1:]
            if kind == "glb":
                check_glb(file)
            options = {"file_type": kind, "resolver": Inside(str(path)), "process": False}
            mesh = _whole(trimesh.load_mesh(file, **options))
            if kind == "glb" and getattr(mesh.visual, "uv", 0) is None:
                file.seek(0)  # trimesh forgets the colours of points that have a material without a texture
                plain = _whole(trimesh.load_mesh(file, **options, skip_materials=True))
                mesh = plain if plain.visual.kind == "vertex" else mesh
        vertices, triangles, look = np.array(mesh.vertices), np.array(mesh.faces), _look_of(mesh, kind == "glb")
    # Everything, on purpose: trimesh's parsers check little, and a damaged file makes them raise whatever Python, numpy
    # and Pillow have (index, key, type, attribute, struct, recursion, ...), some of it only when the mesh is asked.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path} cannot be read as a mesh: {reason}") from None
    return torch.from_numpy(vertices).to(dtype), torch.from_numpy(triangles).long(), *look


def _whole(loaded):
    # one trimesh of all that a file holds
    return loaded.to_geometry() if hasattr(loaded, "to_geometry") else loaded


def _look_of(mesh, linear: bool):
    # (uv, image, colours) of a trimesh, None where it has none; linear: whether colours of points are (as in glTF)
    material = getattr(mesh.visual, "material", None)
    uv = getattr(mesh.visual, "uv", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if uv is not None and image is not None and len(uv) == len(mesh.vertices):
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
        return torch.from_numpy(np.array(uv)).float(), decode_srgb(pixels), None
    linear &= material is None  # a material's own colour has been made sRGB
    visual = mesh.visual if material is None else mesh.visual.to_color()
    if material is not None and visual.kind is None:  # a material that names no colour, as of our .glb without colours
        return None, None, None
    colors = np.array(visual.vertex_colors)
    colors = torch.from_numpy(colors[:, :3]).float() / 255
    if len(colors) != len(mesh.vertices):
        return None, None, None
    return None, None, colors if linear else decode_srgb(colors)


def _smooth_normals(bvh: Bvh) -> Tensor:
    # [T, 3, 3]: means over all triangles that share a corner's place, by area; seams of the texture do not count.
    a, b, c = bvh.vertices[bvh.triangles].unbind(1)
    area_normal = torch.linalg.cross(b - a, c - a)
    _, place = torch.unique(bvh.vertices, dim=0, return_inverse=True)
    corner = place[bvh.triangles]
    total = torch.zeros(int(place.max()) + 1, 3)
    for i in range(3):
        total.index_add_(0, corner[:, i], area_normal)
    mean = torch.nn.functional.normalize(total, dim=-1)[corner]
    flat = torch.nn.functional.normalize(area_normal, dim=-1)[:, None].expand_as(mean)
    return torch.where((mean * flat).sum(-1, keepdim=True) < CREASE, flat, mean)


def _bilinear(image: Tensor, uv: Tensor) -> Tensor:
    # [N, 3]: v goes up from the image's lower edge; the image repeats.
    height, width = image.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = x.floor(), y.floor()
    total = torch.zeros(len(uv), 3)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - (x - left - dx).abs()) * (1 - (y - top - dy).abs())
            at = ((top + dy).long() % height) * width + (left + dx).long() % width
            total += weight[:, None] * image.view(-1, 3)[at]
    return total
