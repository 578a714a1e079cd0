"""The modules of the tinycudann stand-in: layouts, types, sizes, networks."""

import copy
import itertools
import pickle

import pytest
import torch

from radfield import backend
from radfield.compat import tinycudann as tcnn
from radfield.compat.tcnn_network import ACTIVATIONS
from radfield.errors import BadInput, RadfieldWarning

GRID = {"otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 8, "base_resolution": 4}
MLP = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2}
BY_HAND = {
    "None": lambda z: z,
    "ReLU": lambda z: z * (z > 0),
    "LeakyReLU": lambda z: z * torch.where(z > 0, 1.0, 0.01),
    "SiLU": lambda z: z / (1 + torch.exp(-z)),
    "Exponential": torch.exp,
    "Sine": torch.sin,
    "Sigmoid": lambda z: 1 / (1 + torch.exp(-z)),
    "Squareplus": lambda z: 0.5 * (10 * z + torch.sqrt(100 * z * z + 4)) / 10,
    "Softplus": lambda z: torch.log(torch.exp(10 * z) + 1) / 10,
    "Tanh": lambda z: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z)),
}
NATIVE = ("None", "ReLU", "SiLU", "Sine")


def by_hand(x, params, sizes, activation, output_activation, columns):
    """A network from flat parameters: row-major matrices one after another, inputs padded with ones."""
    h = torch.cat([x, torch.ones(len(x), sizes[0] - x.shape[1])], 1).double()
    at = 0
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        matrix = params.detach().double()[at : at + fan_in * fan_out].view(fan_out, fan_in)
        h = BY_HAND[activation if layer < len(sizes) - 2 else output_activation](h @ matrix.T)
        at += fan_in * fan_out
    assert at == len(params)
    return h[:, :columns].float()


