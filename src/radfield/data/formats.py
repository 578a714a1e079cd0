"""The capture formats: a line each. A reader is a module with

LOOKS_FOR   what it looks for, for the message where nothing is found
find        find(path) -> bool: whether this folder or file is of its format; cheap, and never an error
read        read(path) -> Capture; BadInput in one line for what is wrong

The first whose `find` answers reads. A path may be the folder, or the file that makes the format.
"""

import importlib
import os
from pathlib import Path

from ..errors import BadInput
from .capture import Capture
from .paths import IMAGE_SUFFIXES, REMNANTS

FORMATS = {
    "transforms": "transforms_json",  # instant-ngp, nerfstudio, NeRF-synthetic
    "colmap": "colmap",
    "neus": "neus",  # and IDR
    "llff": "llff",
    "middlebury": "middlebury",
    "opensfm": "opensfm",
}


def read_capture(path: Path, form: str | None = None) -> Capture:
    """Reads the capture at a path, in a format named in `FORMATS` or in the one found. BadInput where there is none."""
    if form is not None and form not in FORMATS:
        raise BadInput(f"format is {form!r}; it must be one of {', '.join(FORMATS)}")
    if not path.exists():
        raise BadInput(f"{path} does not exist; a capture is a folder with transforms.json, or of another format")
    for name in FORMATS if form is None else (form,):
        reader = _reader(name)
        if reader.find(path):
            return reader.read(path)
    raise BadInput(_why_no_capture(path, form))


def is_capture(path: Path) -> bool:
    """Whether a path holds a capture of a known format: something with poses."""
    return path.exists() and any(_reader(name).find(path) for name in FORMATS)


def _reader(name: str):
    return importlib.import_module(f".{FORMATS[name]}", __package__)


def _why_no_capture(path: Path, form: str | None) -> str:
    looked_for = "; ".join(_reader(name).LOOKS_FOR for name in (FORMATS if form is None else (form,)))
    if path.is_file():
        return f"{path} is a file; a capture is a folder with one of: {looked_for}"
    names = sorted(os.listdir(path))
    if not names:
        return f"{path} is empty; a capture is a folder with its images and one of: {looked_for}"
    inside = names + (os.listdir(path / "images") if (path / "images").is_dir() else [])
    photographs = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in inside)
    remnant = next((name for name in REMNANTS if name in names), None)
    if photographs and remnant is not None:
        shown = f"{remnant}/" if (path / remnant).is_dir() else remnant
        return (
            f"{path} has {photographs} photographs and {shown} but no whole COLMAP model: remove {shown}, or find the "
            f"cameras into another folder with `radfield data poses`; looked for: {looked_for}"
        )
    if photographs:
        return (
            f"{path} has {photographs} photographs but no transforms.json or transforms_train.json; camera poses are "
            f"needed: `radfield data poses` finds them, and so does `radfield train`; looked for: {looked_for}"
        )
    return f"{path} has no transforms.json or transforms_train.json; a capture is a folder with one of: {looked_for}"
