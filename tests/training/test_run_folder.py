"""A run folder never loses what it holds, and metrics are not doubled by a resume."""

import json
import math
import os

import numpy as np
import pytest
import torch

from radfield.errors import BadInput
from radfield.training.run_folder import RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder.create(tmp_path / "runs" / "lego")
    run.start({"app": "ngp", "options": {"levels": 16}})
    return run


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_create_touches_nothing(tmp_path):
    RunFolder.create(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_start_makes_the_folder(run):
    assert run.renders.is_dir()
    assert RunFolder.open(run.path).read_config() == {"app": "ngp", "options": {"levels": 16}, "version": 1}


def test_a_run_is_not_replaced_by_accident(run):
    with pytest.raises(BadInput, match=r"--resume.*--overwrite"):
        RunFolder.create(run.path)


def test_overwrite_clears_the_old_run_only_at_start(run):
    run.checkpoint_path.write_bytes(b"old")
    run.append_metrics(step=1, loss=1.0)
    (run.renders / "a.png").write_bytes(b"old")
    (run.path / "notes.txt").write_text("mine")
    before = contents(run.path)
    again = RunFolder.create(run.path, overwrite=True)
    assert contents(run.path) == before
    again.start({"app": "other"})
    assert set(contents(run.path)) == {"config.json", "notes.txt"}
    assert again.read_config()["app"] == "other"


def test_a_folder_of_something_else_is_never_written_to(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(BadInput, match="no run"):
            RunFolder.create(tmp_path, **options)


def test_a_file_is_not_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(BadInput, match="is a file"):
        RunFolder.open(tmp_path / "file")


def test_an_empty_folder_or_a_leftover_is_free_to_use(tmp_path):
    RunFolder.create(tmp_path)
    (tmp_path / ".config.tmp.json").write_text("{")
    RunFolder.create(tmp_path)


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="could not be made"):
        RunFolder.create(tmp_path / "file" / "run").start({"app": "ngp"})


def test_resume_needs_a_checkpoint(run, tmp_path):
    with pytest.raises(BadInput, match="no checkpoint"):
        RunFolder.create(run.path, resume=True)
    run.checkpoint_path.write_bytes(b"")
    RunFolder.create(run.path, resume=True)
    with pytest.raises(BadInput, match="no run"):
        RunFolder.create(tmp_path / "nothing", resume=True)


def test_resume_and_overwrite_contradict(run):
    with pytest.raises(BadInput, match="at most one"):
        RunFolder.create(run.path, resume=True, overwrite=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "no app"),
        ("{}", "no app"),
        ('{"app": "ngp"}', "version None"),
        ('{"app": "ngp", "version": 99}', "version 99"),
        ("\xff\xfe", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_configuration(run, text, message):
    run.config_path.write_bytes(text.encode("latin-1"))
    for opening in (lambda: RunFolder.open(run.path), lambda: RunFolder.create(run.path, resume=True)):
        with pytest.raises(BadInput, match=message) as error:
            opening()
        assert "\n" not in str(error.value)


def test_opening_what_is_no_run(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(BadInput, match="no config"):
        RunFolder.open(tmp_path)


def test_metrics_come_back_in_order(run):
    run.append_metrics(step=1, loss=0.5, psnr=math.inf)
    run.append_metrics(step=2, loss=torch.tensor(0.25), rate=np.float32(2.0))
    assert run.read_metrics() == [
        {"step": 1, "loss": 0.5, "psnr": None},
        {"step": 2, "loss": 0.25, "rate": 2.0},
    ]
    for line in run.metrics_path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_line_cut_short_is_skipped(run):
    run.append_metrics(step=1)
    run.metrics_path.write_bytes(run.metrics_path.read_bytes() + b'{"step": 2, "lo')
    assert [record["step"] for record in run.read_metrics()] == [1]


def test_a_resumed_run_has_every_step_once(run):
    for step in range(1, 9):
        run.append_metrics(step=step, loss=1 / step)
    run.metrics_path.write_bytes(run.metrics_path.read_bytes() + b'{"step": 9, "lo')
    run.checkpoint_path.write_bytes(b"")
    resumed = RunFolder.create(run.path, resume=True)
    resumed.resume(5)
    for step in range(6, 10):
        resumed.append_metrics(step=step, loss=1 / step)
    assert resumed.read_metrics() == [{"step": step, "loss": 1 / step} for step in range(1, 10)]


def test_resume_without_metrics(run):
    run.resume(3)
    assert run.read_metrics() == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_metrics_on_a_full_disk(run):
    run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(BadInput, match="could not be written"):
        run.append_metrics(step=1)
