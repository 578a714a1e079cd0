"""Simplex interpolation against the hash grid's: n + 1 against 2^n entries per point and level (Wen and Yang, arXiv
2311.15439: time linear in n; 9.4 % less time for an image, at most 41.2 % faster volumes).

Median times of 2^18 random points, 16 levels of 2 features, T = 2^19, growth 1.3819 from 16; grid and simplex take
turns, so that both see the same load. Hash grids have at most 4 dimensions here.

python benchmarks/claims/simplex.py [--json] [--save FILE] [--plot FILE.svg] [--dimensions 2 3 4 5 6]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import report

from radfield.encodings import hash_grid, simplex

POINTS = 1 << 18


def encodings(dimensions: int) -> dict:
    """The hash grid, where there is one, and the simplex encoding by both conventions."""
    found = {}
    if dimensions <= 4:
        found["grid"] = hash_grid.HashGrid(dimensions)
    for convention in ("vertices", "cells"):
        found[convention] = simplex.Simplex(dimensions, simplex.Config(convention=convention))
    return found


def milliseconds(dimensions: int, repeats: int) -> dict:
    """Median milliseconds of forward and backward pass of each encoding, interleaved."""
    x = torch.rand(dimensions, POINTS, generator=torch.Generator().manual_seed(0)).T
    calls = {}
    for name, encoding in encodings(dimensions).items():
        encoding.grad_into = torch.zeros_like(encoding.table)
        features = encoding(x)
        weights = torch.randn_like(features)

        def forward(encoding=encoding):
            with torch.no_grad():
                encoding(x)

        def backward(features=features, weights=weights):
            features.backward(weights, retain_graph=True)

        calls[f"{name}_forward"], calls[f"{name}_backward"] = forward, backward
    times = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - began)
    return {name: round(1e3 * statistics.median(values), 2) for name, values in times.items()}


def plot(figures: dict, path: Path) -> None:
    """Forward time against dimension, as a plain SVG."""
    rows = {d: figures[f"{d}d_ms"] for d in range(2, 7) if f"{d}d_ms" in figures}
    top = max(max(v for k, v in row.items() if k.endswith("forward")) for row in rows.values())
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 460 300" font-family="sans-serif" font-size="12">']
    lines.append('<text x="20" y="18">forward, ms for 2^18 points, against dimension</text>')
    for name, color in (("grid", "#c33"), ("vertices", "#36c"), ("cells", "#3a3")):
        points = [(d, row[f"{name}_forward"]) for d, row in rows.items() if f"{name}_forward" in row]
        if not points:
            continue
        at = [(60 + 80 * (d - 2), 270 - 230 * v / top) for d, v in points]
        lines.append(f'<polyline fill="none" stroke="{color}" points="{" ".join(f"{x},{y:.1f}" for x, y in at)}"/>')
        for (x, y), (_, v) in zip(at, points, strict=True):
            lines.append(f'<text x="{x}" y="{y - 4:.1f}" fill="{color}">{v:g}</text>')
        label = {"grid": "grid", "vertices": "simplex, equal vertices", "cells": "simplex, equal N"}[name]
        lines.append(f'<text x="{at[-1][0] - 60}" y="{at[-1][1] - 18:.1f}" fill="{color}">{label}</text>')
    lines += [f'<text x="{57 + 80 * (d - 2)}" y="290">{d}</text>' for d in rows]
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 3, 4, 5, 6], choices=range(2, 7))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {"points": POINTS}
    for dimensions in options.dimensions:
        print(f"{dimensions} dimensions", file=sys.stderr)
        row = figures[f"{dimensions}d_ms"] = milliseconds(dimensions, options.repeats)
        if dimensions <= 4:
            for name in ("vertices", "cells"):
                ratio = {way: row[f"grid_{way}"] / row[f"{name}_{way}"] for way in ("forward", "backward")}
                figures[f"{dimensions}d_speed_{name}"] = {way: round(value, 2) for way, value in ratio.items()}
    report(figures, options.json, options.save)
    if options.plot:
        plot(figures, options.plot)


if __name__ == "__main__":
    main()
