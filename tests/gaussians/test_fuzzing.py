"""No file of Gaussians, however wrong, does more than one line: no crash, no more than 2 s or 200 MB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gaussians.mutations import FORMATS

CHILD = Path(__file__).with_name("fuzz_child.py")
FEW, MANY = 300, 100_000  # files of each format: in the suite, and in the slow tests


def fuzz(formats, folder, count, seconds):
    """Reads so many wrong files of each format in a process of its own, which must end well and find nothing."""
    command = [sys.executable, str(CHILD), ",".join(formats), str(folder), "0", str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    note = folder / "number"
    assert ended.returncode == 0, f"died at {note.read_text() if note.exists() else 'start'}: {ended.stderr[-2000:]}"
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    wrong = [line for line in lines if "found" in line]
    assert not wrong, wrong[:5]
    assert [line["format"] for line in lines] == list(formats)
    for line in lines:
        assert line["read"] + line["refused"] == count and line["refused"] > count / 4, line
        assert line["read"] > count / 200, "some damage leaves a file that can be read"


def test_few_wrong_files_of_every_format(tmp_path):
    fuzz(FORMATS, tmp_path, FEW, 600)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_wrong_files(tmp_path, name):
    fuzz((name,), tmp_path, MANY, 7200)
