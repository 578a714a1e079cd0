"""Saliency mask against the plain grid at small tables, on a sparse scene (Xie et al. 2023, HollowNeRF: the quality of
a hash grid of T = 2^19 with 31 % of its parameters, up to 1 dB more with 56 %).

Both are trained for the same number of steps with 16 levels of 2 features from 16 to 1024, a vertex more per axis, and
the networks of the method ngp. Where no capture is given, the synthetic scene "wires" is made. Published counts: the
encoding with HollowNeRF's own networks (32-64-16 and 31-64-64-3; ours have 64 parameters more).

python benchmarks/claims/hollow.py [CAPTURE] [--steps 2000] [--batch 65536] [--max-size 800] [--views 20] [--json]
    [--save FILE] [--plot FILE.svg]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from fitting import capture_of, fit, options_of, plot, report

from radfield.data.synthetic import write_synthetic_capture
from radfield.encodings import hash_grid, saliency

SIZES = (11, 13, 15, 17, 19)
NETWORKS = 9_344


def grid_config(log2_size: int) -> hash_grid.Config:
    return hash_grid.Config(16, 2, log2_size, growth=64 ** (1 / 15), border=True)


def published_counts() -> dict:
    """Parameters of encoding and networks, for the tables that the paper names."""
    counts = {t: hash_grid.grid_levels(3, grid_config(t)).entries * 2 + NETWORKS for t in (17, 18, 19)}
    return {"saliency T=2^17": counts[17] + 64**3, "saliency T=2^18": counts[18] + 64**3, "plain T=2^19": counts[19]}


def wires(folder: Path, max_size: int) -> Path:
    """The synthetic capture "wires"."""
    return write_synthetic_capture(folder / "wires", "wires", views=100, val_views=20, size=min(max_size, 800))


def compare(scene, options) -> dict:
    """Figures by table size of both."""
    figures = {}
    for t in options.sizes or SIZES:
        for name, config in (("plain", grid_config(t)), ("saliency", saliency.Config(grid_config(t)))):
            model, row = fit(scene, config, steps=options.steps, batch=options.batch, views=options.views)
            if name == "saliency":
                row["mean_of_mask"] = float(model.field.grid.mean())
            figures[f"{name} T=2^{t}"] = row
            options.say(f"{name} T=2^{t}", row)
        figures[f"gain T=2^{t}"] = figures[f"saliency T=2^{t}"]["psnr"] - figures[f"plain T=2^{t}"]["psnr"]
    return figures


def main() -> None:
    options = options_of(__doc__, steps=2000, batch=1 << 16, max_size=800, views=20, optional_capture=True)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        capture = options.capture or wires(Path(folder), options.max_size)
        scene = capture_of(capture, options.max_size)
        figures = {
            "capture": capture.name,
            "steps": options.steps,
            "batch": options.batch,
            "max_size": options.max_size,
        }
        figures |= {"published_counts": published_counts(), **compare(scene, options)}
    report(figures, options.json, options.save)
    if options.plot:
        rows = {name: [figures[f"{name} T=2^{t}"] for t in options.sizes or SIZES] for name in ("saliency", "plain")}
        points = {n: ([r["parameters"] / 1e3 for r in found], [r["psnr"] for r in found]) for n, found in rows.items()}
        plot(options.plot, "PSNR (dB) against parameters", "thousand parameters", points)


if __name__ == "__main__":
    main()
