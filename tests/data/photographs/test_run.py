"""`find_cameras` from photographs to a capture, and every way in which it ends early."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checks import require_pycolmap
from PIL import Image

from radfield.data import load
from radfield.data.photographs import Options, find_cameras, process, quality_line
from radfield.errors import BadInput, RadfieldWarning

require_pycolmap()


def aligned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Points a [V, 3] moved by the similarity that brings them closest to b (Umeyama 1991)."""
    x, y = a - a.mean(0), b - b.mean(0)
    u, s, v = np.linalg.svd(y.T @ x)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ v))])
    scale = (s * np.diag(flip)).sum() / (x**2).sum()
    return scale * x @ (u @ flip @ v).T + b.mean(0)


def test_every_photograph_gets_its_camera(photographed, found):
    output, figures, _ = found
    _, poses = photographed
    scene = load(output, holdout=0)
    centres = scene.train.cameras.camera_to_world[:, :3, 3].double().numpy()
    truth = np.array([pose[:3, 3] for pose in poses])
    extent = np.linalg.norm(truth.max(0) - truth.min(0))
    assert figures["registered"] == figures["images"] == len(poses) == len(scene.train)
    assert np.linalg.norm(aligned(centres, truth) - truth, axis=1).max() < 0.01 * extent
    assert abs(scene.train.cameras.focal.mean().item() / 270 - 1) < 0.03
    assert figures["reprojection_error_px"] < 0.5


def frames_of(output: Path) -> list[dict]:
    """The frames of transforms.json, each with the entries that stand above them all."""
    shared = json.loads((output / "transforms.json").read_text())
    return [{**shared, **frame} for frame in shared.pop("frames")]


def test_the_colmap_model_has_the_same_cameras(found):
    import pycolmap

    output, figures, _ = found
    model = pycolmap.Reconstruction(output / "sparse" / "0")
    frames = {frame["file_path"]: frame for frame in frames_of(output)}
    assert model.num_points3D() == figures["points"] > 200
    assert {f"images/{image.name}" for image in model.images.values()} == set(frames)
    for image in model.images.values():
        frame = frames[f"images/{image.name}"]
        pose = np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])
        assert np.allclose(pose[:3], image.cam_from_world().inverse().matrix())
        camera = model.cameras[image.camera_id]
        assert (camera.width, camera.height) == (frame["w"], frame["h"]) == (320, 240)
        assert camera.focal_length_x == frame["fl_x"]
    points = pycolmap.Reconstruction()
    points.import_PLY(output / "points.ply")
    assert points.num_points3D() == model.num_points3D()
    colors = np.array([point.color for point in model.points3D.values()])
    assert colors.std(0).min() > 10  # noise: none of the channels is one value


def test_both_readings_of_a_result_turn_it_upright(found, tmp_path):
    # The arc's cameras stand upright: the mean of their up axes is the scene's z.
    colmap = shutil.copytree(found[0], tmp_path / "colmap")
    (colmap / "transforms.json").unlink()
    scenes = [load(folder, holdout=0) for folder in (found[0], colmap)]
    for scene in scenes:
        up = -scene.train.cameras.camera_to_world[:, :3, 1].mean(0)
        assert up[2] > 0.99 * up.norm()
    first, second = (scene.transform for scene in scenes)
    assert first.scale == pytest.approx(second.scale, rel=1e-6)
    assert np.allclose(first.rotation, second.rotation, atol=1e-6)
    assert np.allclose(first.offset, second.offset, atol=1e-6)
    turned = np.array(first.rotation)
    assert np.allclose(turned @ turned.T, np.eye(3), atol=1e-9) and abs(turned - np.eye(3)).max() > 0.1


def test_pixels_of_points_agree_with_the_photographs_size(photographed, room, tmp_path):
    # Twice the size, with features from copies of the usual one: everything comes in the pixels of the photographs.
    large = room.write(tmp_path / "large", [room.render(pose, size=(640, 480)) for pose in photographed[1][::2]])
    figures = find_cameras(large, tmp_path / "out", options=Options(feature_size=320))
    frame = frames_of(tmp_path / "out")[0]
    assert (frame["w"], frame["h"]) == (640, 480) and abs(frame["fl_x"] / 540 - 1) < 0.03
    assert figures["reprojection_error_px"] < 1.0


