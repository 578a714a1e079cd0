"""Simplex interpolation against the hash grid's: n + 1 against 2^n entries per point and level (Wen and Yang, arXiv
2311.15439: time linear in n; 9.4 % less time for an image, at most 41.2 % faster volumes).

Median CPU time of one thread for 2^18 random points, 16 levels of 2 features, T = 2^19, growth 1.3819 from 16; grid and
simplex take turns, so that both see the same load. Hash grids have at most 4 dimensions here. Two conventions: as many
vertices as the grid has (equal memory), and the grid's N (coarser; fewer vertices).

python benchmarks/claims/simplex.py [--precision f32|bf16] [--json] [--save FILE] [--plot FILE.svg]
    [--dimensions 2 3 4 5 6]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from fitting import cpu_ms, plot, report

from radfield.encodings import hash_grid, simplex

POINTS = 1 << 18


NAMES = {"grid": "hash grid", "vertices": "simplex, equal vertices", "cells": "simplex, equal N"}


def encodings(dimensions: int, precision: str) -> dict:
    """The hash grid, where there is one, and the simplex encoding by both conventions."""
    found = {}
    if dimensions <= 4:
        found["grid"] = hash_grid.HashGrid(dimensions, hash_grid.Config(precision=precision))
    for convention in ("vertices", "cells"):
        config = simplex.Config(convention=convention, precision=precision)
        found[convention] = simplex.Simplex(dimensions, config)
    return found


def milliseconds(dimensions: int, precision: str, repeats: int) -> dict:
    """Median milliseconds of forward and backward pass of each encoding, interleaved."""
    x = torch.rand(dimensions, POINTS, generator=torch.Generator().manual_seed(0)).T
    calls = {}
    for name, encoding in encodings(dimensions, precision).items():
        encoding.grad_into = torch.zeros_like(encoding.table)
        with torch.enable_grad():
            features = encoding(x)
        calls[f"{name}_forward"] = lambda encoding=encoding: encoding(x)
        weights = torch.randn_like(features)
        calls[f"{name}_backward"] = lambda f=features, w=weights: f.backward(w, retain_graph=True)
    return cpu_ms(calls, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 3, 4, 5, 6], choices=range(2, 7))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {"points": POINTS, "precision": options.precision, "threads": 1}
    for dimensions in options.dimensions:
        print(f"{dimensions} dimensions", file=sys.stderr)
        row = figures[f"{dimensions}d_ms"] = milliseconds(dimensions, options.precision, options.repeats)
        if dimensions <= 4:
            for name in ("vertices", "cells"):
                ratio = {way: row[f"grid_{way}"] / row[f"{name}_{way}"] for way in ("forward", "backward")}
                figures[f"{dimensions}d_speed_{name}"] = {way: round(value, 3) for way, value in ratio.items()}
    report(figures, options.json, options.save)
    if options.plot:
        rows = {d: figures[f"{d}d_ms"] for d in options.dimensions}
        points = {
            label: (
                [d for d in rows if f"{name}_forward" in rows[d]],
                [r[f"{name}_forward"] for r in rows.values() if f"{name}_forward" in r],
            )
            for name, label in NAMES.items()
        }
        plot(options.plot, "Forward pass, ms for 2^18 points", "dimensions", points)


if __name__ == "__main__":
    main()
