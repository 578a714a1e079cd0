"""Gaussians as small files: bytes and PSNR of a run as PLY, SPZ and SOG, in Morton order and sorted by PLAS, and of
a run whose Gaussians organise themselves (Morgenstern et al. 2023: files 8 to 26 times smaller than PLY; on
NeRF-synthetic 33.2 dB at 4.1 MB).

    python benchmarks/claims/sog.py CAPTURE --output FOLDER [--seconds 300 | --steps N] [--weights 0.1 1]
        [--max-size N] [--most N] [--views 8] [--threads N] [--json] [--save FILE] [--plot FILE.svg]

Every run has the same budget. PSNR: of what is read back from each file, over the first held-out views, sRGB, on the
run's background; loss: below that of the run it is of, and below that of the run without organising. Sorting: CPU
seconds, and how far neighbours on the grid are apart as a part of those in random order. Without CAPTURE the synthetic
scene "solids" is made.

Interrupted, the same command goes on: runs from their checkpoints, and what has been measured of one is kept in its
folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture import program
from fitting import plot, report

from radfield.apps.evaluate import evaluate_views
from radfield.apps.runs import open_run
from radfield.atomic import replacing_file
from radfield.cpu import library
from radfield.data.synthetic import write_synthetic_capture
from radfield.gaussians.files import read_gaussians, write_gaussians
from radfield.gaussians.order import grid_width, morton_order
from radfield.gaussians.plas import neighbour_distance, plas_order, sort_features


def trained(options: argparse.Namespace, weight: float) -> Path:
    """The run of a weight of the neighbours' loss, begun, continued, or as it is."""
    budget = ("--steps", options.steps) if options.steps else ("--seconds", options.seconds)
    name = f"{options.capture.name}_{options.max_size or 'full'}_{budget[1]:g}_{budget[0][2:]}_{options.most}"
    run = options.output / f"{name}_organised_{weight:g}"
    arguments = [*budget, "--no-evaluate", "--output", run]
    if options.threads:
        arguments += ["--threads", options.threads]
    if (run / "checkpoint.safetensors").exists():
        program("train", *arguments, "--resume")
        return run
    arguments += ["--method", "splat", "--splat.self-organise", weight, "--splat.max-gaussians", options.most]
    if options.max_size:
        arguments += ["--max-size", options.max_size]
    program("train", options.capture, *arguments, "--overwrite")
    return run


def measured(model, scene, views: int) -> float:
    """PSNR."""
    return evaluate_views(model, scene, "val", views)[0]["psnr"]


def sorting(gaussians) -> tuple[dict, torch.Tensor]:
    """(figures of the sort, the order)."""
    began = time.process_time()
    order = plas_order(gaussians)
    seconds = time.process_time() - began
    features, width = sort_features(gaussians), grid_width(len(gaussians))
    chance = neighbour_distance(features[torch.randperm(len(features))], width)
    orders = {"plas": order, "morton": morton_order(gaussians.means)}
    nearer = {name: neighbour_distance(features[each], width) / chance for name, each in orders.items()}
    return {"plas_cpu_seconds": seconds, "neighbours": nearer}, order


def files_of(run: Path, options: argparse.Namespace) -> dict:
    """Bytes and PSNR of each file of a run, measured or as they were."""
    kept = run / f"files_{options.views}.json"
    if not kept.exists():
        figures = measured_files(run, options)
        with replacing_file(kept) as file:
            file.write(json.dumps(figures).encode())
    return json.loads(kept.read_text())


def measured_files(run: Path, options: argparse.Namespace) -> dict:
    """Bytes and PSNR of each file of a run."""
    _, model, scene = open_run(run, "val")
    world = model.gaussians.transformed(model.transform.inverse())
    figures, order = sorting(world)
    figures |= {"gaussians": len(world), "psnr": measured(model, scene, options.views)}
    plas, morton = world.select(order), world.select(morton_order(world.means))
    for name, ending, gaussians in (
        *(("ply", ".ply", world), ("spz", ".spz", morton), ("sog_morton", ".sog", morton), ("sog_plas", ".sog", plas)),
        ("sog_plas_without_harmonics", ".sog", dataclasses.replace(plas, rest=plas.rest[:0])),
    ):
        path = run / f"{name}{ending}"
        write_gaussians(path, gaussians)
        model.gaussians = read_gaussians(path).transformed(model.transform)
        model.config = dataclasses.replace(model.config, sh_degree=model.gaussians.degree)
        figures[name] = {"bytes": path.stat().st_size, "psnr": measured(model, scene, options.views)}
        figures[name]["bytes_per_gaussian"] = figures[name]["bytes"] / len(world)
        print(f"{run.name} {name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?", default=None)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seconds", type=float, default=300, help="of each run")
    parser.add_argument("--steps", type=int, default=None, help="of each run, instead of seconds")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1, 1.0], help="of the neighbours' loss")
    parser.add_argument("--most", type=int, default=300_000, help="Gaussians")
    parser.add_argument("--threads", type=int, default=None, help="all by default")
    parser.add_argument("--max-size", type=int, default=None)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, default=160, help="pixels of a side of the synthetic capture")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.threads:
        library.set_num_threads(options.threads)
        torch.set_num_threads(options.threads)
    if options.capture is None:
        options.capture = options.output / f"solids_{options.size}"
        if not options.capture.exists():
            write_synthetic_capture(options.capture, "solids", views=48, val_views=8, size=options.size)
    budget = {"steps": options.steps, "seconds": None if options.steps else options.seconds}
    figures = {"capture": options.capture.name, **budget, "max_size": options.max_size, "views": options.views}
    runs = {weight: files_of(trained(options, weight), options) for weight in (0.0, *options.weights)}
    plain = runs[0.0]
    for found in runs.values():
        for each in found.values():
            if isinstance(each, dict) and "bytes" in each:
                each["times_smaller"] = found["ply"]["bytes"] / each["bytes"]
                each["loss_db"], each["loss_to_plain_db"] = found["psnr"] - each["psnr"], plain["psnr"] - each["psnr"]
    figures |= {f"organised_{weight:g}": found for weight, found in runs.items()}
    report(figures, options.json, options.save)
    if options.plot:
        kinds = [name for name, each in plain.items() if isinstance(each, dict) and "bytes" in each]
        series = {
            kind: ([r[kind]["bytes"] / 1e6 for r in runs.values()], [r[kind]["psnr"] for r in runs.values()])
            for kind in kinds[1:]
        }
        plot(options.plot, "PSNR (dB) of files", "MB", series)


if __name__ == "__main__":
    main()
