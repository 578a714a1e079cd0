"""Every encoding of positions by name: one line each. `radfield train --encoding NAME` and fields find them here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import BadInput
from . import (
    composite,
    dense_grid,
    factored,
    frequency_network,
    hash_grid,
    learned_probe,
    one_blob,
    saliency,
    simplex,
    sparse_voxels,
    triangle_wave,
)
from .encoding import Encoding
from .resizing import Schedule


@dataclass(frozen=True)
class Entry:
    """An encoding: its module, its Config, options in which it differs from the Config's defaults (among them its
    schedule and its regulariser), and the factors on the learning rate that its parameters, and the networks behind it,
    train best with (of that of a hash grid)."""

    module: type[Encoding]
    config: type
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    networks: float = 1.0


_GRID = hash_grid.HashGrid
ENCODINGS = {
    "hash": Entry(_GRID, hash_grid.Config),
    "simplex": Entry(simplex.Simplex, simplex.Config),
    "permutohedral": Entry(simplex.Simplex, simplex.Config, {"ordering": "permutohedral"}),
    "probe": Entry(learned_probe.LearnedProbe, learned_probe.Config),
    "dense": Entry(dense_grid.DenseGrid, dense_grid.Config, {"features": 2, "finest_resolution": 128}),
    "tiled": Entry(_GRID, hash_grid.Config, {"entries": "tiled", "base_resolution": 64}),
    "nearest": Entry(_GRID, hash_grid.Config, {"nearest": True}),
    "triplane": Entry(
        factored.Triplane,
        factored.TriplaneConfig,
        {"finest_resolution": 512, "schedule": Schedule(0.25, (0.07, 0.12, 0.2, 0.3), 0.15)},
        0.67,
        0.3,
    ),
    "vm": Entry(factored.VM, factored.VMConfig, {"schedule": Schedule(0.43, (0.07, 0.12, 0.2, 0.3), 0.15)}, 0.67, 0.3),
    "cp": Entry(factored.CP, factored.CPConfig, {"schedule": Schedule(0.25, (0.07, 0.12, 0.2, 0.3), 0.15)}, 0.67, 0.3),
    "sparse": Entry(sparse_voxels.SparseVoxels, sparse_voxels.Config, {"schedule": Schedule(0.18, (0.1, 0.35))}),
    "frequency": Entry(frequency_network.FrequencyNetwork, frequency_network.Config, networks=0.1),
    "one-blob": Entry(one_blob.OneBlob, one_blob.Config),
    "triangle-wave": Entry(triangle_wave.TriangleWave, triangle_wave.Config),
    "composite": Entry(composite.Composite, composite.Config),
    "saliency": Entry(saliency.Saliency, saliency.Config),
}


def config_of(name: str, **options):
    """The Config of the encoding `name`, with those of `options` that it has; what the registry fixes stays. Where it
    has a growth, that leads from `base_resolution` to `finest_resolution` in `levels` levels."""
    if name not in ENCODINGS:
        raise BadInput(f"encoding is {name!r}; the rule: one of {', '.join(ENCODINGS)}")
    entry = ENCODINGS[name]
    options |= entry.options
    if {"finest_resolution", "base_resolution", "levels"} <= options.keys():
        for name in ("base_resolution", "finest_resolution", "levels"):
            if not 1 <= options[name] < math.inf:
                raise BadInput(f"encoding: {name} is {options[name]}; the rule: at least 1, finite")
        steps = max(options["levels"] - 1, 1)
        options["growth"] = (options["finest_resolution"] / options["base_resolution"]) ** (1 / steps)
    names = {f.name for f in dataclasses.fields(entry.config)}
    return entry.config(**{k: v for k, v in options.items() if k in names})


def build(dimensions: int, config, generator: torch.Generator | None = None, *, outside: str = "clamp") -> Encoding:
    """The module that `config` is of; `outside` is its policy for positions outside [0, 1] (outside.py). Raises
    `BadInput` on options out of range."""
    for entry in ENCODINGS.values():
        if type(config) is entry.config:
            module = entry.module(dimensions, config, generator)
            module.outside = outside
            return module
    raise BadInput(f"encoding's config is a {type(config).__name__}; the rule: the Config of a registered encoding")
