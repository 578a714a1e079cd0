"""tiny-cuda-nn's networks, FullyFusedMLP and CutlassMLP, by their configurations, with its layout of weights.

Layer by layer a row-major matrix [outputs, inputs], no bias; the network's inputs and outputs are padded to multiples
of 16. Both types are one network here, the native MLP in 32 bits. Plain torch run, announced once, hidden activations
that it lacks (LeakyReLU, Exponential, Sigmoid, Squareplus, Softplus with its sharpness of 10, Tanh) and sizes that it
lacks; activations of the outputs are torch throughout.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from ..errors import BadInput, warn
from ..networks import mlp
from .tcnn_config import check_dict, choice, integer

_SHARPNESS = 10.0  # of Softplus and Squareplus
ACTIVATIONS = {
    "None": lambda z: z,
    "ReLU": torch.relu,
    "LeakyReLU": lambda z: functional.leaky_relu(z, 0.01),
    "SiLU": functional.silu,
    "Exponential": torch.exp,
    "Sine": torch.sin,
    "Sigmoid": torch.sigmoid,
    "Squareplus": lambda z: (z * _SHARPNESS + torch.sqrt((z * _SHARPNESS) ** 2 + 4)) / (2 * _SHARPNESS),
    "Softplus": lambda z: torch.logaddexp(z * _SHARPNESS, torch.zeros_like(z)) / _SHARPNESS,
    "Tanh": torch.tanh,
}
_NATIVE = {"None": "none", "ReLU": "relu", "SiLU": "silu", "Sine": "sine"}
_TYPES = {"FullyFusedMLP": True, "MegakernelMLP": True, "CutlassMLP": False, "MLP": False}
ALIGNMENT = 16


class Mlp:
    """A network of `inputs` channels (a multiple of 16) and `outputs`, of which the first are the user's."""

    def __init__(self, inputs: int, outputs: int, config: dict):
        check_dict("network", config)
        otype = choice(config, "otype", "MLP", tuple(_TYPES))
        width = integer(config, "n_neurons", 128, 1, 4096)
        hidden = integer(config, "n_hidden_layers", 5, int(_TYPES[otype]), 256)
        if _TYPES[otype] and width not in (16, 32, 64, 128):
            raise BadInput(f"tinycudann: n_neurons of {otype} is {width}; the rule: 16, 32, 64 or 128, or CutlassMLP")
        self.activation = choice(config, "activation", "ReLU", tuple(ACTIVATIONS))
        self.output_activation = choice(config, "output_activation", "None", tuple(ACTIVATIONS))
        sizes = [inputs, *[width] * hidden, -(-outputs // ALIGNMENT) * ALIGNMENT]
        self.shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        self.n_params = sum(rows * columns for rows, columns in self.shapes)
        self.layers = self._native_layers(width, hidden)

    def _native_layers(self, width: int, hidden: int) -> mlp.Layers | None:
        """The table of the native network; None, announced, where there is none of these sizes or activation."""
        try:
            name = _NATIVE[self.activation if hidden else "None"]
            config = mlp.Config(width=width if hidden else 16, hidden_layers=hidden, activation=name)
            return mlp.layers_of(self.shapes[0][1], self.shapes[-1][0], config)
        except (KeyError, BadInput):
            what = f"{hidden} hidden layers of {width} with {self.activation}"
            warn(f"tinycudann: the native MLP has no network of {what}: it runs as plain torch, slowly")
            return None

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Weights to start from: Xavier-uniform, or for Sine as Sitzmann et al. 2020 (SIREN) with frequency 30."""
        parts = []
        for layer, (rows, columns) in enumerate(self.shapes):
            bound = math.sqrt(6 / (rows + columns))
            if self.activation == "Sine":
                bound = math.sqrt(6 / columns) if layer else 30 / columns
            parts.append((torch.rand(rows * columns, generator=generator) * 2 - 1) * bound)
        return torch.cat(parts)

    def __call__(self, x: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        """Outputs [M, O], O padded, of `x` [M, I] with the weights `params` [P]."""
        if self.layers is not None:
            y = mlp.mlp(x, None, params, self.layers)
        else:
            y = self._plain(x, params)
        return ACTIVATIONS[self.output_activation](y)

    def _plain(self, x, params):
        weights = params.split([rows * columns for rows, columns in self.shapes])
        for layer, (shape, weight) in enumerate(zip(self.shapes, weights, strict=True)):
            x = x @ weight.view(shape).T
            x = ACTIVATIONS[self.activation](x) if layer < len(self.shapes) - 1 else x
        return x
