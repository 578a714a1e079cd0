"""Converting captures: every pixel keeps its ray, and what else a capture holds stays with it."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from colmap_files import colmap
from PIL import Image

from radfield.apps.command_line import main
from radfield.cameras import Cameras
from radfield.data import load
from radfield.data.capture import ALL
from radfield.data.formats import read_capture
from radfield.data.ply_points import read_points, write_points
from radfield.data.points import Points
from radfield.data.writers import quaternion_of
from radfield.errors import BadInput, RadfieldWarning

#: the rule that conversions obey, in radians
SAME_RAY = 1e-5
LENSES = {
    "pinhole": {},
    "opencv": {"k1": 0.1, "k2": -0.05, "p1": 0.001, "p2": -0.002},
    "three radial": {"k1": 0.1, "k3": 0.02},
    "rational": {
        "camera_model": "FULL_OPENCV",
        "k1": 0.1,
        "k3": 0.02,
        "k4": 0.15,
        "k5": -0.04,
        "k6": 0.01,
        "p1": 0.001,
    },
    "fisheye": {"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": -0.01, "k3": 0.002, "k4": -0.0003},
    "sphere": {"camera_model": "EQUIRECTANGULAR"},
}


def world_rays(capture):
    """{name without folder and ending: (origins, directions) of a grid of pixels}, float64, in the capture's world."""
    found = {}
    for image in (i for split in capture.splits.values() for i in split):
        lens = image.lens
        values = (image.camera_to_world, lens.focal, lens.principal)
        pose, focal, principal = (torch.tensor(np.asarray(v), dtype=torch.float64)[None] for v in values)
        distortion = torch.zeros(1, 9, dtype=torch.float64)
        distortion[0, : len(lens.distortion)] = torch.tensor(lens.distortion, dtype=torch.float64)
        cameras = Cameras(pose, focal, principal, torch.tensor([lens.size]), distortion, lens.model)
        x, y = (torch.linspace(0.5, side - 0.5, 40, dtype=torch.float64) for side in lens.size)
        pixel = torch.cartesian_prod(x, y)
        rays = cameras.rays(torch.zeros(len(pixel), dtype=torch.long), pixel)
        found[Path(image.name).stem] = rays
    return found


def assert_same_rays(a, b):
    assert a.keys() == b.keys()
    for name in a:
        cross = torch.linalg.cross(a[name].directions, b[name].directions).norm(dim=-1)
        dot = (a[name].directions * b[name].directions).sum(-1)
        assert torch.atan2(cross, dot).max() < SAME_RAY
        scale = a[name].origins.norm(dim=-1).max()
        assert (a[name].origins - b[name].origins).abs().max() < SAME_RAY * scale


def convert(source, target, form, *options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RadfieldWarning)
        assert main(["data", "convert", str(source), str(target), "--to", form, *options]) == 0
        return read_capture(target)


@pytest.mark.parametrize("lens", LENSES)
def test_round_trips_keep_every_ray(capture, tmp_path, lens):
    keys = {"fl_x": 20.0, "fl_y": 21.0, "cx": 8.3, "cy": 5.9, "w": 16, "h": 12, **LENSES[lens]}
    folder = capture(4, **keys)
    before = world_rays(read_capture(folder))
    assert_same_rays(before, world_rays(convert(folder, tmp_path / "ns", "nerfstudio")))
    if lens == "sphere":
        assert main(["data", "convert", str(folder), str(tmp_path / "c"), "--to", "colmap"]) == 2
        assert not (tmp_path / "c").exists()
        return
    assert_same_rays(before, world_rays(convert(folder, tmp_path / "colmap", "colmap")))
    assert_same_rays(before, world_rays(convert(tmp_path / "colmap", tmp_path / "back", "nerfstudio")))
    assert_same_rays(before, world_rays(convert(tmp_path / "back", tmp_path / "again", "colmap")))


