"""`find_cameras`: a folder of photographs, or a video, to a capture with cameras, found once and kept.

    OUTPUT/images/, sparse/0/, points.ply, transforms.json     the capture (`output.py`)
    OUTPUT/poses.json                                          key and figures; comes last: it marks a whole result

The key covers names, sizes and times of the photographs and the options. The capture's folder is only read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from ...atomic import filling, foreign, remove, write_json
from ...errors import BadInput, warn
from . import collect, process
from .links import place, stored_name

VERSION = 3  # of what is written; other versions' results are found again
OLDEST_PYCOLMAP = 4
RESULT = "poses.json"
_PARTS = ("images", "sparse", "points.ply", "transforms.json")
# How many pairs may be matched again for photographs that got no camera.
MOST_MORE_PAIRS = 3000


@dataclass(frozen=True)
class Options:
    """What decides the result. feature_size: longer side, in pixels, of the copies that features are found on."""

    feature_size: int = 1000
    features: int = 4000  # at most, per photograph (about)
    matching: str = "auto"  # or "exhaustive"


def find_cameras(
    source: Path,
    output: Path,
    *,
    options: Options | None = None,
    threads: int | None = None,
    copy: bool = True,
    earlier: Iterable[Path] = (),
) -> dict:
    """Finds the cameras of `source` and writes the capture to `output`; returns its figures, from the last time where
    nothing has changed since ("cached": true). copy: photographs that cannot be hard-linked are copied, otherwise
    linked symbolically. earlier: other outputs, whose result is taken where it is of the same photographs and options.
    `BadInput` where it fails; nothing is then left behind."""
    options, begun = options or Options(), time.perf_counter()
    photographs, videos = collect.collect(source)
    key = _key(photographs + videos, options)
    if (figures := _kept(output, key)) is not None:
        return {**figures, "cached": True}
    _check(output)
    for other in earlier:
        if (figures := _kept(other, key)) is not None:
            _take_over(other, output, copy)
            return {**figures, "cached": True}
    described = collect.describe(photographs) if photographs else []
    with filling(output, last=RESULT) as result:
        work = result / "work"
        work.mkdir()
        figures = process.run_child(_job(source, described, videos, options, threads or _cpus(), result, work), work)
        _place(described, result, copy)
        remove(work)
        figures |= {"seconds": time.perf_counter() - begun, "cached": False}
        write_json(result / RESULT, {"version": VERSION, "key": key, "figures": figures})
    return figures


def announce(figures: dict) -> None:
    """The quality line and its warnings, on standard error."""
    print(quality_line(figures), file=sys.stderr)
    for text in figures["warnings"]:
        warn(text)


def quality_line(figures: dict) -> str:
    """Registered n of N, median reprojection error, and the time that it took."""
    took = "found before" if figures["cached"] else f"{figures['seconds']:.0f} s"
    return (
        f"cameras: {figures['registered']} of {figures['images']} photographs registered, "
        f"median reprojection error {figures['reprojection_error_px']:.2f} px, {took}"
    )


def _key(files: list[Path], options: Options) -> str:
    entries = [(str(file.name), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([VERSION, entries, asdict(options)]).encode()).hexdigest()


def _kept(output: Path, key: str) -> dict | None:
    try:
        kept = json.loads((output / RESULT).read_bytes())
        figures = kept["figures"]
        whole = kept["key"] == key and all((output / part).exists() for part in _PARTS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures if whole and isinstance(figures, dict) else None


def _check(output: Path) -> None:
    version = _pycolmap_version()
    if version is None or int(version.split(".")[0]) < OLDEST_PYCOLMAP:
        found = "is not installed" if version is None else f"is installed as {version}"
        raise BadInput(
            f"cameras from bare photographs need the package pycolmap, which {found}; the rule: "
            f"`pip install 'pycolmap>={OLDEST_PYCOLMAP}'`, or a capture with cameras (transforms.json)"
        )
    if output.exists() and not output.is_dir():
        raise BadInput(f"{output}: is a file; the rule: a folder")
    if not (output / RESULT).exists() and foreign(output):
        raise BadInput(f"{output}: holds files that are no earlier result; the rule: a new or empty folder")


def _pycolmap_version() -> str | None:
    try:
        return metadata.version("pycolmap")
    except metadata.PackageNotFoundError:
        return None


def _job(source: Path, photographs, videos: list[Path], options: Options, threads: int, result: Path, work: Path):
    listed = [
        {
            "name": p.name,
            "stored": stored_name(p.name),
            "path": str(p.path.absolute()),
            "size": p.size,
            "turned": p.turned,
            "focal": p.focal,
            "camera": p.camera,
        }
        for p in photographs
    ]
    return {
        "source": str(source),
        "photographs": listed,
        "listed": len(listed),
        "videos": [str(video.absolute()) for video in videos],
        "work": str(work),
        "result": str(result),
        "threads": threads,
        "most_more_pairs": MOST_MORE_PAIRS,
        **asdict(options),
    }


def _take_over(other: Path, output: Path, copy: bool) -> None:
    with filling(output, last=RESULT) as result:
        (result / "images").mkdir()
        for image in (other / "images").iterdir():
            place(image.resolve(), result / "images" / image.name, copy=copy)
        for name in (*_PARTS, RESULT):
            if name != "images":
                (shutil.copytree if (other / name).is_dir() else shutil.copyfile)(other / name, result / name)


def _place(photographs, result: Path, copy: bool) -> None:
    if not photographs:  # a video's frames are there already
        return
    (result / "images").mkdir()
    for photograph in photographs:
        place(photograph.path, result / "images" / stored_name(photograph.name), copy=copy)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
