"""An unmodified training script for nerfacc, in a process of its own."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("train_nerfacc_script.py")
RUN = "import runpy, sys, radfield.compat; radfield.compat.install(); runpy.run_path(sys.argv[1], run_name='__main__')"


def test_an_unmodified_script_trains():
    if importlib.util.find_spec("nerfacc") is not None:
        pytest.skip("a nerfacc is installed here")
    done = subprocess.run([sys.executable, "-W", "error", "-c", RUN, str(SCRIPT)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    psnr, occupied, first, last = map(float, done.stdout.split())
    assert psnr > 26
    assert occupied < 0.3 and last < first / 3  # empty space is skipped
