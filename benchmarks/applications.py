"""The workload study of "Hardware acceleration of neural graphics" (Mubarik et al. 2023, arXiv 2303.05735) on this
machine: milliseconds per frame of four applications with three encodings, and where they go, with separate passes and
fused.

    python benchmarks/applications.py [--size 1920 1080] [--precision bf16|f32] [--quick] [--json] [--save FILE]
        [--plot docs/applications.svg] [--applications nerf sdf image volume] [--encodings hash dense low-resolution]
        [--device cpu|cuda] [--again]

With --save, rows that FILE has already, both ways, are kept, and each new one is written as soon as it is measured, so
that the table can be made in parts; --again measures them anew. A file has one size, precision, device, machine and
number of threads.

Encodings by the configurations of instant-ngp that the paper profiles: a multiresolution hash grid (16 levels of 2
features, 2^19 entries, 2^24 for images; growth by third-party notes), a multiresolution dense grid (8 levels of 2,
growth 1.405) and a low-resolution dense grid (2 levels of 8 at 128). Networks have 64 neurons and 2 hidden layers
(NeRF: 1 and 2). The paper's GPU spends 72, 60 and 60 % of a frame in encoding and network (abstract; mean of the four).

- nerf: a radiance field of a generated capture, occupancy grid and early stop. Separate: op by op, each op over a few
  samples of many rays.
- sdf: sphere tracing of a fitted ring with bumps, with normals and shading.
- image: 8-bit pixels of a field of colours. Its weights are random: nothing in a frame depends on them.
- volume: a fitted cloud, 32 steps per ray and 4 steps to one source of light from where it scatters.

Fields of nerf, sdf and volume are trained for seconds, so that rays end where they should. Separate passes are one op
after another over whole arrays; fused, blocks of pixels or rays go through everything before the next block. Both ways
take turns; times are medians, the speed-up is the median ratio of neighbours, and `cpu_ms` is the process's CPU time,
which other programs disturb less (waiting threads, which are awake, count too). Shares of separate passes are of wall
time, of fused ones of the threads' CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from applications_chart import chart
from applications_fields import BOX, SIDE, camera, nerf_model, random_picture, trained_cloud, trained_distance
from common import machine, report, save_figures

from radfield.camera_rays import image_rays
from radfield.encodings import hash_grid
from radfield.renderers import fused, media, sphere_tracing, volume
from radfield.renderers.picture_frame import picture_frame, picture_frame_reference

APPLICATIONS = ("nerf", "sdf", "image", "volume")
ENCODINGS = {"hash": "hash grid", "dense": "dense grid", "low-resolution": "low-resolution dense grid"}
SAME = ("cpu", "isa", "threads")  # of the machine, in one file
GROWTH = {"nerf": 1.5157, "sdf": 1.38191, "image": 1.25992, "volume": 1.275}
STAGES = ("encoding", "network", "rest")
MARCH = {"steps": 32, "light_directions": 1, "light_steps": 4}


@dataclass(frozen=True)
class Frame:
    """One application's frame. separate(), fused(nanoseconds); networks: modules whose calls are timed."""

    separate: Callable[[], object]
    fused: Callable[[torch.Tensor], object] | None
    encoding: torch.nn.Module
    networks: tuple[torch.nn.Module, ...]
    note: str = ""


def grids(application: str) -> dict[str, hash_grid.Config]:
    """The paper's three encodings."""
    size = 24 if application == "image" else 19
    return {
        "hash grid": hash_grid.Config(16, 2, size, 16, GROWTH[application]),
        "dense grid": hash_grid.Config(8, 2, base_resolution=16, growth=1.405, entries="dense"),
        "low-resolution dense grid": hash_grid.Config(2, 8, base_resolution=128, growth=1.0, entries="dense"),
    }


def image(grid, options) -> Frame:
    field = random_picture(grid, options.precision)
    width, height = options.size
    across, down = ((torch.arange(n) + 0.5) / max(options.size) for n in (width, height))
    stages = field.grid, field.network, across, down, torch.uint8, 1.0

    def in_one_pass(nanoseconds):
        return picture_frame(*stages, nanoseconds=nanoseconds)

    return Frame(lambda: picture_frame_reference(*stages), in_one_pass, field.grid, (field.network,), "random weights")


def sdf(grid, options) -> Frame:
    field = trained_distance(grid, options.precision, options.steps)
    shown = sphere_tracing.FieldDistance(field)
    space, cameras, white = sphere_tracing.FreeSpace.of(shown), camera(options.size, 1.5, SIDE), torch.ones(3)

    def frame(distance, nanoseconds=None):
        rays, width = image_rays(cameras, 0), options.size[0]
        return sphere_tracing.render_rays(distance, space, rays, BOX, white, width=width, nanoseconds=nanoseconds)

    return Frame(lambda: frame(lambda x: shown(x)), lambda spent: frame(shown, spent), field.grid, (field.network,))


def cloud(grid, options) -> Frame:
    field = trained_cloud(grid, options.precision, options.steps)
    medium, cameras, sky = media.FieldMedium(field, 40.0), camera(options.size, 1.2, SIDE), media.Environment()

    def frame(asked, nanoseconds=None):
        rays, width = image_rays(cameras, 0), options.size[0]
        return media.march(asked, torch.stack(BOX), rays, sky, width=width, nanoseconds=nanoseconds, **MARCH)

    return Frame(lambda: frame(lambda x: medium(x)), lambda spent: frame(medium, spent), field.grid, (field.network,))


