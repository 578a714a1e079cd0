"""Training from a rotating subset of images on disk against training from all of them in memory.

    python benchmarks/large_capture.py FOLDER [--images 48] [--share 0.25] [--rounds 6] [--json] [--save FILE]

Writes so many generated photographs of 12 megapixels (4000 x 3000 JPEG, cameras on a circle) into FOLDER, unless they
are there, and trains on them reduced to 1600 pixels: in turns some steps with all in memory and some with `share` of
them, so that both meet the same load of the machine. Prints the ratio of their rays per second (median over the
rounds), the memory that the images took, and the disk space. 2,000 such photographs take 11.5 GB on disk; their share
of memory is whatever --memory-gb says.
"""

import argparse
import json
import math
import resource
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from common import report
from PIL import Image

from radfield.apps import ngp
from radfield.apps.runs import use_device
from radfield.data import load
from radfield.data.decoded_cache import Limits
from radfield.errors import RadfieldWarning

SIZE, LONGEST, STEPS = (4000, 3000), 1600, 12


def write_capture(folder: Path, count: int) -> None:
    """Photographs of smooth noise with grain, and their poses."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    frames = []
    for i in range(count):
        name, angle = f"images/{i:04d}.jpg", 2 * math.pi * i / count
        coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        grain = generator.integers(0, 24, (SIZE[1] // 4, SIZE[0] // 4, 3), dtype=np.uint8)
        picture = np.asarray(coarse.resize((SIZE[0] // 4, SIZE[1] // 4), Image.Resampling.BICUBIC)) // 2 + grain
        Image.fromarray(picture).resize(SIZE).save(folder / name, quality=90)
        c, s = math.cos(angle), math.sin(angle)
        pose = [[-s, 0, c, 4 * c], [c, 0, s, 4 * s], [0, 1, 0, 0], [0, 0, 0, 1]]
        frames.append({"file_path": name, "transform_matrix": pose})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.9, "frames": frames}))


def training_of(scene, memory: int | None) -> ngp.Training:
    config = ngp.Config()
    place = {"cascades": scene.cascades, "transform": scene.transform}
    model = ngp.build(config, **place, background=ngp.report_background(config, scene))
    return ngp.Training(model, scene, 0, memory)


def rays_per_second(training: ngp.Training, steps: int) -> float:
    began = time.perf_counter()
    rays = sum(ngp.train_step(training, 0.3).rays for _ in range(steps))
    return rays / (time.perf_counter() - began)


def swap_seconds(training: ngp.Training, swaps: int = 20) -> float:
    """Median time that taking in the next image costs a step, when it has been read ahead."""
    times = []
    for step in range(training.step, training.step + swaps):
        time.sleep(0.05)  # as long as a step at least: the thread has read by then
        began = time.perf_counter()
        training.images.at(step)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", RadfieldWarning)
    use_device("cpu", None)
    capture = options.folder / "capture"
    if not (capture / "transforms.json").is_file():
        write_capture(capture, options.images)
    began = time.perf_counter()
    limits = Limits(options.folder / "cache", 1, 12 * 10**9)
    cached = load(capture, holdout=0, limits=limits)
    seconds = time.perf_counter() - began
    on_disk = sum(p.stat().st_size for p in limits.folder.iterdir())
    memory = int(options.share * on_disk)
    resident = training_of(cached, memory)
    for _ in range(STEPS):
        ngp.train_step(resident, 0.3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before anything is decoded into memory
    whole = training_of(load(capture, holdout=0, max_size=LONGEST), None)
    rays_per_second(whole, STEPS)
    pairs = [(rays_per_second(resident, STEPS), rays_per_second(whole, STEPS)) for _ in range(options.rounds)]
    figures = {
        "images": options.images,
        "resident_images": resident.images.slots,
        "resident_bytes": resident.images.pixels.numel(),
        "cache_bytes": on_disk,
        "cache_seconds": seconds,
        "peak_bytes": peak,
        "swap_seconds": swap_seconds(resident),
        "rays_per_s_resident": statistics.median(a for a, _ in pairs),
        "rays_per_s_in_memory": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "ratios": [a / b for a, b in pairs],
    }
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
