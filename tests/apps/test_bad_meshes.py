"""Meshes as they come: without faces, damaged, doubled, not manifold, tiny, huge, far away. Each is taken, and what is
unusual about it is said, or it is refused in one line."""

import pytest
import torch
from tracing_meshes import cube, sphere

from radfield.errors import RadfieldWarning
from radfield.meshing.files import write_mesh
from radfield.meshing.mesh import Mesh
from radfield.tracing import surface

FIT = ("--steps", 1, "--no-evaluate", "--sdf.levels", 2, "--sdf.finest-resolution", 32, "--sdf.batch", 256)


def obj(path, vertices, triangles):
    lines = ["v {:.12g} {:.12g} {:.12g}".format(*v) for v in vertices.tolist()]
    lines += ["f {} {} {}".format(*(i + 1 for i in t)) for t in triangles.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


BAD = {
    "no_faces.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no_faces.obj"),
    "nan.obj": ("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
    "infinite.obj": ("v 0 0 1e999\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
    "flat.obj": ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "none of its 1 triangles has an area"),
    "far_corner.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "far_corner.obj"),
    "empty.ply": ("", "cannot be read as a mesh"),
    "claims.ply": (
        "ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\nproperty float x\nproperty float y\n"
        "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n",
        "cannot be read as a mesh",
    ),
    "text.glb": ("hello", "cannot be read as a mesh"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mesh_is_one_line(tmp_path, refused, name):
    content, rule = BAD[name]
    path, good = tmp_path / name, obj(tmp_path / "good.obj", *cube())
    path.write_text(content)
    refused("fit-sdf", path, "--output", tmp_path / "run", *FIT, rule=rule)
    refused("eval-mesh", path, good, rule=rule)
    refused("eval-mesh", good, path, rule=rule)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([[0, 0, 1], [2, 3, 2]], "2 triangles are degenerate or repeated"),
        ("twice", "12 triangles are degenerate or repeated"),
        ([[0, 5, 7]], "edges are open or shared by more than two triangles"),
    ],
    ids=["degenerate", "repeated", "not-manifold"],
)
def test_what_is_unusual_is_said(tmp_path, command, extra, said):
    vertices, triangles = cube()
    more = triangles if extra == "twice" else torch.tensor(extra)
    path = obj(tmp_path / "m.obj", vertices, torch.cat((triangles, more)))
    with pytest.warns(RadfieldWarning, match=said):
        assert command("fit-sdf", path, "--output", tmp_path / "run", *FIT)[0] == 0
    code, found, _ = command("eval-mesh", path, obj(tmp_path / "cube.obj", vertices, triangles), "--json")
    assert code == 0 and found["completeness"] < 1e-6


@pytest.mark.parametrize(("unit", "place"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 5e6)], ids=["micro", "mega", "far"])
def test_units_do_not_matter(tmp_path, command, unit, place):
    """Also a metre-sized mesh 5000 km from the origin, where float32 has half metres."""
    vertices, triangles = sphere(3)
    paths = []
    for i, radius in enumerate((1.0, 1.1)):
        moved = unit * radius * vertices.double() + place
        paths.append(obj(tmp_path / f"{i}.obj", moved, triangles))
    code, found, _ = command("eval-mesh", *paths, "--samples", 2000, "--json")
    assert code == 0 and found["chamfer"] / unit == pytest.approx(0.1, rel=0.02)
    assert command("fit-sdf", paths[0], "--output", tmp_path / "run", *FIT)[0] == 0


def test_more_triangles_than_fit_are_refused(tmp_path, refused, monkeypatch):
    vertices, triangles = sphere(2)
    write_mesh(tmp_path / "m.ply", Mesh(vertices.double(), triangles))
    monkeypatch.setattr(surface, "MOST_TRIANGLES", 100)
    refused("fit-sdf", tmp_path / "m.ply", "--output", tmp_path / "run", *FIT, rule="at most 100 (simplify it first)")
