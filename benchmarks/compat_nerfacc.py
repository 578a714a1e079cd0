"""What the nerfacc stand-in adds to a training step: the same step written for nerfacc and with radfield's own calls.

Both march 1024 rays through a ball of occupied cells (128^3), ask the field's density once at some 290,000 samples
to leave out what no light reaches, render the rest with gradients, and step Adam over all parameters of the field. The
same rays, field, seeds and optimiser; the steps take turns in one process on one thread, measured in that thread's CPU
seconds, so that other work on the machine counts little. Medians over the steps, of times and of differences as parts
of radfield's own step:

- `overhead`: what the stand-in's functions took, beyond what radfield's did in their place. This is the layer's.
- `positions_overhead`: what a program for nerfacc does by itself and radfield's march does not ask for: finding the
  positions and directions of samples from their rays, in torch, once for each pass of the field.
- `field_overhead`: the field's functions, forward, given these positions: rows, where the march gives streams.
- `learn_overhead`: backward and Adam.
- `program_overhead`: all of it, the whole step.

    python benchmarks/compat_nerfacc.py [--rays 1024] [--steps 24] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from common import report

from radfield.compat import nerfacc
from radfield.cpu import library
from radfield.encodings import hash_grid
from radfield.encodings.hash_grid_adam import SampleGradients
from radfield.fields import radiance
from radfield.rays import Rays
from radfield.renderers.composite import compact_streams, composite
from radfield.sampling.march import march
from radfield.sampling.occupancy import MIN_STEP, Config, OccupancyGrid
from radfield.training.adam import Adam

GRID = hash_grid.Config(levels=16, features=2, log2_size=19, base_resolution=16, growth=1.3819)
RESOLUTION, RADIUS = 128, 0.35
BOX = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


class Program:
    """A field, its optimiser, and the seconds spent in the field and in finding positions."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.field = radiance.RadianceField(radiance.Config(grid=GRID, precision="bf16"), generator=generator)
        grid = self.field.grid
        grid.grad_into = SampleGradients(grid.grid)
        groups = [{"parameter": grid.table.data, "grad": grid.grad_into, "shadow": grid.stored()}]
        for network in self.field.networks:
            network.grad_into = torch.zeros_like(network.weights)
            groups.append({"parameter": network.weights.data, "grad": network.grad_into})
        self.optimizer, self.samples = Adam(groups), 0
        self.field_seconds = self.position_seconds = 0.0

    def density(self, x):
        """[M], the field asked without gradient."""
        began = time.process_time()
        with torch.no_grad():
            found = self.field.density(x)
        self.field_seconds += time.process_time() - began
        return found

    def color_and_density(self, x, d):
        """[M, 3], [M], with gradients."""
        began = time.process_time()
        logit, features = self.field.geometry(x)
        found = self.field.color_logits(features, d).sigmoid(), logit.exp()
        self.field_seconds += time.process_time() - began
        return found

    def learn(self, color):
        """Backward and Adam."""
        (color - 0.5).square().mean().backward()
        self.optimizer.step(lr=1e-3)


class WithNerfacc(Program):
    """As a program for nerfacc has it."""

    def __init__(self):
        super().__init__()
        self.estimator = nerfacc.OccGridEstimator(BOX, RESOLUTION)
        self.estimator.binaries = ball()[None]

    def render(self, rays: Rays):
        """[N, 3] with gradients."""
        o, d = rays.origins, rays.directions

        def positions(t_starts, t_ends, ray):
            began = time.process_time()
            found = o[ray] + d[ray] * ((t_starts + t_ends) / 2)[:, None], d[ray]
            self.position_seconds += time.process_time() - began
            return found

        ray, t_starts, t_ends = self.estimator.sampling(
            o, d, sigma_fn=lambda *s: self.density(positions(*s)[0]), render_step_size=MIN_STEP, stratified=True
        )
        self.samples = len(ray)
        function = lambda a, b, ray: self.color_and_density(*positions(a, b, ray))  # noqa: E731
        return nerfacc.rendering(t_starts, t_ends, ray, n_rays=len(o), rgb_sigma_fn=function)[0]


class WithOurs(Program):
    """The same with radfield's march and compositing."""

    def __init__(self):
        super().__init__()
        self.grid, self.seed = OccupancyGrid(Config(resolution=RESOLUTION, threshold=0.0)), 0
        x, y, z = torch.meshgrid(*[torch.arange(RESOLUTION)] * 3, indexing="ij")
        self.grid.values.zero_()[morton(x) | morton(y) << 1 | morton(z) << 2] = ball().float()
        self.grid.refresh()

    def render(self, rays: Rays):
        """[N, 3] with gradients."""
        self.seed += 1
        s = march(rays, self.grid, step=MIN_STEP, jitter_seed=self.seed)
        with torch.no_grad():
            live = composite(self.density(s.x), s.x.new_empty(len(s.x), 0), s.t_start, s.t_end, s.ray_start).live
        streams = s.x, s.directions, s.t_start, s.t_end
        start, x, d, t_start, t_end = compact_streams(s.ray_start, live, *streams)
        self.samples = len(x)
        rgb, sigma = self.color_and_density(x, d)
        return composite(sigma, rgb, t_start, t_end, start, stop=0.0).color


def morton(x):
    """Two zero bits after each of the lower eight."""
    for shift, mask in ((8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        x = (x | x << shift) & mask
    return x


def ball():
    """[G, G, G] bool."""
    at = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION - 0.5
    return at[:, None, None].square() + at[:, None].square() + at.square() < RADIUS**2


def random_rays(count: int, generator: torch.Generator) -> Rays:
    """From around the cube towards points in it."""
    start = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1) * 1.5 + 0.5
    towards = torch.rand(count, 3, generator=generator) * 0.6 + 0.2
    return Rays(start, torch.nn.functional.normalize(towards - start, dim=1))


PARTS = ("layer", "positions", "field", "learn", "step")


def timed(program: Program, rays: Rays) -> dict[str, float]:
    """Seconds of a step and of its parts."""
    program.field_seconds, program.position_seconds, began = 0.0, 0.0, time.process_time()
    color = program.render(rays)
    rendered = time.process_time() - began
    program.learn(color)
    step = time.process_time() - began
    asked = program.field_seconds + program.position_seconds
    seconds = rendered - asked, program.position_seconds, program.field_seconds, step - rendered, step
    return dict(zip(PARTS, seconds, strict=True))


def figures_of(steps: list[tuple[dict, dict]]) -> dict[str, float]:
    """The medians, of pairs (with nerfacc, with ours) of steps."""
    names = {part: f"{part}_overhead" for part in PARTS} | {"layer": "overhead", "step": "program_overhead"}
    found = {
        name: round(statistics.median((theirs[part] - ours[part]) / ours["step"] for theirs, ours in steps), 4)
        for part, name in names.items()
    }
    for which, title in enumerate(("compat", "own")):
        for part in PARTS:
            median = statistics.median(pair[which][part] for pair in steps)
            found[f"{title}_{part}_ms"] = round(median * 1e3, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    library.set_num_threads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    programs, generator = (WithNerfacc(), WithOurs()), torch.Generator().manual_seed(0)
    steps = []
    for i in range(options.steps + 1):
        rays = random_rays(options.rays, generator)
        pair = [timed(program, rays) for program in (programs if i % 2 else programs[::-1])]
        steps += [pair if i % 2 else pair[::-1]] if i else []
    figures = {
        **figures_of(steps),
        "compat_samples": programs[0].samples,
        "own_samples": programs[1].samples,
        "rays": options.rays,
    }
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