def test_lenses_that_differ_from_view_to_view_are_kept(capture, tmp_path):
    def change(content):
        for frame, lens in zip(content["frames"], ("pinhole", "fisheye", "opencv", "rational"), strict=True):
            frame.update(LENSES[lens])

    folder = capture(4, change, fl_x=20.0, fl_y=21.0, cx=8.3, cy=5.9, w=16, h=12)
    before = read_capture(folder)
    models = [image.lens.model for image in before.splits[ALL]]
    assert models == ["perspective", "fisheye", "perspective", "perspective"]
    for form in ("nerfstudio", "colmap"):
        after = convert(folder, tmp_path / form, form)
        assert_same_rays(world_rays(before), world_rays(after))
        assert [image.lens.model for image in after.splits[ALL]] == models
    frames = json.loads((tmp_path / "nerfstudio" / "transforms.json").read_text())["frames"]
    assert [frame.get("is_fisheye", False) for frame in frames] == [False, True, False, False]


def test_several_lenses_stay_apart(capture, tmp_path):
    def change(content):
        for i, frame in enumerate(content["frames"]):
            frame.update(fl_x=20.0 + i, w=16, h=12)

    folder = capture(4, change=change)
    before = world_rays(read_capture(folder))
    for form in ("colmap", "nerfstudio"):
        assert_same_rays(before, world_rays(convert(folder, tmp_path / form, form)))


def test_a_lens_that_colmap_lacks(capture, tmp_path, capsys):
    folder = capture(3, k4=0.1)
    assert main(["data", "convert", str(folder), str(tmp_path / "out"), "--to", "colmap"]) == 2
    assert "a lens with k4 = 0.1 of nerfstudio's cannot be written as COLMAP" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["capture"]


def with_points(folder):
    points = Points(np.array([[0.1, 0.2, 0.3], [1, -1, 0.5]]), np.array([[1, 2, 3], [255, 0, 9]], np.uint8))
    write_points(folder / "cloud.ply", points)
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(json.dumps(content | {"ply_file_path": "cloud.ply"}))
    return points


def test_points_splits_and_box_stay(capture, tmp_path):
    folder = capture(
        4, train_filenames=["images/001.png", "images/002.png"], val_filenames=["images/003.png"], scale=0.5
    )
    points = with_points(folder)
    found = convert(folder, tmp_path / "ns", "nerfstudio")
    assert {k: [i.name for i in v] for k, v in found.splits.items()} == {
        "train": ["images/001.png", "images/002.png"],
        "val": ["images/003.png"],
    }
    assert found.box == read_capture(folder).box
    for form in ("nerfstudio", "colmap"):
        found = convert(folder, tmp_path / f"{form}2", form).points
        np.testing.assert_array_equal(found.position, points.position)
        np.testing.assert_array_equal(found.color, points.color)


def test_a_world_without_an_up_stays_one(tmp_path):
    before, after = colmap(tmp_path / "a"), tmp_path / "b"
    assert not convert(before, after, "nerfstudio").upright
    first, second = (load(folder, holdout=0).transform for folder in (before, after))
    assert first.scale == pytest.approx(second.scale, rel=1e-6)
    np.testing.assert_allclose(first.rotation, second.rotation, atol=1e-6)
    np.testing.assert_allclose(first.offset, second.offset, atol=1e-6)


def test_visibility_survives_in_colmap(tmp_path):
    before = read_capture(colmap(tmp_path / "a"))
    after = convert(tmp_path / "a", tmp_path / "b", "colmap")
    names = [[p.image_names[i] for i in p.seen_by] for p in (before.points, after.points)]
    assert names[0] == names[1] and before.points.seen_start.tolist() == after.points.seen_start.tolist()
    assert [i.name for i in before.splits[ALL]] == [i.name for i in after.splits[ALL]]


