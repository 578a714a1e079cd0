"""What refining cameras gains and costs: PSNR on held-out views, with their given poses, and errors of training poses.

    .venv/bin/python benchmarks/camera_refinement.py CAPTURE [--steps 800] [--max-size 480] [--json] [--save FILE]

Trains the same number of steps with the given poses, and with training poses turned and shifted at random, each with
and without refinement. Errors are against the given poses, after the mean turn and shift (the frame's) are taken out.
"""

import argparse
import dataclasses
import sys
import warnings
from pathlib import Path

import torch
from common import report

from radfield.apps import evaluate, ngp
from radfield.apps.runs import use_device
from radfield.data import load
from radfield.errors import RadfieldWarning
from radfield.training import per_image
from radfield.training.camera_refinement import rotations


def perturbed(cameras, degrees: float, shift: float):
    """Cameras turned by about so many degrees and shifted by about so many scene units, in random directions."""
    generator = torch.Generator().manual_seed(1)
    turn = torch.randn(len(cameras), 3, generator=generator) * degrees * torch.pi / 180 / 3**0.5
    pose = cameras.camera_to_world.clone()
    pose[:, :3, :3] = rotations(turn) @ pose[:, :3, :3]
    pose[:, :3, 3] += torch.randn(len(cameras), 3, generator=generator) * shift / 3**0.5
    return dataclasses.replace(cameras, camera_to_world=pose)


def pose_errors(found, given) -> tuple[float, float]:
    """(degrees, scene units): root mean squares over the views, less the means."""
    between = found.camera_to_world[:, :3, :3] @ given.camera_to_world[:, :3, :3].mT
    turn = 0.5 * torch.stack([between[:, 2, 1] - between[:, 1, 2], between[:, 0, 2] - between[:, 2, 0],
                              between[:, 1, 0] - between[:, 0, 1]], -1)  # fmt: skip
    shift = found.camera_to_world[:, :3, 3] - given.camera_to_world[:, :3, 3]
    rms = [float((v - v.mean(0)).pow(2).sum(-1).mean().sqrt()) for v in (turn, shift)]
    return rms[0] * 180 / torch.pi, rms[1]


def train(scene, cameras, steps: int, refine: bool, rate: float) -> dict:
    config = ngp.Config(per_image=per_image.Config(cameras=refine, camera_rate=rate))
    place = {"cascades": scene.cascades, "transform": scene.transform}
    scene = dataclasses.replace(scene, train=dataclasses.replace(scene.train, cameras=cameras))
    model = ngp.build(config, **place, background=ngp.report_background(config, scene))
    training = ngp.Training(model, scene, 0)
    for step in range(steps):
        ngp.train_step(training, step / steps)
    figures, _ = evaluate.evaluate_views(model, scene, "val")
    return {"psnr": figures["psnr"], "cameras": training.per_image.cameras, "stages": dict(training.stages.seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--max-size", type=int, default=480)
    parser.add_argument("--degrees", type=float, default=0.5)
    parser.add_argument("--shift", type=float, default=0.01)
    parser.add_argument("--rate", type=float, default=per_image.Config.camera_rate)
    parser.add_argument("--poses", choices=("given", "perturbed"), nargs="+", default=("given", "perturbed"))
    parser.add_argument("--refined-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", RadfieldWarning)
    use_device("cpu", None)
    scene = load(options.capture, max_size=options.max_size)
    given = scene.train.cameras
    rows = []
    moved = perturbed(given, options.degrees, options.shift)
    for poses in options.poses:
        cameras = given if poses == "given" else moved
        for refine in (True,) if options.refined_only else (False, True):
            result = train(scene, cameras, options.steps, refine, options.rate)
            degrees, shift = pose_errors(result["cameras"], given)
            rows.append({"poses": poses, "refined": refine, "psnr": result["psnr"], "degrees": degrees, "shift": shift,
                         "seconds": sum(result["stages"].values())})  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    settings = {name: getattr(options, name) for name in ("steps", "max_size", "degrees", "shift", "rate")}
    report({"capture": scene.name, **settings, "rows": rows}, options.json, options.save)


if __name__ == "__main__":
    main()
