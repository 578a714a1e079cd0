"""Milliseconds of ray tracing 100,000 Gaussians at 512 x 512 on two threads, forward and with every gradient.

The Gaussians and the camera are those of rasterise.py; the tree is there before, and `build_ms` and `refit_ms` are its
own. `forward_backward_ms` goes down to means, scales, quaternions, opacities and colours of degree 0. Both figures are
comparable with those of Mitsuba's `ellipsoids` under `volprim_rf_basic` on the same scene. Of the tables that follow,
`sizes` has the same ball of fewer and more Gaussians, as much smaller as they are more, and `kernels` has kernels of
degree 2 and 4. Node visits, tests and hits are per ray that meets the scene; `alone` are the same rays one at a time.

python benchmarks/trace.py [--json] [--save FILE] [--quick]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import median_seconds, report
from rasterise import GAUSSIANS, SIZE, THREADS, ball

from radfield.cpu import library
from radfield.rays import Rays
from radfield.renderers.gaussian_color import HARMONIC_0
from radfield.renderers.gaussian_trace import SIDE, Tracing, trace_particles
from radfield.tracing.particle_bvh import Kernel, ParticleBvh

REPEATS = 9
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def particles(count: int) -> list[torch.Tensor]:
    """The ball as streams, smaller where there are more than GAUSSIANS of them: they cover the image alike."""
    values = {name: value.detach() for name, value in ball(count).items()}
    values["scales"] = values["scales"] * (GAUSSIANS / count) ** (1 / 3)
    values["colors"] = (values["colors"] - 0.5) / HARMONIC_0
    streams = [values[k].T for k in ("means", "quaternions", "scales", "opacities", "colors")]
    streams.append(torch.zeros(0, count))
    return [value.contiguous().requires_grad_() for value in streams]


def rays() -> Rays:
    """Those of rasterise.py's camera."""
    y, x = torch.meshgrid(*(torch.arange(SIZE) + 0.5 - SIZE / 2,) * 2, indexing="ij")
    local = torch.stack((x / (1.1 * SIZE), y / (1.1 * SIZE), torch.ones_like(x)), -1).view(-1, 3)
    return Rays(
        torch.tensor([0.0, 0.0, -4.0]).expand_as(local).contiguous(), torch.nn.functional.normalize(local, dim=-1)
    )


def measure(count: int, tracing: Tracing, repeats: int) -> dict:
    """Times and visits of one scene and one way to trace it."""
    scene, seen_by = particles(count), rays()
    geometry = scene[:4]
    bvh = ParticleBvh.of(*geometry, tracing.kernel)
    weights = torch.rand(SIZE * SIZE, 3, generator=torch.Generator().manual_seed(1)) * 1e-3
    visits = torch.zeros((SIZE // SIDE) ** 2, 3, dtype=torch.int32)

    def draw(**options):
        return trace_particles(*scene, seen_by, tracing=tracing, bvh=bvh, width=SIZE, **options)

    def forward():
        with torch.no_grad():
            draw()

    def forward_backward():
        for value in scene:
            value.grad = None
        draw().color.backward(weights)

    with torch.no_grad():
        hits = draw(visits=visits).hits
    meets = int((hits > 0).sum())
    seconds = median_seconds(forward, repeats)
    nodes, leaves, tests = (visits.sum(0) / meets).tolist()
    return {
        "gaussians": count,
        "degree": tracing.kernel.degree,
        "forward_ms": seconds * 1e3,
        "forward_backward_ms": median_seconds(forward_backward, repeats) * 1e3,
        "million_rays_per_second": SIZE * SIZE / seconds / 1e6,
        "build_ms": median_seconds(lambda: ParticleBvh.of(*geometry, tracing.kernel), repeats) * 1e3,
        "refit_ms": median_seconds(lambda: bvh.refit(*geometry), repeats) * 1e3,
        "nodes_per_ray": nodes,
        "leaves_per_ray": leaves,
        "tests_per_ray": tests,
        "hits_per_ray": int(hits.sum()) / meets,
    }


def figures(quick: bool) -> dict:
    """The claim first, then what it depends on."""
    repeats = 3 if quick else REPEATS
    ours = measure(GAUSSIANS, Tracing(), repeats)
    found = {**ours, "size": SIZE, "threads": THREADS, "isa": library.choose_isa()}
    if quick:
        return found
    found["kernels"] = [ours, measure(GAUSSIANS, Tracing(Kernel(4)), repeats)]
    found["sizes"] = [ours if n == GAUSSIANS else measure(n, Tracing(), 5) for n in SIZES]
    found["alone"] = measure(GAUSSIANS, Tracing(packets=False), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="the claim alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    library.set_num_threads(THREADS)
    report(figures(options.quick), options.json, options.save)


if __name__ == "__main__":
    main()
