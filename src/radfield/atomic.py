"""Files and folders that are either the old ones or the new ones, whatever happens in between.

A file is written under a temporary name in the same folder, flushed to the disk, and renamed over its target. The
temporary name is fixed per target (`.name.tmp.ending`), so that what a killed process left behind is overwritten by the
next save rather than piling up. The files of a folder are written into a temporary one (`filling`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BadInput

#: errors that say something about the disk or the user's folder, not about this program
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR}


_UNFINISHED = ".unfinished.tmp"


def temporary_path(path: Path) -> Path:
    """The name under which `path` is being written; its ending is kept, for writers that look at it."""
    return path.with_name(f".{path.stem}.tmp{path.suffix}")


def is_temporary(path: Path) -> bool:
    """Whether `path` is the leftover of an interrupted write."""
    return path.name.startswith(".") and ".tmp" in path.name


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Gives a temporary path to write; renames it to `path` when the block ends well, removes it when it does not.

    Raises `BadInput` when the disk is full or the folder cannot be written; `path` is then what it was before.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        # An unlink may fail where the write failed (a folder that vanished): the first error is the one to tell.
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            kept = "; the file that was there before is unchanged" if path.exists() else ""
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"{path}: could not be written: {reason}{kept}") from error
        raise
    _flush_folder(path.parent)


@contextlib.contextmanager
def filling(folder: Path | str, *, last: str | None = None, clear: bool = False) -> Iterator[Path]:
    """Gives an empty folder to write into; all that is in it comes to `folder` when the block ends well, nothing of it
    when it does not. Whether `folder` may be written to is the caller's to check, by `foreign`.

    A folder that is not there appears as a whole, by one renaming. One that is there stays the same one, since it may
    be where the user stands or where a disk is mounted: what comes replaces what has its name, one after the other,
    and `last`, if given, is removed before and comes at the end: it marks a folder that is whole. clear: whatever else
    was there goes. Raises `BadInput` when the disk is full or the folder cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    there = folder.is_dir()
    temporary = (folder / _UNFINISHED) if there else temporary_path(folder)
    made = [] if there else [path for path in folder.parents if not path.exists()]
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        if there:
            _move_all(temporary, folder, last, clear)
        else:
            os.replace(temporary, folder)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise BadInput(f"{folder}: could not be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in made:  # those that the temporary folder was made with, where they have stayed empty
            with contextlib.suppress(OSError):
                path.rmdir()


def foreign(folder: Path) -> list[str]:
    """The names in a folder that no interrupted write left there, in order; none where there is no folder."""
    return sorted(path.name for path in folder.iterdir() if not is_temporary(path)) if folder.is_dir() else []


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move_all(source: Path, folder: Path, last: str | None, clear: bool) -> None:
    names = sorted((path.name for path in source.iterdir()), key=lambda name: (name == last, name))
    if last is not None:
        remove(folder / last)
    for path in folder.iterdir() if clear else ():
        if path != source:
            remove(path)
    for name in names:
        remove(folder / name)
        os.replace(source / name, folder / name)


@contextlib.contextmanager
def replacing_file(path: Path | str) -> Iterator[BinaryIO]:
    """As `replacing`, but gives the temporary file opened for writing bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with replacing_file(path) as file:
        file.write(text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. Numbers that JSON lacks (NaN, infinities) become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity in its lists and dicts replaced by None, which JSON can carry; paths become
    strings, tuples lists, and one-element arrays and tensors numbers."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Makes a rename durable. Only POSIX can open a folder, and some network file systems refuse to flush one."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
