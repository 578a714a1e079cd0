"""What a user can get wrong: each ends with code 2 and one line, and leaves everything as it was."""

import json
import shutil

import numpy as np
import pytest
from apps.conftest import TINY
from PIL import Image

from radfield.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def capture(tmp_path):
    """Four flat images in instant-ngp's form, to break."""
    folder = tmp_path / "capture"
    (folder / "images").mkdir(parents=True)
    frames = []
    for i in range(4):
        c, s = np.cos(i), np.sin(i)
        pose = [[-s, 0, c, 4 * c], [c, 0, s, 4 * s], [0, 1, 0, 0], [0, 0, 0, 1]]
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": pose})
        Image.new("RGB", (16, 12), (40 * i, 100, 200)).save(folder / f"images/{i}.png")
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 20.0, "frames": frames}))
    return folder


def edit(capture, change):
    path = capture / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_pose(pose):
    return lambda capture: edit(capture, lambda content: content["frames"][1].update(transform_matrix=pose))


def remove_images(capture):
    shutil.rmtree(capture / "images")


def truncate(capture):
    path = capture / "images/1.png"
    path.write_bytes(path.read_bytes()[:50])  # of 80


def without_files(capture):
    # Photographs alone would be enough to train on.
    (capture / "transforms.json").unlink()
    shutil.rmtree(capture / "images")
    (capture / "notes.txt").write_text("nothing here")


CAPTURES = {
    "a folder that is not there": (shutil.rmtree, "capture"),
    "no transforms.json": (without_files, "transforms.json"),
    "JSON that is not JSON": (lambda capture: (capture / "transforms.json").write_text("{"), "transforms.json"),
    "JSON of something else": (lambda capture: (capture / "transforms.json").write_text("[1]"), "transforms.json"),
    "no frames": (lambda capture: edit(capture, lambda content: content.update(frames=[])), "frames"),
    "a matrix that is 3x4": (set_pose([[1, 0, 0, 0]] * 3), "images/1.png"),
    "a matrix that is not rigid": (set_pose([[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]), "images/1.png"),
    "a NaN pose": (set_pose([[float("nan")] * 4] * 4), "images/1.png"),
    "one image": (lambda capture: edit(capture, lambda content: content.update(frames=content["frames"][:1])), "one"),
    "a truncated image": (truncate, "1.png"),
    "a text for an image": (lambda capture: (capture / "images/1.png").write_text("no image"), "1.png"),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_captures(capture, tmp_path, refused, name):
    spoil, rule = CAPTURES[name]
    spoil(capture)
    refused("train", capture, "--output", tmp_path / "run", "--steps", 1, *TINY, rule=rule)
    assert not (tmp_path / "run").exists()


def test_all_images_missing(capture, tmp_path, command):
    remove_images(capture)
    code, _, lines = command("train", capture, "--output", tmp_path / "run", "--steps", 1, *TINY)
    assert code == 2 and not (tmp_path / "run").exists()
    assert [line for line in lines if not line.startswith("radfield: warning: ")] == lines[-1:]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "sizes"])
def test_images_of_other_kinds_train(capture, tmp_path, command, mode, recwarn):
    size, name = (16, 12), "images/1.png"
    if mode == "sizes":
        mode, size = "RGB", (32, 24)
        edit(capture, lambda content: content["frames"][1].update(w=32, h=24, fl_x=40.0))
    if mode == "CMYK":
        name = "images/1.jpg"
        edit(capture, lambda content: content["frames"][1].update(file_path=name))
    Image.new(mode, size).save(capture / name)
    options = ("--steps", 2, "--holdout", 0, *TINY)
    assert command("train", capture, "--output", tmp_path / "run", *options)[0] == 0


OPTIONS = {
    "--seconds is 0": ("--seconds", "0"),
    "--seconds is nan": ("--seconds", "nan"),
    "--seconds is inf": ("--seconds", "inf"),
    "--steps is 0": ("--steps", "0"),
    "--steps is -5": ("--steps", "-5"),
    "--threads is 0": ("--threads", "0"),
    "--device is cuda": ("--device", "cuda"),
    "--seed is -1": ("--seed", "-1"),
    "--holdout is 1": ("--holdout", "1"),
    "--max-size is 0": ("--max-size", "0"),
    "--checkpoint-seconds is 0": ("--checkpoint-seconds", "0"),
    "--resume and --overwrite": ("--resume", "--overwrite"),
    "holds no run to --resume": ("--resume",),
    "--seconds": ("--seconds", "long"),
    "--method": ("--method", "mesh"),
    "--encoding is 'hush'; the rule: one of hash, simplex": ("--encoding", "hush"),
    "--ngp.levels is 0": ("--ngp.levels", "0"),
    "--ngp.base-resolution is 0": ("--ngp.base-resolution", "0"),
    "--ngp.finest-resolution is 8": ("--ngp.finest-resolution", "8"),
    "features": ("--ngp.features", "3"),
    "log2_size": ("--ngp.log2-size", "60"),
    "--ngp.precision is f16": ("--ngp.precision", "f16"),
    "--ngp.learning-rate is -1": ("--ngp.learning-rate", "-1"),
    "--ngp.batch-samples is 0": ("--ngp.batch-samples", "0"),
    "--ngp.background is blue": ("--ngp.background", "blue"),
    "--ngp.coarse-step is 0": ("--ngp.coarse-step", "0"),
    "--ngp.near is nan": ("--ngp.near", "nan"),
    "--ngp.occupancy-interval is 0": ("--ngp.occupancy-interval", "0"),
}


