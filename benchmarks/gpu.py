"""Radfield on a GPU: every op against what memory and arithmetic allow (and tinycudann, where it is installed),
rendering in one kernel and op by op, rasterising Gaussians (and gsplat, where it is installed), training steps, also of
the programs that fit, with and without a CUDA graph, a training, and the tests that need a GPU.

python benchmarks/gpu.py [CAPTURE] [--json] [--save FILE] [--skip-tests] [--parts NAME ...] [--minutes N] [--dry-run]

CAPTURE: a capture to train on, such as lego; without it one of 60 views of 200 x 200 is generated. Under 8 minutes on a
fresh machine. Without a GPU that CUDA kernels can run on it leaves with code 2. `--dry-run` runs all of it on the CPU
at tiny sizes, to see that it runs. This script has not been run on a GPU yet.

Each part is a process of its own, which tells its figures one by one: one that crashes, hangs or fails costs what it
was measuring, is begun again behind that, and the others go on. FILE is written anew after each. `errors` has what
failed; the code is 1 then.

Floors: an op cannot be faster than its bytes take at the bandwidth of a large copy (measured here), or than its
products take at the rate of a large bf16 product (measured here). `of_floor` is floor / time: 1 is as fast as can
be, and more where a table stays in the card's cache. Times are of whole calls, host waits and Python included.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import gpu_ops
import torch
from common import report
from gpu_cases import (
    SAMPLES,
    case_figures,
    from_photographs,
    gaussian_figures,
    groups,
    limits,
    milliseconds,
    render_figures,
    rival_figures,
    step_figures,
    test_figures,
    training_figures,
    wait,
)
from gpu_fits import fits
from rasterise import GAUSSIANS

from radfield import backend
from radfield.apps import neus2, ngp, splat
from radfield.apps.fit.training import train_step
from radfield.data import load
from radfield.errors import BadInput


@dataclasses.dataclass
class Job:
    """What a part's process is told. most: figures of the part `limits`; skip: items that are done or have failed;
    seconds: that are left."""

    part: str
    capture: str
    tiny: bool
    most: dict
    skip: list[str]
    seconds: float


def items(job: Job, device: torch.device) -> Iterator[tuple[str, Callable]]:
    """(name, what measures it, given `emit`) of what a part consists of. What it returns is the figure of that name; it
    may emit others."""
    tiny, capture = job.tiny, Path(job.capture)
    m = 1 << 10 if tiny else SAMPLES
    alone = {
        "limits": lambda emit: limits(device, *((1 << 16, 64) if tiny else ())),
        "rivals": lambda emit: rival_figures(device, m),
        "render": lambda emit: render_figures(device, 16 if tiny else 800),
        "gaussians": lambda emit: gaussian_figures(device, 100 if tiny else GAUSSIANS),
        "tests": lambda emit: {"skipped": "a dry run"} if tiny else test_figures(job.seconds),
    }
    if job.part in alone:
        yield job.part, alone[job.part]
    elif job.part == "cases":
        for name, made in groups(device, m).items():
            yield name, lambda emit, made=made: case_figures(made, job.most, emit)
    elif job.part == "ops":
        yield from op_items(job, device, capture)
    elif job.part == "step":
        small = _TINY if tiny else {}
        random = splat.Config(initial="random", initial_gaussians=60 if tiny else GAUSSIANS, refine_interval=10**6)
        rays = dataclasses.replace(random, renderer="trace", rays=64 if tiny else 1 << 16)
        methods = {"ngp": (ngp, ngp.Config(**small)), "neus2": (neus2, neus2.Config(**small)), "splat": (splat, random)}
        half = ngp, ngp.Config(precision="bf16" if tiny else "f16", **small)
        yield "ngp f16 graph", lambda emit: method_steps(*half, capture, device, "graph", tiny)
        yield "splat.rays waiting", lambda emit: method_steps(splat, rays, capture, device, "waiting", tiny)
        for name, (method, config) in methods.items():
            for way in WAYS:
                given = method, config, capture, device, way, tiny
                yield f"{name} {way}", lambda emit, given=given: method_steps(*given)
    elif job.part == "fits":
        for name, made in fits(device, tiny).items():
            for way in WAYS:
                given = made, train_step, device, way, 1 if tiny else 96
                yield f"{name} {way}", lambda emit, given=given: step_figures(*given)
    elif job.part == "training":
        given = {"budgets": (0.01,), "config": ngp.Config(**_TINY), "views": 1} if tiny else {}
        yield "training", lambda emit: training_figures(capture, device, emit, **given)


def method_steps(method, config, capture: Path, device: torch.device, way: str, tiny: bool) -> dict:
    """`step_figures` of a method of `radfield train`."""
    made = functools.partial(from_photographs, method, config, capture, device)
    return step_figures(made, method.train_step, device, way, 1 if tiny else 96)


WAYS = ("graph", "launches", "waiting")
_TINY = {"levels": 3, "features": 2, "log2_size": 8, "finest_resolution": 64, "batch_samples": 512}
_TINY |= {"uniform_cells": 256, "occupied_cells": 64}


def op_items(job: Job, device: torch.device, capture: Path) -> Iterator[tuple[str, Callable]]:
    """Every op, as programs call it; at last those that no workload calls."""
    size, done = gpu_ops.Size(), set(job.skip)
    if job.tiny:
        small = {"levels": 3, "log2_size": 8, "base_resolution": 16, "finest_resolution": 64, "resolution": 48}
        size = gpu_ops.Size(1 << 10, 32, 60, 6, small, _TINY)

    @functools.cache
    def scene():
        return load(capture)

    def measure(workload, emit) -> None:
        def tell(name: str, found: dict) -> None:
            floor = 1e3 * found["bytes"] / job.most["bytes_per_s"]
            emit(name, {**found, "floor_ms": floor, "of_floor": floor / found["ms"]})

        gpu_ops.timed(workload, lambda call, before: milliseconds(call, 7, before), tell, done)

    for name, workload in gpu_ops.workloads(device, size, scene).items():
        yield name, lambda emit, workload=workload: measure(workload, emit)
    yield "without figure", lambda emit: sorted(gpu_ops.has_kernels() - done)


def child(job: Job) -> int:
    """Runs a part: a JSON line when an item begins, and with each figure. Leaves with code 3 where the device no longer
    answers, so that the parent begins anew."""
    device = torch.device("cpu") if job.tiny else backend.device("cuda")[0]

    def tell(**line) -> None:
        print(json.dumps(line), flush=True)

    def emit(name: str, value) -> None:
        tell(name=name, value=value)

    for name, measure in items(job, device):
        if name in job.skip:
            continue
        tell(begin=name)
        try:
            found = measure(emit)
            if found is not None:
                emit(name, found)
        except Exception as error:  # whatever it is, the others are wanted
            where = traceback.extract_tb(error.__traceback__)[-1]
            tell(
                name=name, error=f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:2000]
            )
            try:
                wait(device)
            except RuntimeError:
                return 3
        tell(end=name)
    return 0


PARTS = ("limits", "training", "step", "fits", "ops", "cases", "render", "gaussians", "rivals", "tests")
SECONDS = {"limits": 60, "training": 150, "step": 120, "ops": 150, "cases": 90, "render": 60, "gaussians": 60}
SECONDS |= {"fits": 60, "rivals": 60, "tests": 240}


def run_part(job: Job, until: float, figures: dict, errors: dict) -> None:
    """Runs a part's process, again behind what it died of, and takes its figures; `until`: of time.monotonic()."""
    found = figures.setdefault(job.part, {})
    for _ in range(12):  # processes at most
        left = 3600.0 if job.tiny else min(until - time.monotonic(), SECONDS[job.part])
        if left < 5:
            errors[f"{job.part}: all that is not there"] = "no time is left"
            return
        begun = _one_process(dataclasses.replace(job, seconds=left - 5), left, found, errors)
        if begun is None:
            return
        job.skip.append(begun)
        job.skip += [name for name in found if name not in job.skip]


