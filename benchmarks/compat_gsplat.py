"""What `radfield.compat.gsplat` adds to a training step: through `rasterization`, and through radfield's functions.

A step renders one view of 100,000 Gaussians in a ball, 512 x 512 pixels, takes the gradient of the L1 loss back to the
parameters, and steps torch's Adam. The same Gaussians, view, loss and optimiser for all; the steps take turns in one
process, in another order every round, on one thread, measured in that thread's CPU time, so that other work on the
machine counts little. Medians over the rounds of each time, and of the ratios within a round:

- `ratio`: to radfield's own functions on parameters in radfield's own layout, a stream for each component. This is what
  a program written for gsplat pays for its interface: parameters that lie Gaussian by Gaussian, whole radii, `meta`;
- `ratio_to_rows`: to radfield's own functions on the same parameters as the program's, turned where they must be.

`harmonics`: colours of degree 3, as in training; without, plain colours [N, 3]. `packed`: with rows for the Gaussians
alone that the view shows, here nearly all.

    python benchmarks/compat_gsplat.py [--gaussians 100000] [--size 512] [--rounds 16] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path

import torch
from common import report

from radfield.compat.gsplat import rasterization
from radfield.cpu import library
from radfield.renderers.gaussian_color import gaussian_color
from radfield.renderers.gaussian_projection import Camera, project
from radfield.renderers.gaussian_raster import rasterise


def parameters(count: int, harmonics: bool) -> dict[str, torch.Tensor]:
    """Gaussians in a ball before the camera."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(count, 3, generator=generator)
    values = {
        "means": random / random.norm(dim=1, keepdim=True) * torch.rand(count, 1, generator=generator) ** (1 / 3),
        "quats": torch.randn(count, 4, generator=generator),
        "scales": torch.randn(count, 3, generator=generator) * 0.4 - 4.6,
        "opacities": torch.randn(count, generator=generator),
        "colors": torch.randn(count, 16, 3, generator=generator) * 0.2 if harmonics else torch.rand(count, 3),
    }
    return {k: v.requires_grad_() for k, v in values.items()}


def streams(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same in radfield's layout: one stream per component."""
    made = {k: v.detach().T.contiguous() for k, v in values.items() if k not in ("colors", "opacities")}
    made["opacities"] = values["opacities"].detach().clone()
    made["colors"] = values["colors"].detach().flatten(1).T.contiguous()
    return {k: v.requires_grad_() for k, v in made.items()}


def gsplat_step(values, view, K, size, target, packed):
    degree = 3 if values["colors"].ndim == 3 else None
    image, _, info = rasterization(
        values["means"],
        values["quats"],
        values["scales"].exp(),
        values["opacities"].sigmoid(),
        values["colors"],
        view[None],
        K[None],
        size,
        size,
        sh_degree=degree,
        packed=packed,
    )
    info["means2d"].retain_grad()
    (image - target[None]).abs().mean().backward()


def own_step(values, view, K, size, target, rows):
    camera = Camera(view, tuple(K[[0, 1], [0, 1]].tolist()), tuple(K[[0, 1], [2, 2]].tolist()), size, size)
    geometry = values["means"], values["quats"], values["scales"].exp()
    colors = values["colors"].flatten(1).T if rows else values["colors"]
    drawn = project(*(geometry if rows else (v.T for v in geometry)), values["opacities"].sigmoid(), camera)
    drawn.mean2d.retain_grad()
    if len(colors) > 3:
        means = values["means"] if rows else values["means"].T
        colors = gaussian_color(means, colors[:3], colors[3:], drawn.radius, camera.position, degree=3).T
    image = rasterise(drawn, colors.T, size, size, max_alpha=0.999).color
    (image - target).abs().mean().backward()


def contenders(count: int, size: int, harmonics: bool) -> dict:
    """(a step up to its gradients, its optimiser) by name."""
    view, target = torch.eye(4), torch.rand(size, size, 3, generator=torch.Generator().manual_seed(1))
    view[2, 3] = 3.0
    K = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    functions = {
        "streams": (own_step, False),
        "rows": (own_step, True),
        "dense": (gsplat_step, False),
        "packed": (gsplat_step, True),
    }
    made = {}
    for name, (function, option) in functions.items():
        values = parameters(count, harmonics)
        if name == "streams":
            values = streams(values)
        step = functools.partial(function, values, view, K, size, target, option)
        made[name] = step, torch.optim.Adam(list(values.values()), lr=1e-6, fused=True)
    return made


def timed(step, optimizer) -> float:
    """CPU seconds of a whole step."""
    began = time.process_time()
    step()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.process_time() - began


def measure(count: int, size: int, rounds: int, harmonics: bool) -> list[dict]:
    """The figures of dense and packed."""
    steps, seconds = contenders(count, size, harmonics), []
    for number in range(-2, rounds):
        order = list(steps)[number % 4 :] + list(steps)[: number % 4]
        found = {name: timed(*steps[name]) for name in order}
        seconds += [found] if number >= 0 else []

    about = {"gaussians": count, "pixels": size * size, "harmonics": harmonics}
    return [about | {"packed": name == "packed"} | medians(seconds, name) for name in ("dense", "packed")]


def medians(seconds: list[dict], name: str) -> dict:
    """Of the steps `name`, and of their ratios to radfield's own in the same round."""
    found = {}
    for other in ("streams", "rows"):
        key = "ratio" if other == "streams" else "ratio_to_rows"
        found[key] = round(statistics.median(one[name] / one[other] for one in seconds), 4)
    times = {"gsplat_cpu_s": name, "streams_cpu_s": "streams", "rows_cpu_s": "rows"}
    return found | {key: round(statistics.median(one[which] for one in seconds), 4) for key, which in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    library.set_num_threads(1)
    torch.set_num_threads(1)
    cases = [
        case
        for harmonics in (True, False)
        for case in measure(options.gaussians, options.size, options.rounds, harmonics)
    ]
    report({"cases": cases}, options.json, options.save)


if __name__ == "__main__":
    main()