@pytest.mark.parametrize("rule", OPTIONS)
def test_options_of_train(tiny_capture, tmp_path, refused, rule):
    refused("train", tiny_capture, "--output", tmp_path / "run", *OPTIONS[rule], rule=rule)
    assert not (tmp_path / "run").exists()


def test_no_capture_no_output(tiny_capture, tmp_path, refused):
    refused("train", "--output", tmp_path / "run", "--steps", 1, rule="no capture is given")
    for option in ("--resume", "--overwrite"):
        refused("train", tiny_capture, option, "--steps", 1, rule="--output is not given")


def test_an_output_that_is_no_run(tiny_capture, tmp_path, refused):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"dear")
    for options in ((), ("--overwrite",), ("--resume",)):
        refused("train", tiny_capture, "--output", tmp_path / "photos", "--steps", 1, *options, rule="no run")
    refused("train", tiny_capture, "--output", tmp_path / "photos" / "holiday.jpg", "--steps", 1, rule="is a file")
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"dear"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--seed", 7), "--seed is 7"),
        (("--holdout", 4), "--holdout is 4"),
        (("--max-size", 32), "--max-size is 32"),
        (("--ngp.levels", 7), "--resume keeps them"),
    ],
)
def test_a_resumed_run_keeps_its_options(trained, refused, options, rule):
    refused("train", "--output", trained[0], "--resume", *options, rule=rule)


def test_another_capture_does_not_fit(trained, capture, refused):
    refused("train", capture, "--output", trained[0], "--resume", rule="not those that")
    refused("eval", trained[0], "--capture", capture, rule="not those that")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--threads", 0), "--threads is 0"),
        (("--device", "cuda"), "--device is cuda"),
        (("--views", 0), "--views is 0"),
        (("--split", "test"), "has no test views"),
        (("--split", "all"), "--split"),
        (("--capture", "nowhere"), "nowhere"),
    ],
)
def test_options_of_eval_and_render(trained, tmp_path, refused, options, rule):
    refused("eval", trained[0], *options, rule=rule)
    refused("render", trained[0], "--output", tmp_path / "out", *options, rule=rule)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--frames", 0), "--frames is 0"),
        (("--fps", 0), "--fps is 0"),
        (("--size", 4), "--size is 4"),
        (("--what", "orbit", "--views", 3), "--views is 3"),
    ],
)
def test_options_of_render(trained, tmp_path, refused, options, rule):
    refused("render", trained[0], "--output", tmp_path / "out", *options, rule=rule)
    assert not (tmp_path / "out").exists()


def test_an_output_of_render_that_is_a_file(trained, tmp_path, refused):
    (tmp_path / "out").write_text("dear")
    refused("render", trained[0], "--output", tmp_path / "out", rule="is a file")
    refused("render", trained[0], "--output", tmp_path / "out" / "deeper", rule="out")
    assert (tmp_path / "out").read_text() == "dear"


def cut_short(run):
    path = run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def wrong_shape(run):
    tensors, counts = load_checkpoint(run / "checkpoint.safetensors")
    tensors["field.grid.table"] = tensors["field.grid.table"][:-8]
    save_checkpoint(run / "checkpoint.safetensors", tensors, counts)


def missing_tensor(run):
    tensors, counts = load_checkpoint(run / "checkpoint.safetensors")
    del tensors["grid.values"]
    save_checkpoint(run / "checkpoint.safetensors", tensors, counts)


def wrong_version(run):
    path = run / "checkpoint.safetensors"
    data = path.read_bytes()
    assert data.count(b'"version":"1"') == 1 or data.count(b'"version": "1"') == 1
    path.write_bytes(data.replace(b'"version":"1"', b'"version":"9"').replace(b'"version": "1"', b'"version": "9"'))


def set_config(**changes):
    def change(run):
        config = json.loads((run / "config.json").read_text())
        for name, value in changes.items():
            part, _, key = name.rpartition("__")
            (config[part] if part else config)[key] = value
        (run / "config.json").write_text(json.dumps(config))

    return change


RUNS = {
    "cut short": (cut_short, "checkpoint.safetensors"),
    "of another shape": (wrong_shape, "field.grid.table"),
    "without a tensor": (missing_tensor, "grid.values"),
    "of another version": (wrong_version, "version"),
    "without a checkpoint": (lambda run: (run / "checkpoint.safetensors").unlink(), "checkpoint"),
    "without config.json": (lambda run: (run / "config.json").unlink(), "config.json"),
    "with a broken config.json": (lambda run: (run / "config.json").write_text("{"), "config.json"),
    "with config.json of another version": (set_config(version=9), "version"),
    "of another app": (set_config(app="splat"), "method splat"),
    "without options": (set_config(options=None), "options"),
    "without a scene": (set_config(scene=[]), "capture"),
    "with a holdout of words": (set_config(options__holdout="few"), "holdout"),
    "with levels of words": (set_config(ngp__levels="many"), "levels"),
    "with too many levels": (set_config(ngp__levels=900), "levels"),
    "without a transform": (set_config(scene__transform=None), "transform"),
    "with a broken transform": (set_config(scene__transform={"scale": "big"}), "transform"),
    "with cascades of words": (set_config(scene__cascades="one"), "cascades"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs(trained, tmp_path, refused, name):
    spoil, rule = RUNS[name]
    run = shutil.copytree(trained[0], tmp_path / "run")
    spoil(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused("eval", run, rule=rule)
    refused("render", run, "--output", tmp_path / "out", rule=rule)
    refused("train", "--output", run, "--resume", rule=rule)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out").exists()
