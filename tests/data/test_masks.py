"""Masks: which files are found, what they mean by convention or by wish, and that they reach every pixel."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.apps.command_line import main
from radfield.data import load
from radfield.data.masks import Mask, decode_mask, spans_of
from radfield.errors import BadInput, RadfieldWarning

#: kept: the right part of every row, from column 4 on
KEPT = [[False] * 4 + [True] * 12] * 12


def write_mask(path, size=(16, 12), masked=0, kept=255, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, kept)
    image.paste(masked, (0, 0, size[0] // 4, size[1]))
    image.save(path)


def with_mask_path(folder):
    content = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"stencils/{i}.png"
        write_mask(folder / f"stencils/{i}.png")
    (folder / "transforms.json").write_text(json.dumps(content))


def with_dynamic_masks(folder):
    for i in range(4):
        write_mask(folder / f"images/dynamic_mask_00{i}.png", masked=255, kept=0)


@pytest.mark.parametrize("write", [with_mask_path, with_dynamic_masks])
def test_pixels_to_ignore(capture, write):
    folder = capture(4)
    write(folder)
    scene = load(folder, holdout=0)
    assert not scene.has_alpha and scene.background == "black"
    for i in range(4):
        assert scene.train.images.kept(i).tolist() == KEPT


def test_meanings_can_be_chosen(capture):
    folder = capture(4)
    with_mask_path(folder)
    scene = load(folder, holdout=0, masks="transparent")
    assert scene.has_alpha and scene.train.images.kept(0) is None
    assert (scene.train.images[0][..., 3] == 255).tolist() == KEPT
    scene = load(folder, holdout=0, masks="none")
    assert not scene.has_alpha and scene.train.images.spans is None
    with pytest.raises(BadInput, match="masks is 'empty'; it must be one of auto"):
        load(folder, masks="empty")


def test_some_images_without_masks_are_announced(capture):
    folder = capture(4)
    write_mask(folder / "images/dynamic_mask_002.png", masked=255, kept=0)
    with pytest.warns(RadfieldWarning, match="3 of 4 images have no mask"):
        scene = load(folder, holdout=0)
    assert bool(scene.train.images.kept(0).all()) and scene.train.images.kept(2).tolist() == KEPT


def test_reduced_masks_keep_what_is_mostly_kept(capture):
    folder = capture(4)
    with_mask_path(folder)
    kept = load(folder, holdout=0, max_size=8).train.images.kept(1)
    assert kept.tolist() == [[False] * 2 + [True] * 6] * 6


def test_masks_follow_a_turned_image(tmp_path):
    write_mask(tmp_path / "m.png", size=(12, 16))
    upright = decode_mask(Mask(tmp_path / "m.png"), (16, 12), (12, 16), True)
    assert upright.shape == (16, 12) and (upright[:, :3] == 0).all() and (upright[:, 3:] == 255).all()


def test_alpha_of_a_mask_file_counts(tmp_path):
    write_mask(tmp_path / "m.png", masked=(255, 255, 255, 0), kept=(0, 0, 0, 255), mode="RGBA")
    assert (decode_mask(Mask(tmp_path / "m.png"), (16, 12), (16, 12), False) > 0).tolist() == KEPT


def test_masks_of_another_shape_are_refused(capture):
    folder = capture(4)
    with_mask_path(folder)
    write_mask(folder / "stencils/2.png", size=(12, 12))
    with pytest.raises(BadInput, match=r"2.png is 12x12 but its image is 16x12; a mask must have its shape"):
        load(folder)


def test_spans():
    assert spans_of(np.array([], dtype=bool)).tolist() == []
    assert spans_of(np.array([1, 1, 0, 1, 0, 0, 1], dtype=bool)).tolist() == [[0, 2], [3, 4], [6, 7]]


def test_ignored_pixels_are_neither_trained_nor_measured(capture, tmp_path, capsys):
    # Left of column 4 the images are noise that no scene explains; what is left is one flat colour.
    folder = capture(6, size=(32, 24))
    generator = np.random.default_rng(0)
    for i in range(6):
        pixels = np.full((24, 32, 3), 90, np.uint8)
        pixels[:, :8] = generator.integers(0, 256, (24, 8, 3))
        Image.fromarray(pixels).save(folder / f"images/00{i}.png")
        write_mask(folder / f"images/dynamic_mask_00{i}.png", size=(32, 24), masked=255, kept=0)
    small = ["--ngp.levels=4", "--ngp.log2-size=10", "--ngp.batch-samples=4096", "--ngp.finest-resolution=64"]
    assert main(["train", str(folder), "--output", str(tmp_path / "run"), "--steps", "40", "--json", *small]) == 0
    masked = json.loads(capsys.readouterr().out.splitlines()[-1])["psnr"]
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["psnr"] == pytest.approx(masked)
    assert masked > 20  # with the noise, whose standard deviation is 0.29 on a quarter of the pixels, below 17
    assert torch.equal(load(folder).val.images.kept(0), torch.tensor([[False] * 8 + [True] * 24] * 24))
