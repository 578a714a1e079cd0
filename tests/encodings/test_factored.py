"""Tri-plane, vector-matrix and CP encodings."""

import pytest
import torch
from checks import OpCase, check_op

from radfield.encodings import factored
from radfield.encodings.factored import CP, VM, CPConfig, Triplane, TriplaneConfig, VMConfig
from radfield.errors import BadInput
from radfield.training.adam import Adam

CASES = [
    (Triplane, TriplaneConfig(levels=3, features=2, base_resolution=5, growth=1.7)),
    (VM, VMConfig(components=16, resolution=9)),
    (CP, CPConfig(components=24, resolution=12)),
]
KINDS = [module.kind for module, _ in CASES]


def case(module, config, **options):
    levels = module(3, config).grid

    def inputs(size, generator):
        x = torch.rand(size, 3, generator=generator) * 1.1 - 0.05
        table = torch.rand(levels.starts[-1], levels.grids[0].features, generator=generator) + 0.5
        return {"x": x, "table": table, "levels": levels}

    return OpCase(factored.factored, factored.factored_reference, inputs, **options, rtol=1e-4)


@pytest.mark.parametrize(("module", "config"), CASES, ids=KINDS)
def test_agrees_with_reference(module, config):
    check_op(case(module, config, gradients=("table",), wrong_dtype=("x", "table")))


@pytest.mark.parametrize(("module", "config"), CASES, ids=KINDS)
def test_gradients_of_positions_agree_with_reference(module, config):
    """A point on the border of a cell has two; these are none."""
    levels = module(3, config).grid

    def inputs(size, generator):
        x = torch.rand(size, 3, generator=generator)
        for scale in levels.grids[0].scales.unique():
            cell = (x * scale + 0.5).floor()
            x = (cell - 0.5 + (x * scale + 0.5 - cell).clamp(0.01, 0.99)) / scale
        return {"x": x.clamp(0.001, 0.999), "table": torch.rand(levels.starts[-1], levels.grids[0].features) + 0.5}

    if len(levels.grids[0].scales.unique()) == 1:
        both = {"gradients": ("x", "table"), "second": ("x",), "sizes": (0, 1, 33), "rtol": 1e-4}
        native, reference = (
            lambda x, table, f=f: f(x, table, levels) for f in (factored.factored, factored.factored_reference)
        )
        check_op(OpCase(native, reference, inputs, **both))


@pytest.mark.parametrize("features", [1, 4, 8])
def test_agrees_with_reference_for_other_features(features):
    config = TriplaneConfig(levels=2, features=features, base_resolution=4, growth=2.0)
    check_op(case(Triplane, config, gradients=("table",), sizes=(0, 33, 300)))


@pytest.mark.parametrize(("module", "config"), CASES, ids=KINDS)
def test_noted_gradients_train_like_returned_ones(module, config):
    """The optimiser's groups, whose gradients are noted sample by sample, step as a whole gradient would."""
    one, other = (module(3, config, torch.Generator().manual_seed(3)) for _ in range(2))
    noting = Adam(one.adam_groups())
    grad = torch.zeros_like(other.table)
    whole = Adam([{"parameter": other.table.data, "grad": grad, "mode": "skip"}])
    for step in range(3):
        x = torch.rand(200, 3, generator=torch.Generator().manual_seed(step))
        for encoding in (one, other):
            encoding(x).square().sum().backward()
        grad += other.table.grad
        other.table.grad = None
        assert noting.step(lr=0.01) == whole.step(lr=0.01) == 0
    assert torch.equal(one.table, other.table)


@pytest.mark.parametrize(("module", "config"), CASES, ids=KINDS)
def test_threads_change_no_bit(module, config, threads):
    encoding = module(3, config, torch.Generator().manual_seed(1))
    x = torch.rand(20000, 3)

    def run():
        encoding.table.grad = None
        features = encoding(x)
        features.square().sum().backward()
        return features.detach(), encoding.table.grad.clone()

    threads(run)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_product_of_linear_functions_is_exact(axis):
    encoding = CP(3, CPConfig(components=8, resolution=17))
    with torch.no_grad():
        encoding.table.fill_(1)
        part = encoding.grid.parts(encoding.table)[axis]
        part[:17] = ((torch.arange(17.0) - 0.5) / 16 * 2 + 1)[:, None]
    x = torch.rand(200, 3) * 0.9
    assert torch.allclose(encoding(x), (2 * x[:, axis] + 1)[:, None].expand(-1, 8), atol=1e-4)


def test_what_is_shared_is_counted_once():
    encoding = VM(3, VMConfig(components=16, resolution=100))
    # 100^2 vertices of 16 components per plane and 104 (a multiple of 8) per line, three of each
    assert sum(p.numel() for p in encoding.parameters()) == 3 * 16 * (100**2 + 104)
    assert encoding.channels == 48


@pytest.mark.parametrize(("module", "config"), CASES, ids=KINDS)
def test_precision_bf16_rounds(module, config):
    full = module(3, config, torch.Generator().manual_seed(1))
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
        (lambda: VM(3, VMConfig(8, 8))(torch.zeros(4, 2)), r"x is \[4, 2\]"),
    ],
)
def test_refuses(make, word):
    with pytest.raises(BadInput, match=word):
        make()