def masked(capture, folder_name):
    folder = capture(4)
    for i in range(4):
        mask = Image.new("L", (16, 12), 255)
        mask.paste(0, (0, 0, 4 + i, 12))
        (folder / folder_name).mkdir(exist_ok=True)
        mask.save(folder / folder_name / f"00{i}.png")
    content = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"{folder_name}/00{i}.png"
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("form", ["colmap", "nerfstudio"])
def test_masks_keep_their_meaning(capture, tmp_path, form):
    folder = masked(capture, "masks")
    convert(folder, tmp_path / "ignore", form)
    scene = load(tmp_path / "ignore", holdout=0)
    for i in range(4):
        assert scene.train.images.kept(i).tolist() == [[False] * (4 + i) + [True] * (12 - i)] * 12
    convert(folder, tmp_path / "transparent", form, "--masks", "transparent")
    scene = load(tmp_path / "transparent", holdout=0)
    assert scene.has_alpha and scene.train.images.spans is None
    assert scene.train.images[1][..., 3].tolist() == [[0] * 5 + [255] * 11] * 12


def test_outputs_that_are_refused(capture, tmp_path, capsys):
    folder = capture(3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    for output, rule in ((tmp_path / "full", "a new or empty folder"), (folder / "out", "a folder outside of it")):
        assert main(["data", "convert", str(folder), str(output), "--to", "colmap"]) == 2
        assert rule in capsys.readouterr().err
    assert (tmp_path / "full/x").read_text() == "mine" and not (folder / "out").exists()


def test_quaternions():
    generator = np.random.default_rng(0)
    turns = [np.linalg.qr(generator.normal(size=(3, 3)))[0] for _ in range(20)]
    turns = [r * np.linalg.det(r) for r in turns] + [np.eye(3), np.diag([1.0, -1, -1]), np.diag([-1.0, -1, 1])]
    for rotation in turns:
        w, x, y, z = quaternion_of(rotation)
        v = np.array([x, y, z])
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        assert w >= 0 and w * w + v @ v == pytest.approx(1)
        np.testing.assert_allclose(np.eye(3) + 2 * w * cross + 2 * cross @ cross, rotation, atol=1e-9)


def test_points_in_ply_files(tmp_path):
    file = tmp_path / "p.ply"
    header = (
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n{}end_header\n"
    )
    colors = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    file.write_text(header.format(colors) + "1 2 3 4 5 6\n-1 0 1e-1 7 8 9\n")
    points = read_points(file)
    assert points.position.tolist() == [[1, 2, 3], [-1, 0, 0.1]] and points.color.tolist() == [[4, 5, 6], [7, 8, 9]]
    file.write_text(header.format("") + "1 2 3\n-1 0 nan\n")
    assert read_points(file).position.tolist() == [[1, 2, 3]]
    for text, rule in [
        (header.format("") + "1 2 3\n", "states 2 points of 3 numbers"),
        (header.format("").replace("ascii", "binary_little_endian") + "123", "states 2 points of 12 bytes but holds 3"),
        (header.format("property list uchar int n\n"), "it must be a number"),
        (header.format("").replace("vertex 2", "vertex 99999999999").replace("ascii", "binary_big_endian"), "states"),
        ("ply\n", "is not a PLY file"),
    ]:
        file.write_text(text)
        with pytest.raises(BadInput, match=rule):
            read_points(file)


@pytest.mark.parametrize("name", ["middlebury_templeRing_partial", "dtu_scan37_half"])
def test_real_captures_keep_their_rays(captures, tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RadfieldWarning)
        before = world_rays(read_capture(captures / name))
    assert_same_rays(before, world_rays(convert(captures / name, tmp_path / "c", "colmap", "--masks", "ignore")))
    assert_same_rays(before, world_rays(convert(tmp_path / "c", tmp_path / "n", "nerfstudio")))


@pytest.mark.parametrize("form", ["colmap", "nerfstudio"])
def test_converting_into_the_empty_folder_where_one_stands(capture, tmp_path, monkeypatch, form):
    folder, here = capture(3), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["data", "convert", str(folder), ".", "--to", form]) == 0
    assert Path.cwd() == here and len(read_capture(Path(".")).splits[ALL]) == 3
    assert not [path.name for path in here.iterdir() if path.name.startswith(".")]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert main(["data", "convert", str(folder), ".", "--to", form]) == 2