def test_photographs_of_two_zooms_that_say_nothing_of_them(room, tmp_path):
    focals = [270, 400] * 4
    images = [room.render(pose, focal=focal) for pose, focal in zip(room.arc(8), focals, strict=True)]
    find_cameras(room.write(tmp_path / "zoom", images), tmp_path / "out")
    frames = frames_of(tmp_path / "out")
    assert np.allclose([frame["fl_x"] for frame in frames], focals, rtol=0.02)


def test_the_second_time_it_is_there(photographed, found, monkeypatch):
    output, figures, said = found
    monkeypatch.setattr(process, "run_child", lambda *_: pytest.fail("was run again"))
    again = find_cameras(photographed[0], output)
    assert again == {**figures, "cached": True}
    assert "found before" in quality_line(again) and "9 of 9" in quality_line(again)
    assert [line.split()[1].rstrip(",") for line in said.splitlines()][-5:] == [
        *("photographs", "features", "matching", "mapping", "refinement")
    ]


def test_cameras_that_another_run_found_are_taken_over(photographed, found, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run_child", lambda *_: pytest.fail("was run again"))
    output, empty = tmp_path / "out", tmp_path / "empty"
    figures = find_cameras(photographed[0], output, earlier=[empty, found[0]])
    assert figures == {**found[1], "cached": True}

    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(output) == content(found[0]) and not empty.exists()
    assert find_cameras(photographed[0], output) == figures
    monkeypatch.setattr(process, "run_child", stopped)
    with pytest.raises(Stopped):  # of other options
        find_cameras(photographed[0], tmp_path / "new", earlier=[output], options=Options(features=3000))


def stopped(*_):
    raise Stopped


class Stopped(Exception):
    """The child would have been started."""


@pytest.mark.parametrize("change", ["option", "photograph", "fewer"])
def test_it_is_found_again_when_something_changed(photographed, found, tmp_path, monkeypatch, change):
    source = tmp_path / "source"
    source.mkdir()
    for file in photographed[0].iterdir():
        os.link(file, source / file.name)
    first = sorted(source.iterdir())[0]
    if change == "photograph":
        content = first.read_bytes()
        first.unlink()
        first.write_bytes(content + b"\0")
    if change == "fewer":
        first.unlink()
    ran = []

    def stop(job, folder):
        ran.append(job)
        raise Stopped

    monkeypatch.setattr(process, "run_child", stop)
    before = sorted(found[0].rglob("*"))
    with contextlib.suppress(Stopped):
        find_cameras(source, found[0], options=Options(features=3000) if change == "option" else None)
    assert len(ran) == 1
    assert sorted(found[0].rglob("*")) == before  # what was there stays until there is something new


def test_a_read_only_folder_with_all_sorts_in_it(photographed, found, tmp_path, monkeypatch):
    source = tmp_path / "read only"
    source.mkdir()
    for file in photographed[0].iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    for name in ("notes.txt", "clip.mp4", "IMG_1.HEIC", ".hidden.jpg", "x.nef"):
        (source / name).write_bytes(b"?")
    (source / "broken.jpg").write_bytes(b"no picture")
    listing = sorted(source.iterdir())
    source.chmod(0o555)
    monkeypatch.setattr("radfield.errors._announced", {})
    try:
        with pytest.warns(RadfieldWarning) as said:
            figures = find_cameras(source, tmp_path / "out")
    finally:
        source.chmod(0o755)
    texts = " ".join(str(warning.message) for warning in said)
    assert "1 videos" in texts and "2 HEIC or raw" in texts and "broken.jpg" in texts
    assert figures["registered"] == 9 and sorted(source.iterdir()) == listing


def failing(source, tmp_path, **options) -> str:
    """The message with which it fails; asserts that it leaves nothing behind."""
    output = tmp_path / "deep" / "out"
    with pytest.raises(BadInput) as error:
        find_cameras(source, output, options=Options(**options))
    assert not output.parent.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_two_photographs(photographed, room, tmp_path):
    source = room.write(tmp_path / "two", map(room.render, photographed[1][:2]))
    assert "2 photographs that can be read; the rule: at least 3" in failing(source, tmp_path)


def test_identical_photographs(photographed, room, tmp_path):
    image = room.render(photographed[1][0])
    source = room.write(tmp_path / "same", [image] * 5)
    assert "1 different pictures among the 5" in failing(source, tmp_path)


def test_nothing_in_common(photographed, room, tmp_path):
    images = [room.render(photographed[1][0], seed=seed) for seed in range(1, 6)]
    text = failing(room.write(tmp_path / "apart", images), tmp_path)
    assert "failed at matching: no three of the 5 photographs" in text and "try photographs of one scene" in text


def test_one_camera_facing_a_textured_wall(photographed, room, tmp_path):
    rng = np.random.default_rng(0)
    image = room.render(photographed[1][0]).astype(float)
    images = [np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8) for _ in range(5)]
    text = failing(room.write(tmp_path / "still", images), tmp_path)
    assert "failed at matching" in text and "from one place" in text and "try walking" in text