def nerf(grid, options) -> Frame:
    model = nerf_model(grid, options.precision, options.steps, options.capture, options.device)
    cameras, field = camera(options.size, 1.4, SIDE).to(model.device), model.field
    background = torch.ones(3, device=model.device)

    def fused_frame(nanoseconds=None):
        if nanoseconds is None or options.device == "cuda":
            return volume.render_view(field, model.grid, cameras, 0, background, model.render).cpu()
        given = {"width": options.size[0], "nanoseconds": nanoseconds}
        return volume.render_rays(field, model.grid, image_rays(cameras, 0), background, model.render, **given)

    def separate():
        applies, fused.applies = fused.applies, lambda *_: False
        try:
            return volume.render_view(field, model.grid, cameras, 0, background, model.render).cpu()
        finally:
            fused.applies = applies

    return Frame(separate, fused_frame, field.grid, field.networks)


@contextmanager
def timed(frame: Frame, spent: dict[str, float]):
    """Adds the wall time of the frame's modules to spent."""
    handles, began = [], []

    def before(*_):
        _wait()
        began.append(time.perf_counter())

    def adding(stage):
        def after(*_):
            _wait()
            spent[stage] += time.perf_counter() - began.pop()

        return after

    for stage, modules in (("encoding", (frame.encoding,)), ("network", frame.networks)):
        for module in modules:
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(adding(stage))]
    yield
    for handle in handles:
        handle.remove()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def shares(encoding: float, network: float, whole: float) -> dict[str, float]:
    """Parts of the whole, in percent."""
    parts = (encoding, network, whole - encoding - network)
    return {stage: round(100 * part / whole, 1) for stage, part in zip(STAGES, parts, strict=True)}


def clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of wall and of CPU time of a call."""
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    _wait()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


@torch.no_grad()
def measure(frame: Frame, repeats: int) -> dict:
    """Both ways in turns, and the shares of their stages."""
    spent, nanoseconds = {"encoding": 0.0, "network": 0.0}, torch.zeros(3, dtype=torch.int64)
    frame.separate()  # to warm up
    with timed(frame, spent):
        whole = clocked(frame.separate)[0] / 1e3
    row = {"separate_shares_percent": shares(*spent.values(), whole)}
    ways = {"separate": frame.separate}
    if frame.fused:
        ways["fused"] = lambda: frame.fused(None)
        frame.fused(nanoseconds)
        if nanoseconds[2]:
            row["fused_shares_percent"] = shares(*nanoseconds.tolist())
    times = {way: [] for way in ways}
    for _ in range(repeats):
        for way, call in ways.items():
            times[way].append(clocked(call))
    for way, found in times.items():
        row[f"{way}_ms"], row[f"{way}_cpu_ms"] = (round(statistics.median(t), 1) for t in zip(*found, strict=True))
    if frame.fused:
        for k, name in ((0, "speed_up"), (1, "cpu_speed_up")):
            ratios = [a[k] / b[k] for a, b in zip(times["separate"], times["fused"], strict=True)]
            row[name] = round(statistics.median(ratios), 2)
    return row | ({"note": frame.note} if frame.note else {})


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=None, metavar=("W", "H"))
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--applications", nargs="+", choices=APPLICATIONS, default=list(APPLICATIONS))
    parser.add_argument("--encodings", nargs="+", choices=ENCODINGS, default=list(ENCODINGS))
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="of training")
    parser.add_argument("--quick", action="store_true", help="480 x 270 and short trainings: not for publication")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--again", action="store_true", help="measure also what the file of --save has")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    options = parser.parse_args()
    options.size = tuple(options.size or ((480, 270) if options.quick else (1920, 1080)))
    options.steps = options.steps or (60 if options.quick else 300)
    options.repeats = options.repeats or (3 if options.quick else 7)
    return options


def kept(path: Path | None, about: dict) -> dict:
    """`about` and the rows that the file has. Ends the program, with code 2, where these were measured otherwise."""
    if path is None or not path.exists():
        return about
    found = json.loads(path.read_text())
    here = {**about, **{f"machine's {k}": v for k, v in machine().items() if k in SAME}}
    there = {**found, **{f"machine's {k}": v for k, v in found["machine"].items()}}
    for name, value in here.items():
        if there.get(name) != value:
            print(
                f"{path}: its {name} is {there.get(name)}; the rule: {value}, as now (or another file)", file=sys.stderr
            )
            sys.exit(2)
    return found


def main() -> None:
    options = options_of()
    torch.set_num_threads(1)
    makers = {"nerf": nerf, "sdf": sdf, "image": image, "volume": cloud}
    if options.device == "cuda":
        skipped = [name for name in options.applications if name != "nerf"]
        options.applications = [name for name in options.applications if name == "nerf"]
        print(f"no kernels in one pass on CUDA: {', '.join(skipped) or 'none'} skipped", file=sys.stderr)
    figures = kept(options.save, {"size": list(options.size), "precision": options.precision, "device": options.device})
    with tempfile.TemporaryDirectory() as folder:
        options.capture = Path(folder) / "solids"
        for name in options.applications:
            rows, every = figures.get(name, {}), grids(name)
            for encoding in (ENCODINGS[e] for e in options.encodings):
                if "fused_ms" in rows.get(encoding, {}) and not options.again:
                    continue
                rows[encoding] = measure(makers[name](every[encoding], options), options.repeats)
                figures[name] = {e: rows[e] for e in every if e in rows}
                print(f"{name}, {encoding}: {rows[encoding]}", file=sys.stderr, flush=True)
                if options.save:
                    save_figures(options.save, figures)
    if all(len(figures.get(name, {})) == len(ENCODINGS) for name in APPLICATIONS):
        figures.pop("note", None)  # that rows are missing
    report(figures, options.json, options.save)
    if options.plot:
        options.plot.write_text(chart(figures, [name for name in APPLICATIONS if name in figures]))


if __name__ == "__main__":
    main()
