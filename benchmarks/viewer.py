"""The viewer: time to the first picture, pictures a second while the camera is dragged, seconds to full quality after
it rests, hand-over of 100,000 Gaussians, memory over 200 drags; of a training, how much watching slows it.

python benchmarks/viewer.py RUN [--json] [--save FILE] [--training CAPTURE]

Pictures are counted at a websocket client in this process (which takes CPU time too); what a browser makes of them is
another matter: its software WebGL would take the same CPUs.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from common import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "viewer"))
from client import Client

from radfield.apps.view import Options, open_exhibit
from radfield.viewer.viewer import Viewer

FULL = (800, 800)


def turned(exhibit, angle: float):
    """The first view's position turned around its focus, and what else `Client.move` takes."""
    _, aim, fov = exhibit.first_view()
    pose = exhibit.at(turn=angle).camera_to_world[0]
    return pose[:3, 3].numpy(), aim.numpy(), exhibit.up().numpy(), fov


def settled(viewer, client, since: float, seconds: float = 120.0) -> float:
    """When the first picture of full size came after `since` that nothing followed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not viewer.worker.waiting() and client.pictures and client.size() == FULL:
            time.sleep(0.2)  # the last picture is on its way
            return client.pictures[-1][0]
        time.sleep(0.01)
    raise RuntimeError(f"no whole picture within {seconds} s")


def drag(viewer, client, seconds: float) -> dict:
    """Moves the camera 60 times a second; pictures a second, and their size."""
    began, sizes = time.monotonic(), []
    count = client.count
    while (now := time.monotonic() - began) < seconds:
        client.move(*turned(viewer.exhibit, 0.6 * now))
        sizes.append(client.size())
        time.sleep(1 / 60)
    rate = (client.count - count) / (time.monotonic() - began)
    side = statistics.median(min(size) for size in sizes[len(sizes) // 4 :])
    return {"pictures_per_s": round(rate, 1), "pixels_of_a_side": side, "ended": time.monotonic()}


def memory() -> int:
    """Bytes that this process has in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def of_run(run: Path) -> dict:
    """The figures of a run."""
    exhibit, _ = open_exhibit(Options(run))
    viewer = Viewer(exhibit)
    try:
        began = time.monotonic()
        client = Client(viewer.url, *FULL, keep=False)
        client.move(*turned(exhibit, 0.0))
        if not client.wait(lambda c: c.count > 0, 60):
            raise RuntimeError("no picture within 60 s")
        first = client.pictures[0][0] - began
        settled(viewer, client, began)
        moved = [drag(viewer, client, 5.0) for _ in range(3)]
        rest = settled(viewer, client, moved[-1]["ended"]) - moved[-1]["ended"]
        before = memory()
        for i in range(200):  # short drags, each followed by the next at once
            client.move(*turned(exhibit, 2 * math.pi * i / 200))
            time.sleep(0.01)
        count = client.count
        settled(viewer, client, 0.0)
        grown = memory() / before - 1
        late = client.count - count
        client.close()
    finally:
        viewer.stop()
    best = statistics.median(m["pictures_per_s"] for m in moved)
    return {
        "first_picture_s": round(first, 3),
        "dragging_pictures_per_s": best,
        "dragging_pixels_of_a_side": statistics.median(m["pixels_of_a_side"] for m in moved),
        "whole_800x800_after_rest_s": round(rest, 3),
        "memory_over_200_drags": round(grown, 4),
        "pictures_after_200_drags": late,  # the quick one, passes on the way, and the whole
    }


def of_gaussians(count: int = 100_000) -> dict:
    """Seconds from connecting until a client has all of so many Gaussians, degree 3."""
    from radfield.gaussians.ply import write_ply
    from radfield.gaussians.scene import GaussianScene

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gaussians.ply"
        shapes = {"means": 3, "quaternions": 4, "log_scales": 3, "base": 3, "rest": 45}
        values = {name: torch.rand(rows, count) for name, rows in shapes.items()}
        values["log_scales"] -= 6
        write_ply(path, GaussianScene(**values, opacity_logits=torch.zeros(count)))
        viewer = Viewer(open_exhibit(Options(path))[0])
        try:
            began = time.monotonic()
            client = Client(viewer.url, *FULL)
            client.move(*turned(viewer.exhibit, 0.0))
            if not client.wait(lambda c: "GaussianSplatsMessage" in c.messages, 60):
                raise RuntimeError("no Gaussians within 60 s")
            took = time.monotonic() - began
            size = client.bytes
            client.close()
        finally:
            viewer.stop()
    return {"gaussians": count, "gaussians_handed_over_s": round(took, 3), "gaussians_mb": round(size / 1e6, 2)}


def of_training(capture: Path, seconds: float, rounds: int) -> dict:
    """Steps a second of a training with a client that looks on without moving, and without a viewer, in turns within
    one process; the median of their ratios."""
    from radfield.apps import ngp
    from radfield.data import load
    from radfield.viewer.exhibit import Exhibit
    from radfield.viewer.sources import source_of
    from radfield.viewer.training_panel import Live

    torch.set_num_threads(1)
    scene = load(capture)
    model = ngp.build(ngp.Config(), cascades=scene.cascades, transform=scene.transform, background=scene.background)
    training = ngp.Training(model, scene, 0)
    live = Live()
    exhibit = Exhibit(scene.name, "", source_of(model), scene=scene, transform=model.transform)
    viewer = Viewer(exhibit, live=live)
    rates: dict[bool, list[float]] = {False: [], True: []}

    def steps(watched: bool, duration: float) -> float:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < duration:
            ngp.train_step(training, 0.5)
            count += 1
            if watched:
                live.between_steps(training.step, False)
        return count / (time.perf_counter() - began)

    try:
        steps(False, seconds)
        client = Client(viewer.url, *FULL, keep=False)
        client.move(*turned(exhibit, 0.0))
        threading.Event().wait(1.0)  # the panel is built
        end = time.monotonic() + 60
        while not client.count or (viewer.worker.waiting() and time.monotonic() < end):
            steps(True, 0.5)  # the first picture is whole
        for _ in range(rounds):
            for watched in (False, True):
                rates[watched].append(steps(watched, seconds))
        client.close()
    finally:
        viewer.stop()
    ratio = statistics.median(a / b for a, b in zip(rates[True], rates[False], strict=True))
    return {
        "training_steps_per_s": round(float(np.median(rates[False])), 2),
        "watched_training_steps_per_s": round(float(np.median(rates[True])), 2),
        "training_slower_by": round(1 - ratio, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a finished run of the method ngp")
    parser.add_argument("--training", type=Path, default=None, help="a capture: how much watching slows its training")
    parser.add_argument("--seconds", type=float, default=8.0, help="with --training: of each part")
    parser.add_argument("--rounds", type=int, default=4, help="with --training: pairs of parts")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    figures = of_gaussians()
    if options.run is not None:
        figures = {**of_run(options.run), **figures}
    if options.training is not None:
        figures |= of_training(options.training, options.seconds, options.rounds)
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
