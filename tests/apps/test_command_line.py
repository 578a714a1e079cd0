"""Every way a program can end has its exit code, and what it says is one line where a user made the mistake."""

import dataclasses
import errno
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import types
from typing import Literal

import pytest
import tyro

from radfield.apps import command_line
from radfield.apps.command_line import PROGRAMS, main
from radfield.errors import BadInput, warn
from radfield.training.progress import Interrupted


@dataclasses.dataclass
class Options:
    """Tries something."""

    capture: tyro.conf.Positional[str]
    """The capture's folder."""
    # The budget, in seconds.
    seconds: float = 1.0
    method: Literal["ngp", "splat"] = "ngp"
    json: bool = False


@pytest.fixture
def program(monkeypatch):
    """Registers `radfield try` and `radfield data try`; returns a setter for what they do."""
    module = types.ModuleType("try_program")
    module.Options = Options
    monkeypatch.setitem(sys.modules, "try_program", module)
    for name in ("try", "data try"):
        monkeypatch.setitem(PROGRAMS, name, ("try_program", "tries something"))

    def does(run, describe=None) -> None:
        module.run = run
        if describe is not None:
            module.describe = describe

    return does


def raising(error: BaseException):
    def run(options):
        raise error

    return run


def radfield(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "radfield.apps.command_line", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_options_reach_the_program(program, capsys):
    seen = []
    program(seen.append)
    assert main(["try", "photos", "--seconds", "45"]) == 0
    assert main(["data", "try", "photos"]) == 0
    assert seen == [Options("photos", seconds=45.0), Options("photos")]
    assert capsys.readouterr() == ("", "")


def test_json_is_the_last_line_and_always_json(program, capsys):
    def run(options):
        print("something on the way")
        return {"psnr": math.inf, "views": 20, "list": [math.nan, 1.5]}

    program(run)
    assert main(["try", "photos", "--json"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last, parse_constant=pytest.fail) == {"psnr": None, "views": 20, "list": [None, 1.5]}


def test_json_of_a_program_without_figures(program, capsys):
    program(lambda options: None)
    assert main(["try", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}


def test_figures_as_text(program, capsys):
    program(lambda options: {"psnr": 31.5, "split": "val"})
    main(["try", "photos"])
    assert capsys.readouterr().out == "psnr   31.5\nsplit  val\n"
    program(lambda options: {"psnr": 31.5}, describe=lambda figures: f"{figures['psnr']} dB")
    main(["try", "photos"])
    assert capsys.readouterr().out == "31.5 dB\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadInput("photos: is empty"), 2, "radfield: photos: is empty\n"),
        (Interrupted("the state after step 7 is saved"), 130, "radfield: the state after step 7 is saved\n"),
        (KeyboardInterrupt(), 130, "radfield: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), 2, "radfield: a.png: no space left on device\n"),
    ],
)
def test_endings_that_are_told_in_one_line(program, capsys, error, code, said):
    program(raising(error))
    assert main(["try", "photos", "--json"]) == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("broken"), OSError(errno.EIO, "broken")])
