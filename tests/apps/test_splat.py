"""Gaussian splatting end to end: training, resuming bit for bit, rendering, and files of Gaussians as runs."""

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import radfield
from radfield.apps import splat
from radfield.data.synthetic import write_synthetic_capture
from radfield.errors import RadfieldWarning
from radfield.gaussians.ply import read_ply
from radfield.training.checkpoint import load_checkpoint

TINY = (
    *(
        "--method",
        "splat",
        "--splat.initial",
        "random",
        "--splat.initial-gaussians",
        "1500",
        "--splat.max-gaussians",
        "20000",
    ),
    *("--splat.refine-interval", "20", "--splat.reset-interval", "10000", "--splat.sh-degree", "1"),
)
STEPS = 400


@pytest.fixture(scope="module")
def trained_splat(tiny_capture, tmp_path_factory):
    """A finished run, and its figures."""
    from radfield.apps.command_line import main

    run = tmp_path_factory.mktemp("runs") / "splat"
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *words, **options: printed.append(words))
        assert main(["train", str(tiny_capture), "--output", str(run), "--steps", str(STEPS), "--json", *TINY]) == 0
    return run, json.loads(printed[-1][0])


def test_training_finds_the_scene(trained_splat):
    run, figures = trained_splat
    assert figures["psnr"] > 22
    assert figures["gaussians"] < 20000 and figures["state_mb"] > 0 and figures["seconds_per_step"] > 0
    report = (run / "report.html").read_text()
    assert "memory of training" in report and "per step" in report and "<figcaption>Gaussians" in report
    assert len(radfield.load(run).gaussians) == figures["gaussians"]


def test_eval_and_render(trained_splat, tmp_path, command):
    run, figures = trained_splat
    code, again, _ = command("eval", run, "--json")
    assert code == 0 and again["psnr"] == pytest.approx(figures["psnr"])
    code, rendered, _ = command("render", run, "--output", tmp_path, "--views", 1, "--depth", "--json")
    assert code == 0 and len(rendered["files"]) == 2


@pytest.mark.parametrize(
    ("more", "steps", "sorts"),
    [((), 160, 0), (("--splat.self-organise", 0.3, "--splat.refine-until", 0.5), 160, 5)],
    ids=["plain", "self-organising"],
)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tiny_capture, tmp_path, command, monkeypatch, more, steps, sorts
):
    options = (tiny_capture, *TINY, "--steps", steps, "--no-evaluate", "--seed", 3, *more)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("train", *options, "--output", whole)[0] == 0
    step = splat.train_step

    def watched(training, progress):
        result = step(training, progress)
        if training.step == 115:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(splat, "train_step", watched)
        assert command("train", *options, "--output", broken)[0] == 130
    assert command("train", "--output", broken, "--resume", "--no-evaluate", "--threads", 1)[0] == 0
    (ours, counts), (theirs, their_counts) = (load_checkpoint(p / "checkpoint.safetensors") for p in (broken, whole))
    assert ours.keys() == theirs.keys() and counts["step"] == their_counts["step"] == str(steps)
    assert counts["organised"] == their_counts["organised"] == str(sorts)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_cap_is_told_and_kept(tiny_capture, tmp_path, command):
    options = ("--splat.max-gaussians", 1501, "--splat.densify.grow-gradient", 1e-9, "--splat.coarse", 0)
    with pytest.warns(RadfieldWarning, match="have reached --splat.max-gaussians 1501"):
        run = (*TINY, *options, "--steps", 200, "--output", tmp_path / "run")
        code, figures, _ = command("train", tiny_capture, *run, "--no-evaluate", "--json")
    assert code == 0 and figures["gaussians"] <= 1501


def test_export_and_import(trained_splat, tiny_capture, tmp_path, command):
    run, figures = trained_splat
    file, again = tmp_path / "scene.ply", tmp_path / "again"
    code, said, _ = command("export", run, file, "--json")
    assert code == 0 and said["gaussians"] == len(read_ply(file)) == figures["gaussians"]
    background = figures["background"]
    options = ("--output", again, "--capture", tiny_capture, "--background", background)
    assert command("import", file, *options)[0] == 0
    code, measured, _ = command("eval", again, "--json")
    assert code == 0 and measured["psnr"] == pytest.approx(figures["psnr"], abs=0.02)
    code, more, _ = command("train", "--output", again, "--resume", "--steps", 30, "--json")
    assert code == 0 and more["steps"] == 30 and more["gaussians"] == figures["gaussians"]
    assert more["psnr"] > figures["psnr"] - 0.1  # begins where the file ends: nothing is learnt anew
    code, stopped, _ = command("train", "--output", again, "--resume", "--steps", 32, "--json")
    assert code == 0 and stopped["steps"] == 32


