"""Rendering in one pass gives what rendering op by op gives."""

import math

import pytest
import torch
from checks import EMULATES
from cuda_emulator.backend import SCHEDULES, emulator

from radfield import backend
from radfield.camera_rays import image_rays
from radfield.cameras import Cameras, look_at
from radfield.encodings import factored, hash_grid, learned_probe, registry, simplex
from radfield.encodings.dense_grid import Config as DenseConfig
from radfield.errors import BadInput
from radfield.fields.radiance import Config, RadianceField, build
from radfield.rays import Rays
from radfield.renderers import fused, volume
from radfield.sampling import occupancy

BACKENDS = [("cpu", 0), *((backend.EMULATED, order) for order in (SCHEDULES if EMULATES else ()))]
GRIDS = {
    "hash": hash_grid.Config(levels=3, features=2, log2_size=8, base_resolution=4),
    "dense": DenseConfig(2, 4, base_resolution=4),
    "tiled": hash_grid.Config(2, 8, base_resolution=8, growth=1.0, entries="tiled"),
}

#: those that CUDA alone takes; of how many grids a feature is the product
OTHERS = {
    "simplex": (simplex.Config(levels=3, features=2, log2_size=8, base_resolution=4), 1),
    "permutohedral": (simplex.Config(2, 4, log2_size=8, base_resolution=4, ordering="permutohedral"), 1),
    "probe": (learned_probe.Config(3, 2, log2_entries=6, log2_codebook=5, probes=4, base_resolution=4), 1),
    "triplane": (factored.TriplaneConfig(2, 4, base_resolution=4), 3),
    "vm": (factored.VMConfig(components=16, resolution=7), 2),
    "cp": (factored.CPConfig(components=8, resolution=9), 3),
}


def field_of(cascades=1, kind="hash", **options):
    """Denser here and thinner there: some rays end, some go through."""
    generator = torch.Generator().manual_seed(1)
    grid, factors = OTHERS[kind] if kind in OTHERS else (GRIDS[kind], 1)
    options = {"grid": grid, "width": 16, "degree": 2, **options}
    field = RadianceField(Config(**options), cascades, generator)
    with torch.no_grad():
        field.grid.table.copy_(20 ** (1 / factors) * torch.randn(field.grid.table.shape, generator=generator))
    field.grid.loaded()
    return field


def even_field(**options):
    """Density 1 and grey everywhere."""
    field = field_of(**options)
    with torch.no_grad():
        for network in field.networks:
            network.weights.zero_()
    return field


def scene(cascades=1, share=0.3, count=41):
    """A grid of which this share of cells is occupied, and rays through it, one of which misses it."""
    generator = torch.Generator().manual_seed(2)
    grid = occupancy.OccupancyGrid(occupancy.Config(resolution=16, cascades=cascades))
    grid.values.copy_((torch.rand(len(grid.values), generator=generator) < share).float())
    grid.refresh()
    towards = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    targets = 0.3 + 0.4 * torch.rand(count, 3, generator=generator)
    origins = 0.5 + (1.5 if cascades == 1 else 0.3) * towards
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    origins[5], directions[5] = torch.tensor([3.0, 3.0, 3.0]), torch.nn.functional.normalize(torch.ones(3), dim=0)
    return grid, Rays(origins, directions)