def test_a_defect_shows_its_traceback(program, capsys, error):
    program(raising(error))
    assert main(["try", "photos"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and "broken" in said


def test_a_warning_is_one_line(program, capsys):
    program(lambda options: warn("two images are missing"))
    with pytest.warns(UserWarning, match="two images"):
        assert main(["try", "photos"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["try"], "Missing from radfield try"),
        (["try", "a", "--nope"], "--nope"),
        (["try", "a", "--seconds", "soon"], "--seconds"),
        (["try", "a", "--method", "gaussian"], "--method"),
        (["try", "a", "b"], "b"),
        (["trry"], "unknown program 'trry'; did you mean 'try'?"),
        (["data", "synthesis"], "unknown program 'data synthesis'; did you mean 'data synth'?"),
        (["zzz"], "unknown program 'zzz'; see `radfield --help`"),
        (["--zzz"], "unknown option '--zzz'"),
    ],
)
def test_wrong_options_are_one_line(program, capsys, arguments, said):
    program(raising(AssertionError("must not run")))
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.count("\n") == 1
    assert errors.startswith("radfield: ")
    assert said in errors
    assert not set(errors) & set("│─╭╰"), "no frame of the option parser"


def test_help_lists_every_program(capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(name in output and line in output for name, (_, line) in PROGRAMS.items())
    assert main([]) == 2
    assert capsys.readouterr() == ("", output)


def test_help_of_a_group_and_of_a_program(program, capsys):
    assert main(["data", "--help"]) == 0
    output = capsys.readouterr().out
    assert "data synth" in output and "doctor" not in output
    with pytest.raises(SystemExit) as leaving:
        main(["try", "--help"])
    assert leaving.value.code == 0
    output = capsys.readouterr().out
    assert "The capture's folder." in output and "The budget, in seconds." in output


def test_every_program_is_there():
    missing = [
        name for name, (module, _) in PROGRAMS.items() if importlib.util.find_spec(module, "radfield.apps") is None
    ]
    assert missing == []


def test_help_and_version_import_nothing_heavy():
    code = """
import sys
from radfield.apps.command_line import main
assert main(["--help"]) == 0 and main(["--version"]) == 0
print(sorted({"torch", "numpy", "tyro", "rich", "av", "PIL"} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    assert "radfield 0." in output


def test_the_exit_code_of_the_process():
    wrong = radfield("trrain")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "radfield: unknown program 'trrain'; did you mean 'train'?\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of a shell")
def test_a_reader_that_leaves_early_is_no_defect():
    command = [sys.executable, "-m", "radfield.apps.command_line", "doctor"]
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert result.returncode == 1
    assert result.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_loop_saves_and_leaves_with_130(number):
    code = """
import dataclasses, sys, time, types
from radfield.apps.command_line import PROGRAMS, main
from radfield.training.progress import Interrupted, Progress, interruptible

@dataclasses.dataclass
class Options:
    pass

def run(options):
    with Progress("try") as progress, interruptible() as interrupt:
        for step in range(1, 10_000):
            progress.update(step)
            print(step, flush=True)
            if interrupt:
                print("saved", flush=True)
                raise Interrupted("the state is saved")
            time.sleep(0.01)

sys.modules["try_program"] = types.SimpleNamespace(Options=Options, run=run)
PROGRAMS["try"] = ("try_program", "tries")
sys.exit(main(["try"]))
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True) as child:
        child.stdout.readline()
        child.send_signal(number)
        output, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert output.splitlines()[-1] == "saved"
    assert errors.splitlines()[-1] == "radfield: the state is saved" and "Traceback" not in errors


def test_synthetic_capture(tmp_path, capsys):
    arguments = [
        "data",
        "synth",
        "solids",
        str(tmp_path / "scene"),
        "--views",
        "2",
        "--val-views",
        "1",
        "--size",
        "16",
        "--json",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["views"] == 2
    frames = json.loads((tmp_path / "scene" / "transforms_train.json").read_text())["frames"]
    assert len(frames) == 2
    (tmp_path / "file").write_text("")
    for options, rule in (
        (("solids", str(tmp_path / "file")), "is a file"),
        (("solids", str(tmp_path / "scene")), "exists and is not empty; the rule: a new folder (or --overwrite)"),
        (("teapot", str(tmp_path / "new")), "scene is 'teapot'; the rule: one of solids, carved, wires"),
        ((str(tmp_path / "none.obj"), str(tmp_path / "new")), "none.obj does not exist"),
        (("solids", str(tmp_path / "new"), "--size", "12cm"), "--size is '12cm'; the rule: WIDTHxHEIGHT"),
        (("solids", str(tmp_path / "new"), "--size", "0x4"), "size is 0x4; the rule: from 1 to 16384"),
        (("solids", str(tmp_path / "new"), "--views", "0"), "views, val_views are 0, 6"),
    ):
        assert main(["data", "synth", *options]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("radfield: ") and rule in lines[-1], lines
        assert not (tmp_path / "new").exists()


def test_an_unframed_message_still_says_something():
    assert command_line._one_line("") == "the options are wrong"
    assert command_line._one_line("plain words\nof a parser.") == "plain words of a parser"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_of_every_program_has_help_of_its_own(name, capsys, monkeypatch):
    # A comment above a field is the help of all that follow without one, so that two alike mean that one is missing.
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    helps = option_helps(capsys.readouterr().out)
    said = [(option.split(".")[0], text) for option, text in helps]  # methods may say the same
    assert "--json" in dict(helps)
    assert [option for option, text in helps if not text] == []
    assert len(set(said)) == len(said), helps


def option_helps(text: str) -> list[tuple[str, str]]:
    """(option or positional, its help) of what --help prints in one column."""
    helps: list[tuple[str, str]] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).replace("│", " ").splitlines():
        if re.match(r"  (--[a-z]|\[?[A-Z]+\]?  )", line):
            name, _, said = re.sub(r"\s{2,}", "\0", line.strip()).partition("\0")
            helps.append((name.split()[0], said))
        elif re.match(r"   +\S", line) and helps:
            helps[-1] = (helps[-1][0], f"{helps[-1][1]} {line.strip()}".strip())
    return [(name, re.sub(r"\s*\((default|required|repeatable).*", "", said)) for name, said in helps]
