"""One full training step of a radiance field at 2^18 packed samples, by stages.

Hash grid L16 F2 T2^19 N16..2048 (12,196,240 parameters), density MLP 32-64-16, SH degree 4, colour MLP 32-64-64-3,
compositing, backward, Adam over every parameter; 4,096 random rays through the unit cube with 64 samples each, fresh
every step. Also grid + MLP 32-64-64-16 forward and backward, and the ratio to the plain torch reference.

    python benchmarks/train_step.py [--precision bf16|f32] [--no-amx] [--json] [--reference] [--save FILE]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from common import median_seconds, report

from radfield import backend
from radfield.cpu import library
from radfield.encodings import hash_grid
from radfield.encodings.hash_grid_adam import SampleGradients
from radfield.fields import radiance
from radfield.losses import mse
from radfield.networks import mlp
from radfield.renderers.composite import composite_raw
from radfield.training.adam import Adam
from radfield.training.stages import Stages

RAYS, PER_RAY = 4096, 64
STEP = 3**0.5 / 1024
KERNELS = {0: "fp32", 2: "AVX512-BF16", 3: "AMX", mlp.SPLIT: "fp32 by AMX (operands split into three bf16)"}
GRID = hash_grid.Config(levels=16, features=2, log2_size=19, base_resolution=16, growth=1.3819)


def random_samples(generator: torch.Generator, rays: int) -> dict:
    """Packed samples of random rays, reflected into the unit cube so that each has its full number."""
    origins = torch.rand(rays, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=1)
    t = torch.arange(PER_RAY) * STEP
    x = origins.T[:, :, None] + directions.T[:, :, None] * t
    x = (x - 2 * torch.floor(x * 0.5 + 0.5)).abs().clamp(0, 1)
    return {
        "x": x.reshape(3, -1).T,
        "directions": directions.T[:, :, None].expand(3, rays, PER_RAY).reshape(3, -1).T,
        "t_start": t.repeat(rays),
        "t_end": (t + STEP).repeat(rays),
        "ray_start": torch.arange(rays + 1, dtype=torch.int32) * PER_RAY,
    }


class Step:
    """A field with its optimiser, and one training step of it."""

    def __init__(self, precision: str, rays: int):
        self.generator = torch.Generator().manual_seed(0)
        self.field = radiance.RadianceField(radiance.Config(grid=GRID, precision=precision), generator=self.generator)
        self.rays, self.stages = rays, Stages()
        grid = self.field.grid
        grid.grad_into = SampleGradients(grid.grid)
        groups = [{"parameter": grid.table.data, "grad": grid.grad_into, "shadow": grid.stored()}]
        for network in (self.field.density_network, self.field.color_network):
            network.grad_into = torch.zeros_like(network.weights)
            groups.append({"parameter": network.weights.data, "grad": network.grad_into})
        self.optimizer = Adam(groups)
        self.samples = None

    def refresh(self):
        """Fresh rays; not part of the step's time, since they stand for what a march delivers."""
        self.samples = random_samples(self.generator, self.rays)

    def __call__(self):
        field, stages, s = self.field, self.stages, self.samples
        rays = {k: s[k] for k in ("t_start", "t_end", "ray_start")}
        with stages("encode"):
            encoded = field.encode(s["x"])
        with stages("networks"):
            logit, features = field.geometry(s["x"], encoded)
            colors = field.color_logits(features, s["directions"])
        with stages("composite"):
            seen = composite_raw(logit, colors, **rays)
            loss = mse(seen.color, torch.full_like(seen.color, 0.5))
        with stages("backward"):
            loss.backward()
        with stages("adam"):
            self.optimizer.step(lr=1e-2)


def step_seconds(step: Step, repeats: int) -> tuple[float, dict]:
    """Median seconds of a step, and milliseconds by stage."""
    seconds = []
    for i in range(repeats + 2):
        step.refresh()
        if i == 2:
            step.stages.seconds.clear()
        took = median_seconds_once(step)
        seconds += [took] if i >= 2 else []
    stages = {k: round(v / repeats * 1e3, 2) for k, v in step.stages.seconds.items()}
    return sorted(seconds)[len(seconds) // 2], stages


def median_seconds_once(function) -> float:
    """Seconds of one call."""
    import time

    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def grid_and_network(precision: str) -> float:
    """Samples per second of grid + MLP 32-64-64-16, forward and backward."""
    grid = hash_grid.HashGrid(3, hash_grid.Config(**{**vars(GRID), "precision": precision}))
    network = mlp.MLP(32, 16, mlp.Config(width=64, hidden_layers=2, precision=precision))
    grid.grad_into, network.grad_into = torch.zeros_like(grid.table), torch.zeros_like(network.weights)
    x = torch.rand(3, RAYS * PER_RAY).T
    weights = torch.randn(16, RAYS * PER_RAY).T

    def run():
        network(grid(x)).backward(weights)

    return RAYS * PER_RAY / median_seconds(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--no-amx", action="store_true", help="networks keep off AMX (as with RADFIELD_AMX=0)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--reference", action="store_true", help="also time the torch reference (about a minute)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    if options.no_amx:
        os.environ["RADFIELD_AMX"] = "0"
    library.set_num_threads(options.threads or library.default_num_threads())
    torch.set_num_threads(1)
    step = Step(options.precision, RAYS)
    seconds, stages = step_seconds(step, options.repeats)
    samples = RAYS * PER_RAY
    figures = {
        "samples_per_s": samples / seconds,
        "step_ms": seconds * 1e3,
        "stages_ms": stages,
        "precision": options.precision,
        "mlp_kernel": KERNELS[mlp.kernel_of(step.field.density_network.config, step.samples["x"])],
        "grid_mlp_samples_per_s": grid_and_network(options.precision),
        "parameters": step.field.grid.table.numel(),
    }
    if options.reference:
        torch.set_num_threads(library.num_threads())
        small = reference_step(RAYS // 8)
        figures["reference_samples_per_s"] = RAYS // 8 * PER_RAY / small
        figures["ratio_to_reference"] = figures["samples_per_s"] / figures["reference_samples_per_s"]
    report(figures, options.json, options.save)


def reference_step(rays: int) -> float:
    """Seconds of one step in plain torch with torch's fused Adam, on fewer rays (it takes long)."""
    generator = torch.Generator().manual_seed(0)
    field = radiance.RadianceField(radiance.Config(grid=GRID), generator=generator)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2, eps=1e-15, fused=True)
    s = random_samples(generator, rays)

    def run():
        with backend.use("reference"):
            logit, features = field.geometry(s["x"])
            colors = field.color_logits(features, s["directions"])
            seen = composite_raw(logit, colors, s["t_start"], s["t_end"], s["ray_start"])
            mse(seen.color, torch.full_like(seen.color, 0.5)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return median_seconds(run, 3)


if __name__ == "__main__":
    main()
