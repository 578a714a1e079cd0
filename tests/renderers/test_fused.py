"""Rendering in one kernel gives what rendering op by op gives."""

import pytest
import torch
from checks import EMULATES
from cuda_emulator.backend import SCHEDULES, emulator

from radfield import backend
from radfield.encodings import hash_grid, simplex
from radfield.fields.radiance import Config, RadianceField
from radfield.rays import Rays
from radfield.renderers import fused, volume
from radfield.sampling import occupancy

pytestmark = pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
GRID = hash_grid.Config(levels=3, features=2, log2_size=8, base_resolution=4)


def field_of(cascades=1, **options):
    """Denser here and thinner there: some rays end, some go through."""
    generator = torch.Generator().manual_seed(1)
    options = {"grid": GRID, "width": 16, "degree": 2, **options}
    field = RadianceField(Config(**options), cascades, generator)
    with torch.no_grad():
        field.grid.table.copy_(20 * torch.randn(field.grid.table.shape, generator=generator))
    return field


def scene(cascades=1, share=0.3):
    """A grid of which this share of cells is occupied, and rays through it, one of which misses it."""
    generator = torch.Generator().manual_seed(2)
    grid = occupancy.OccupancyGrid(occupancy.Config(resolution=16, cascades=cascades))
    grid.values.copy_((torch.rand(len(grid.values), generator=generator) < share).float())
    grid.refresh()
    towards = torch.nn.functional.normalize(torch.randn(41, 3, generator=generator), dim=1)
    targets = 0.3 + 0.4 * torch.rand(41, 3, generator=generator)
    origins = 0.5 + (1.5 if cascades == 1 else 0.3) * towards
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    origins[5], directions[5] = torch.tensor([3.0, 3.0, 3.0]), torch.nn.functional.normalize(torch.ones(3), dim=0)
    return grid, Rays(origins, directions)


def both(field, grid, rays, config):
    """(one kernel, op by op on the CPU): colour, opacity and depth."""
    background = torch.rand(len(rays), 3, generator=torch.Generator().manual_seed(3))
    expected = volume.render_rays(field, grid, rays, background, config)
    with backend.use(backend.EMULATED):
        assert fused.applies(field, rays.origins)
        return volume.render_rays(field, grid, rays, background, config), expected


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("cascades", [1, 2])
def test_agrees_with_the_separate_ops(cascades, order):
    emulator.order = order
    cone = 0.0 if cascades == 1 else 1 / 32
    config = volume.Config(step=1 / 24, cone=cone, near=0.1, stop=1e-6)
    found, expected = both(field_of(cascades), *scene(cascades), config)
    for name, ours, theirs in zip(("color", "opacity", "depth"), found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert expected[1].min() == 0 and expected[1].mean() < 0.95 < expected[1].max()


def test_in_16_bits_and_from_far_away_memory(monkeypatch):
    """bf16 on tensor cores, rows of the tile in scratch memory, and rays that end at `stop`."""
    monkeypatch.setattr("radfield.networks.mlp._MOST_SHARED", 0)
    config = volume.Config(step=1 / 24, stop=1e-2)
    found, expected = both(field_of(precision="bf16"), *scene(), config)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-2)


def test_no_rays_and_empty_space():
    field, (grid, rays) = field_of(), scene(share=0.0)
    config = volume.Config(step=1 / 24)
    found, expected = both(field, grid, rays, config)
    assert torch.equal(found[0], expected[0]) and not found[1].any() and not found[2].any()
    none = Rays(rays.origins[:0], rays.directions[:0])
    assert [len(part) for part in both(field, grid, none, config)[0]] == [0, 0, 0]


def test_other_fields_take_the_separate_ops():
    x = torch.zeros(1, 3)
    with backend.use(backend.EMULATED):
        assert not fused.applies(field_of(grid=simplex.Config(levels=2, log2_size=8)), x)
        assert not fused.applies(field_of(appearance=2), x)
    assert not fused.applies(field_of(), x)  # on the CPU