def test_self_organising_gaussians_are_smaller(tiny_capture, tmp_path, command):
    options = (tiny_capture, *TINY, "--steps", 60, "--no-evaluate", "--splat.refine-until", 0.3)
    sizes = {}
    for weight in (0, 3):
        whole = tmp_path / f"whole{weight}"
        assert command("train", *options, "--splat.self-organise", weight, "--output", whole)[0] == 0
        code, said, _ = command("export", whole, tmp_path / f"{weight}.sog", "--json")
        assert code == 0 and said["order"] == ("keep" if weight else "morton"), "what organised itself stays so"
        code, said, _ = command("export", whole, tmp_path / f"plas{weight}.sog", "--order", "plas", "--json")
        assert code == 0 and said["order"] == "plas"
        sizes[weight] = said["bytes"] / said["gaussians"]
    assert sizes[3] < sizes[0]


def test_an_imported_run_without_capture_is_exported_again(trained_splat, tmp_path, command, refused):
    run, _ = trained_splat
    files = [tmp_path / "a.ply", tmp_path / "b.ply"]
    assert command("export", run, files[0])[0] == 0
    assert command("import", files[0], "--output", tmp_path / "run")[0] == 0
    assert command("export", tmp_path / "run", files[1])[0] == 0
    one, other = (read_ply(f).tensors() for f in files)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-5)
    refused("eval", tmp_path / "run", rule="--capture says where it is")


def test_bad_input(trained, trained_splat, tiny_capture, tmp_path, refused):
    run, _ = trained_splat
    refused("export", run, tmp_path / "a.obj", rule="the rule: .compressed.ply, .ply, .splat, .spz")
    (tmp_path / "no.ply").write_bytes(b"nothing")
    refused("import", tmp_path / "no.ply", "--output", tmp_path / "run", rule="begins with the line ply")
    options = ("--method", "splat", "--output", tmp_path / "run")
    refused("train", tiny_capture, *options, "--splat.sh-degree", 5, rule="from 0 to 4")
    refused("train", tiny_capture, *options, "--splat.densify.prune-opacity", 0, rule="positive")
    refused("train", "--output", trained[0], "--method", "splat", "--resume", rule="--resume keeps the run's 'ngp'")
    assert not (tmp_path / "run").exists()


def test_tracing_draws_what_rasterising_draws(trained_splat, tmp_path, command):
    run, _ = trained_splat
    for name, options in (("raster", ()), ("traced", ("--tracer",))):
        code, _, _ = command("render", run, "--output", tmp_path / name, "--views", 1, "--size", 192, *options)
        assert code == 0
    ours, theirs = (np.asarray(Image.open(tmp_path / name / "000.png"), float) for name in ("traced", "raster"))
    error = ((ours - theirs) / 255) ** 2  # the rasteriser blurs by half a pixel, and orders by centres
    assert -10 * np.log10(error.mean()) > 33


def test_tracing_takes_any_lens(trained_splat, tmp_path, command, refused):
    run, _ = trained_splat
    for lens, size in (("fisheye", (32, 32)), ("equirectangular", (32, 16))):
        options = ("--views", 1, "--size", 32, "--tracer", "--lens", lens, "--depth")
        assert command("render", run, "--output", tmp_path / lens, *options)[0] == 0
        with Image.open(tmp_path / lens / "000.png") as image:
            assert image.size == size and np.asarray(image).std() > 3
    refused("render", run, "--output", tmp_path, "--lens", "fisheye", rule="--tracer, which takes any")


def test_training_by_tracing(trained_splat, tiny_capture, tmp_path, command, refused):
    """It finds the scene, and what it has found is drawn by tracing from then on."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = (*TINY, "--splat.renderer", "trace", "--threads", "1")
    code, figures, _ = command("train", tiny_capture, "--output", whole, "--steps", 200, "--json", *options)
    assert code == 0 and figures["psnr"] > 18 and figures["gaussians"] > 1600
    assert command("render", whole, "--output", tmp_path / "view", "--views", 1)[0] == 0
    assert command("render", whole, "--output", tmp_path / "traced", "--views", 1, "--tracer")[0] == 0
    ours, theirs = ((tmp_path / name / "000.png").read_bytes() for name in ("view", "traced"))
    assert ours == theirs
    refused("train", tiny_capture, "--output", parts, *options, "--splat.cameras", rule="--splat.renderer is trace")
    assert not parts.exists()


def test_tracing_trains_on_whole_spheres(tmp_path, command):
    capture = write_synthetic_capture(tmp_path / "capture", views=4, val_views=1, size=(32, 16), format="nerfstudio")
    file = capture / "transforms.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "camera_model": "EQUIRECTANGULAR"}))
    arguments = ("train", capture, *TINY, "--steps", 12, "--output")
    code, _, said = command(*arguments, tmp_path / "raster")
    assert code == 2 and "camera 0 is equirectangular" in said[-1] and not (tmp_path / "raster").exists()
    assert command(*arguments, tmp_path / "traced", "--splat.renderer", "trace")[0] == 0
    assert (tmp_path / "traced" / "checkpoint.safetensors").exists()
