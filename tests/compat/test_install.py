"""`radfield.compat.install`: which tinycudann an import gives."""

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from radfield import compat
from radfield.errors import RadfieldWarning


@pytest.fixture(autouse=True)
def clean():
    """No test leaves a stand-in behind."""
    yield
    compat.uninstall()
    sys.modules.pop("tinycudann", None)


@pytest.fixture
def absent():
    """The test runs where no tinycudann is installed."""
    if importlib.util.find_spec("tinycudann") is not None:
        pytest.skip("a tinycudann is installed here")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package named tinycudann that can be imported."""
    (tmp_path / "tinycudann").mkdir()
    (tmp_path / "tinycudann" / "__init__.py").write_text("REAL = True\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_an_unmodified_script_runs_and_its_loss_falls(absent):
    compat.install()
    losses = runpy.run_path(str(Path(__file__).with_name("fit_image_script.py")))["losses"]
    assert losses[-1] < losses[0] / 3  # measured: 0.315 to 0.046
    assert losses[-1] < 0.09  # what remains; a constant colour leaves 0.12


def test_import_gives_the_stand_in_until_it_is_uninstalled(absent):
    assert compat.install() is None
    ours = importlib.import_module("tinycudann")
    compat.install()
    assert importlib.import_module("tinycudann") is ours is importlib.import_module("radfield.compat.tinycudann")
    assert importlib.import_module("tinycudann.modules").Encoding is ours.Encoding
    compat.uninstall()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tinycudann")


@pytest.mark.parametrize("imported", [False, True])
def test_a_really_installed_one_stays_unless_asked(installed, imported):
    if imported:
        importlib.import_module("tinycudann")
    with pytest.warns(RadfieldWarning, match="stays in use"):
        compat.install()
    assert importlib.import_module("tinycudann").REAL
    compat.install(replace=True)
    assert not hasattr(importlib.import_module("tinycudann"), "REAL")
    compat.uninstall()
    assert importlib.import_module("tinycudann").REAL


def test_importing_compat_loads_no_torch():
    code = "import radfield.compat, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
