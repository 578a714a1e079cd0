"""A tiny synthetic capture, a method small enough to train on it in seconds, and a run of it."""

import json

import pytest
from programs import TINY, as_before  # noqa: F401

from radfield import backend
from radfield.apps.command_line import main
from radfield.data import load
from radfield.data.synthetic import write_synthetic_capture

STEPS = 300


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory):
    """12 training and 2 held-out views of 48 x 48 pixels."""
    return write_synthetic_capture(tmp_path_factory.mktemp("tiny"), views=12, val_views=2, size=48)


@pytest.fixture(scope="session")
def scene(tiny_capture):
    """The same, read."""
    return load(tiny_capture)


@pytest.fixture
def emulated_ops(monkeypatch):
    """The names of the ops that CUDA kernels are emulated for from now on."""
    ran, emulator = set(), backend.emulator
    monkeypatch.setattr(backend, "emulator", lambda op, *given: (ran.add(op.name), emulator(op, *given)))
    return ran


@pytest.fixture(scope="session")
def trained(tiny_capture, tmp_path_factory):
    """A finished run, for tests that only read it, and the figures that training printed."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    arguments = ["train", str(tiny_capture), "--output", str(run), "--steps", str(STEPS), "--json", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words, **options: printed.append(words))
        assert main(arguments) == 0
    return run, json.loads(printed[-1][0])


@pytest.fixture
def command(capsys):
    """Runs `radfield` with arguments; returns exit code, the JSON object on standard output (None without one), and
    the lines on standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        figures = json.loads(said.out.splitlines()[-1]) if "--json" in arguments and code == 0 else None
        return code, figures, said.err.splitlines()

    return run


@pytest.fixture
def refused(command):
    """Asserts that `radfield` with these arguments leaves with code 2 and one line, which holds `rule`."""

    def run(*arguments, rule):
        code, _, lines = command(*arguments)
        assert (code, len(lines)) == (2, 1), lines
        assert lines[0].startswith("radfield: ")
        assert rule in lines[0], lines[0]

    return run
