"""Gaussians trained by tracing on photographs of other lenses, as they are: does a distorted fisheye cost quality?

The same scene is photographed from the same directions through a pinhole, a lens with distortion and a fisheye with
distortion: 109 degrees, from half the distance, in images so large that the scene's middle has as many pixels. No image
is undistorted; `--splat.renderer trace` trains on each with the same seed and steps. All are measured on the same
held-out views of the pinhole: `psnr`; and on held-out views through their own lens: `own_psnr`. `fisheye_loss_db` and
`distorted_loss_db` are what of `psnr` is lost against the training on the pinhole's images (below 0: gained).

    python benchmarks/trace_lenses.py [--scene solids] [--views 24] [--size 96] [--steps 600] [--rays 0] [--json]
        [--save FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import torch
from common import report

from radfield.apps import splat
from radfield.apps.evaluate import evaluate_views
from radfield.cpu import library
from radfield.data import load
from radfield.data.synthetic import synthetic_cameras, synthetic_scene, write_synthetic_capture

LENSES = ("pinhole", "distorted", "fisheye")


def capture(lens: str, options: argparse.Namespace, folder: Path):
    """The scene, photographed through `lens`."""
    counts = {"views": options.views, "val_views": options.val_views}
    size = round(options.size * density("pinhole", options) / density(lens, options))
    return load(
        write_synthetic_capture(folder / lens, options.scene, **counts, size=size, format="nerfstudio", lens=lens)
    )


def density(lens: str, options: argparse.Namespace) -> float:
    """Pixels per unit of length in the scene's middle, of images of the pinhole's size."""
    scene = synthetic_scene(options.scene)
    cameras = synthetic_cameras(scene, 1, options.size, lens=lens)
    return float(cameras.focal[0, 0] / (cameras.camera_to_world[0, :3, 3] - torch.tensor(scene.target)).norm())


def seen_by(model, measured):
    """`measured`, its held-out views in the coordinates of `model`."""
    world = measured.transform.inverse().cameras(measured.val.cameras)
    return dataclasses.replace(measured, val=dataclasses.replace(measured.val, cameras=model.transform.cameras(world)))


def measure(scene, measured, lens: str, options: argparse.Namespace) -> dict:
    """Figures of a training on `scene`, on the held-out views of `measured` and on its own."""
    config = splat.Config(
        renderer="trace",
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
            print(f"{lens}: step {step} of {options.steps}", file=sys.stderr, flush=True)
    figures, _ = evaluate_views(training.model, seen_by(training.model, measured), "val")
    own, _ = evaluate_views(training.model, scene, "val")
    kept = {name: figures[name] for name in ("psnr", "ssim", "views", "background") if name in figures}
    width, _ = scene.train.cameras.size[0].tolist()
    about = {"gaussians": len(training.model.gaussians), "model": scene.train.cameras.model, "width": width}
    return {**kept, "own_psnr": own["psnr"], **about}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="solids")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--val-views", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rays", type=int, default=0, help="random rays per step; 0: views whole")
    parser.add_argument("--gaussians", type=int, default=3000, help="how many to begin with")
    parser.add_argument("--refine-interval", type=int, default=25)
    parser.add_argument("--lenses", nargs="+", default=list(LENSES[1:]), choices=LENSES[1:], help="beside the pinhole")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    library.set_num_threads(library.default_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        scenes = {lens: capture(lens, options, Path(folder)) for lens in LENSES[:1] + tuple(options.lenses)}
        found = {lens: measure(scene, scenes["pinhole"], lens, options) for lens, scene in scenes.items()}
    lost = {lens: found["pinhole"]["psnr"] - figures["psnr"] for lens, figures in found.items() if lens != "pinhole"}
    losses = {f"{lens}_loss_db": round(value, 3) for lens, value in lost.items()}
    how = {name: getattr(options, name) for name in ("scene", "views", "size", "steps", "rays")}
    report({**losses, **found, **how}, options.json, options.save)


if __name__ == "__main__":
    main()
