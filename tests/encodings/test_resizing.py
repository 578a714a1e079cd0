"""Encodings that grow and shrink: what they show stays, and a regulariser's step goes downhill."""

import pytest
import torch

from radfield.encodings import dense_grid, hash_grid
from radfield.encodings.dense_grid import DenseGrid
from radfield.encodings.factored import CP, VM, CPConfig, Triplane, TriplaneConfig, VMConfig
from radfield.encodings.hash_grid import HashGrid
from radfield.encodings.resizing import Schedule
from radfield.errors import BadInput

GROWING = Schedule(0.5, (0.2, 0.6), 0.4)
CASES = [
    (DenseGrid, dense_grid.Config(levels=3, features=2, base_resolution=8, growth=1.6, schedule=GROWING)),
    (Triplane, TriplaneConfig(levels=3, features=2, base_resolution=8, growth=1.6, schedule=GROWING)),
    (VM, VMConfig(components=8, resolution=20, schedule=GROWING)),
    (CP, CPConfig(components=8, resolution=24, schedule=GROWING)),
]
KINDS = ["dense", "triplane", "vm", "cp"]
EVERY = pytest.mark.parametrize(("module", "config"), CASES, ids=KINDS)


def with_linear_levels(module, config):
    """An encoding whose grids hold linear functions of the position: interpolation is exact."""
    encoding = module(3, config)
    with torch.no_grad():
        for k, (grid, axes, start) in enumerate(encoding.grids_with_axes):
            for level, (offset, _, n, _) in enumerate(grid.levels.tolist()):
                number = torch.arange(n ** len(axes))
                at = sum((number // n**d % n - 0.5) / grid.scales[level] * (d + 1) for d in range(len(axes)))
                factors = 0.1 * (k + 1) + 0.1 * torch.arange(grid.features)
                encoding.table[start + offset : start + offset + len(at)] = 1 + at[:, None] * factors
    return encoding


def inner_points(count):
    """A level's last half cell blends with entries beyond it."""
    return torch.rand(count, 3) * 0.7 + 0.1


def test_schedules():
    assert [Schedule().part(p) for p in (0.0, 1.0)] == [1.0, 1.0]
    assert [GROWING.part(p) for p in (0.0, 0.19, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 0.5, 0.5**0.5, 1.0, 1.0])


@EVERY
@pytest.mark.parametrize("factor", [0.8, 2.5])
def test_another_resolution_keeps_linear_functions_exactly(module, config, factor):
    encoding, x = with_linear_levels(module, config), inner_points(500)
    before = encoding(x).detach()
    resolution = round(factor * int(encoding.resolution))
    encoding.resize(resolution)
    assert int(encoding.resolution) == resolution
    assert encoding.grids_with_axes[0][0].levels[-1, 2] == resolution
    assert torch.allclose(encoding(x), before, atol=1e-4)


@EVERY
def test_a_smaller_box_shows_the_same(module, config):
    encoding, x = with_linear_levels(module, config), inner_points(500) * 0.5 + 0.25
    before = encoding(x).detach()
    for low, high in ((0.05, 0.95), (0.2, 0.9)):  # the second within the first
        encoding.resize(box=torch.tensor([[low] * 3, [high] * 3]))
        assert torch.allclose(encoding(x), before, atol=1e-4)
    edge = torch.tensor([[0.2, 0.5, 0.5], [0.9, 0.5, 0.5]])
    outside = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.5, 0.5]])
    assert torch.allclose(encoding(edge), encoding(outside), atol=1e-5)


@EVERY
def test_the_schedule_is_followed(module, config):
    encoding = module(3, config)
    final, asked = encoding.final_resolution, []

    def box():
        asked.append(True)
        return torch.tensor([[0.1] * 3, [0.9] * 3])

    changed = {p: encoding.refine(p, box) for p in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9)}
    assert [p for p, new in changed.items() if new] == [0.2, 0.4, 0.6]
    assert int(encoding.resolution) == final and len(asked) == 1
    assert torch.equal(encoding.box, torch.tensor([[0.1] * 3, [0.9] * 3]))


@EVERY
def test_a_checkpoint_of_another_resolution_is_taken(module, config):
    one, other = module(3, config, torch.Generator().manual_seed(1)), module(3, config)
    one.resize(31, torch.tensor([[0.1] * 3, [0.8] * 3]))
    state = one.state_dict()
    other.restore(state)
    other.load_state_dict(state)
    x = torch.rand(100, 3)
    assert torch.equal(one(x), other(x))


@EVERY
@pytest.mark.parametrize("stated", [1, 30, 4097])
def test_a_checkpoint_that_states_what_it_does_not_hold_makes_nothing(module, config, stated):
    encoding = module(3, config)
    state = {**encoding.state_dict(), "resolution": torch.tensor([stated])}
    before = encoding.table
    encoding.restore(state)
    assert encoding.table is before


@EVERY
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_regularisers_lower_what_they_are_named_after(module, config, precision):
    for name, norm, most in (("l1", one_norm, 0.99), ("tv", roughness, 0.9)):
        encoding = module(3, type(config)(**{**vars(config), name: 0.1, "precision": precision}))
        torch.nn.init.normal_(encoding.table)
        before = norm(encoding)
        encoding.regularise(0.5)
        assert norm(encoding) < most * before
        if precision == "bf16":
            assert torch.equal(encoding.stored(), encoding.table.to(torch.bfloat16))


def one_norm(encoding):
    return encoding.table.abs().sum().item()


def roughness(encoding):
    """The sum over neighbours along the first axis of the squared differences, of all grids' finest levels."""
    total = 0.0
    for grid, axes, start in encoding.grids_with_axes:
        offset, _, n, _ = grid.levels[-1].tolist()
        values = encoding.table.detach()[start + offset : start + offset + n ** len(axes)].view(-1, n, grid.features)
        total += values.diff(dim=1).square().sum().item()
    return total


def test_a_constant_has_no_total_variation():
    encoding = VM(3, VMConfig(components=8, resolution=9, tv=1.0))
    torch.nn.init.constant_(encoding.table, 0.3)
    encoding.regularise(1.0)
    assert torch.equal(encoding.table, torch.full_like(encoding.table, 0.3))


def test_the_dense_grid_is_the_hash_grid_that_never_hashes():
    options = {"levels": 4, "features": 2, "base_resolution": 4, "growth": 1.5}
    ours = DenseGrid(3, dense_grid.Config(**options), torch.Generator().manual_seed(1))
    theirs = HashGrid(3, hash_grid.Config(**options, entries="dense"), torch.Generator().manual_seed(1))
    x = torch.rand(300, 3)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("box", [[[0.5] * 3, [0.5] * 3], [[-0.1] * 3, [1.0] * 3], [[0.0] * 3, [1.1] * 3]])
def test_refuses_a_box_without_inside(box):
    with pytest.raises(BadInput, match="the box"):
        VM(3, VMConfig(8, 8)).resize(box=torch.tensor(box))
