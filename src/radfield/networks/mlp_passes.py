"""The MLP's native ops on streams, for code that writes its own backward pass (fields/surface_passes.py).

Streams are [channels, M], contiguous; gradients of parameters go to the network's `grad_into`, by addition. Letters as
in mlp.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadInput
from ..tensors import on_device
from .mlp import ACTIVATIONS, BACKWARD, FORWARD, MLP, chunks, kernel_of


def forward(
    network: MLP,
    x0: Tensor,
    x1: Tensor | None,
    y: Tensor,
    head: Tensor | None = None,
    *,
    count: Tensor | None = None,
) -> None:
    """Writes the outputs y [O, M] and, in float32, the first of them to head [H, M]. count: [1] int64, the samples in
    use, where only a device knows how many; others are neither read nor written."""
    FORWARD(y=y, head=head, x0=x0, x1=x1, count=count, kernel=_kernel(network, x0), **_network(network))


def backward(
    network: MLP,
    x0: Tensor,
    x1: Tensor | None,
    *,
    grad_y: Tensor | None = None,
    grad_head: Tensor | None = None,
    grad_x0: Tensor | None = None,
    grad_x1: Tensor | None = None,
    tangent0: Tensor | None = None,
    tangent1: Tensor | None = None,
    parameters: bool = True,
    count: Tensor | None = None,
) -> None:
    """Writes the gradients of the inputs to grad_x0 and grad_x1 where given, from those of the outputs. With tangents
    [A, M] and [B, M] the parameters also get the gradient of the first output's derivative along them, for which
    activations must be piecewise linear. count: as in `forward`."""
    config = network.config
    linear = {config.activation, config.output_activation} <= {"relu", "none"} and config.skip is None
    if tangent0 is not None and not linear:
        raise BadInput(f"MLP: activation is {config.activation}; the rule: relu or none, without skip, with tangents")
    chunk, partial = chunks(network.layers, x0, x0.shape[1])
    BACKWARD(
        grad_x0=grad_x0,
        grad_x1=grad_x1,
        grad_parameters=network.grad_into if parameters else None,
        partial=partial,
        grad_y=grad_y,
        grad_head=grad_head,
        x0=x0,
        x1=x1,
        tangent0=tangent0,
        tangent1=tangent1,
        count=count,
        kernel=_kernel(network, x0),
        chunk=chunk,
        **_network(network),
    )


def _kernel(network: MLP, x0: Tensor) -> int:
    return kernel_of(network.config, x0)


def _network(network: MLP) -> dict:
    layers, config, weights = network.layers, network.config, network.weights.detach()
    return {
        "parameters": weights,
        "layers": on_device((layers.table,), weights.device, layers._copies)[0],
        "packed": torch.empty(layers.packed, device=weights.device),
        "activation": ACTIVATIONS[config.activation][0],
        "output_activation": ACTIVATIONS[config.output_activation][0],
        "bias": config.bias,
        "channels": layers.channels,
        "widest": layers.widest,
    }
