"""The backend "tcnn": hash grids and networks by tiny-cuda-nn's own Python package, where it is installed, to measure
side by side. Everything else runs where it would run without it; radfield never needs that package.

Parameters stay radfield's: a module of tinycudann is called with them in its own layout, which for grids is the same,
and for networks has inputs and outputs padded to 16. It computes in 16 bits. What it has not (bias, skip layers, other
interpolations than its own, rows counted on a device) raises `BadInput`.

Letters: M samples, D dimensions, E entries of F features, A and O inputs and outputs of a network.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from types import ModuleType

import torch
from torch import Tensor

from .. import backend
from ..errors import BadInput
from ..tensors import gradient_into

_ACTIVATIONS = {"none": "None", "relu": "ReLU", "silu": "SiLU", "sine": "Sine"}
_FUSED_WIDTHS = (16, 32, 64, 128)


def unavailable() -> str | None:
    """Why the backend cannot be used here, in one line; None where it can."""
    from . import tinycudann as ours

    found = sys.modules.get("tinycudann")
    if found is ours:
        return "`tinycudann` is radfield's own stand-in here (radfield.compat.install)"
    if found is None and importlib.util.find_spec("tinycudann") is None:
        return "tinycudann is not installed (it is on no package index: github.com/NVlabs/tiny-cuda-nn says how)"
    try:
        importlib.import_module("tinycudann")
    except (ImportError, OSError) as error:  # it refuses to be imported without a GPU
        return f"tinycudann cannot be imported ({' '.join(str(error).split())[:150]})"
    return None


def _package() -> ModuleType:
    return importlib.import_module("tinycudann")


def hash_grid(x: Tensor, table: Tensor, grid, dtype: torch.dtype, grad_into) -> Tensor:
    """Features [M, L F] of `x` [M, D]; arguments as those of `encodings.hash_grid.hash_grid`."""
    module = _encoding(grid.dimensions, _Grid(grid))
    if grad_into is None or isinstance(grad_into, Tensor):
        table = gradient_into(table, grad_into)
    else:
        table = _WholeGradient.apply(table, grad_into)
    return _call(module, x, table.reshape(-1), grid.channels).to(dtype)


def mlp(x0: Tensor, x1: Tensor | None, parameters: Tensor, layers, dtype: torch.dtype, head: int, grad_into):
    """Outputs [M, O]; arguments as those of `networks.mlp.mlp`."""
    x = x0 if x1 is None else torch.cat((x0.float(), x1.float()), 1)
    module = _network(layers.inputs, layers.outputs, layers.config)
    y = _call(module, x, _padded(gradient_into(parameters, grad_into), layers), layers.outputs)
    return (y.to(dtype), y[:, :head].float()) if head else y.to(dtype)


def _call(module, x: Tensor, parameters: Tensor, columns: int) -> Tensor:
    with backend.unforced():
        return torch.func.functional_call(module, {"params": parameters}, (x.float().contiguous(),))[:, :columns]


class _Grid:
    """A grid's levels as a key, by what tinycudann is told of them."""

    def __init__(self, grid):
        from ..encodings.hash_grid import OPS

        sizes, rules = grid.levels[:, 1], grid.levels[:, 3]
        first, last = float(grid.scales[0]) + 1, float(grid.scales[-1]) + 1
        if grid.ops is not OPS or bool((rules == 2).any()):
            raise BadInput(
                "backend 'tcnn': it has no such interpolation or rule; the rule: hash grids, hashed or dense"
            )
        self.config = {
            "otype": "Grid",
            "type": "Hash",
            "n_levels": len(grid.levels),
            "n_features_per_level": grid.features,
            "log2_hashmap_size": max(int(sizes.max()) - 1, 1).bit_length(),
            "base_resolution": round(first),
            "per_level_scale": (last / first) ** (1 / max(len(grid.levels) - 1, 1)),
            "interpolation": ("Linear", "Smoothstep", "Nearest")[grid.smoothstep],
        }
        self.entries = grid.entries * grid.features

    def __hash__(self):
        return hash(tuple(self.config.items()))

    def __eq__(self, other):
        return self.config == other.config


@functools.lru_cache(maxsize=8)
def _encoding(dimensions: int, key: _Grid):
    module = _package().Encoding(dimensions, key.config)
    if module.params.numel() != key.entries:
        raise BadInput(
            f"backend 'tcnn': its grid has {module.params.numel()} parameters; the rule: {key.entries}, radfield's"
        )
    return module


@functools.lru_cache(maxsize=8)
def _network(inputs: int, outputs: int, config):
    names = {config.activation, config.output_activation}
    if config.bias or config.skip is not None or not names <= set(_ACTIVATIONS):
        raise BadInput("backend 'tcnn': the network has a bias, a skip layer or softplus; the rule: none of them")
    fused = config.width in _FUSED_WIDTHS and config.hidden_layers > 0
    options = {
        "otype": "FullyFusedMLP" if fused else "CutlassMLP",
        "activation": _ACTIVATIONS[config.activation],
        "output_activation": _ACTIVATIONS[config.output_activation],
        "n_neurons": config.width,
        "n_hidden_layers": config.hidden_layers,
    }
    return _package().Network(inputs, outputs, options)


def _padded(parameters: Tensor, layers) -> Tensor:
    """The weights with inputs and outputs padded to multiples of 16 by zeros."""
    parts = []
    for fan_in, fan_out, offset, _ in layers.table.tolist():
        weights = parameters[offset : offset + fan_in * fan_out].view(fan_out, fan_in)
        parts.append(torch.nn.functional.pad(weights, (0, -fan_in % 16, 0, -fan_out % 16)).reshape(-1))
    return torch.cat(parts)


class _WholeGradient(torch.autograd.Function):
    """The table, whose whole gradient goes to a `SampleGradients`."""

    @staticmethod
    def forward(ctx, table, into):
        ctx.into = into
        return table.view_as(table)

    @staticmethod
    def backward(ctx, grad):
        ctx.into.add_whole(grad.float())
        return None, None
