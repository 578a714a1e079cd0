"""A mesh as one binary glTF 2.0 file, coloured as its colours say.

Two things make coloured meshes dark or pale in viewers, and are minded here. Colours of points (COLOR_0) are *linear*
light, while those of a texture are sRGB (glTF 2.0, 3.7.2.1 and 3.9.2). And a primitive without a material counts as
polished metal (metallicFactor is 1 where nothing is said), which is black but for its reflections. The colours of a
field have the light of its photographs in them, so that a material that is not lit (KHR_materials_unlit) shows them as
they are; programs that do not know it take a matt one. A mesh without colours is matt and lit, and has normals.
"""

from __future__ import annotations

import numpy as np

from ..glb import ELEMENTS, Buffer, packed
from ..srgb import decode_srgb
from .mesh import Mesh


def glb(mesh: Mesh, texture: bytes | None = None) -> bytes:
    """The file. texture: `mesh.image` as PNG, where it has one; it goes before the colours of points."""
    buffer = Buffer()
    points = mesh.vertices.numpy().astype("<f4")
    bounds = {"min": points.min(0).tolist(), "max": points.max(0).tolist()}
    attributes = {"POSITION": buffer.accessor(points, "VEC3", **bounds)}
    colored = texture is not None or mesh.colors is not None
    if texture is not None:
        uv = mesh.uv.float() * mesh.uv.new_tensor([1, -1]).float() + mesh.uv.new_tensor([0, 1]).float()  # v downwards
        attributes["TEXCOORD_0"] = buffer.accessor(uv.numpy().astype("<f4"), "VEC2")
    elif colored:
        attributes["COLOR_0"] = buffer.accessor(_linear(mesh.colors), "VEC3")
    else:
        attributes["NORMAL"] = buffer.accessor(mesh.normals().numpy().astype("<f4"), "VEC3")
    corners = buffer.accessor(mesh.triangles.reshape(-1).numpy().astype("<u4"), "SCALAR", ELEMENTS)
    primitive = {"attributes": attributes, "indices": corners, "material": 0}
    content = {
        "asset": {"version": "2.0", "generator": "radfield"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [_material(colored, texture is not None)],
    }
    if colored:
        content["extensionsUsed"] = ["KHR_materials_unlit"]
    if texture is not None:
        content["images"] = [{"bufferView": buffer.view(texture), "mimeType": "image/png"}]
        content["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]  # clamped
        content["textures"] = [{"source": 0, "sampler": 0}]
    return packed(content, buffer)


def _material(unlit: bool, textured: bool) -> dict:
    matt = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if textured:
        matt["baseColorTexture"] = {"index": 0}
    material = {"pbrMetallicRoughness": matt, "doubleSided": True}
    return material | ({"extensions": {"KHR_materials_unlit": {}}} if unlit else {})


def _linear(colors) -> np.ndarray:
    # [P, 3]; as floats, since trimesh reads numbers of 16 bits as if they had 8
    return decode_srgb(colors.clamp(0, 1).float()).numpy().astype("<f4")
