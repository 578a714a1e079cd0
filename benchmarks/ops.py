"""Single ops at the sizes that applications use: hash grid, grid + MLP in one pass and in two, image loss, import time.

python benchmarks/ops.py [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from common import median_seconds, report

from radfield.encodings.hash_grid import Config as GridConfig
from radfield.encodings.hash_grid import HashGrid
from radfield.image_loss import image_loss
from radfield.networks.grid_mlp import grid_mlp
from radfield.networks.mlp import MLP
from radfield.networks.mlp import Config as NetworkConfig

SAMPLES = 1 << 18


def grid_figures(precision: str) -> dict:
    """Million samples per second of the grid L16 F2 T2^19 at random points, and of grid + MLP 32-64-16."""
    grid = HashGrid(3, GridConfig(precision=precision))
    network = MLP(grid.channels, 16, NetworkConfig(64, 1, precision=precision))
    grid.grad_into = torch.zeros_like(grid.table)
    x = torch.rand(3, SAMPLES).T
    features = grid(x)
    weights = torch.randn_like(features)
    with torch.no_grad():
        times = {
            "grid_forward": median_seconds(lambda: grid(x)),
            "two_passes": median_seconds(lambda: network(grid(x))),
            "one_pass": median_seconds(lambda: grid_mlp(x, grid, network)),
        }
    times["grid_backward"] = median_seconds(lambda: features.backward(weights, retain_graph=True))
    return {name: round(SAMPLES / t / 1e6, 2) for name, t in times.items()}


def image_loss_ms() -> float:
    """Milliseconds of SSIM + L1, forward and backward, at 800 x 800."""
    image, target = torch.rand(800, 800, 3, requires_grad=True), torch.rand(800, 800, 3)

    def run():
        image.grad = None
        image_loss(image, target).backward()

    return median_seconds(run, 15) * 1e3


def import_seconds() -> float:
    """Seconds of `import radfield` beyond `import torch`, best of five processes."""
    code = "import torch, time; t = time.perf_counter(); import radfield; print(time.perf_counter() - t)"
    runs = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(5))
    return min(float(run.stdout) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        "bf16_m_samples_per_s": grid_figures("bf16"),
        "f32_m_samples_per_s": grid_figures("f32"),
        "image_loss_800_ms": image_loss_ms(),
        "import_seconds": import_seconds(),
    }
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
