"""`radfield train --encoding NAME`: every encoding trains, is kept, and continues bit for bit."""

import dataclasses
import json
import signal

import pytest
import torch
from apps.conftest import TINY

import radfield
from radfield.apps import ngp
from radfield.apps.command_line import main
from radfield.encodings import registry
from radfield.encodings.resizing import Schedule
from radfield.errors import BadInput
from radfield.training.checkpoint import load_checkpoint


def train(capture, run, encoding, steps, *more):
    budget = ("--steps", str(steps), "--no-evaluate")
    assert main(["train", str(capture), "--output", str(run), "--encoding", encoding, *TINY, *budget, *more]) == 0


EVERY = [pytest.param(name, marks=[] if name in ("simplex", "cp") else pytest.mark.slow) for name in registry.ENCODINGS]


@pytest.mark.parametrize("encoding", EVERY)
def test_trains_and_loads(tiny_capture, tmp_path, encoding):
    train(tiny_capture, tmp_path / "run", encoding, 3)
    model = radfield.load(tmp_path / "run")
    assert model.config.encoding == encoding
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(record["loss"] < 0.5 for record in records if "loss" in record)
    density = model.density(torch.rand(100, 3))
    assert density.isfinite().all() and (density > 0).all()


def test_a_mask_over_a_grid_trains_and_loads(tiny_capture, tmp_path):
    train(tiny_capture, tmp_path / "run", "probe", 5, "--saliency")
    model = radfield.load(tmp_path / "run")
    assert model.config.saliency and type(model.field.grid).__name__ == "Saliency"
    assert type(model.field.grid.masked).__name__ == "LearnedProbe"
    assert 0 < model.field.grid.mean() < 0.5 and model.field.grid.multiplier > 0
    assert (model.density(torch.rand(100, 3)) >= 0).all()


GROWING = Schedule(0.5, (0.2, 0.7), 0.6)  # once before the interruption, and twice after it
RESUMED = {
    "simplex": {},
    "cp": {"resolution": 60, "components": 16, "schedule": GROWING, "l1": 1e-4, "tv": 1e-3},
    "sparse": {"resolution": 32, "schedule": GROWING, "prune": 0.6, "tv": 1e-3},
    "vm": {},
    "dense": {"schedule": GROWING},
}
SLOW = ("vm", "dense")


@pytest.mark.parametrize("encoding", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in RESUMED])
def test_interrupted_and_resumed_equals_uninterrupted(tiny_capture, tmp_path, encoding, monkeypatch):
    entry = registry.ENCODINGS[encoding]
    options = {**entry.options, **RESUMED[encoding]}
    monkeypatch.setitem(registry.ENCODINGS, encoding, dataclasses.replace(entry, options=options))
    train(tiny_capture, tmp_path / "whole", encoding, 12)
    step = ngp.train_step

    def interrupted(training, progress):
        result = step(training, progress)
        if training.step == 5:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(ngp, "train_step", interrupted)
    options = ("--encoding", encoding, *TINY, "--steps", "12", "--no-evaluate")
    assert main(["train", str(tiny_capture), "--output", str(tmp_path / "parts"), *options]) == 130
    monkeypatch.setattr(ngp, "train_step", step)
    assert main(["train", "--output", str(tmp_path / "parts"), "--resume", "--no-evaluate"]) == 0
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    model = radfield.load(tmp_path / "parts")
    x = torch.rand(50, 3)
    assert torch.equal(model.density(x), radfield.load(tmp_path / "whole").density(x))


def test_runs_of_before_there_was_a_choice_are_hash_grids(tiny_capture, tmp_path):
    train(tiny_capture, tmp_path / "run", "hash", 2)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["ngp"]["encoding"]
    path.write_text(json.dumps(config))
    assert radfield.load(tmp_path / "run").config.encoding == "hash"
    config["ngp"]["encoding"] = "hush"
    with pytest.raises(BadInput, match="--encoding is 'hush'"):
        ngp.config_from(config)
