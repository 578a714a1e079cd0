"""What `radfield.compat.gsplat` adds to a training step: through `rasterization`, and through radfield's functions.

Both are interleaved in one process, and measured in CPU time of all threads; --json prints the figures. A step renders
one view, takes the gradient of L1 back to the parameters, and steps Adam. What differs is what gsplat's interface asks
for: radii as whole numbers, the dictionary, and parameters that lie Gaussian by Gaussian. `ratio` is to radfield's
functions on the same parameters, `ratio_to_streams` to them on parameters in radfield's own layout, a stream for each
component. `harmonics` is degree 3 as in training; without, there are plain colours [N, 3].
"""

import argparse
import json
import statistics
import time

import torch

from radfield.compat.gsplat import rasterization
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
    (image[0] - target).abs().mean().backward()


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


def measure(count: int, size: int, rounds: int, harmonics: bool, packed: bool) -> dict:
    """Medians of CPU seconds, and of the ratio of neighbouring steps."""
    theirs, same = parameters(count, harmonics), parameters(count, harmonics)
    ours = streams(theirs)
    view = torch.eye(4)
    view[2, 3] = 3.0
    K = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    target = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(1))
    optimizers = [torch.optim.Adam(list(v.values()), lr=1e-6, fused=True) for v in (theirs, same, ours)]
    steps = (
        lambda: gsplat_step(theirs, view, K, size, target, packed),
        lambda: own_step(same, view, K, size, target, True),
        lambda: own_step(ours, view, K, size, target, False),
    )
    seconds: list[list[float]] = [[], [], []]
    for number in range(rounds + 2):
        order = (0, 1, 2) if number % 2 else (2, 1, 0)
        for which in order:
            start = time.process_time()
            steps[which]()
            optimizers[which].step()
            optimizers[which].zero_grad(set_to_none=True)
            if number > 1:
                seconds[which].append(time.process_time() - start)
    return {
        "gaussians": count,
        "pixels": size * size,
        "harmonics": harmonics,
        "packed": packed,
        "gsplat_cpu_s": statistics.median(seconds[0]),
        "own_cpu_s": statistics.median(seconds[1]),
        "streams_cpu_s": statistics.median(seconds[2]),
        "ratio": statistics.median(a / b for a, b in zip(seconds[0], seconds[1], strict=True)),
        "ratio_to_streams": statistics.median(a / b for a, b in zip(seconds[0], seconds[2], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=800, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases = [(harmonics, packed) for harmonics in (False, True) for packed in (False, True)]
    found = [measure(options.gaussians, options.size, options.rounds, *case) for case in cases]
    if options.json:
        print(json.dumps({"cases": found}))
        return
    for case in found:
        kind = f"{'harmonics' if case['harmonics'] else 'colors'}, {'packed' if case['packed'] else 'dense'}"
        print(
            f"{kind:20} {case['gsplat_cpu_s']:.3f} s, own {case['own_cpu_s']:.3f} s, ratio {case['ratio']:.3f}, "
            f"to streams {case['ratio_to_streams']:.3f}"
        )


if __name__ == "__main__":
    main()
