"""`radfield eval-mesh` by its three protocols: files that are read, and those that are refused in one line."""

import json

import numpy as np
import pytest
import scipy.io
import torch
from tracing_meshes import sphere

from radfield.data.ply_points import write_points
from radfield.data.points import Points
from radfield.meshing.files import write_mesh
from radfield.meshing.mesh import Mesh
from radfield.meshing.protocols import points_on


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A ball of radius 31 beside the scan of one of 30, seen in its upper half; a matrix that moves it there."""
    folder = tmp_path_factory.mktemp("scan")
    vertices, triangles = sphere(4)
    write_mesh(folder / "ball.ply", Mesh(31 * vertices.double() + torch.tensor([100.0, 0, 0]), triangles))
    points = points_on(30 * vertices.double().numpy(), triangles.numpy(), 1.0)
    write_points(folder / "scan.ply", Points(points, np.zeros((len(points), 3), np.uint8)))
    (folder / "move.txt").write_text("1 0 0 -100\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    seen = np.zeros((41, 41, 41), np.uint8)
    seen[:, :, 21:] = 1
    box = np.array([[-40.0] * 3, [40.0] * 3])
    scipy.io.savemat(folder / "mask.mat", {"ObsMask": seen, "BB": box, "Res": np.array([[2.0]])})
    scipy.io.savemat(folder / "plane.mat", {"P": np.array([[0.0], [0], [1], [0]])})
    polygon = [[-50.0, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]]
    volume = {"class_name": "SelectionPolygonVolume", "orthogonal_axis": "Z", "axis_min": 0, "axis_max": 50}
    (folder / "crop.json").write_text(json.dumps(volume | {"bounding_polygon": polygon}))
    return folder


def test_dtu(files, command):
    options = ("--protocol", "dtu", "--spacing", 1, "--align", files / "move.txt", "--json")
    extra = ("--mask", files / "mask.mat", "--plane", files / "plane.mat")
    code, found, _ = command("eval-mesh", files / "ball.ply", files / "scan.ply", *options, *extra)
    assert code == 0 and 1 < found["chamfer"] < 1.15
    assert found["points_seen"] < 0.55 * found["points"] and found["scan_points_above"] < 0.55 * found["scan_points"]
    assert (found["holes"], found["longest_hole"]) == (0, 0)


def test_tanks_and_temples(files, command):
    options = ("--protocol", "tnt", "--align", files / "move.txt", "--crop", files / "crop.json", "--json")
    scores = [
        command("eval-mesh", files / "ball.ply", files / "scan.ply", *options, "--threshold", t)[1]["f_score"]
        for t in (1.5, 0.9)
    ]
    assert scores[0] > 0.97 and scores[1] < 0.03


def test_an_alignment_moves_the_mesh(files, command):
    arguments = ("eval-mesh", files / "ball.ply", files / "ball.ply", "--samples", 2000, "--json")
    assert command(*arguments)[1]["chamfer"] < 1e-4
    assert command(*arguments, "--align", files / "move.txt")[1]["chamfer"] > 30


def test_bad_input(files, tmp_path, refused, monkeypatch):
    pair = ("eval-mesh", files / "ball.ply", files / "scan.ply")
    dtu, tnt = (*pair, "--protocol", "dtu"), (*pair, "--protocol", "tnt")
    refused(*pair, rule="scan.ply")  # points are no surface
    refused(*tnt, rule="--threshold is None; the rule: a distance")
    refused(*tnt, "--threshold", 1, "--mask", files / "mask.mat", rule="with --protocol dtu alone")
    refused(*dtu, "--crop", files / "crop.json", rule="with --protocol tnt alone")
    refused(*dtu, "--spacing", 0, rule="positive")
    refused(*dtu, "--spacing", 1e-4, rule="at most 50000000")
    refused(*dtu, "--spacing", 1, rule="both in one place and unit")
    refused(*dtu, "--mask", tmp_path / "no.mat", rule="does not exist")
    refused(*dtu, "--mask", files / "plane.mat", rule="has no numbers ObsMask")
    refused(*dtu, "--plane", files / "crop.json", rule="cannot be read as a MATLAB file")
    refused(*tnt, "--threshold", 1, "--crop", files / "move.txt", rule="is no crop volume")
    refused(*dtu, "--align", files / "crop.json", rule="4x4 matrix")
    bad = tmp_path / "bad.mat"
    scipy.io.savemat(bad, {"ObsMask": np.zeros((2, 2)), "BB": np.zeros((2, 3)), "Res": 1.0})
    refused(*dtu, "--mask", bad, rule="the rule: ObsMask [X, Y, Z]")
    monkeypatch.setitem(__import__("sys").modules, "scipy.spatial", None)
    refused(*tnt, "--threshold", 1, rule="pip install 'radfield[meshes]'")