@pytest.mark.parametrize("output_activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.filterwarnings("ignore:tinycudann")
def test_every_activation(activation, output_activation):
    config = {**MLP, "activation": activation, "output_activation": output_activation}
    network = tcnn.Network(5, 3, config)
    torch.nn.init.uniform_(network.params, -0.3, 0.3)
    x = torch.rand(20, 5)
    expected = by_hand(x, network.params, [16, 16, 16, 16], activation, output_activation, 3)
    assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_network_that_is_plain_torch_says_so(activation):
    if activation in NATIVE:
        tcnn.Network(5, 3, {**MLP, "activation": activation})  # a warning would be an error
    else:
        with pytest.warns(RadfieldWarning, match=f"with {activation}: it runs as plain torch"):
            tcnn.Network(5, 3, {**MLP, "activation": activation})


@pytest.mark.parametrize("width, hidden, inputs", [(24, 2, 5), (64, 0, 5), (48, 1, 20), (128, 5, 33)])
def test_cutlass_sizes(width, hidden, inputs):
    config = {"otype": "CutlassMLP", "n_neurons": width, "n_hidden_layers": hidden}
    network, x = tcnn.Network(inputs, 20, config), torch.rand(9, inputs)
    sizes = [-(-inputs // 16) * 16, *[width] * hidden, 32]
    expected = by_hand(x, network.params, sizes, "ReLU", "None", 20)
    assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-5)


def test_a_size_that_the_native_network_lacks_is_plain_torch():
    with pytest.warns(RadfieldWarning, match="2 hidden layers of 8 with ReLU"):
        network = tcnn.Network(5, 3, {"otype": "CutlassMLP", "n_neurons": 8, "n_hidden_layers": 2})
    x = torch.rand(9, 5)
    expected = by_hand(x, network.params, [16, 8, 8, 16], "ReLU", "None", 3)
    assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-5)


def test_parameters_are_the_network_then_the_encoding():
    both = tcnn.NetworkWithInputEncoding(2, 3, GRID, MLP)
    encoding, weights = tcnn.Encoding(2, GRID), 3 * 16 * 16
    assert both.params.shape == (weights + encoding.params.numel(),)
    encoding.params.data = both.params.data[weights:] * 1e3
    both.params.data[weights:] *= 1e3
    x = torch.rand(30, 2)
    features = torch.cat([encoding(x), torch.zeros(30, 10)], 1)  # a grid is padded with zeros
    expected = by_hand(features, both.params[:weights], [16, 16, 16, 16], "ReLU", "None", 3)
    assert torch.allclose(both(x), expected, rtol=1e-4, atol=1e-5)
    assert encoding.params.abs().max() <= 0.1 and both.params[:weights].abs().max() <= (6 / 32) ** 0.5


def test_gradients_reach_every_part():
    both = tcnn.NetworkWithInputEncoding(2, 3, GRID, MLP)
    torch.nn.init.uniform_(both.params, -0.5, 0.5)
    x = torch.rand(300, 2, requires_grad=True)
    y = both(x)
    y.square().sum().backward()
    weights, table = both.params.grad.split([3 * 16 * 16, both.params.numel() - 3 * 16 * 16])
    assert weights.abs().max() > 0 and table.abs().max() > 0 and x.grad.abs().max() > 0
    step = torch.randn_like(both.params) * 1e-3
    with torch.no_grad():
        expected = (both.params.grad * step).sum()
        both.params += step
        up = both(x).square().sum()
        both.params -= 2 * step
        down = both(x).square().sum()
    assert torch.allclose((up - down) / 2, expected, rtol=0.02)


def values_and_gradients(module, x):
    x = x.clone().requires_grad_()
    y = module(x)
    return y, *torch.autograd.grad(y.float().square().sum(), (x, module.params))


def test_backends_agree(each_backend_once):
    both = tcnn.NetworkWithInputEncoding(2, 3, {"otype": "Composite", "nested": [GRID]}, MLP)
    torch.nn.init.uniform_(both.params, -0.5, 0.5)
    x = torch.rand(40, 2)
    got = values_and_gradients(both, x)
    with backend.use("reference"):
        for a, b in zip(got, values_and_gradients(both, x), strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_on_a_gpu_parameters_lie_there_and_outputs_are_half(gpu):
    both = tcnn.NetworkWithInputEncoding(2, 3, GRID, MLP)
    torch.nn.init.uniform_(both.params, -0.5, 0.5)
    assert both.params.is_cuda and both.dtype == torch.float16 and both.loss_scale == 128.0
    x = torch.rand(300, 2, device="cuda")
    y, grad_x, grad_params = values_and_gradients(both, x)
    assert y.dtype == torch.float16 and y.is_cuda
    on_cpu = copy.deepcopy(both).cpu()
    for a, b in zip((y, grad_x, grad_params), values_and_gradients(on_cpu, x.cpu()), strict=True):
        scale = b.float().abs().max()
        assert (a.cpu().float() - b.float()).abs().max() < 1e-2 * scale
    with pytest.warns(RadfieldWarning, match="moved to cuda"):
        both(x.cpu())


@pytest.mark.parametrize("rows", [0, 1, 7, 257])
def test_any_number_of_rows(rows):
    module = tcnn.NetworkWithInputEncoding(2, 3, GRID, MLP)
    y = module(torch.rand(rows, 2))
    assert y.shape == (rows, 3) and y.is_contiguous() and y.dtype == module.dtype


def test_types():
    x = torch.rand(5, 2)
    for module in (tcnn.Encoding(2, GRID), tcnn.Network(2, 1, MLP), tcnn.NetworkWithInputEncoding(2, 1, GRID, MLP)):
        assert module.dtype == module(x).dtype == torch.float32 and module.params.dtype == torch.float32
        assert module.loss_scale == 1.0
    half = tcnn.Encoding(2, GRID, dtype=torch.float16)
    assert half(x).dtype == half.dtype == torch.float16 and half.loss_scale == 128.0
    full = tcnn.Encoding(2, GRID, dtype=torch.float32)
    assert torch.equal(full(x.half()), full(x.half().float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(full(x), tcnn.Encoding(2, GRID, dtype=torch.float32)(x))


def test_seeds():
    first, same, other = (tcnn.Network(4, 4, MLP, seed=seed).params for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(tcnn.Encoding(2, GRID).params, tcnn.Encoding(2, GRID, seed=1337).params)


def test_state_pickle_and_copies_round_trip(tmp_path):
    module, x = tcnn.NetworkWithInputEncoding(2, 3, GRID, MLP, seed=5), torch.rand(20, 2)
    assert list(module.state_dict()) == ["params"]
    torch.save(module.state_dict(), tmp_path / "model.pt")
    other = tcnn.NetworkWithInputEncoding(2, 3, GRID, MLP, seed=6)
    assert not torch.equal(other(x), module(x))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for again in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(x), module(x))


def test_attributes_of_tiny_cuda_nn():
    module = tcnn.NetworkWithInputEncoding(n_input_dims=2, n_output_dims=3, encoding_config=GRID, network_config=MLP)
    module.jit_fusion = tcnn.supports_jit_fusion()
    assert (module.n_input_dims, module.n_output_dims, module.seed) == (2, 3, 1337)
    assert module.encoding_config is GRID and module.network_config is MLP
    assert tcnn.Encoding(2, GRID).n_output_dims == 6, "an encoding alone is not padded"
    assert "n_output_dims=3" in repr(module)
    tcnn.rtc_set_cache_dir("nowhere")
    tcnn.free_temporary_memory()


@pytest.mark.parametrize(
    "config, message",
    [
        ({"otype": "ResNet"}, "otype is 'ResNet'"),
        ({**MLP, "n_neurons": 48}, "16, 32, 64 or 128"),
        ({**MLP, "n_hidden_layers": 0}, "n_hidden_layers is 0"),
        ({**MLP, "activation": "GELU"}, "activation is 'GELU'"),
        ({**MLP, "output_activation": 3}, "output_activation is 3"),
        (None, "a dict"),
    ],
)
def test_bad_networks(config, message):
    with pytest.raises(BadInput, match=message):
        tcnn.Network(3, 3, config)


def test_bad_calls():
    with pytest.raises(BadInput, match="n_output_dims is 0"):
        tcnn.Network(3, 0, MLP)
    with pytest.raises(BadInput, match=r"dtype is torch\.bfloat16"):
        tcnn.Encoding(2, GRID, dtype=torch.bfloat16)
    module = tcnn.Encoding(2, GRID)
    for x in (torch.rand(5, 3), torch.rand(5), torch.zeros(5, 2, dtype=torch.long)):
        with pytest.raises(BadInput, match=r"the rule: \[:, 2\] of floats"):
            module(x)