def separately(field, grid, rays, background, config):
    """Op by op, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "applies", lambda *_: False)
        return volume.render_rays(field, grid, rays, background, config)


def both(field, grid, rays, config, name="cpu"):
    """(one pass on the backend `name`, op by op on the CPU): colour, opacity and depth."""
    background = behind(rays)
    expected = separately(field, grid, rays, background, config)
    with backend.use(name):
        assert fused.applies(field, rays.origins)
        return volume.render_rays(field, grid, rays, background, config), expected


def behind(rays):
    return torch.rand(len(rays), 3, generator=torch.Generator().manual_seed(3))


def assert_agree(found, expected, **tolerance):
    for name, ours, theirs in zip(("color", "opacity", "depth"), found, expected, strict=False):
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("name", "order"), BACKENDS)
@pytest.mark.parametrize("cascades", [1, 2])
def test_agrees_with_the_separate_ops(cascades, name, order):
    emulator.order = order
    cone = 0.0 if cascades == 1 else 1 / 32
    config = volume.Config(step=1 / 24, cone=cone, near=0.1, stop=1e-6)
    found, expected = both(field_of(cascades), *scene(cascades), config, name)
    assert_agree(found, expected, rtol=1e-4, atol=1e-4)
    assert expected[1].min() == 0 and expected[1].mean() < 0.95 < expected[1].max()


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize(
    ("cascades", "cone", "share"), [(1, 0.0, 0.3), (1, 1 / 256, 1.0), (3, 0.0, 0.1), (3, 1 / 256, 0.3)]
)
def test_every_grid_and_way_to_step(kind, precision, cascades, cone, share):
    """With limits of their own, in steps that are skipped in segments of 8 and of 16."""
    grid, rays = scene(cascades, share, count=200)
    near = 0.2 * torch.rand(200, generator=torch.Generator().manual_seed(4))
    rays = Rays(rays.origins, rays.directions, near, near + 1.2)
    config = volume.Config(step=1 / 400, cone=cone, near=0.1, stop=1e-6)
    found, expected = both(field_of(cascades, kind, precision=precision), grid, rays, config)
    # where a position rounds differently, so may a feature in 16 bits
    assert_agree(found[:2], expected[:2], rtol=0, atol=1e-5 if precision == "f32" else 1e-3)
    assert 0.05 < expected[1].mean() < 0.99


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
def test_in_16_bits_and_from_far_away_memory(monkeypatch):
    """bf16 on tensor cores, rows of the tile in scratch memory, and rays that end at `stop`."""
    monkeypatch.setattr("radfield.networks.mlp._MOST_SHARED", 0)
    config = volume.Config(step=1 / 24, stop=1e-2)
    found, expected = both(field_of(precision="bf16"), *scene(), config, backend.EMULATED)
    assert_agree(found[:2], expected[:2], rtol=0, atol=3e-2)


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(
    ("kind", "precision", "boxed"),
    [
        *(("simplex", "f32", False), ("permutohedral", "bf16", False), ("probe", "f32", False)),
        *(("probe", "bf16", False), ("triplane", "bf16", False)),
        *(("triplane", "f32", True), ("dense", "f32", True), ("vm", "f32", False), ("cp", "f32", False)),
    ],
)
def test_other_encodings_in_one_kernel(kind, precision, boxed):
    """Also those that span a part of the cube."""
    emulator.order = 7
    cascades, factors = 2 if kind == "vm" else 1, OTHERS.get(kind, (None, 1))[1]
    field = field_of(cascades, kind, precision=precision)
    if boxed:
        field.grid.resize(box=torch.tensor([[0.1, 0.25, 0.05], [0.9, 0.8, 0.85]]))
        assert not fused.applies(field, torch.zeros(1, 3))
    config = volume.Config(step=1 / 16, stop=1e-6)
    found, expected = both(field, *scene(cascades, 0.3 if factors == 1 else 0.8, 35), config, backend.EMULATED)
    assert_agree(found[:2], expected[:2], rtol=0, atol=1e-4 if precision == "f32" else 3e-2)
    assert 0.05 < expected[1].mean() < 0.99


def test_agrees_with_plain_torch():
    field, (grid, rays) = field_of(), scene()
    config = volume.Config(step=1 / 24, stop=1e-6)
    found = volume.render_rays(field, grid, rays, behind(rays), config)
    with backend.use("reference"):
        expected = volume.render_rays(field, grid, rays, behind(rays), config)
    assert_agree(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stop", [1e-3, 0.3])
def test_what_a_ray_misses_is_less_than_stop(stop):
    field, (grid, rays) = field_of(), scene(share=0.6)
    whole, part = (both(field, grid, rays, volume.Config(step=1 / 100, stop=s))[0] for s in (1e-7, stop))
    assert_agree(part[:2], whole[:2], rtol=0, atol=stop + 1e-5)
    assert (part[1] < whole[1] - stop / 100).any()


@pytest.mark.parametrize("count", [1, 700])
def test_even_fog_has_the_analytic_opacity(count):
    """More steps than a ray is asked for at a time, and a ray alone."""
    grid, _ = scene(share=1.0)
    y = torch.linspace(0.1, 0.9, count)
    origins = torch.stack([torch.full((count,), -1.0), y, y], 1)
    rays = Rays(origins, torch.tensor([[1.0, 0.0, 0.0]]).expand(count, 3))
    config = volume.Config(step=1 / 700)
    color, opacity, depth = volume.render_rays(even_field(), grid, rays, torch.zeros(3), config)
    seen = 1 - math.exp(-1)
    torch.testing.assert_close(opacity, torch.full((count,), seen), rtol=0, atol=1 / 700)
    torch.testing.assert_close(color, 0.5 * opacity[:, None].expand(-1, 3), rtol=1e-4, atol=0)
    mean = 1 + (math.e - 2) / (math.e - 1)  # of t under e^-t in [0, 1], which is 1 from the camera
    torch.testing.assert_close(depth, torch.full((count,), mean), rtol=0, atol=2 / 700)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_ray_does_not_depend_on_the_others(threads, precision):
    field, (grid, rays) = field_of(precision=precision), scene(count=2100)
    config, background = volume.Config(step=1 / 100), torch.rand(2100, 3)

    def seen(index, **options):
        return volume.render_rays(field, grid, rays[index], background[index], config, **options)

    every = torch.arange(2100)
    whole = seen(every)
    order = torch.randperm(2100)[:77]
    for part, all_of_it in zip(seen(order), whole, strict=True):
        assert torch.equal(part, all_of_it[order])
    for by_tiles, by_rows in zip(seen(every, width=70), whole, strict=True):
        assert torch.equal(by_tiles, by_rows)
    for ours, expected in threads(lambda: seen(every, width=70)):
        assert torch.equal(ours, expected)


def test_a_view_is_its_rays(monkeypatch):
    field, (grid, _) = field_of(), scene()
    origins = torch.tensor([[1.7, 0.2, 0.9]])
    cameras = Cameras(
        camera_to_world=look_at(origins, torch.full((3,), 0.5), torch.tensor([0.0, 0.0, 1.0])),
        focal=torch.full((1, 2), 90.0),
        principal=torch.tensor([[35.0, 40.0]]),
        size=torch.tensor([[70, 80]]),
        distortion=torch.zeros(1, 6),
    )
    background, config = torch.tensor([0.2, 0.4, 0.6]), volume.Config(step=1 / 100)
    whole = volume.render_view(field, grid, cameras, 0, background, config)
    rays = volume.render_rays(field, grid, image_rays(cameras, 0), background, config)
    for found, expected in zip((whole.color, whole.opacity, whole.depth), rays, strict=True):
        assert torch.equal(found.reshape(expected.shape), expected)
    monkeypatch.setattr(volume, "_FUSED_RAYS_PER_CALL", 1)
    parts = volume.render_view(field, grid, cameras, 0, background, config)
    assert torch.equal(parts.color, whole.color) and torch.equal(parts.depth, whole.depth)


@pytest.mark.parametrize(("name", "order"), BACKENDS[:2])
def test_no_rays_and_empty_space(name, order):
    emulator.order = order
    field, (grid, rays) = field_of(), scene(share=0.0)
    config = volume.Config(step=1 / 24)
    found, expected = both(field, grid, rays, config, name)
    assert torch.equal(found[0], expected[0]) and not found[1].any() and not found[2].any()
    none = Rays(rays.origins[:0], rays.directions[:0])
    assert [len(part) for part in both(field, grid, none, config, name)[0]] == [0, 0, 0]


def test_time_of_the_stages_is_added():
    field, (grid, rays) = field_of(), scene(share=1.0)
    spent = torch.zeros(3, dtype=torch.int64)
    volume.render_rays(field, grid, rays, torch.zeros(3), volume.Config(), nanoseconds=spent)
    of_grid, of_networks, whole = spent.tolist()
    assert of_grid > 0 and of_networks > 0 and of_grid + of_networks <= whole


def test_refuses_another_width():
    field, (grid, rays) = field_of(), scene()
    with pytest.raises(BadInput, match="width is 40; the rule: 0, or a divisor of the 41 rays"):
        volume.render_rays(field, grid, rays, torch.zeros(3), volume.Config(), width=40)


def test_other_fields_take_the_separate_ops():
    x, grids = torch.zeros(1, 3), ("hash", "dense", "tiled", "nearest")
    more = ("simplex", "permutohedral", "probe", "triplane", "vm", "cp")
    for name, taken in (("cpu", grids), *([(backend.EMULATED, (*grids, *more))] if EMULATES else [])):
        with backend.use(name):
            assert fused.applies(field_of(), x)
            assert not fused.applies(field_of(appearance=2), x)
            sizes = {"levels": 2, "log2_size": 8, "base_resolution": 16, "finest_resolution": 128}
            for kind in registry.ENCODINGS:
                field = build(Config(grid=registry.config_of(kind, **sizes)))
                assert fused.applies(field, x) == (kind in taken), kind
            windowed = field_of(kind="simplex")
            windowed.grid.window = 0.5
            assert not fused.applies(windowed, x)
            wrapped = field_of(kind="dense")
            wrapped.grid.outside = "wrap"
            assert not fused.applies(wrapped, x)
    with backend.use("reference"):
        assert not fused.applies(field_of(), x)
    shrunk = field_of(kind="dense")
    shrunk.grid._boxed = True  # as it is once its box is smaller than the cube
    assert not fused.applies(shrunk, x)
