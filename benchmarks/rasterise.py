"""Milliseconds of rasterising 100,000 Gaussians at 512 x 512 on two threads, forward and with every gradient.

The Gaussians fill the unit ball; the camera stands at distance 4 and looks at the centre. `forward_backward_ms` goes
down to means, scales, quaternions, opacities and colours; the `sh3` figures have colours of spherical harmonics of
degree 3 instead, down to their coefficients.

python benchmarks/rasterise.py [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import median_seconds, report

from radfield.cpu import library
from radfield.renderers.gaussian_color import gaussian_color
from radfield.renderers.gaussian_projection import Camera, project
from radfield.renderers.gaussian_raster import rasterise

GAUSSIANS, SIZE, THREADS = 100_000, 512, 2
REPEATS = 21


def ball(count: int) -> dict[str, torch.Tensor]:
    """The Gaussians: centres, quaternions, scales, opacities, colours, drawn in that order."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    means = directions * random.uniform(size=(count, 1)) ** (1 / 3)
    quaternions = random.normal(size=(count, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    scales = np.exp(random.normal(np.log(0.01), 0.6, size=(count, 3)))
    opacities = random.uniform(0.1, 0.95, size=count)
    colors = random.uniform(size=(count, 3))
    values = {"means": means, "quaternions": quaternions, "scales": scales, "opacities": opacities, "colors": colors}
    return {name: _streams(value) for name, value in values.items()}


def _streams(value: np.ndarray) -> torch.Tensor:
    """Stored as streams, shown as [G, ...]: the layout of a Gaussian scene."""
    stored = torch.from_numpy(value.astype(np.float32).T.copy())
    return (stored.mT if stored.ndim == 2 else stored).requires_grad_()


def camera() -> Camera:
    """At distance 4 on the -z side, looking at the centre."""
    pose = torch.eye(4)
    pose[2, 3] = 4
    return Camera(pose, (1.1 * SIZE, 1.1 * SIZE), (SIZE / 2, SIZE / 2), SIZE, SIZE)


def figures() -> dict:
    """Medians; the gradient of the image is a fixed random one."""
    scene, view = ball(GAUSSIANS), camera()
    random = torch.Generator().manual_seed(0)
    base, rest = ((torch.randn(n, GAUSSIANS, generator=random) * 0.1).requires_grad_() for n in (3, 45))
    weights = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1)) * 1e-3

    def draw(harmonics: bool):
        geometry = [scene[k] for k in ("means", "quaternions", "scales", "opacities")]
        projected = project(*geometry, view)
        colors = scene["colors"]
        if harmonics:
            colors = gaussian_color(scene["means"], base, rest, projected.radius, view.position, degree=3)
        return rasterise(projected, colors, SIZE, SIZE).color

    def forward(harmonics: bool = False):
        with torch.no_grad():
            draw(harmonics)

    def forward_backward(harmonics: bool = False):
        for value in (*scene.values(), base, rest):
            value.grad = None
        draw(harmonics).backward(weights)

    return {
        "forward_ms": median_seconds(forward, REPEATS) * 1e3,
        "forward_backward_ms": median_seconds(forward_backward, REPEATS) * 1e3,
        "sh3_forward_ms": median_seconds(lambda: forward(True), REPEATS) * 1e3,
        "sh3_forward_backward_ms": median_seconds(lambda: forward_backward(True), REPEATS) * 1e3,
        "gaussians": GAUSSIANS,
        "size": SIZE,
        "threads": THREADS,
        "isa": library.choose_isa(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    library.set_num_threads(THREADS)
    report(figures(), options.json, options.save)


if __name__ == "__main__":
    main()
