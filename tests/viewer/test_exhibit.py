"""What is looked at: files and folders of every kind, and those that are none."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from radfield.apps.command_line import main
from radfield.data.ply_points import write_points
from radfield.data.points import Points
from radfield.errors import BadInput
from radfield.gaussians.ply import read_ply, write_ply
from radfield.gaussians.scene import GaussianScene
from radfield.viewer import crop, exhibit, overlays
from radfield.viewer.sources import GaussianSource, Look, moved


def gaussians(count=200, degree_rows=9):
    generator = torch.Generator().manual_seed(1)
    return GaussianScene(
        means=torch.rand(3, count, generator=generator),
        quaternions=torch.randn(4, count, generator=generator),
        log_scales=torch.rand(3, count, generator=generator) * 2 - 8,
        opacity_logits=torch.randn(count, generator=generator),
        base=torch.randn(3, count, generator=generator),
        rest=torch.randn(degree_rows, count, generator=generator),
    )


@pytest.fixture
def files(tmp_path):
    """One file of each kind."""
    import trimesh

    write_ply(tmp_path / "splats.ply", gaussians())
    points = Points(np.random.default_rng(0).random((50, 3)), np.full((50, 3), 200, np.uint8))
    write_points(tmp_path / "points.ply", points)
    box = trimesh.creation.box()
    for name in ("mesh.ply", "mesh.obj", "mesh.glb"):
        box.export(tmp_path / name)
    return tmp_path


def test_every_kind_of_file(files):
    splats = exhibit.of_file(files / "splats.ply")
    assert (len(splats.gaussians), splats.gaussians.degree) == (200, 1)
    assert len(exhibit.of_file(files / "points.ply").points) == 50
    for name in ("mesh.ply", "mesh.obj", "mesh.glb"):
        assert len(exhibit.of_file(files / name).mesh.faces) == 12
    low, high = splats.bounds()
    assert bool((low < high).all())


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.txt", b"hello", "has no transforms.json|is a file; a capture is"),
        ("a.ply", b"hello", "has no header of a PLY file"),
        ("a.ply", b"", "has no header of a PLY file"),
        ("a.obj", b"not a mesh", "cannot be read as a mesh"),
        ("a.glb", b"glTF\xff\xff", "cannot be read as a mesh"),
        ("a.spz", b"\x1f\x8b", "cannot be unpacked|begins with"),
    ],
)
def test_what_is_no_scene_is_told_in_one_line(tmp_path, capsys, name, content, rule):
    import re

    path = tmp_path / name
    path.write_bytes(content)
    assert main(["view", str(path), "--seconds", "1", "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("radfield: ")
    assert re.search(rule, lines[0]), lines[0]


def test_runs_that_are_empty_or_missing(tmp_path, trained, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text((trained / "config.json").read_text())
    for path, rule in (
        (tmp_path / "nothing", "there is no such file or folder"),
        (empty, "is an empty folder"),
        (begun, "is a run still empty: it has no checkpoint yet"),
    ):
        assert main(["view", str(path), "--seconds", "1"]) == 2
        assert rule in capsys.readouterr().err
    assert main(["view", str(trained), str(empty), "--seconds", "1"]) == 2
    assert main(["view", str(trained), "--token", "short", "--seconds", "1"]) == 2
    assert main(["view", str(trained), "--port", "0", "--seconds", "1"]) == 2


def test_view_of_a_run_ends_in_good_order(trained, capfd):
    assert main(["view", str(trained), "--port", "18650", "--seconds", "0.5", "--device", "cpu", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out.splitlines()[-1])["url"] == "http://127.0.0.1:18650/"
    assert "http://127.0.0.1:18650/" in err
    assert len(out.splitlines()) == 1  # viser says nothing between


def test_the_first_camera_is_the_first_view(trained):
    shown = exhibit.of_run(trained, capture=None, device="cpu")
    pose = shown.at(width=64, height=48).camera_to_world[0]
    expected = shown.cameras.camera_to_world[0]
    assert torch.allclose(pose[:3, 2:], expected[:3, 2:], atol=1e-4)  # where it stands and looks; upright
    turned = shown.at(turn=0.5, tilt=0.1).camera_to_world[0]
    _, aim, _ = shown.first_view()
    distance = [(each[:3, 3] - aim.float()).norm() for each in (pose, turned)]
    assert torch.allclose(*distance, atol=1e-4)


def test_a_camera_sees_the_same_in_the_scene_of_another_run(trained):
    shown = exhibit.of_run(trained, capture=None, device="cpu")
    other = dataclasses.replace(shown.transform, scale=2 * shown.transform.scale)
    camera = shown.at()
    there = moved(camera, shown.transform, other)
    point = torch.tensor([[0.2, 0.1, 0.3]])
    pixels = [c.project(torch.tensor([0]), t.points(point))[0] for c, t in ((camera, shown.transform), (there, other))]
    assert torch.allclose(*pixels, atol=1e-2)


def test_splats_for_the_browser_keep_small_covariances():
    scene = gaussians()
    arrays = overlays.splat_arrays(scene)
    scale = arrays["scale"]
    from radfield.gaussians.scene import covariances

    sent = arrays["covariances"].astype(np.float16).astype(np.float64) * scale**2
    expected = covariances(scene).double().numpy()
    size = np.abs(expected).max((1, 2), keepdims=True)
    assert np.abs(sent - expected).max() / size.max() < 1e-3
    assert (np.abs(sent - expected) / size).max() < 0.02
    assert np.allclose(arrays["centers"] * scale, scene.means.T.numpy(), atol=1e-6)


def test_the_crop_box_is_kept_and_honoured_by_export(files, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.ply"
    assert main(["import", str(files / "splats.ply"), "--output", str(run)]) == 0
    shown = exhibit.of_run(run, capture=None, device="cpu")
    box = crop.Box((0.2, 0.2, 0.2), (0.8, 0.9, 0.7))
    crop.save(run, box, shown.transform)
    assert crop.load(run, shown.transform) == box
    inside = int(box.contains(shown.gaussians.means.T).sum())
    assert 0 < inside < 200
    source = GaussianSource(shown.source.model)
    assert len(source._inside(box).gaussians) == inside
    assert source.draw(Look(crop=box), shown.at(width=32, height=32)).color.shape == (32, 32, 3)
    assert main(["export", str(run), str(out)]) == 0
    assert len(read_ply(out)) == inside
    assert main(["export", str(run), str(out), "--crop", "none"]) == 0
    assert len(read_ply(out)) == 200
    crop.save(run, crop.Box((5, 5, 5), (6, 6, 6)), shown.transform)
    assert main(["export", str(run), str(out)]) == 2
    crop.save(run, None, shown.transform)
    assert crop.load(run, shown.transform) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"low": [0,0,0], "high": [1,1,1]}', "[" * 100_000])
def test_a_crop_file_that_is_none(tmp_path, text):
    from radfield.geometry import SceneTransform

    (tmp_path / crop.NAME).write_text(text)
    with pytest.raises(BadInput, match=r"crop\.json"):
        crop.load(tmp_path, SceneTransform())


def test_a_box_has_sides():
    for low, high in (((0, 0, 0), (1, 0, 1)), ((0, 0, float("nan")), (1, 1, 1)), ((1, 1, 1), (0, 0, 0))):
        with pytest.raises(BadInput, match="crop box"):
            crop.Box(low, high)
