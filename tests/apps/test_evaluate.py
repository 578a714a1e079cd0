"""`radfield eval`: the figures, the conditions they hold for, and the files that go with them."""

import json
import shutil

import pytest
import torch
from PIL import Image

from radfield.apps.evaluate import evaluate_views
from radfield.apps.runs import open_run


def test_figures_and_their_conditions(trained, command):
    run, at_training = trained
    code, figures, _ = command("eval", run, "--json")
    assert code == 0
    assert figures["psnr"] == pytest.approx(at_training["psnr"], abs=1e-4)
    assert 0.5 < figures["ssim"] <= 1
    assert figures["views"] == 2 and figures["split"] == "val"
    assert figures["resolution"] == "48 x 48" and figures["background"] == "white"
    assert figures["color_space"] == "sRGB" and figures["seconds"] > 0


def test_the_same_bits_with_any_number_of_threads(trained, command):
    one, two = (command("eval", trained[0], "--threads", threads, "--json")[1] for threads in (1, 2))
    assert (one["psnr"], one["ssim"]) == (two["psnr"], two["ssim"])


def test_the_figures_are_those_of_the_pictures(trained):
    _, model, scene = open_run(trained[0], "val")
    figures, views = evaluate_views(model, scene, "val")
    errors = [(render - truth).square().mean() for _, render, truth in views]
    psnr = torch.stack([-10 * error.log10() for error in errors]).mean()
    assert figures["psnr"] == pytest.approx(psnr.item(), abs=1e-3)
    assert [name for name, _, _ in views] == scene.val.names


def test_another_split_and_fewer_views(trained, tmp_path, command):
    run = shutil.copytree(trained[0], tmp_path / "run")
    figures = command("eval", run, "--split", "train", "--views", 1, "--json")[1]
    assert figures["split"] == "train" and figures["views"] == 1
    assert [path.name for path in (run / "renders" / "train").iterdir()] == ["000.png"]
    with Image.open(run / "renders" / "train" / "000.png") as image:
        assert image.size == (48, 48) and image.mode == "RGB"


def test_the_report_keeps_what_training_measured(trained, tmp_path, command):
    run = shutil.copytree(trained[0], tmp_path / "run")
    (run / "report.html").unlink()
    command("eval", run, "--views", 1)
    page = (run / "report.html").read_text()
    assert "Time by stage" in page and "training time" in page


def test_a_capture_that_moved(trained, tiny_capture, tmp_path, command, refused):
    run = shutil.copytree(trained[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["scene"]["capture"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    refused("eval", run, rule="--capture says where it is")
    assert command("eval", run, "--capture", tiny_capture)[0] == 0
