"""`radfield fit-image` and `decode`: a run of a picture, its files, and what they refuse."""

import math

import numpy as np
import pytest
import torch

from radfield.apps.fit import fit_image, picture
from radfield.data.picture_files import Picture, read_picture, write_picture
from radfield.errors import BadInput
from radfield.training.checkpoint import load_checkpoint

TINY = ("--picture.levels", "6", "--picture.log2-size", "12", "--picture.batch", "4096")


def smooth(height=40, width=60, kind=np.uint8) -> np.ndarray:
    """Waves of three colours."""
    y, x = np.mgrid[:height, :width] / 10
    waves = np.stack([np.sin(x + y), np.cos(x * 1.5), np.sin(y - 0.3 * x)], 2).astype(np.float32) / 2 + 0.5
    return waves if kind is np.float32 else (waves * 255).round().astype(np.uint8)


@pytest.fixture
def image(tmp_path):
    write_picture(tmp_path / "waves.png", smooth())
    return tmp_path / "waves.png"


@pytest.fixture
def fit(command):
    """Fits a tiny field; returns the figures."""

    def run(image, output, *more, steps=150):
        code, found, said = command("fit-image", image, "--output", output, "--steps", steps, "--json", *TINY, *more)
        assert code == 0, said
        return found

    return run


def pixels_of(path) -> np.ndarray:
    return read_picture(path, path.with_suffix(".raw"), 1 << 20, 1 << 20).values


def test_a_run_and_its_files(image, tmp_path, fit, command):
    found = fit(image, tmp_path / "run")
    assert found["psnr"] > 30
    decoded = pixels_of(tmp_path / "run" / "renders" / "decoded.png")
    error = np.square((decoded.astype(float) - smooth()) / 255).mean()
    assert found["psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    code, again, _ = command("eval", tmp_path / "run", "--json")
    assert (code, again["psnr"]) == (0, found["psnr"])
    assert found["raw_bytes"] == smooth().nbytes
    for name in ("report.html", "zoom.html", "compact.safetensors", "renders/zoom_fit_files/6/0_0.jpg"):
        assert (tmp_path / "run" / name).exists(), name
    assert found["compact_bytes"] == (tmp_path / "run" / "compact.safetensors").stat().st_size
    assert found["jpeg_bytes"] is None or found["jpeg_bytes"] > 100


@pytest.mark.parametrize("encoding", ["hash", "probe", "simplex"])
def test_the_compact_file_loses_nothing(image, tmp_path, fit, command, encoding):
    fit(image, tmp_path / "run", "--encoding", encoding, "--no-evaluate", steps=5)
    from radfield.apps.fit.picture_compact import write_compact

    write_compact(tmp_path / "small.safetensors", picture.load(tmp_path / "run"))
    for source, target in ((tmp_path / "run", "a.png"), (tmp_path / "small.safetensors", "b.png")):
        assert command("decode", source, tmp_path / target)[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_part_and_another_resolution(image, tmp_path, fit, command):
    fit(image, tmp_path / "run", "--no-evaluate", steps=5)
    model = picture.load(tmp_path / "run")
    whole, part = model.pixels((60, 40), (0, 0, 60, 40)), model.pixels((60, 40), (7, 5, 20, 30))
    assert torch.equal(part, whole[5:35, 7:27])
    double = model.pixels((180, 120), (0, 0, 180, 120))
    assert (double[1::3, 1::3] - whole).abs().max() < 1e-2  # the same points, but for their rounding
    part = ("--width", 30, "--crop", 2, 3, 10, 5)
    assert command("decode", tmp_path / "run", tmp_path / "x.png", *part)[0] == 0
    assert pixels_of(tmp_path / "x.png").shape == (5, 10, 3)


def test_resumed_equals_uninterrupted(image, tmp_path, fit, command):
    fit(image, tmp_path / "a", "--threads", 1, "--no-evaluate", steps=6)
    fit(image, tmp_path / "b", "--threads", 2, "--no-evaluate", steps=6)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in "ab")
    for name, value in one.items():
        assert torch.equal(value, two[name]), f"{name} depends on the number of threads"
    # as if it had been stopped after the third step of six
    config = picture.config_from(fit_image.RunFolder(tmp_path / "a").read_config())
    options = fit_image.Options(image=image, output=tmp_path / "c", steps=6, picture=config)
    fit_it, folder = fit_image.FitImage(), fit_image.RunFolder.create(options.output)
    target = fit_it.open(options, folder)
    training = fit_it.training_of(options, target)
    folder.start(fit_it.config_of(options, target))
    for step in range(3):
        training.count(picture.train_step(training, step / 6), 0.1)
    training.save(folder)
    assert command("fit-image", "--output", tmp_path / "c", "--resume", "--no-evaluate")[0] == 0
    resumed = load_checkpoint(tmp_path / "c" / "checkpoint.safetensors")[0]
    for name, value in one.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2)])
def test_the_smallest_pictures(tmp_path, fit, size):
    write_picture(tmp_path / "small.png", smooth(*size))
    assert fit(tmp_path / "small.png", tmp_path / "run", steps=60)["psnr"] > 25


def test_linear_values_and_their_peak(tmp_path, fit):
    write_picture(tmp_path / "bright.exr", 8 * smooth(kind=np.float32) + 1)
    found = fit(tmp_path / "bright.exr", tmp_path / "run")
    assert found["color_space"] == "linear"
    assert found["peak"] == pytest.approx(9, abs=0.1)
    assert found["psnr"] > 30
    assert found["jpeg_bytes"] is None
    assert pixels_of(tmp_path / "run" / "renders" / "decoded.exr").max() > 6


def test_a_picture_on_the_disk_is_learned_too(image, tmp_path, fit):
    found = fit(image, tmp_path / "run", "--memory-gb", 1e-6)
    assert (tmp_path / "run" / "cache" / "picture.raw").stat().st_size == smooth().nbytes
    assert found["psnr"] > 28


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        (["--encoding", "vm"], "--encoding is 'vm'; the rule: one of hash"),
        (["--picture.batch", "3"], "--picture.batch is 3; the rule"),
        (["--steps", "0"], "--steps is 0; the rule: positive"),
    ],
)
def test_options_out_of_range(image, tmp_path, refused, more, rule):
    refused("fit-image", image, "--output", tmp_path / "run", *more, rule=rule)
    assert not (tmp_path / "run").exists()


def test_what_decode_refuses(image, tmp_path, fit, refused):
    run, target = tmp_path / "run", tmp_path / "a.png"
    fit(image, run, "--no-evaluate", steps=2)
    part = "--crop is 50 0 20 10; the rule: X Y W H within 60 x 40 pixels"
    refused("decode", run, target, "--crop", 50, 0, 20, 10, rule=part)
    refused("decode", run, tmp_path / "a.xyz", rule="ends in '.xyz'")
    refused("decode", run, target, "--width", 0, rule="--width is 0; the rule")
    refused("decode", image, target, rule="waves.png")
    refused("fit-image", tmp_path / "none.png", "--output", tmp_path / "new", rule="there is no such file")
    refused("render", run, "--output", tmp_path / "p", rule="a run that `radfield train` made")
    assert not target.exists()


def test_a_picture_of_another_size_is_refused(image, tmp_path):
    target = Picture(smooth())
    model = picture.build(picture.Config(levels=4, log2_size=10), size=(10, 10), channels=3, kind="uint8", peak=255.0)
    with pytest.raises(BadInput, match="60 x 40 uint8 with 3 channels; the rule: 10 x 10"):
        picture.Training(model, target, 0)
