"""`radfield view`: runs, Gaussians, meshes and captures in the browser."""

from __future__ import annotations

import re
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput, warn
from .runs import check, device_rules, use_device


@dataclass(frozen=True)
class Options:
    """Look at a run, a file of Gaussians, a mesh or a capture in the browser; of two runs, side by side."""

    # folder of a run; a .ply of Gaussians, points or a mesh, a .splat, .spz, .sog, .ksplat,
    # .obj or .glb; or a capture
    what: Annotated[Path, tyro.conf.Positional]
    other: Annotated[Path | None, tyro.conf.Positional] = None  # a second run, shown beside the first
    host: str = "127.0.0.1"  # address to listen on; others than this machine's own need the token that is then printed
    port: int = 8080  # port to listen on, or the next that is free
    token: str | None = None  # the token to ask for, instead of one made up
    capture: Path | None = None  # where the run's capture is now, if it has moved
    holdout: int = 8  # of a capture: every so many-th image is held out, where it names no split
    masks: Literal["auto", "ignore", "transparent", "none"] = "auto"  # of a capture: what masks mean
    seconds: float | None = None  # end after so long; by default with Ctrl-C
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Shows until interrupted; returns where it was and how many pictures were sent."""
    _check(options)
    exhibit, about = open_exhibit(options)
    from ..viewer.viewer import Viewer

    viewer = Viewer(exhibit, options.host, options.port, options.token)
    print(f"view: {about}; Ctrl-C ends it", file=sys.stderr)
    viewer.announce()
    try:
        wait(options.seconds)
    finally:
        viewer.stop()
    return {"url": viewer.url, "seconds_of_drawing": round(viewer.worker.busy, 3)}


def open_exhibit(options: Options):
    """(what there is to see, device and threads in words)."""
    from ..data.formats import is_capture
    from ..viewer import exhibit as kinds
    from .neus2.sequence import NAME as SEQUENCE

    path = options.what
    if not path.exists():
        raise BadInput(f"{path}: there is no such file or folder; the rule: a run, a file of a scene, or a capture")
    device, about = use_device(options.device, options.threads)
    if path.is_dir() and (path / "config.json").exists():
        shown = kinds.of_run(path, capture=options.capture, device=device)
        if options.other is not None:
            second = kinds.of_run(options.other, capture=options.capture, device=device)
            shown.other, shown.other_title = second.source, second.title
            shown.about += f"; right: {second.title}, {second.about}"
        return shown, about
    if path.is_dir() and (path / SEQUENCE).is_file():
        return kinds.of_sequence(path, capture=options.capture, device=device), about
    if options.other is not None:
        raise BadInput(f"{path}: is no run; the rule: two runs are shown side by side")
    is_scene = path.is_file() and path.suffix.lower() in (".ply", ".obj", ".glb", ".spz", ".splat", ".sog", ".ksplat")
    if is_scene and not is_capture(path):
        return kinds.of_file(path, device), about
    if path.is_dir() and not any(path.iterdir()):
        raise BadInput(f"{path}: is an empty folder; the rule: a run (once it has started), or a capture")
    return kinds.of_capture(path, holdout=options.holdout, masks=options.masks), about


def wait(seconds: float | None) -> None:
    """Until so many seconds have passed, or SIGINT or SIGTERM comes: the way to end a viewer, and no error."""
    done = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        done.wait(seconds)
        return
    before = {n: signal.signal(n, lambda *_: done.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        done.wait(seconds)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(options: Options) -> None:
    check(
        [
            ("port", options.port, 1 <= options.port <= 65535, "from 1 to 65535"),
            ("holdout", options.holdout, options.holdout == 0 or options.holdout >= 2, "0 for none, or at least 2"),
            ("seconds", options.seconds, options.seconds is None or 0 < options.seconds < 1e9, "positive"),
            *device_rules(options.device, options.threads),
        ]
    )
    if options.token is not None and not re.fullmatch(r"[A-Za-z0-9_~.-]{8,200}", options.token):
        raise BadInput("--token is not usable; the rule: 8 to 200 letters, digits or _ ~ . -")
    if options.token is not None and len(options.token) < 16:
        warn("--token has fewer than 16 characters: it can be guessed")
