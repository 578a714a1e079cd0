"""The plain MLP of NeRF as an encoding (Mildenhall et al. 2020, sec. 3 and fig. 7): sines and cosines of the position,
then a deep, wide network that sees them again half way.

    features = W_K relu(... relu(W_0 [gamma(x), x] + b_0) ...) + b_K,   gamma: frequency.py

Its outputs take the place of a grid's features, so that the field's own small networks stay what they are behind any
encoding (as in PVD, Fang et al. 2023, whose MLP ends in the 28 channels of its hash grid).
Letters: M samples, D dimensions, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks import mlp
from .encoding import Encoding
from .frequency import frequency
from .outside import clamped


@dataclass(frozen=True)
class Config:
    """The plain MLP's options."""

    frequencies: int = 10  # number of frequencies, 1 to 24; the highest is 2^(K-1) half turns per unit
    width: int = 256  # channels of a hidden layer, 16 to 256
    hidden_layers: int = 8  # number of hidden layers; the middle one sees the sines and cosines again
    channels: int = 32  # outputs
    rate: float = 0.03  # factor on the learning rate
    precision: str = "f32"  # "bf16" rounds features and the operands of products to 16 bits; sums stay fp32


class FrequencyNetwork(Encoding):
    """The encoding as a module: [M, D] in [0, 1] -> [M, `channels`]. Weights start Xavier-uniform, biases at 0."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions)
        self.config, self.channels = config, config.channels
        frequency(torch.zeros(0, dimensions), config.frequencies)  # raises where their number is out of range
        middle = config.hidden_layers // 2 or None
        layers = {"width": config.width, "hidden_layers": config.hidden_layers, "skip": middle, "bias": True}
        inputs = dimensions * (2 * config.frequencies + 1)
        self.network = mlp.MLP(inputs, config.channels, mlp.Config(**layers, precision=config.precision), generator)
        self._dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        x = clamped(x)
        return self.network(frequency(x, self.config.frequencies), x, dtype=self._dtype)

    def adam_groups(self) -> list[dict]:
        """The network's weights, whose gradient it adds into one kept buffer."""
        network = self.network
        network.grad_into = torch.zeros_like(network.weights)
        return [{"parameter": network.weights.data, "grad": network.grad_into, "scale": self.config.rate}]
