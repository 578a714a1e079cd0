"""The command `radfield`: finds the program, parses its options, and turns what comes of it into exit code and output.

A program is a module with

    Options       a dataclass, whose comments are the help (tyro reads them); a field `json: bool = False` offers --json
    run           run(options) -> dict | None: does the work and returns the figures to report
    describe      optional: describe(figures) -> str, the text to print without --json; else `name  value` lines

and one line in `PROGRAMS`. Modules are imported when their program is called, so that `radfield --help` needs no torch.

Exit codes: 0 done; 2 bad input, told in one line on standard error; 130 interrupted; 1 anything else, with a traceback,
for that is a defect of this program. With --json the last line on standard output is one JSON object.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ..errors import BadInput

#: program, its module (from this folder), its line in the help; a name of two words is a program of a group
PROGRAMS: dict[str, tuple[str, str]] = {
    "train": (".train", "train a radiance field from photographs or a posed capture"),
    "train-frames": (".neus2.sequence", "train a moving surface from a folder of captures, one per frame"),
    "fit-sdf": (".fit.fit_sdf", "fit a signed distance field to a triangle mesh"),
    "fit-image": (".fit.fit_image", "fit a field to one picture of any depth and size"),
    "fit-volume": (".fit.fit_volume", "fit a field to a dense volume of densities"),
    "decode": (".fit.decode", "write a fitted picture as a file, at any resolution or a part of it"),
    "render": (".render", "render views, depth and videos of a trained run"),
    "eval": (".evaluate", "measure PSNR and SSIM of a trained run on held-out views"),
    "eval-mesh": (".eval_mesh", "measure how near a mesh is to another one: Chamfer distance, F-score"),
    "view": (".view", "look at a run, Gaussians, a mesh or a capture in the browser"),
    "distill": (".distill.program", "convert a trained run into another architecture, without its photographs"),
    "edit": (".edit", "delete, recolour, move and merge in a run of sparse voxels"),
    "export": (".export.program", "write the mesh or the Gaussians of a run to a file that other programs read"),
    "import": (".export.import_run", "make a run of a file of Gaussians"),
    "convert": (".export.convert_gaussians", "write a file of Gaussians in another format, filtered or whole"),
    "doctor": (".doctor", "show device, instruction set, threads and versions, and what is missing"),
    "data poses": (".data.poses", "find the cameras of bare photographs or a video"),
    "data synth": (".data.synth", "write a capture of a synthetic scene or a mesh, with exact geometry"),
    "data inspect": (".data.inspect", "draw a capture: cameras, points, scene box, thumbnails, held-out views"),
    "data convert": (".data.convert", "write a capture in another format: COLMAP or nerfstudio"),
}
#: the disk's fault or the user's, wherever in a program it strikes
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `radfield` with the command line's arguments, or these, and returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BadInput as error:
        return _complain(str(error), 2)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "interrupted", 130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has left. Python flushes standard output once more on its way out and
        # would complain of it; what is still to be written goes nowhere instead.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in _DISK_IS_FULL:
            return _complain(f"{error.filename or 'output'}: {(error.strerror or str(error)).lower()}", 2)
        traceback.print_exc()
        return 1
    except RuntimeError as error:
        if (said := _out_of_memory(error)) is not None:
            return _complain(said, 2)
        traceback.print_exc()
        return 1
    except Exception:
        traceback.print_exc()
        return 1


def _out_of_memory(error: RuntimeError) -> str | None:
    """One line for memory of a GPU that torch could not have: what was asked, what is free, what makes it less."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    from ..cuda.library import SMALLER

    said = " ".join(str(error).split())
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", said)
    free = re.search(r"capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", said)
    memory = f"{free[2]} of {free[1]} are free" if free else said[:200]
    return f"out of memory on the GPU: {asked[1] if asked else 'more'} asked, {memory}; {SMALLER}"


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        from radfield import __version__

        print(f"radfield {__version__}")
        return 0
    name, rest = _find(arguments)
    if name not in PROGRAMS:
        return _list_programs(name, rest)
    module = importlib.import_module(PROGRAMS[name][0], __package__)
    options = _parse(name, module, rest)
    figures = module.run(options)
    if getattr(options, "json", False):
        from ..atomic import finite

        print(json.dumps(finite(figures or {}), allow_nan=False))
    elif figures:
        print(_describe(module, figures))
    return 0


def _find(arguments: list[str]) -> tuple[str, list[str]]:
    """The program named by the first one or two arguments ("" or a group's name where there is none), and the rest."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in PROGRAMS:
            return name, arguments[words:]
    is_group = bool(arguments) and any(name.startswith(arguments[0] + " ") for name in PROGRAMS)
    return (arguments[0], arguments[1:]) if is_group else ("", arguments)


def _list_programs(group: str, rest: list[str]) -> int:
    """Help on `radfield` or on a group, asked for (exit code 0) or needed; a wrong name gets one line."""
    if rest and rest[0] not in ("-h", "--help"):
        wrong = f"{group} {rest[0]}".strip()
        if rest[0].startswith("-"):
            raise BadInput(f"unknown option {rest[0]!r}; see `radfield --help`")
        near = difflib.get_close_matches(wrong, PROGRAMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `radfield --help`"
        raise BadInput(f"unknown program {wrong!r}; {hint}")
    shown = {name: line for name, (_, line) in PROGRAMS.items() if name.startswith(group)}
    width = max(map(len, shown))
    lines = [f"  {name:{width}}  {line}" for name, line in shown.items()]
    text = [
        f"usage: radfield {group or 'PROGRAM'} ...",
        "",
        "Photographs, meshes and images into neural scenes.",
        "",
        *lines,
        "",
        "`radfield PROGRAM --help` shows a program's options; `radfield --version` the version.",
    ]
    print("\n".join(text), file=sys.stdout if rest else sys.stderr)
    return 0 if rest else 2


def _parse(name: str, module: ModuleType, arguments: list[str]) -> Any:
    """The program's options. A wrong option raises `BadInput`; --help prints and exits as tyro does."""
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = (tyro.conf.FlagCreatePairsOff,)
            return tyro.cli(module.Options, prog=f"radfield {name}", args=arguments, config=config)
    except SystemExit as leaving:
        if leaving.code in (0, None):
            sys.stdout.flush()
            raise
        raise BadInput(f"{_one_line(said.getvalue())}; see `radfield {name} --help`") from None


def _one_line(box: str) -> str:
    """What a message of tyro says, without its frame: the text down to the first rule, in one line."""
    words: list[str] = []
    for line in box.splitlines():
        text = line.strip(" │")
        if set(text) <= set("─") and text:
            break
        if text.startswith(("╰", "Got errors")):
            break
        if text and not text.startswith("╭"):
            words.append(text)
    return " ".join(" ".join(words).split()).rstrip(".") or "the options are wrong"


def _describe(module: ModuleType, figures: dict[str, Any]) -> str:
    if hasattr(module, "describe"):
        return module.describe(figures)
    width = max(map(len, figures))
    return "\n".join(f"{name:{width}}  {value}" for name, value in figures.items())


def _complain(message: str, code: int) -> int:
    print(f"radfield: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
