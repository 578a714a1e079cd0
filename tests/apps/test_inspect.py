"""`radfield data inspect`: the picture shows cameras where they are, and the figures are those of the capture."""

import numpy as np
from PIL import Image

from radfield.apps.data.inspect_picture import COLORS, HEAD, MARGIN, PANEL, WIDTH


def test_the_picture_and_its_figures(command, tiny_capture, tmp_path):
    code, figures, _ = command("data", "inspect", tiny_capture, "--output", tmp_path / "new" / "p.png", "--json")
    assert code == 0
    assert (figures["images"], figures["train"], figures["val"], figures["points"]) == (14, 12, 2, 0)
    assert figures["alpha"] and figures["cascades"] == 1 and figures["ignored"] == 0
    picture = np.asarray(Image.open(tmp_path / "new" / "p.png"))
    assert picture.shape[1] == WIDTH and picture.shape[0] > HEAD + PANEL
    for left in (MARGIN, WIDTH - PANEL - MARGIN):
        panel = picture[HEAD : HEAD + PANEL, left : left + PANEL]
        for split in ("train", "val"):
            assert (panel == COLORS[split]).all(-1).sum() > 20
    assert (picture[HEAD + PANEL :] == COLORS["val"]).all(-1).any()


def test_outputs_that_are_refused(refused, tiny_capture, tmp_path):
    refused("data", "inspect", tiny_capture, "--output", tmp_path / "p.jpg", rule="a file name that ends in .png")
    refused("data", "inspect", tmp_path / "none", "--output", tmp_path / "p.png", rule="does not exist")


def test_a_run_folder_is_found(command, tiny_capture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--steps", "1", "--ngp.levels", "4", "--ngp.log2-size", "10", "--ngp.finest-resolution", "64")
    for name in ("", "-2"):
        code, figures, _ = command("train", tiny_capture, "--no-evaluate", "--json", *small)
        assert code == 0 and figures["run"] == f"runs/{tiny_capture.name}{name}"
