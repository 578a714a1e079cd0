"""Training end to end: a run has all its parts, is what its seed says, and survives every way of being stopped."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from apps.conftest import STEPS, TINY

import radfield
from radfield.apps import ngp
from radfield.training.checkpoint import load_checkpoint
from radfield.training.run_folder import RunFolder


def checkpoint(run):
    return load_checkpoint(run / "checkpoint.safetensors")


def assert_same_state(one, other):
    (tensors, counts), (others, other_counts) = checkpoint(one), checkpoint(other)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    assert {k: v for k, v in counts.items() if k != "seconds"} == {
        k: v for k, v in other_counts.items() if k != "seconds"
    }


@pytest.fixture
def stop_after(monkeypatch):
    """Makes training meet `signal`, or another happening, once it has done so many steps."""
    step = ngp.train_step

    def arrange(steps, happening):
        def watched(training, progress):
            result = step(training, progress)
            if training.step == steps:
                happening()
            return result

        monkeypatch.setattr(ngp, "train_step", watched)

    yield arrange
    monkeypatch.setattr(ngp, "train_step", step)


def test_a_run_has_all_its_parts(trained):
    run, figures = trained
    names = {path.name for path in run.iterdir()}
    assert names == {"config.json", "checkpoint.safetensors", "metrics.jsonl", "report.html", "renders"}
    assert [path.name for path in (run / "renders" / "val").iterdir()] != []
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["steps"] == STEPS and config["ngp"]["levels"] == 6
    assert checkpoint(run)[1]["step"] == str(STEPS)
    records = RunFolder(run).read_metrics()
    assert records[-1]["step"] == STEPS and records[-1]["summary"]["stages"].keys() >= {"forward", "backward"}
    curve = [record["loss"] for record in records if "loss" in record]
    assert curve[-1] < 0.2 * curve[0]
    assert figures["steps"] == STEPS and figures["split"] == "val" and figures["views"] == 2


def test_it_learns_the_scene(trained):
    _, figures = trained
    assert figures["psnr"] > 20


def test_budget_of_seconds(tiny_capture, tmp_path, command):
    code, figures, _ = command(
        *("train", tiny_capture, "--output", tmp_path / "run", "--seconds", 0.3, "--no-evaluate", "--json", *TINY)
    )
    assert code == 0
    assert 0.3 <= figures["training_seconds"] < 1.5
    assert "psnr" not in figures
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_loaded_run_answers(trained):
    model = radfield.load(trained[0])
    x = torch.tensor([[0.5, 0.5, 0.42], [0.02, 0.02, 0.98]])
    d = torch.nn.functional.normalize(torch.randn(2, 3), dim=1)
    density, color = model.density(x), model.color(x, d)
    assert density.shape == (2,) and color.shape == (2, 3)
    assert (density >= 0).all() and ((color >= 0) & (color <= 1)).all()
    assert not density.requires_grad


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_same_bits_with_any_number_of_threads(tiny_capture, tmp_path, command, precision):
    for threads in (1, 2):
        run = tmp_path / str(threads)
        options = ("--steps", 40, "--seed", 3, "--no-evaluate", "--ngp.precision", precision, "--threads", threads)
        assert command("train", tiny_capture, "--output", run, *options, *TINY)[0] == 0
    assert_same_state(tmp_path / "1", tmp_path / "2")


def test_the_seed_matters(tiny_capture, tmp_path, command):
    for seed in (0, 1):
        options = ("--steps", 2, "--seed", seed, "--no-evaluate", *TINY)
        command("train", tiny_capture, "--output", tmp_path / str(seed), *options)
    (one, _), (other, _) = checkpoint(tmp_path / "0"), checkpoint(tmp_path / "1")
    assert not torch.equal(one["field.grid.table"], other["field.grid.table"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tiny_capture, tmp_path, command, stop_after, number
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ("--steps", 45, "--seed", 5, "--no-evaluate", *TINY)
    assert command("train", tiny_capture, "--output", whole, *options)[0] == 0
    stop_after(21, lambda: signal.raise_signal(number))
    code, _, lines = command("train", tiny_capture, "--output", broken, *options)
    assert code == 130
    assert lines[-1] == f"radfield: {broken}: the state after step 21 is saved; --resume continues it"
    assert checkpoint(broken)[1]["step"] == "21"
    assert command("train", "--output", broken, "--resume", "--no-evaluate")[0] == 0
    assert_same_state(whole, broken)
    steps = [record["step"] for record in RunFolder(broken).read_metrics() if "loss" in record]
    assert steps == [16, 32, 45]


def test_a_new_budget_continues_a_finished_run(tiny_capture, tmp_path, command):
    run = tmp_path / "run"
    command("train", tiny_capture, "--output", run, "--steps", 20, "--seed", 5, "--no-evaluate", *TINY)
    code, figures, _ = command("train", "--output", run, "--resume", "--steps", 30, "--no-evaluate", "--json")
    assert code == 0 and figures["steps"] == 30
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["steps"] == 30 and config["options"]["seed"] == 5
    # The budget is used up: nothing is left to do, and nothing is lost.
    before = checkpoint(run)[0]
    assert command("train", tiny_capture, "--output", run, "--resume", "--no-evaluate")[0] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint(run)[0].items())


def test_a_killed_run_is_resumed_from_its_last_checkpoint(tiny_capture, tmp_path, command):
    run = tmp_path / "run"
    program = [sys.executable, "-m", "radfield.apps.command_line", "train", str(tiny_capture), "--output", str(run)]
    options = ["--steps", "1000000", "--checkpoint-seconds", "0.05", "--threads", "1", *TINY]
    child = subprocess.Popen(program + options, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 180
    while not (run / "checkpoint.safetensors").exists():
        assert child.poll() is None and time.monotonic() < deadline, child.stderr.read()
        time.sleep(0.01)
    time.sleep(0.2)
    child.kill()
    child.communicate()
    reached = int(checkpoint(run)[1]["step"])
    options = ("--steps", reached + 5, "--no-evaluate", "--json")
    code, figures, _ = command("train", "--output", run, "--resume", *options)
    assert code == 0 and figures["steps"] == reached + 5


def test_control_c_in_a_process(tiny_capture, tmp_path):
    run = tmp_path / "run"
    program = [sys.executable, "-m", "radfield.apps.command_line", "train", str(tiny_capture), "--output", str(run)]
    child = subprocess.Popen([*program, "--steps", "1000000", *TINY], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not (run / "metrics.jsonl").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert said.splitlines()[-1].endswith("is saved; --resume continues it")
    assert radfield.load(run).density(torch.rand(4, 3)).isfinite().all()


def test_a_loss_that_is_not_finite_stops_at_the_last_good_state(tiny_capture, tmp_path, command):
    run = tmp_path / "run"
    options = ("--steps", 50, "--ngp.learning-rate", 1e25, "--no-evaluate", *TINY)
    code, _, lines = command("train", tiny_capture, "--output", run, *options)
    assert code == 2
    assert lines[-1].startswith("radfield: the loss of step") or "gradients of step" in lines[-1]
    assert str(run) in lines[-1] and "--ngp.learning-rate" in lines[-1]
    tensors, counts = checkpoint(run)
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("field."))
    assert int(counts["step"]) < 50


def test_the_disk_is_full(tiny_capture, tmp_path, command, monkeypatch):
    run = tmp_path / "run"
    options = ("--steps", 20, "--no-evaluate", *TINY)
    assert command("train", tiny_capture, "--output", run, *options)[0] == 0
    before = (run / "checkpoint.safetensors").read_bytes()

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("radfield.atomic._flush_to_disk", full)
    code, _, lines = command("train", "--output", run, "--resume", "--steps", 30, "--no-evaluate")
    assert code == 2
    assert "no space left on device" in lines[-1]
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_an_overwritten_run_starts_again(tiny_capture, tmp_path, command, refused):
    run = tmp_path / "run"
    options = ("train", tiny_capture, "--output", run, "--steps", 2, "--no-evaluate", *TINY)
    assert command(*options)[0] == 0
    refused(*options, rule="--resume continues it, --overwrite replaces it")
    assert command(*options, "--overwrite")[0] == 0
    assert checkpoint(run)[1]["step"] == "2"


def test_a_bad_capture_costs_no_run(trained, tmp_path, refused):
    run = shutil.copytree(trained[0], tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (tmp_path / "empty").mkdir()
    refused("train", tmp_path / "empty", "--output", run, "--overwrite", "--steps", 1, rule="empty")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_capture_that_moved(tiny_capture, trained, tmp_path, command):
    run = shutil.copytree(trained[0], tmp_path / "run")
    place = shutil.copytree(tiny_capture, tmp_path / "elsewhere")
    options = ("--resume", "--steps", STEPS + 1, "--no-evaluate")
    assert command("train", place, "--output", run, *options)[0] == 0
    assert json.loads((run / "config.json").read_text())["scene"]["capture"] == str(place)
