"""`radfield distill` to and from Gaussians."""

import json
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import radfield
from radfield.apps import splat
from radfield.apps.command_line import main
from radfield.apps.distill.training import by_views, student_config
from radfield.apps.distill.views import student_of
from radfield.distillation import Sampler
from radfield.training.checkpoint import load_checkpoint

VIEWS = ("--device", "cpu", "--views", 16, "--view-size", 48)
SMALL = ("--to", "splat", "--splat.initial-gaussians", 2000, "--splat.max-gaussians", 60000, "--splat.sh-degree", 1)


def distill(teacher, output, *more):
    return main([str(word) for word in ("distill", teacher, "--output", output, *VIEWS, *more)])


@pytest.fixture(scope="module")
def gaussians(trained, tmp_path_factory):
    """Gaussians distilled from the tiny run, and the figures printed."""
    run = tmp_path_factory.mktemp("students") / "splat"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words, **options: printed.append(words))
        assert distill(trained[0], run, *SMALL, "--splat.refine-interval", 20, "--steps", 250, "--json") == 0
    return run, json.loads(printed[-1][0])


def test_gaussians_of_a_field_are_a_run_like_any_other(gaussians, trained, tmp_path, command):
    run, figures = gaussians
    assert figures["to"] == "splat" and figures["views"] == 2 and 1000 < figures["gaussians"] < 60000
    assert figures["psnr_to_teacher"] > 24 and figures["psnr"] > trained[1]["psnr"] - 2
    model = radfield.load(run)
    assert len(model.gaussians) == figures["gaussians"] and model.transform == radfield.load(trained[0]).transform
    code, measured, _ = command("eval", run, "--device", "cpu", "--json")
    assert code == 0 and measured["psnr"] == pytest.approx(figures["psnr"], abs=1e-3)
    assert command("export", run, tmp_path / "scene.ply")[0] == 0 and (run / "report.html").exists()


def test_gaussians_go_on_from_photographs(gaussians, tmp_path):
    shutil.copytree(gaussians[0], tmp_path / "run")
    assert main(["train", "--output", str(tmp_path / "run"), "--resume", "--steps", "252", "--no-evaluate"]) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == "252"


def test_a_field_of_gaussians(gaussians, tmp_path, command):
    run, teacher = tmp_path / "run", gaussians[0]
    arguments = (*VIEWS, "--to", "dense", "--steps", 120, "--batch-samples", 8192, "--json")
    code, figures, _ = command("distill", teacher, "--output", run, *arguments)
    assert code == 0 and figures["psnr_to_teacher"] > 22 and figures["psnr"] > gaussians[1]["psnr"] - 4
    model = radfield.load(run)
    assert type(model.field.grid).__name__ == "DenseGrid"
    unseen = model.grid.values < 0  # where no Gaussian is, nothing will ever be
    assert 0.2 < unseen.float().mean() < 1


def test_a_field_of_a_teacher_that_has_views_alone(trained):
    model = radfield.load(trained[0])
    names = ("render_view", "device", "transform", "cascades", "background")
    teacher = SimpleNamespace(**{name: getattr(model, name) for name in names})
    assert by_views(teacher, "hash")
    config = replace(student_config(None, "hash", 2048, None), log2_size=12)
    student = student_of(teacher, config, Sampler(None, 1), 0, views=4, size=24)
    student.make_ready()
    errors = [student.advance(step / 40).loss for step in range(40)]
    assert sum(errors[-5:]) < 0.5 * sum(errors[:5])


def test_interrupted_and_resumed_equals_uninterrupted(trained, tmp_path, monkeypatch):
    options = (*SMALL, "--splat.refine-interval", 12, "--steps", 100, "--no-evaluate")
    assert distill(trained[0], tmp_path / "whole", *options) == 0
    step = splat.train_step

    def interrupted(training, progress):
        result = step(training, progress)
        if training.step == 66:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(splat, "train_step", interrupted)
        assert distill(trained[0], tmp_path / "parts", *options) == 130
    assert distill(trained[0], tmp_path / "parts", "--resume", "--no-evaluate") == 0
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts"))
    assert whole[0].keys() == parts[0].keys() and whole[1]["step"] == parts[1]["step"] == "100"
    for name, tensor in whole[0].items():
        assert torch.equal(tensor, parts[0][name]), name


def test_bad_options(trained, gaussians, tmp_path, refused):
    given = ("distill", trained[0], "--output", tmp_path / "no", *VIEWS)
    refused(*given, "--to", "splat", "--hard-rays", rule="Gaussians are compared by rendered views")
    refused(*given, "--to", "splat", "--batch-samples", 4096, rule="Gaussians are compared by rendered views")
    refused(*given, "--to", "splat", "--splat.cameras", rule="a teacher's views need no corrections")
    refused(*given, "--to", "vm", "--splat.sh-degree", 1, rule="--splat options are for --to splat")
    refused("distill", gaussians[0], "--output", tmp_path / "no", "--to", "vm", "--no-clamp", rule="rendered views")
    refused("distill", trained[0], "--output", tmp_path / "no", "--to", "splat", "--views", 0, rule="from 1 to 10000")
    again = ("distill", trained[0], "--output", gaussians[0], "--resume", "--views", 16, "--view-size", 48)
    refused(*again, "--splat.sh-degree", 2, rule="--resume keeps them")
    assert not (tmp_path / "no").exists()
