"""Textured meshes: colours arrive where they belong; files that are none are refused in one line."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.data.synthetic import synthetic_cameras, synthetic_image, synthetic_scene
from radfield.data.synthetic.mesh import load_mesh
from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.srgb import decode_srgb

SQUARE = "v -1 0 1\nv 1 0 1\nv 1 0 -1\nv -1 0 -1\n"  # y up: the square lies flat, facing up


def textured_square(folder, colors=((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))):
    """An OBJ square whose texture has one colour per quarter: upper left, upper right, lower left, lower right."""
    pixels = np.array(colors, dtype=np.uint8).reshape(2, 2, 3).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(folder / "t.png")
    (folder / "m.mtl").write_text("newmtl a\nKd 1 1 1\nmap_Kd t.png\n")
    text = "mtllib m.mtl\n" + SQUARE + "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    (folder / "m.obj").write_text(text)
    return folder / "m.obj"


def test_the_texture_lies_the_right_way_round(tmp_path):
    mesh = load_mesh(textured_square(tmp_path))
    assert mesh.bvh.vertices.norm(dim=-1).max().item() == pytest.approx(1, abs=1e-6)
    scene = synthetic_scene(tmp_path / "m.obj")
    s = 0.35  # from above, with x to the right and y up: the file's -z
    origins = torch.tensor([[-s, s, 2.0], [s, s, 2], [-s, -s, 2], [s, -s, 2]])
    rays = Rays(origins, torch.tensor([[0.0, 0, -1]]).repeat(4, 1))
    seen = scene.surface(rays)
    torch.testing.assert_close(seen.depth, torch.full((4,), 2.0))
    torch.testing.assert_close(seen.normal, torch.tensor([[0.0, 0, 1]]).repeat(4, 1))
    color, alpha = scene.color(rays)
    share = decode_srgb(color) / decode_srgb(color).amax(-1, keepdim=True)
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    assert (share - expected).abs().max() < 0.15 and (alpha == 1).all()


def test_colours_of_points_are_mixed_over_triangles(tmp_path):
    vertices = "-1 -1 0 255 0 0\n1 -1 0 255 0 0\n1 1 0 0 0 255\n-1 1 0 0 0 255\n"
    header = "ply\nformat ascii 1.0\nelement vertex 4\n"
    header += "".join(f"property float {c}\n" for c in "xyz")
    header += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue"))
    header += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "m.ply").write_text(header + vertices + "3 0 1 2\n3 0 2 3\n")
    scene = synthetic_scene(tmp_path / "m.ply", up="z")
    rays = Rays(torch.tensor([[0.0, -0.6, 2], [0, 0.6, 2]]), torch.tensor([[0.0, 0, -1]]).repeat(2, 1))
    color, _ = scene.color(rays)
    assert color[0, 0] > color[0, 2] + 0.2 and color[1, 2] > color[1, 0] + 0.2


def test_a_cube_keeps_its_edges_and_a_sphere_is_smooth(tmp_path):
    import trimesh

    for name, mesh in (("cube", trimesh.creation.box()), ("ball", trimesh.creation.icosphere(subdivisions=2))):
        (tmp_path / f"{name}.glb").write_bytes(mesh.export(file_type="glb"))
        scene = synthetic_scene(tmp_path / f"{name}.glb")
        image = synthetic_image(scene, synthetic_cameras(scene, 4, 64), 1)
        assert 0.05 < (image[..., 3] == 255).float().mean() < 0.5
        levels = image[image[..., 3] == 255][:, 0].unique()
        assert (len(levels) < 20) == (name == "cube"), "flat faces have few grey levels, a round body many"


def test_a_shadow_of_a_mesh_falls_on_the_ground(tmp_path):
    from radfield.data.synthetic.catalog import for_photographs

    scene = for_photographs(synthetic_scene(textured_square(tmp_path)))
    assert scene.open_sky and scene.floor == pytest.approx(0, abs=1e-6)
    color, alpha = scene.color(synthetic_cameras(scene, 2, 24, walk=True).image_rays(0))
    assert (alpha == 1).all() and color.std() > 0.05


def test_a_real_textured_mesh(captures):
    """Spot: its spots are seen, and its normals point outwards."""
    scene = synthetic_scene(captures / "meshes_textured" / "spot" / "spot.obj")
    rays = synthetic_cameras(scene, 4, 64).image_rays(2)
    seen = scene.surface(rays)
    hit = seen.depth.isfinite()
    assert hit.float().mean() > 0.05 and ((seen.normal * rays.directions).sum(-1)[hit] <= 0).all()
    assert scene.mesh.image is not None and scene.color(rays)[0][hit].std() > 0.15


def huge_ply() -> bytes:
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\n"
    header += "property float x\nproperty float y\nproperty float z\nend_header\n"
    return header.encode() + struct.pack("<3f", 0, 0, 0)


def glb(accessor: dict, claimed: int | None = None) -> bytes:
    """One triangle whose positions are of this accessor; claimed: length of the second chunk."""
    numbers = struct.pack("<9f", 0, 0, 0, 0, 1, 0, 1, 0, 0)
    content = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"componentType": 5126, "count": 3, "type": "VEC3", **accessor}],
        "bufferViews": [{"buffer": 0, "byteLength": len(numbers)}],
        "buffers": [{"byteLength": len(numbers)}],
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", claimed or len(numbers), b"BIN\0") + numbers
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def test_a_triangle_as_glb(tmp_path):
    (tmp_path / "m.glb").write_bytes(glb({"bufferView": 0}))
    assert len(load_mesh(tmp_path / "m.glb").bvh.triangles) == 1


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (glb({"count": 4_000_000_000}), "accessor 0 has no bufferView"),
        (glb({}), "accessor 0 has no bufferView"),
        (glb({"count": 4_000_000_000, "bufferView": 0}), "accessor 0 has 4000000000 elements, which end beyond"),
        (glb({"count": -1, "bufferView": 0}), "accessor 0 is not one of glTF"),
        (glb({"type": ["VEC3"], "bufferView": 0}), "cannot be read as a mesh"),
        (glb({"bufferView": 0}, claimed=4_000_000_000), "a chunk of 4000000000 bytes ends beyond"),
    ],
)
def test_a_glb_allocates_nothing_by_what_it_claims(tmp_path, monkeypatch, content, rule):
    import trimesh

    monkeypatch.setattr(trimesh, "load_mesh", lambda *_, **__: pytest.fail("was read"))
    (tmp_path / "m.glb").write_bytes(content)
    with pytest.raises(BadInput, match=rule) as error:
        load_mesh(tmp_path / "m.glb")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("m.stl", b"solid", "ends in '.stl'; the rule: a mesh is one of .obj, .ply, .glb"),
        ("m.obj", b"", "cannot be read as a mesh|0 triangles"),
        ("m.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "cannot be read as a mesh|0 triangles"),
        ("m.obj", b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "its radius is 0"),
        ("m.obj", b"v 0 0 nan\nv 0 1 0\nv 1 0 0\nf 1 2 3\n", "cannot be read as a mesh|not finite"),
        ("m.obj", b"v 0 0 0\nv 0 1 0\nv 1 0 0\nf 1 2 9\n", "cannot be read as a mesh|name the points"),
        ("m.ply", b"ply\nformat", "cannot be read as a mesh"),
        ("m.ply", huge_ply(), "cannot be read as a mesh"),
        ("m.glb", b"glTF" + b"\x00" * 40, "cannot be read as a mesh"),
        ("m.glb", b"", "cannot be read as a mesh"),
    ],
)
def test_what_is_no_mesh_is_refused_in_one_line(tmp_path, name, content, rule):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=rule) as error:
        synthetic_scene(tmp_path / name)
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="does not exist"):
        synthetic_scene(tmp_path / "none.obj")


def test_a_mesh_reaches_no_file_outside_its_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    path = textured_square(tmp_path / "inside")
    (tmp_path / "inside" / "t.png").rename(tmp_path / "secret.png")
    (tmp_path / "inside" / "m.mtl").write_text("newmtl a\nmap_Kd ../secret.png\n")
    try:
        mesh = load_mesh(path)
    except BadInput:
        return
    assert mesh.image is None
