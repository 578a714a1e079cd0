"""Gaussians trained by tracing, or by 3DGUT, on photographs of other lenses, as they are: does a fisheye cost quality?

A synthetic scene is photographed through a lens with distortion (a perspective one, or a fisheye of 109 degrees), and
again from the same places through a pinhole of the same focal length: the images that undistorting would give, without
the loss of resampling. `--splat.renderer trace` (or the given one) trains on each with the same seed and steps. Both
are measured on the held-out views of the pinhole (`psnr`), the first also on those of its own lens (`own_psnr`).
`fisheye_loss_db` and `distorted_loss_db` are what of `psnr` the lens costs (below 0: gains). `cpu_seconds` is what all
of it took.

    python benchmarks/trace_lenses.py [--lenses distorted fisheye] [--scene solids] [--views 24] [--size 96]
        [--steps 600] [--renderer trace] [--rays 0] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import report

from radfield.apps import splat
from radfield.apps.evaluate import evaluate_views
from radfield.cpu import library
from radfield.data import load
from radfield.data.scene import Images
from radfield.data.synthetic import synthetic_image, synthetic_scene, write_synthetic_capture

LENSES = ("distorted", "fisheye")


def through_pinhole(views, transform, scene):
    """The views of `scene` (SyntheticScene) with pinholes in the place of their lenses."""
    cameras = dataclasses.replace(
        views.cameras, model="perspective", distortion=torch.zeros_like(views.cameras.distortion)
    )
    world = transform.inverse().cameras(cameras)
    images = Images.allocate([tuple(size) for size in cameras.size.tolist()], 4)
    for i in range(len(cameras)):
        begin, end = images.offset[i : i + 2].tolist()
        images.pixels[begin:end] = synthetic_image(scene, world, i).view(-1, 4)
    return dataclasses.replace(views, cameras=cameras, images=images)


def train(scene, name: str, options: argparse.Namespace):
    """The model of a training on `scene`."""
    config = splat.Config(
        renderer=options.renderer,
        rays=options.rays,
        initial="random",
        initial_gaussians=options.gaussians,
        max_gaussians=4 * options.gaussians,
        refine_interval=options.refine_interval,
        sh_degree=1,
    )
    splat.check(config)
    background = splat.report_background(config, scene)
    place = {"cascades": scene.cascades, "transform": scene.transform, "background": background}
    training = splat.Training(splat.build(config, **place, seed=0), scene, 0)
    for step in range(options.steps):
        splat.train_step(training, step / options.steps)
        if step % 50 == 0:
            print(f"{name}: step {step} of {options.steps}", file=sys.stderr, flush=True)
    return training.model


def measure(lens: str, options: argparse.Namespace) -> dict:
    """Figures of the trainings through `lens` and through a pinhole in its place."""
    size = {"views": options.views, "val_views": options.val_views, "size": options.size}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / lens
        scene = load(write_synthetic_capture(path, options.scene, **size, format="nerfstudio", lens=lens))
    known = synthetic_scene(options.scene)
    splits = {name: through_pinhole(getattr(scene, name), scene.transform, known) for name in ("train", "val")}
    pinhole, found = dataclasses.replace(scene, **splits), {}
    for name, trained_on in ((lens, scene), ("pinhole", pinhole)):
        model = train(trained_on, name, options)
        figures, _ = evaluate_views(model, pinhole, "val")
        kept = {key: figures[key] for key in ("psnr", "ssim", "views", "background") if key in figures}
        own = evaluate_views(model, trained_on, "val")[0]["psnr"]
        found[name] = {**kept, "own_psnr": own, "gaussians": len(model.gaussians)}
    return {f"{lens}_loss_db": round(found["pinhole"]["psnr"] - found[lens]["psnr"], 3), f"{lens}_capture": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lenses", nargs="+", default=list(LENSES), choices=LENSES)
    parser.add_argument("--scene", default="solids")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--val-views", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--renderer", default="trace", choices=("trace", "3dgut", "3dgut-sorted"))
    parser.add_argument("--rays", type=int, default=0, help="random rays per step, by trace alone; 0: views whole")
    parser.add_argument("--gaussians", type=int, default=3000, help="how many to begin with")
    parser.add_argument("--refine-interval", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    library.set_num_threads(library.default_num_threads())
    found = {}
    for lens in options.lenses:
        found |= measure(lens, options)
    names = ("scene", "views", "size", "steps", "renderer", "rays", "gaussians")
    how = {name: getattr(options, name) for name in names}
    report({**found, "cpu_seconds": round(time.process_time(), 1), **how}, options.json, options.save)


if __name__ == "__main__":
    main()
