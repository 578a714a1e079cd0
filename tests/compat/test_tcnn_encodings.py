"""tiny-cuda-nn's encodings against formulas, written here number by number."""

import math

import pytest
import torch

from radfield import backend
from radfield.compat.tcnn_encodings import encoder
from radfield.compat.tinycudann import Encoding
from radfield.errors import BadInput, RadfieldWarning

PRIMES = (1, 2654435761, 805459861, 3674653429)
LEVELS = {"n_levels": 4, "base_resolution": 5, "per_level_scale": 1.7, "log2_hashmap_size": 9}


def encode(config, x, **more):
    return Encoding(x.shape[1], config, **more)(x)


def test_identity():
    x = torch.rand(7, 3)
    assert torch.equal(encode({"otype": "identity", "scale": 2.0, "offset": -1.0}, x), x * 2 - 1)


def test_frequency_has_sine_and_cosine_in_turns():
    x = torch.rand(5, 2)
    y = encode({"otype": "Frequency", "n_frequencies": 3}, x)
    rows = [[f(2**k * math.pi * v) for v in row for k in range(3) for f in (math.sin, math.cos)] for row in x.tolist()]
    assert torch.allclose(y, torch.tensor(rows), atol=1e-5)


def test_triangle_wave():
    x = torch.rand(5, 2) * 4 - 2
    y = encode({"otype": "TriangleWave", "n_frequencies": 3}, x)

    def wave(v, k):
        phase = v * 2 ** (k - 1) + k / 4
        return 4 * abs(phase - math.floor(phase) - 0.5) - 1

    rows = [[wave(v, k) for v in row for k in range(3)] for row in x.tolist()]
    assert torch.allclose(y, torch.tensor(rows), atol=1e-5)


def test_one_blob_is_the_integral_of_a_quartic_and_wraps():
    x = torch.tensor([[0.0, 0.1], [0.5, 0.53], [0.97, 1.0]])
    y = encode({"otype": "OneBlob", "n_bins": 8}, x).view(3, 2, 8)
    assert torch.allclose(y.sum(2), torch.ones(3, 2), atol=1e-5), "all of the bump is in some bin"
    fine = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    away = (fine - x.double()[:, :, None] + 0.5) % 1 - 0.5  # on a circle
    bump = 15 / 16 * (1 - (away * 8) ** 2).clamp(min=0) ** 2 * 8
    assert torch.allclose(y.double(), bump.view(3, 2, 8, 1000).mean(3) / 8, atol=1e-5)


def test_harmonics_take_directions_mapped_to_the_unit_cube():
    d = torch.nn.functional.normalize(torch.randn(6, 3), dim=1)
    x, y, z = d.unbind(1)
    a, b = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    band2 = [b * x * y, -b * y * z, b / math.sqrt(12) * (3 * z * z - 1), -b * x * z, b / 2 * (x * x - y * y)]
    expected = torch.stack([torch.full_like(x, math.sqrt(1 / (4 * math.pi))), -a * y, a * z, -a * x, *band2], 1)
    got = encode({"otype": "SphericalHarmonics", "degree": 3}, (d + 1) / 2)
    assert torch.allclose(got, expected, atol=1e-5)


