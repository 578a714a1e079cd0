"""GLB files against the glTF 2.0 specification: linear colours of points, materials that are no polished metal."""

import json
import struct

import pytest
import torch
from tracing_meshes import sphere

from radfield.data.synthetic.mesh import read_mesh
from radfield.meshing.files import png, write_mesh
from radfield.meshing.gltf import glb
from radfield.meshing.mesh import Mesh


def chunks(content: bytes):
    magic, version, size = struct.unpack_from("<4sII", content)
    assert (magic, version, size) == (b"glTF", 2, len(content))
    length, kind = struct.unpack_from("<I4s", content, 12)
    binary, second = struct.unpack_from("<I4s", content, 20 + length)
    assert (kind, second) == (b"JSON", b"BIN\0") and length % 4 == 0 and binary % 4 == 0
    assert 28 + length + binary == size
    return json.loads(content[20 : 20 + length]), content[28 + length :]


@pytest.fixture
def ball():
    vertices, triangles = sphere(1)
    return Mesh(vertices.double(), triangles, colors=torch.full((len(vertices), 3), 0.5))


def test_colours_of_points_are_linear_and_unlit(ball):
    content, binary = chunks(glb(ball))
    primitive = content["meshes"][0]["primitives"][0]
    accessor = content["accessors"][primitive["attributes"]["COLOR_0"]]
    view = content["bufferViews"][accessor["bufferView"]]
    assert (accessor["componentType"], accessor["type"]) == (5126, "VEC3")
    values = struct.unpack_from("<3f", binary, view["byteOffset"])
    assert values == pytest.approx((0.21404,) * 3, abs=1e-4), "half of sRGB is 21 % of the light"
    material = content["materials"][primitive["material"]]
    assert material["pbrMetallicRoughness"] == {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    assert "KHR_materials_unlit" in material["extensions"] and content["extensionsUsed"] == ["KHR_materials_unlit"]
    for view in content["bufferViews"]:
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(binary)


def test_a_mesh_without_colours_is_lit_and_has_normals(ball):
    content, _ = chunks(glb(Mesh(ball.vertices, ball.triangles)))
    assert "extensions" not in content["materials"][0]
    assert set(content["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL"}


def test_a_texture_is_inside_and_its_rows_go_down(ball, tmp_path):
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    image[0, :] = torch.tensor([255, 0, 0], dtype=torch.uint8)  # red at the top: v near 1
    uv = torch.stack((torch.full_like(ball.vertices[:, 0], 0.5), (ball.vertices[:, 1] + 1) / 2), -1).float()
    mesh = Mesh(ball.vertices, ball.triangles, uv=uv, image=image)
    content, binary = chunks(glb(mesh, png(image)))
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    assert binary[view["byteOffset"] : view["byteOffset"] + 4] == b"\x89PNG"
    for name in ("mesh.glb", "mesh.obj"):
        write_mesh(tmp_path / name, mesh)
        vertices, triangles, found, picture, _ = read_mesh(tmp_path / name)
        assert torch.equal((picture * 255).round().byte(), image)
        top = found[triangles][..., 1] > 0.99
        torch.testing.assert_close(vertices[triangles][..., 1][top], torch.ones(int(top.sum())))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mesh.glb", "mesh.mtl", "mesh.obj", "mesh.png"]
