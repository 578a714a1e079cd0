"""Thousands of photographs of 12 megapixels in little memory: what `radfield train` takes of memory, disk and time.

    python benchmarks/many_photographs.py FOLDER [--images 2000] [--memory-gb 3.2] [--cache-gb 12] [--seconds 30]
        [--rounds 6] [--json] [--save FILE]

Writes so many names of 4000 x 3000 JPEGs into FOLDER, unless they are there: hard links to 24 views of a synthetic
scene, each with the pose of its view. Trains on them for a short while through the program, in a process of its own,
and watches it: the largest sum of the resident memory of it and its children, the cache on the disk, the seconds that
decoding takes per photograph. --memory-gb: for decoded images; 3.2 is what the program takes by itself on a machine of
8 GB. Afterwards, in this process, training from that cache takes turns with training from 96 of the photographs that
are all in memory, so that both meet the same load of the machine: the ratio of their rays per second (median over the
rounds). What is interrupted goes on when the same command is given again; the seconds per photograph are then those of
the rest. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from common import report
from large_capture import LONGEST, SIZE, STEPS, rays_per_second, training_of
from PIL import Image

from radfield.apps.runs import use_device
from radfield.data import load
from radfield.data.decoded_cache import Limits
from radfield.data.synthetic import write_synthetic_capture
from radfield.errors import RadfieldWarning

VIEWS, IN_MEMORY = 24, 96
HOLDOUT = 8  # the program's


def write_capture(folder: Path, count: int) -> Path:
    """FOLDER/photographs: `count` names of the 24 views, with poses."""
    views, capture = folder / "views", folder / f"photographs-{count}"
    if (capture / "transforms.json").is_file():
        return capture
    if not (views / "transforms.json").is_file():
        write_synthetic_capture(
            views, "courtyard", views=VIEWS, val_views=0, size=(800, 600), format="nerfstudio", overwrite=True
        )
    content, generator = json.loads((views / "transforms.json").read_text()), np.random.default_rng(0)
    large = []
    for frame in content["frames"]:
        target = (views / frame["file_path"]).with_suffix(".jpg")
        large.append(target)
        if target.is_file():
            continue
        # Enlarged, with grain: a camera's files of this size take about as long to decode.
        picture = np.asarray(
            Image.open(target.with_suffix(".png")).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        )
        grain = generator.integers(-6, 7, (SIZE[1], SIZE[0], 1), dtype=np.int16)
        Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(target, quality=90)
    (capture / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for i in range(count):
        name = capture / "images" / f"{i:05d}.jpg"
        if not name.exists():
            os.link(large[i % VIEWS], name)
        frames.append({**content["frames"][i % VIEWS], "file_path": f"images/{name.name}"})
    scale = SIZE[0] / content["w"]
    lens = {key: content[key] * scale for key in ("fl_x", "fl_y", "cx", "cy")} | {"w": SIZE[0], "h": SIZE[1]}
    (capture / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    return capture


class Watch:
    """What a process and its children take, looked at ten times a second until it ends."""

    def __init__(self, process: subprocess.Popen, cache: Path, images: int):
        self.process, self.cache, self.images = process, cache, images
        self.peak = 0
        self.decoded: list[tuple[float, int]] = []  # when, how many images
        self._shown = 0.0

    def run(self) -> None:
        begun = time.perf_counter()
        while self.process.poll() is None:
            self.peak = max(self.peak, sum(map(resident_bytes, tree(self.process.pid))))
            self._look(time.perf_counter() - begun)
            time.sleep(0.1)

    def _look(self, now: float) -> None:
        count = sum(lines_of(path) for path in self.cache.glob("*.partial.jsonl"))
        count += sum(1 for path in self.cache.glob("*.json") for _ in json.loads(path.read_text())["images"][2:])
        if count and (not self.decoded or count != self.decoded[-1][1]):
            self.decoded.append((now, count))
            rate = self.seconds_per_photograph
            if rate and now > self._shown + 5:
                self._shown = now
                left = rate * (self.images - count)
                print(f"decoded {count} of {self.images}, {left:.0f} s to go", file=sys.stderr, flush=True)

    @property
    def seconds_per_photograph(self) -> float | None:
        if len(self.decoded) < 2:
            return None
        (begun, first), (ended, last) = self.decoded[0], self.decoded[-1]
        return (ended - begun) / (last - first)


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for tasks in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                waiting += map(int, tasks.read_text().split())
    return found


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def lines_of(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def train(capture: Path, run: Path, options: argparse.Namespace) -> dict:
    """Figures of `radfield train` in a process of its own."""
    command = [sys.executable, "-m", "radfield.apps.command_line", "train", capture, "--output", run, "--no-evaluate"]
    command += [
        "--seconds",
        options.seconds,
        "--memory-gb",
        options.memory_gb,
        "--cache-gb",
        options.cache_gb,
        "--json",
    ]
    command += ["--overwrite"] if (run / "config.json").exists() else []
    begun = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    watch = Watch(process, run / "cache", options.images)
    watch.run()
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(process.returncode)
    figures = json.loads(process.stdout.read().splitlines()[-1])
    return {
        "peak_bytes": watch.peak,
        "cache_bytes": sum(path.stat().st_size for path in (run / "cache").iterdir()),
        "images_decoded": watch.decoded[-1][1] - watch.decoded[0][1] if watch.decoded else 0,
        "decode_seconds_per_photograph": watch.seconds_per_photograph,
        "wall_seconds": wall,
        "training_seconds": figures["training_seconds"],
        "steps": figures["steps"],
    }


def compared(capture: Path, run: Path, folder: Path, options: argparse.Namespace) -> dict:
    """Rays per second from the cache and from memory, in turns."""
    limits = Limits(run / "cache", int(options.memory_gb * 1e9), int(options.cache_gb * 1e9))
    scene = load(capture, holdout=HOLDOUT, split="train", limits=limits)
    resident = training_of(scene, limits.memory)
    few = load(write_capture(folder, IN_MEMORY), holdout=0, max_size=scene.max_size or LONGEST)
    whole = training_of(few, None)
    for training in (resident, whole):
        rays_per_second(training, STEPS)
    pairs = [(rays_per_second(resident, STEPS), rays_per_second(whole, STEPS)) for _ in range(options.rounds)]
    return {
        "max_size": scene.max_size,
        "resident_images": resident.images.slots,
        "rays_per_s_resident": statistics.median(a for a, _ in pairs),
        "rays_per_s_in_memory": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "ratios": [a / b for a, b in pairs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--memory-gb", type=float, default=3.2)
    parser.add_argument("--cache-gb", type=float, default=12.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", RadfieldWarning)
    use_device("cpu", None)
    capture, run = write_capture(options.folder, options.images), options.folder / f"run-{options.images}"
    figures = {"images": options.images, "megapixels": SIZE[0] * SIZE[1] / 1e6, "memory_gb": options.memory_gb}
    figures |= train(capture, run, options)
    print(f"trained: {json.dumps(figures)}", file=sys.stderr, flush=True)  # the turns below take their time
    report(figures | compared(capture, run, options.folder, options), options.json, options.save)


if __name__ == "__main__":
    main()