def _one_process(job: Job, seconds: float, found: dict, errors: dict) -> str | None:
    """The item during which the process ended, None where it came to its end."""
    command = [sys.executable, __file__, "--job", json.dumps(dataclasses.asdict(job))]
    said: list[str] = []
    begun = "its start"
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True)
        stop = threading.Timer(seconds, process.kill)
        stop.start()
        began = time.monotonic()
        for text in process.stdout:
            if not text.startswith("{"):
                continue
            line = json.loads(text)
            if "begin" in line:
                begun = line["begin"]
                print(f"gpu.py: {job.part}: {begun}", file=sys.stderr)
            elif "end" in line:
                job.skip.append(line["end"])
            elif "error" in line:
                errors[f"{job.part}: {line['name']}"] = line["error"]
            else:
                found[line["name"]] = line["value"]
        code = process.wait()
        stop.cancel()
        told.seek(0)
        said = told.read().splitlines()[-6:]
    if code == 0:
        return None
    why = f"stopped after {time.monotonic() - began:.0f} s" if code < 0 and not stop.is_alive() else f"code {code}"
    errors.setdefault(f"{job.part}: {begun}", " | ".join([why, *said])[:2000])
    return begun


def measure_all(options, capture: Path, figures: dict) -> None:
    """Runs the parts that were asked for within the minutes; writes what there is after each."""
    until = time.monotonic() + 60 * options.minutes
    errors = figures.setdefault("errors", {})
    most = {"bytes_per_s": 1e12, "flops_per_s": 1e14}
    for part in options.parts:
        if part == "tests" and options.skip_tests:
            continue
        run_part(Job(part, str(capture), options.dry_run, most, [], 0.0), until, figures, errors)
        most = figures.get("limits", {}).get("limits", most)
        if options.save:
            options.save.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return child(Job(**json.loads(options.job)))
    figures = {"dry run": True}
    if not options.dry_run:
        try:
            device, _ = backend.device("cuda")
        except BadInput as error:
            print(f"gpu.py: {error}", file=sys.stderr)
            return 2
        about = torch.cuda.get_device_properties(device)
        figures = {"device": about.name, "memory": about.total_memory, "cuda": torch.version.cuda}
    with tempfile.TemporaryDirectory() as folder:
        views, side = (4, 24) if options.dry_run else (60, 200)
        capture = options.capture or gpu_ops.capture_in(Path(folder) / "capture", side, views)
        measure_all(options, capture, figures)
    shown = figures if options.json else {name: json.dumps(value) for name, value in figures.items()}
    report(shown, options.json, options.save)
    return 1 if figures["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
