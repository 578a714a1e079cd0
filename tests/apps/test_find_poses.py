"""`radfield data poses`, and `radfield train` on bare photographs, as users call them."""

import json

import numpy as np
import pytest
from checks import require_pycolmap
from PIL import Image

from radfield.apps.command_line import main

require_pycolmap()
EXACT = {
    "fox": ("images", 50, 1.0),
    "middlebury_templeRing_partial": ("", 19, 0.5),
    "opensfm/lund": ("images", 20, 1.5),
    "opensfm/berlin": ("images", 3, 3.0),
}


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    Image.new("RGB", (40, 30)).save(tmp_path / "one.jpg")
    assert main(["data", "poses", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "has 1 photograph that can be read; the rule: at least 3" in said
    assert main(["data", "poses", str(tmp_path), "--output", str(tmp_path / "out"), "--features", "3"]) == 2
    assert "--features is 3; the rule: from 100" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["one.jpg"]


def test_training_on_bare_photographs_asks_nothing(tmp_path, capsys, monkeypatch):
    from radfield.apps.data.synth import Options, run

    # Cameras come from elsewhere: finding them is tested with the photographs.
    run(Options("solids", tmp_path / "posed", views=6, val_views=0, size="32"))
    source = tmp_path / "bare"
    source.mkdir()
    for i in range(6):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(source / f"{i}.jpg")
    calls, earlier = [], []

    def find(photographs, output, **how):
        calls.append((photographs, output))
        earlier.append(how["earlier"])
        if not output.exists():
            output.parent.mkdir(parents=True)
            (tmp_path / "posed").rename(output)
            (output / "poses.json").write_text("{}")
        return {
            "registered": 6,
            "images": 6,
            "reprojection_error_px": 0.5,
            "seconds": 1,
            "warnings": [],
            "cached": False,
        }

    monkeypatch.setattr("radfield.data.photographs.find_cameras", find)
    options = ["--output", str(tmp_path / "run"), "--steps", "2", "--no-evaluate", "--json"]
    small = ["--ngp.log2-size", "10", "--ngp.levels", "4", "--ngp.finest-resolution", "64"]
    small += ["--ngp.batch-samples", "4096", "--ngp.uniform-cells", "4096", "--ngp.occupied-cells", "4096"]
    assert main(["train", str(source), *options, *small]) == 0
    said = capsys.readouterr()
    assert "cameras: 6 of 6 photographs registered, median reprojection error 0.50 px" in said.err
    assert json.loads(said.out.splitlines()[-1])["steps"] == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["scene"]["capture"] == "capture/bare" and calls == [(source, tmp_path / "run" / "capture" / "bare")]
    # The run can be moved, opened and resumed with its cameras.
    (tmp_path / "run").rename(tmp_path / "moved")
    resume = ["--output", str(tmp_path / "moved"), "--resume", "--steps", "3", "--no-evaluate"]
    assert main(["train", *resume]) == 0 and len(calls) == 1
    # What is left of a training that did not start is no reason to refuse.
    for path in (tmp_path / "moved").iterdir():
        if path.is_file():
            path.unlink()
    (tmp_path / "moved" / "renders").rmdir()
    assert main(["train", str(source), "--output", str(tmp_path / "moved"), *options[2:], *small]) == 0
    # Another run beside it may take over its cameras.
    assert earlier == [[], [tmp_path / "moved" / "capture" / "bare"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:few photographs")
@pytest.mark.parametrize("name", EXACT)
def test_real_captures_without_their_poses(captures, tmp_path, capsys, name):
    folder, registered, error = EXACT[name]
    source = tmp_path / "photographs"
    source.mkdir()
    for file in (captures / name / folder).iterdir():
        if file.suffix.lower() in (".jpg", ".png"):
            (source / file.name).write_bytes(file.read_bytes())
    assert main(["data", "poses", str(source), "--output", str(tmp_path / "out"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["registered"] >= registered and figures["images"] == len(list(source.iterdir()))
    assert figures["reprojection_error_px"] < error
