"""The plain MLP of NeRF as an encoding. What all encodings have in common is tested with them."""

import pytest
import torch

from radfield import backend
from radfield.encodings import registry
from radfield.encodings.frequency import frequency_reference
from radfield.encodings.frequency_network import Config, FrequencyNetwork
from radfield.errors import BadInput
from radfield.networks.mlp import mlp_reference

SMALL = Config(frequencies=4, width=32, hidden_layers=4, channels=5)


def test_is_the_network_of_sines_cosines_and_positions():
    encoding, x = FrequencyNetwork(3, SMALL), torch.rand(100, 3)
    network = encoding.network
    expected = mlp_reference(frequency_reference(x, 4), x, network.weights, network.layers)
    torch.testing.assert_close(encoding(x), expected, rtol=1e-4, atol=1e-5)
    assert encoding(x).shape == (100, 5)


def test_the_middle_layer_sees_the_position_again():
    table = FrequencyNetwork(3, SMALL).network.layers.table
    inputs = 3 * (2 * 4 + 1)
    assert table[:, 0].tolist() == [inputs, 32, 32 + inputs, 32, 32][: len(table)]
    assert table[2, 3] == 1 and table[:, 3].sum() == 1


def test_the_default_is_nerfs():
    network = registry.build(3, registry.config_of("frequency")).network
    assert [row[1] for row in network.layers.table.tolist()] == [256] * 8 + [32]
    assert network.layers.inputs == 63 and 480_000 < network.layers.parameters < 520_000


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_every_weight_learns(precision):
    encoding = FrequencyNetwork(3, Config(3, 16, 2, 4, precision=precision))
    (group,) = encoding.adam_groups()
    features = encoding(torch.rand(3000, 3))
    assert features.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    features.float().square().sum().backward()
    assert (group["grad"] != 0).float().mean() > 0.9 and group["scale"] == Config.rate


def test_native_equals_reference():
    encoding, x = FrequencyNetwork(3, SMALL), torch.rand(65, 3)
    native = encoding(x)
    with backend.use("reference"):
        torch.testing.assert_close(encoding(x), native, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"frequencies": 0}, {"frequencies": 25}, {"width": 512}, {"channels": 0}])
def test_options_out_of_range(options):
    with pytest.raises(BadInput):
        FrequencyNetwork(3, Config(**options))
