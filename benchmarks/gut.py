"""3DGUT's rasteriser beside the rasteriser and the ray tracer: CPU milliseconds of one image, forward and with all
gradients, on one thread and in turns, so that they can be taken beside other work.

All draw the ball of rasterise.py from its camera, with the thresholds of rasterising. `psnr` is to the tracer's image;
`fisheye_psnr` the same through a fisheye lens of the same focal length from within twice the ball's radius, where
Gaussians are larger. `ratio` is to the rasteriser's forward pass. Tracing refits its tree every time, as in training.

    python benchmarks/gut.py [--gaussians 100000] [--size 512] [--repeats 5] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from common import report
from rasterise import ball

from radfield.apps import splat
from radfield.apps.splat.gut import see_gut
from radfield.apps.splat.tracing import TrainingTree, see_traced
from radfield.cameras import Cameras, look_at
from radfield.cpu import library
from radfield.gaussians.memory_cap import MemoryCap
from radfield.gaussians.scene import GaussianScene, see
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_color import HARMONIC_0

RENDERERS = ("raster", "3dgut", "3dgut-sorted", "trace")


def scene(count: int) -> GaussianScene:
    """The ball, smaller Gaussians where there are more than 100,000."""
    values = {name: value.detach() for name, value in ball(count).items()}
    return GaussianScene(
        values["means"].T.contiguous(),
        values["quaternions"].T.contiguous(),
        (values["scales"] * (100_000 / count) ** (1 / 3)).log().T.contiguous(),
        values["opacities"].logit(),
        ((values["colors"] - 0.5) / HARMONIC_0).T.contiguous(),
        torch.zeros(0, count),
    )


def camera(size: int, model: str, distance: float) -> Cameras:
    """On the -z side, looking at the centre."""
    pose = look_at(torch.tensor([[0.0, 0.0, -distance]]), torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]))
    sizes = torch.tensor([[size, size]])
    return Cameras(pose, torch.full((1, 2), 1.1 * size), sizes / 2, sizes, torch.zeros(1, 9), model)


def draw(gaussians: GaussianScene, cameras: Cameras, renderer: str, tree: TrainingTree) -> torch.Tensor:
    """[size, size, 3], before black."""
    config, background = splat.Config(renderer=renderer), torch.zeros(3)
    if renderer == "raster":
        return see(gaussians, Camera.of(cameras, 0), background).image.color
    if renderer == "trace":
        return see_traced(gaussians, cameras, 0, background, config, tree).image.color
    pixels = int(cameras.size.prod())
    return see_gut(gaussians, cameras, 0, background, config, MemoryCap(64.0, 0, pixels)).image.color


def psnr(image: torch.Tensor, other: torch.Tensor) -> float:
    """Of two images."""
    return round(-10 * math.log10(max(float((image - other).square().mean()), 1e-12)), 2)


def figures(options: argparse.Namespace) -> dict:
    """Medians, and likeness to the tracer."""
    gaussians, tree = scene(options.gaussians), TrainingTree()
    cameras = camera(options.size, "perspective", 4.0)
    leaves = gaussians.map(lambda value: value.clone().requires_grad_())
    weights = torch.rand(options.size, options.size, 3, generator=torch.Generator().manual_seed(1)) * 1e-3
    times = {name: ([], []) for name in RENDERERS}
    for i in range(options.repeats + 1):  # the first one warms up, and makes the tracer's tree
        for name, (forward, both) in times.items():
            began = time.process_time()
            with torch.no_grad():
                draw(gaussians, cameras, name, tree)
            middle = time.process_time()
            draw(leaves, cameras, name, tree).backward(weights)
            if i:
                forward.append(middle - began), both.append(time.process_time() - middle)
    with torch.no_grad():
        images = {name: draw(gaussians, cameras, name, tree) for name in RENDERERS}
        wide = camera(options.size, "fisheye", 2.0)
        fisheye = {name: draw(gaussians, wide, name, tree) for name in RENDERERS}
    found, base = {}, statistics.median(times["raster"][0])
    for name, (forward, both) in times.items():
        found[name] = {
            "forward_cpu_ms": round(statistics.median(forward) * 1e3, 1),
            "forward_backward_cpu_ms": round(statistics.median(both) * 1e3, 1),
            "ratio": round(statistics.median(forward) / base, 2),
            "psnr": psnr(images[name], images["trace"]),
            "fisheye_psnr": psnr(fisheye[name], fisheye["trace"]),
        }
    return {**found, "gaussians": options.gaussians, "size": options.size, "isa": library.choose_isa()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    library.set_num_threads(1)
    report(figures(options), options.json, options.save)


if __name__ == "__main__":
    main()
