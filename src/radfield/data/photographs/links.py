"""Photographs in two folders, on the disk once where it can be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def place(source: Path, target: Path, *, copy: bool) -> None:
    """Makes `source` appear at `target`: a hard link; else a copy, or a symbolic link where `copy` is false."""
    try:
        os.link(source, target)
        return
    except OSError:  # another disk, a file system without links, or files of another user
        pass
    if not copy:
        try:
            target.symlink_to(source.resolve())
            return
        except OSError:  # Windows, without the right to make them
            pass
    shutil.copyfile(source, target)


def stored_name(name: str) -> str:
    """The name in the capture: a backslash would be read as a folder's."""
    return name.replace("\\", "_")