def grid_by_hand(x, params, kind, interpolation, dims, features=2):
    """Features of one point [D], by the rule, in Python's numbers."""
    out, offset = [], 0
    for level in range(LEVELS["n_levels"]):
        scale = LEVELS["base_resolution"] * LEVELS["per_level_scale"] ** level - 1
        res = math.ceil(scale - 1e-4) + 1  # 5 is exact
        size = -(-(res**dims) // 8) * 8
        size = min(
            size, {"Hash": 2 ** LEVELS["log2_hashmap_size"], "Tiled": LEVELS["base_resolution"] ** dims}.get(kind, size)
        )
        hashed = kind == "Hash" and res**dims > size
        position = [v * scale + 0.5 for v in x]
        base = [math.floor(p) for p in position]
        total = [0.0] * features
        for corner in range(1 if interpolation == "Nearest" else 2**dims):
            at = [(base[d] + (corner >> d & 1)) % 2**32 for d in range(dims)]
            entry, stride = 0, 1
            for d in range(dims):
                if hashed:
                    entry ^= at[d] * PRIMES[d] % 2**32
                elif stride <= size:
                    entry, stride = (entry + at[d] * stride) % 2**32, stride * res
            weight = 1.0
            for d in range(dims):
                f = position[d] - base[d]
                f = f * f * (3 - 2 * f) if interpolation == "Smoothstep" else f
                weight *= 1 if interpolation == "Nearest" else f if corner >> d & 1 else 1 - f
            for f in range(features):
                total[f] += weight * params[(offset + entry % size) * features + f]
        out += total
        offset += size
    assert offset * features == len(params)
    return out


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("interpolation", ["Linear", "Smoothstep", "Nearest"])
@pytest.mark.parametrize("kind", ["Hash", "Dense", "Tiled"])
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.filterwarnings("ignore:tinycudann")  # that some of them are plain torch: below
def test_grids(kind, interpolation, dims, outside):
    module = Encoding(dims, {"otype": f"{kind}Grid", "interpolation": interpolation, **LEVELS})
    torch.nn.init.normal_(module.params)
    x = torch.rand(9, dims, dtype=torch.float64)
    x = (x * 3 - 1 if outside else x).float()
    expected = [grid_by_hand(row, module.params.tolist(), kind, interpolation, dims) for row in x.tolist()]
    assert torch.allclose(module(x), torch.tensor(expected), atol=2e-3)
    by_type = Encoding(dims, {"otype": "Grid", "type": kind, "interpolation": interpolation, **LEVELS})
    by_type.load_state_dict(module.state_dict())
    assert torch.equal(by_type(x), module(x))


@pytest.mark.parametrize("kind", ["Hash", "Dense"])
def test_native_and_torch_grids_agree_also_in_gradients(kind):
    module = Encoding(3, {"otype": f"{kind}Grid", **LEVELS})
    torch.nn.init.normal_(module.params)
    grid, x = module._encode, torch.rand(200, 3, requires_grad=True)
    assert grid.native
    table = module.params.view(-1, 2)
    native, plain = grid.encode(x, module.params), grid.wrapped(x, table)
    assert torch.allclose(native, plain, atol=1e-5)
    weights = torch.randn_like(native)
    for a, b in zip(
        *(torch.autograd.grad((y * weights).sum(), (x, module.params)) for y in (native, plain)), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_what_runs_as_plain_torch_is_announced():
    tiled = Encoding(2, {"otype": "TiledGrid", **LEVELS})
    with pytest.warns(RadfieldWarning, match="Tiled grid with Linear"):
        tiled(torch.rand(3, 2))
    with pytest.warns(RadfieldWarning, match="wrap around"):
        Encoding(2, {"otype": "HashGrid", **LEVELS})(torch.rand(3, 2) + 1)
    assert encoder(2, {"otype": "TiledGrid", **LEVELS, "per_level_scale": 1.0}).native, "no tile is repeated"


WIDE = {"base_resolution": 128, "per_level_scale": 1.0}


@pytest.mark.parametrize(
    "dims, config, count",
    [
        (3, {"n_levels": 8, "n_features_per_level": 4, "per_level_scale": 2.0}, 11_681_792),
        (3, {"per_level_scale": 1.3819}, 12_196_240),
        (3, {"per_level_scale": 1.51572}, 13_074_912),
        (3, {"n_levels": 20, "log2_hashmap_size": 16, "per_level_scale": 1.5, "base_resolution": 32}, 2_555_904),
        (3, {"otype": "DenseGrid", "n_levels": 8, "per_level_scale": 1.405}, 16_312_048),
        (3, {"otype": "TiledGrid", "n_levels": 2, "n_features_per_level": 8, **WIDE}, 33_554_432),
    ],
)
def test_parameter_counts_that_are_known_of_tiny_cuda_nn(dims, config, count):
    assert encoder(dims, {"otype": "HashGrid", **config}).n_params == count


def test_composite_places_parts_and_aligns_them():
    frequency = {"otype": "Frequency", "n_frequencies": 2}
    first, second = {"n_dims_to_encode": 1, "otype": "Identity"}, {"n_dims_to_encode": 2, "otype": "HashGrid", **LEVELS}
    config = {"otype": "Composite", "nested": [first, second, frequency]}
    module, x = Encoding(5, config), torch.rand(6, 5)
    grid = Encoding(2, config["nested"][1])
    grid.load_state_dict(module.state_dict())
    parts = [
        x[:, :1],
        torch.ones(6, 1),
        grid(x[:, 1:3]),
        encode(frequency, x[:, 3:]),
    ]  # a grid begins at an even channel
    assert module.n_output_dims == 1 + 1 + 8 + 8
    assert torch.equal(module(x), torch.cat(parts, 1))


@pytest.mark.parametrize("reduction", ["Sum", "Product"])
def test_composite_of_grids_reduced(reduction):
    """A tri-plane: parameters one grid after another, each reading its own two coordinates."""
    parts = [{"otype": "HashGrid", "n_dims_to_encode": 2, "dims_to_encode_begin": b, **LEVELS} for b in (0, 1)]
    module, x = Encoding(3, {"otype": "Composite", "reduction": reduction, "nested": parts}), torch.rand(6, 3)
    torch.nn.init.normal_(module.params)
    grids = [Encoding(2, part) for part in parts]
    for grid, own in zip(grids, module.params.detach().chunk(2), strict=True):
        grid.params.data = own
    a, b = (grid(x[:, i : i + 2]) for i, grid in enumerate(grids))
    assert torch.allclose(module(x), a + b if reduction == "Sum" else a * b)


def test_neural_radiance_caching_inputs():
    x = torch.rand(4, 9)
    got = encode({"otype": "OneBlobFrequency"}, x)
    parts = [
        encode({"otype": "TriangleWave"}, x[:, :3]),
        encode({"otype": "OneBlob", "n_bins": 4}, x[:, 3:8]),
        x[:, 8:],
    ]
    assert torch.equal(got, torch.cat(parts, 1))


@pytest.mark.parametrize(
    "otype", ["Frequency", "TriangleWave", "OneBlob", "SphericalHarmonics", "HashGrid", "DenseGrid"]
)
def test_gradients_of_inputs_are_those_of_the_reference(otype):
    module = Encoding(3, {"otype": otype, "n_frequencies": 4, **LEVELS})
    torch.nn.init.normal_(module.params)
    weights = torch.randn(20, module.n_output_dims)

    def gradient(x):
        x.requires_grad_()
        return torch.autograd.grad((module(x) * weights).sum(), x)[0]

    x = torch.rand(20, 3)
    got = gradient(x.clone())
    with backend.use("reference"):
        assert torch.allclose(got, gradient(x.clone()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "dims, config, message",
    [
        (3, {"otype": "Hush"}, "otype is 'Hush'"),
        (3, ["HashGrid"], "a dict"),
        (5, {"otype": "HashGrid"}, "5 inputs; the rule: 2, 3 or 4"),
        (3, {"otype": "HashGrid", "n_features_per_level": 3}, "1, 2, 4 or 8"),
        (3, {"otype": "HashGrid", "n_levels": 16.5}, "n_levels is 16.5"),
        (3, {"otype": "HashGrid", "n_levels": 16, "n_features": 32}, "without n_levels"),
        (3, {"otype": "HashGrid", "hash": "Rng"}, "hash is 'Rng'"),
        (3, {"otype": "HashGrid", "stochastic_interpolation": True}, "stochastic_interpolation"),
        (3, {"otype": "HashGrid", "interpolation": "Cubic"}, "interpolation is 'Cubic'"),
        (3, {"otype": "HashGrid", "per_level_scale": "2"}, "per_level_scale is '2'"),
        (3, {"otype": "HashGrid", "n_levels": 40}, "the rule: from 1 to 2\\^24"),
        (3, {"otype": "DenseGrid", "base_resolution": 2048, "per_level_scale": 1}, "< 2\\^31"),
        (2, {"otype": "SphericalHarmonics"}, "the rule: 3, a direction"),
        (3, {"otype": "SphericalHarmonics", "degree": 9}, "degree is 9"),
        (3, {"otype": "OneBlob", "n_bins": 12}, "a power of 2"),
        (3, {"otype": "Composite"}, "nested is None"),
        (3, {"otype": "Composite", "nested": [{"otype": "Identity"}] * 2}, "one part at most"),
        (3, {"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 2}] * 2}, "sum is at most 3"),
        (3, {"otype": "Composite", "reduction": "Sum", "nested": [{"otype": "Identity", "n_dims_to_encode": 2},
             {"otype": "Identity", "n_dims_to_encode": 1}]}, "all alike"),
        (3, {"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 2, "dims_to_encode_begin": 2}]},
         "there are 3"),
    ],
)  # fmt: skip
def test_bad_configurations_are_one_line(dims, config, message):
    with pytest.raises(BadInput, match=message) as raised:
        Encoding(dims, config)
    assert "\n" not in str(raised.value)
