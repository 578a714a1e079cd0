"""The script that measures a GPU runs to its end, here on the CPU at tiny sizes; what fails costs itself alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]


def run(*arguments):
    """Exit code, and the figures in the last line."""
    command = [sys.executable, str(FOLDER / "benchmarks" / "gpu.py"), "--dry-run", "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_all_of_it_runs(tmp_path):
    code, figures = run("--save", tmp_path / "figures.json")
    assert (code, figures["errors"]) == (0, {})
    assert set(figures["ops"]["without figure"]) <= {"render_fused"}  # every op that has CUDA kernels is timed
    assert json.loads((tmp_path / "figures.json").read_text())["training"].keys() == {"0.01 s", "whole"}


@pytest.mark.slow
def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path):
    code, figures = run(tmp_path / "no capture", "--parts", "training", "limits")
    assert code == 1 and list(figures["errors"]) == ["training: training"]
    assert "no capture" in figures["errors"]["training: training"] and figures["limits"]["limits"]["bytes_per_s"] > 0
