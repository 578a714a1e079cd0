"""Tri-plane, vector-matrix and CP encodings."""

import pytest
import torch

from radfield.encodings import factored
from radfield.encodings.factored import CP, VM, CPConfig, Triplane, TriplaneConfig, VMConfig
from radfield.errors import BadInput

CASES = [
    (Triplane, TriplaneConfig(levels=3, features=2, log2_size=8, base_resolution=5, growth=1.7)),
    (VM, VMConfig(components=16, resolution=9)),
    (CP, CPConfig(components=24, resolution=12)),
]


@pytest.mark.parametrize("size", [0, 1, 7, 33, 300])
@pytest.mark.parametrize(("module", "config"), CASES)
def test_agrees_with_reference(module, config, size):
    encoding = module(3, config, torch.Generator().manual_seed(1))
    x = torch.rand(size, 3, generator=torch.Generator().manual_seed(size)).requires_grad_()
    weights = torch.randn(size, encoding.channels)
    ours = encoding(x)
    tables = [grid.table.detach().double().requires_grad_() for grid in encoding.grids]
    x64 = x.detach().double().requires_grad_()
    theirs = factored.factored_reference(x64, tables, encoding)
    assert ours.shape == (size, encoding.channels)
    assert torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-6)
    gradients = torch.autograd.grad((ours * weights).sum(), [x, *(grid.table for grid in encoding.grids)])
    expected = torch.autograd.grad((theirs * weights).sum(), [x64, *tables])
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-3, atol=1e-4)


def test_gradcheck_of_the_reference():
    encoding = VM(3, VMConfig(components=8, resolution=4))
    tables = [grid.table.detach().double().requires_grad_() for grid in encoding.grids]
    x = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, *t: factored.factored_reference(x, t, encoding), (x, *tables), fast_mode=True)


def test_a_product_of_linear_functions_is_exact():
    encoding = CP(3, CPConfig(components=8, resolution=17))
    with torch.no_grad():
        for axis, grid in enumerate(encoding.grids):
            grid.table[:17] = (torch.arange(17.0) - 0.5)[:, None] / 16 * (axis + 1) + 1
    x = torch.rand(200, 3) * 0.9
    expected = ((x * torch.tensor([1.0, 2.0, 3.0])) + 1).prod(1)
    assert torch.allclose(encoding(x), expected[:, None].expand(-1, 8), atol=1e-4)


def with_linear_factors(module, config):
    """An encoding whose planes and lines hold linear functions of the position: interpolation is exact."""
    encoding = module(3, config)
    n = config.resolution
    for k, grid in enumerate(encoding.grids):
        number = torch.arange(n**grid.grid.dimensions)
        at = sum((number // n**d % n - 0.5) / (n - 1) * (d + 1) for d in range(grid.grid.dimensions))
        for offset in grid.grid.levels[:, 0].tolist():
            with torch.no_grad():
                grid.table[offset : offset + len(at)] = 1 + at[:, None] * (0.1 * k + 0.1 * torch.arange(8))
    return encoding


@pytest.mark.parametrize(("module", "config"), CASES[1:])
@pytest.mark.parametrize("resolution", [40, 75])
def test_upsampling_keeps_linear_factors_exactly(module, config, resolution):
    encoding = with_linear_factors(module, config)
    finer = encoding.upsampled(resolution)
    assert finer.grids[0].grid.levels[0, 2] == resolution
    x = torch.rand(500, 3) * 0.85 + 0.03  # a grid's last half cell blends with entries beyond it
    assert torch.allclose(encoding(x), finer(x), atol=1e-4)


@pytest.mark.parametrize(("module", "config"), CASES[1:])
def test_shrinking_shows_the_box(module, config):
    encoding = with_linear_factors(module, config)
    low, high = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.8, 0.9, 0.7])
    x = torch.rand(500, 3) * 0.8 + 0.1
    assert torch.allclose(encoding.shrunk(low, high)(x), encoding(low + x * (high - low)), atol=1e-4)


def test_what_is_shared_is_counted_once():
    encoding = VM(3, VMConfig(components=16, resolution=100))
    # 100^2 vertices of 16 components per plane and 104 (a multiple of 8) per line, three of each
    assert sum(p.numel() for p in encoding.parameters()) == 3 * 16 * (100**2 + 104)
    assert encoding.channels == 48


@pytest.mark.parametrize(("module", "config"), CASES)
def test_precision_bf16_rounds(module, config):
    generator = torch.Generator().manual_seed(1)
    full = module(3, config, generator)
    half = module(3, type(config)(**{**vars(config), "precision": "bf16"}), torch.Generator().manual_seed(1))
    x = torch.rand(50, 3)
    assert half(x).dtype == torch.bfloat16
    assert torch.allclose(half(x).float(), full(x), rtol=0.1, atol=0.02 * full(x).abs().max().item())


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: VM(3, VMConfig(components=12)), "components is 12"),
        (lambda: CP(3, CPConfig(resolution=1)), "resolution is 1"),
        (lambda: Triplane(2), "dimensions is 2"),
        (lambda: VM(3, VMConfig(8, 8)).shrunk(torch.zeros(3), torch.zeros(3)), "the box"),
        (lambda: VM(3, VMConfig(8, 8))(torch.zeros(4, 2)), r"x is \[4, 2\]"),
    ],
)
def test_refuses(make, word):
    with pytest.raises(BadInput, match=word):
        make()
