"""Cubins on disk, so that a kernel is compiled once per machine, architecture and version of anything that matters.

An entry is one file `<key>.cubin` in `RADFIELD_CACHE`, or in the user's cache folder: a line of JSON (the kernel's
mangled name, the length and checksum of the code), then the code. Entries are written under a temporary name and
renamed, so that processes share the folder without locks: the worst is the same work done twice. What is damaged is
compiled again; a folder that cannot be written is announced, and everything works without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from ..errors import warn

MOST_BYTES = 256 << 20  # the oldest entries go where the folder grows beyond
_FORMAT = 1
_DIGITS = 40


def folder() -> Path:
    """Where cubins lie: `RADFIELD_CACHE`, or `radfield/cuda` in the system's folder for caches."""
    if chosen := os.environ.get("RADFIELD_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "radfield" / "cuda"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "radfield" / "cuda"


def key(text: str, kernel: str, arch: str, options: dict, version: tuple[int, int]) -> str:
    """The name of an entry: a hash of all that the machine code depends on."""
    parts = repr((_FORMAT, text, kernel, arch, sorted(options.items()), version))
    return hashlib.sha256(parts.encode()).hexdigest()[:_DIGITS]


def load(entry: str) -> tuple[bytes, str] | None:
    """The code and the mangled name of an entry; None where there is none, or it is damaged."""
    try:
        path = folder() / f"{entry}.cubin"
        head, _, code = path.read_bytes().partition(b"\n")
        about = json.loads(head)
        whole = about["bytes"] == len(code) and about["sha256"] == hashlib.sha256(code).hexdigest()
        symbol = about["symbol"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None
    if not whole or not isinstance(symbol, str):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used now: the oldest are removed first
    return code, symbol


def store(entry: str, code: bytes, symbol: str) -> None:
    """Keeps an entry. A folder that cannot be written is announced once, and the kernel is compiled again next time."""
    about = {"symbol": symbol, "bytes": len(code), "sha256": hashlib.sha256(code).hexdigest()}
    temporary = None
    try:
        into = folder()
        into.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=into, prefix=f"{entry}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(about).encode() + b"\n" + code)
        os.replace(temporary, into / f"{entry}.cubin")
        _shrink(into)
    except (OSError, RuntimeError) as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        reason = getattr(error, "strerror", None) or error
        warn(f"compiled kernels cannot be kept ({reason}): they are compiled again next time (set RADFIELD_CACHE)")


def _shrink(into: Path) -> None:
    """Removes the entries used longest ago, and what killed processes left, until the rest fits."""
    found = []
    for path in into.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it too
            status = path.stat()
            if path.suffix in (".cubin", ".tmp"):
                found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def describe() -> dict:
    """What `radfield doctor` shows: the folder, entries, bytes, and whether it can be written."""
    try:
        into = folder()
        entries = list(into.glob("*.cubin")) if into.is_dir() else []
        nearest = next((p for p in (into, *into.parents) if p.exists()), into)
        writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        return {
            "folder": str(into),
            "entries": len(entries),
            "bytes": sum(p.stat().st_size for p in entries),
            "writable": writable,
        }
    except (OSError, RuntimeError) as error:
        return {"folder": None, "entries": 0, "bytes": 0, "writable": False, "error": str(error)}
