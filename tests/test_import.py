"""`import radfield` costs next to nothing: it brings in neither torch nor anything heavy."""

import json
import subprocess
import sys

HEAVY = ("torch", "numpy", "imageio", "av", "PIL", "tyro", "rich", "trimesh", "viser", "pycolmap", "safetensors")


def run(code: str) -> dict:
    """What `code`, run in a Python of its own, prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_imports_nothing_heavy():
    loaded = run("import radfield, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(loaded)


def test_costs_little_beyond_torch():
    code = "import torch, time; t = time.perf_counter(); import radfield; print(time.perf_counter() - t)"
    assert min(run(code) for _ in range(3)) < 0.15  # seconds


def test_every_public_name_is_there():
    code = "import radfield, json; print(json.dumps([n for n in radfield.__all__ if not hasattr(radfield, n)]))"
    assert run(code) == []


def test_version_is_that_of_the_distribution():
    code = "import radfield, importlib.metadata as m; print(m.version('radfield') == radfield.__version__ and 1 or 0)"
    assert run(code) == 1, "the package was installed from another version: `make setup`"
