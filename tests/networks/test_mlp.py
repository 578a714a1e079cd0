"""The small MLP."""

import pytest
import torch
from checks import OpCase, check_op

from radfield import backend
from radfield.errors import BadInput
from radfield.networks import mlp
from radfield.networks.mlp import MLP, Config, layers_of

SHAPES = [
    (32, 0, 16, Config(64, 1)),
    (16, 16, 3, Config(64, 2)),
    (3, 0, 1, Config(16, 0)),
    (5, 2, 7, Config(17, 3, bias=True)),
    (9, 0, 4, Config(33, 3, skip=2, bias=True)),
    (7, 6, 5, Config(24, 2, skip=1)),
    (40, 0, 2, Config(256, 2)),
]


def case(first, second, outputs, config, **changes):
    layers = layers_of(first + second, outputs, config)

    def inputs(size, generator):
        values = {"x0": torch.randn(size, first, generator=generator), "x1": None, "layers": layers}
        if second:
            values["x1"] = torch.randn(size, second, generator=generator)
        module = MLP(first + second, outputs, config, generator)
        noise = torch.randn(layers.parameters, generator=generator) * 0.1  # biases too
        return {**values, "parameters": module.weights.detach() + noise}

    gradients = ("x0", "x1", "parameters") if second else ("x0", "parameters")
    options = {"gradients": gradients, "rtol": 5e-5, "atol": 1e-5, "sizes": (0, 1, 33, 700), "wrong_dtype": ("x0",)}
    return OpCase(mlp.mlp, mlp.mlp_reference, inputs, **{**options, **changes})


@pytest.mark.parametrize(("first", "second", "outputs", "config"), SHAPES)
def test_agrees_with_reference(first, second, outputs, config):
    check_op(case(first, second, outputs, config))


@pytest.mark.parametrize("activation", ["none", "silu", "softplus", "sine", "relu"])
def test_activations(activation):
    config = Config(32, 2, activation, output_activation=activation, bias=True)
    check_op(case(6, 3, 5, config))
