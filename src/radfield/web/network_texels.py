"""A network as texels that a fragment shader reads (`common.js: networkCode`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks import mlp


def texels(network: mlp.MLP) -> Tensor:
    """[T, 4] float16. Of each layer, for 4 outputs and 4 inputs at a time, a texel per input with its weight for each
    of the outputs; then the biases. Padded by zeros."""
    parts, weights = [], network.weights.detach()
    for inputs, outputs, offset, _ in network.layers.table.tolist():
        end = offset + inputs * outputs
        matrix, bias = weights[offset:end].view(outputs, inputs), weights[end : end + outputs]
        matrix = torch.nn.functional.pad(matrix, (0, -inputs % 4, 0, -outputs % 4))
        blocks = matrix.view(matrix.shape[0] // 4, 4, matrix.shape[1] // 4, 4).permute(0, 2, 3, 1)
        parts += [blocks.reshape(-1, 4), torch.nn.functional.pad(bias, (0, -outputs % 4)).view(-1, 4)]
    return torch.cat(parts).half()


def layer_sizes(network: mlp.MLP) -> list[list[int]]:
    """[inputs, outputs] of each layer."""
    return [row[:2] for row in network.layers.table.tolist()]


@torch.no_grad()
def round_weights(network: mlp.MLP) -> None:
    """Makes the weights what `texels` stores of them."""
    network.weights.copy_(network.weights.half().float())
