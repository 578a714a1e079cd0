"""`radfield distill`: a run of another architecture, from a run."""

import json
import shutil
import signal

import pytest
import torch

import radfield
from radfield import distillation
from radfield.apps.command_line import main
from radfield.apps.distill.training import TARGETS
from radfield.errors import RadfieldWarning
from radfield.training.checkpoint import load_checkpoint, save_checkpoint

QUICK = ("--device", "cpu", "--batch-samples", "2048")


def distill(teacher, output, *more):
    return main(["distill", str(teacher), "--output", str(output), *QUICK, *map(str, more)])


@pytest.fixture(scope="module")
def student(trained, tmp_path_factory):
    """A student of the tiny run, and the figures printed."""
    run = tmp_path_factory.mktemp("students") / "triplane"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words, **options: printed.append(words))
        assert distill(trained[0], run, "--to", "triplane", "--steps", 60, "--json") == 0
    return run, json.loads(printed[-1][0])


def test_a_student_is_a_run_like_any_other(student, tiny_capture, tmp_path, command):
    run, figures = student
    assert figures["to"] == "triplane" and figures["steps"] == 60 and figures["views"] == 2
    assert figures["psnr"] > 12 and figures["psnr_to_teacher"] > 14
    model = radfield.load(run)
    assert type(model.field.grid).__name__ == "Triplane"
    code, measured, _ = command("eval", run, "--device", "cpu", "--json")
    assert code == 0 and measured["psnr"] == pytest.approx(figures["psnr"], abs=1e-3)
    assert command("render", run, "--output", tmp_path / "views", "--device", "cpu", "--views", 1)[0] == 0
    assert (tmp_path / "views" / "000.png").exists() and (run / "report.html").exists()
    teacher = radfield.load(figures["teacher"])
    assert torch.equal(model.grid.bitfield, teacher.grid.bitfield) and model.transform == teacher.transform


def test_a_student_goes_on_from_photographs(student, tmp_path):
    shutil.copytree(student[0], tmp_path / "run")
    assert main(["train", "--output", str(tmp_path / "run"), "--resume", "--steps", "62", "--no-evaluate"]) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == "62"


@pytest.mark.parametrize("to", ["hash", pytest.param("sparse", marks=pytest.mark.slow)])
def test_interrupted_and_resumed_equals_uninterrupted(trained, tmp_path, monkeypatch, to):
    options = ("--to", to, "--steps", 54, "--no-evaluate", "--hard-poses", "--hard-rays", "--hard-points")
    assert distill(trained[0], tmp_path / "whole", *options) == 0
    step = distillation.step

    def interrupted(state, progress):
        result = step(state, progress)
        if state.step == 51:  # in the second epoch of poses
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(distillation, "step", interrupted)
    assert distill(trained[0], tmp_path / "parts", *options) == 130
    monkeypatch.setattr(distillation, "step", step)
    resumed = ["distill", str(trained[0]), "--output", str(tmp_path / "parts"), "--resume", "--no-evaluate"]
    assert main([*resumed, "--device", "cpu"]) == 0
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any(name.startswith("sampler.hard_rays") for name in whole)
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_no_photographs_are_needed(trained, tmp_path, command):
    teacher = tmp_path / "teacher"
    shutil.copytree(trained[0], teacher)
    config = json.loads((teacher / "config.json").read_text())
    config["scene"]["capture"] = str(tmp_path / "gone")
    (teacher / "config.json").write_text(json.dumps(config))
    arguments = ("--to", "hash", "--steps", 5, *QUICK, "--json")
    with pytest.warns(RadfieldWarning, match="gone: the run's capture is not there: views are drawn around"):
        code, figures, _ = command("distill", teacher, "--output", tmp_path / "student", *arguments)
    assert code == 0 and "psnr_to_teacher" in figures and "psnr" not in figures


def test_unknown_targets_list_the_known(trained, tmp_path, refused):
    for wrong in ("splats", "composite", ""):
        refused("distill", trained[0], "--to", wrong, "--output", tmp_path / "no", rule=", ".join(TARGETS))
    assert not (tmp_path / "no").exists()


def test_teachers_that_cannot_teach(trained, tmp_path, refused):
    def teacher(name, change=lambda config, tensors, metadata: None):
        run = tmp_path / name
        shutil.copytree(trained[0], run)
        config = json.loads((run / "config.json").read_text())
        tensors, metadata = load_checkpoint(run / "checkpoint.safetensors")
        change(config, tensors, metadata)
        (run / "config.json").write_text(json.dumps(config))
        save_checkpoint(run / "checkpoint.safetensors", tensors, metadata)
        return run

    def emptied(config, tensors, metadata):
        tensors["grid.values"].fill_(0)
        tensors["field.density_network.weights"].fill_(0)

    cases = {
        "newer": (lambda config, *_: config.update(version=99), "has version 99"),
        "untrained": (lambda config, tensors, metadata: metadata.update(step="0"), "is not trained"),
        "sdf": (lambda config, *_: config.update(app="sdf"), "run of another method"),
        "splat": (lambda config, *_: config.update(app="splat"), "holds no options of the method splat"),
        "empty": (emptied, "the teacher is empty"),
    }
    for name, (change, rule) in cases.items():
        run = teacher(name, change)
        refused("distill", run, "--to", "vm", "--output", tmp_path / "no", *QUICK, rule=rule)
    assert not (tmp_path / "no").exists()
    refused("distill", trained[0], "--to", "vm", "--output", trained[0], rule="another folder than the teacher's")


def test_bad_options(trained, student, tmp_path, refused):
    given = ("distill", trained[0], "--to", "vm", "--output", tmp_path / "no", "--device", "cpu")
    refused(*given, "--steps", 0, rule="--steps is 0")
    refused(*given, "--batch-samples", 3, rule="batch-samples is 3")
    refused(*given, "--capture", tmp_path / "gone", rule="is not there")
    run = student[0]
    refused("distill", trained[0], "--output", run, "--to", "vm", rule="holds a run already")
    refused(
        "distill", trained[0], "--output", run, "--to", "vm", "--resume", rule="--resume keeps the run's 'triplane'"
    )
    refused("distill", student[0], "--output", trained[0], "--resume", rule="is not distilled")