def test_one_camera_facing_an_even_wall(room, tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.normal(180, 1, (300, 400, 3)).astype(np.uint8) for _ in range(5)]
    text = failing(room.write(tmp_path / "even", images), tmp_path)
    assert "failed at features" in text and "texture" in text


def test_a_camera_that_turns_in_place(room, tmp_path):
    source = room.write(tmp_path / "turn", map(room.render, room.panorama(5)))
    text = failing(source, tmp_path)
    assert "failed at matching" in text and "turns in place" in text and "try walking" in text


def test_an_output_that_holds_other_files_is_left_alone(photographed, tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(BadInput, match="holds files that are no earlier result"):
        find_cameras(photographed[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed, likely for its memory"),
        ("import os; os.kill(os.getpid(), 11)", "ended with signal 11"),
        ("raise SystemExit('no such option')", "ended with exit code 1: no such option"),
    ],
)
def test_a_crash_of_the_child_is_one_line(photographed, tmp_path, monkeypatch, script, text):
    monkeypatch.setattr(process, "CHILD", (sys.executable, "-c", script))
    assert text in failing(photographed[0], tmp_path)


@pytest.mark.parametrize(("version", "text"), [(None, "is not installed"), ("3.12.5", "is installed as 3.12.5")])
def test_without_pycolmap_it_says_what_to_install(photographed, tmp_path, monkeypatch, version, text):
    monkeypatch.setattr("radfield.data.photographs.run._pycolmap_version", lambda: version)
    said = failing(photographed[0], tmp_path)
    assert text in said and "`pip install 'pycolmap>=4'`" in said


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what they start in the background ignore it
from radfield.apps.command_line import main
sys.exit(main(["data", "poses", sys.argv[1], "--output", sys.argv[2], "--features", "8000"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_child_ends_with_its_parent(room, tmp_path, number, code):
    rng = np.random.default_rng(0)
    source = tmp_path / "busy"
    source.mkdir()
    for i in range(12):  # noise of 1000x1000 keeps the search for features busy for many seconds
        Image.fromarray(rng.integers(0, 256, (1000, 1000), dtype=np.uint8)).save(source / f"{i}.png")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, source, tmp_path / "out"], stderr=subprocess.PIPE)
    child = wait_for(lambda: stage_of_child(parent.pid))
    parent.send_signal(number)
    assert parent.wait(60) == code
    parent.stderr.close()
    assert wait_for(lambda: not os.path.exists(f"/proc/{child}"))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.tmp").exists() == (number == signal.SIGKILL)  # which the next search replaces


def stage_of_child(parent: int) -> int | None:
    # The child's id once it has loaded pycolmap: it is then inside the stages.
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        if "pycolmap" in Path(f"/proc/{child}/maps").read_text():
            time.sleep(1.5)  # into the search for features, which is native code
            return int(child)
    return None


def wait_for(condition, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return value
