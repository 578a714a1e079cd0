"""Ray marching: the same samples as testing every step in torch, and laws that hold on any grid."""

import math

import pytest
import torch

from radfield import backend
from radfield.cpu import library
from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.sampling import march_reference, occupancy_reference
from radfield.sampling.march import MIN_STEP, SampleBuffers, march
from radfield.sampling.occupancy import Config, OccupancyGrid


def grid_of(fraction, resolution=32, cascades=1, seed=0):
    """Blobs (so that there is space to skip) that fill about this fraction."""
    grid = OccupancyGrid(Config(resolution=resolution, cascades=cascades))
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(grid.config.cells // 64, generator=generator) < 2 * fraction
    fine = torch.rand(grid.config.cells, generator=generator) < 0.5
    grid.values.copy_((coarse.repeat_interleave(64) & fine | (fraction == 1)).float())
    grid.refresh()
    return grid


def rays_towards(n, cascades=1, seed=0, **limits):
    """Rays from inside and outside of the box; some miss it, some run along an axis."""
    generator = torch.Generator().manual_seed(seed)
    side = 2.0 ** (cascades - 1)
    origins = (torch.rand(n, 3, generator=generator) - 0.5) * 3 * side + 0.5
    targets = (torch.rand(n, 3, generator=generator) - 0.5) * 1.3 * side + 0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    directions[::7] = torch.eye(3)[torch.arange(n)[::7] % 3]
    return Rays(origins, directions, **limits)


def same(a, b):
    for name, value in vars(a).items():
        assert torch.equal(value, getattr(b, name)), name


@pytest.mark.usefixtures("each_backend_once")
@pytest.mark.parametrize("n", [0, 1, 7, 33, 200])
@pytest.mark.parametrize(
    ("resolution", "cascades", "step"), [(32, 1, MIN_STEP), (64, 1, 0.03), (16, 3, 0.01), (32, 2, 0.1)]
)
def test_constant_steps_give_the_bits_of_the_reference(n, resolution, cascades, step):
    grid = grid_of(0.1, resolution, cascades)
    generator = torch.Generator().manual_seed(n)
    limits = {"near": torch.rand(n, generator=generator) * 0.2, "far": torch.rand(n, generator=generator) * 2}
    for options in ({}, {"jitter_seed": 5}, {"max_per_ray": 9}, {"max_samples": 300}):
        for rays in (rays_towards(n, cascades), rays_towards(n, cascades, **limits)):
            ours = march(rays, grid, step=step, **options)
            with backend.use("reference"):
                theirs = march(rays, grid, step=step, **options)
            same(ours, theirs)
    if n == 200:
        assert len(march(rays_towards(n, cascades), grid, step=step)) > 100


@pytest.mark.usefixtures("each_backend_once")
@pytest.mark.parametrize(("cascades", "near"), [(1, 0.0), (3, 0.0), (3, 0.1), (5, 0.0)])
def test_cone_steps_agree_with_the_reference(cascades, near):
    grid, rays = grid_of(0.1, 32, cascades), rays_towards(200, cascades, near=torch.full((200,), near))
    options = dict(step=MIN_STEP, cone=1 / 256, max_step=0.05, jitter_seed=3)
    ours = march(rays, grid, **options)
    with backend.use("reference"):
        theirs = march(rays, grid, **options)
    # exp and log round differently: a sample at the border of a cell may be in one only
    difference = (ours.ray_start.diff() - theirs.ray_start.diff()).abs()
    assert len(ours) > 1000 and difference.sum() <= 0.002 * len(ours)
    rows = difference == 0
    a, b = (s.t_start[rows[s.ray_index()]] for s in (ours, theirs))
    assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    assert torch.allclose(*(s.t_end[rows[s.ray_index()]] for s in (ours, theirs)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cone", [0.0, 1 / 256, 0.05])
@pytest.mark.parametrize("step", [0.3 / 128, 0.9 / 128, 1.8 / 128, 5 / 128])
@pytest.mark.parametrize("cascades", [1, 2, 5])
def test_skipping_changes_nothing(cone, step, cascades):
    for fraction in (0.003, 0.2):
        grid, rays = grid_of(fraction, 64, cascades, seed=1), rays_towards(500, cascades, seed=2)
        for limit in (math.inf, 0.1):
            options = dict(step=step, cone=cone, max_step=max(step, limit), jitter_seed=1)
            same(march(rays, grid, **options), march(rays, grid, **options, skip=False))


@pytest.mark.parametrize(("cone", "cascades"), [(0.0, 1), (0.0, 3), (1 / 256, 3)])
def test_every_sample_lies_in_an_occupied_cell(cone, cascades):
    grid, rays = grid_of(0.05, 32, cascades), rays_towards(300, cascades)
    samples = march(rays, grid, step=MIN_STEP, cone=cone, max_step=0.1, jitter_seed=7)
    middle = (samples.x - rays.origins[samples.ray_index()]).norm(dim=-1)
    length = (middle * cone).clamp(MIN_STEP, 0.1)
    cell = march_reference.cell_of_step(samples.x, length, 32, cascades)
    # the length is recomputed here: where it is next to a power of two, rounding may choose the other cascade
    assert occupancy_reference.unpack(grid.bitfield)[cell].float().mean() > 0.9999
    assert len(samples) > 1000


@pytest.mark.parametrize("cone", [0.0, 1 / 128])
def test_intervals(cone):
    grid, rays = grid_of(1, 16, 2), rays_towards(50, 2)
    samples = march(rays, grid, step=0.01, cone=cone, jitter_seed=1)
    length, ray = samples.t_end - samples.t_start, samples.ray_index()
    middle = (samples.t_start + samples.t_end) / 2
    expected = (middle * cone).clamp_min(0.01)
    assert torch.allclose(length, expected, rtol=2 * cone + 1e-4, atol=1e-6)
    assert torch.allclose(samples.x, rays.origins[ray] + middle[:, None] * rays.directions[ray], atol=1e-4)
    assert torch.equal(samples.directions, rays.directions[ray])
    # everything is occupied: each interval starts where the one before ends
    follows = ray[1:] == ray[:-1]
    assert torch.equal(samples.t_start[1:][follows], samples.t_end[:-1][follows])


def test_full_grid_gives_the_analytic_count():
    n = 64
    angle = torch.linspace(0.1, 1.4, n)
    directions = torch.stack((angle.cos(), angle.sin(), torch.zeros(n)), -1)
    rays = Rays(torch.tensor([[0.0, 0.0, 0.5]]).expand(n, 3), directions)
    length = 1 / directions[:, :2].amax(-1).double()
    samples = march(rays, OccupancyGrid(Config(resolution=16)), step=0.01)
    assert torch.equal(samples.ray_start.diff().double(), torch.ceil(length / 0.01 - 0.5))
    assert torch.allclose(samples.t_start[samples.ray_start[:-1].long()], torch.zeros(n))


def test_jitter_is_uniform_within_a_step():
    n = 4000
    rays = Rays(torch.tensor([[-1.0, 0.5, 0.5]]).expand(n, 3), torch.tensor([[1.0, 0, 0]]).expand(n, 3))
    grid = OccupancyGrid(Config(resolution=16))
    samples = march(rays, grid, step=0.1, jitter_seed=11)
    offset = (samples.t_start[samples.ray_start[:-1].long()] - 1) / 0.1
    assert offset.min() >= -1e-5 and offset.max() < 1 + 1e-5
    assert abs(offset.mean() - 0.5) < 0.02 and abs(offset.var() - 1 / 12) < 0.005
    assert not torch.equal(samples.t_start, march(rays, grid, step=0.1, jitter_seed=12).t_start)


@pytest.mark.usefixtures("each_backend")
def test_limits():
    grid, rays = grid_of(0.3, 32), rays_towards(100)
    full = march(rays, grid, step=0.005)
    few = march(rays, grid, step=0.005, max_per_ray=10)
    assert torch.equal(few.ray_start.diff(), full.ray_start.diff().clamp_max(10))
    cut = march(rays, grid, step=0.005, max_samples=1000)
    ends = full.ray_start[1:]
    kept = int((ends <= 1000).sum())
    assert cut.ray_count == kept and len(cut) == ends[kept - 1] and torch.equal(cut.x, full.x[: len(cut)])
    assert march(rays, grid, step=0.005, max_samples=1).ray_count == int((ends <= 1).sum())


def test_any_number_of_threads_gives_the_same_bits():
    grid, rays = grid_of(0.1, 64, 3), rays_towards(1000, 3)
    before = library.num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            library.set_num_threads(threads)
            found.append(march(rays, grid, step=0.005, cone=1 / 256, jitter_seed=3, max_samples=20000))
    finally:
        library.set_num_threads(before)
    same(found[0], found[1])
    same(found[0], found[2])


def test_buffers_are_used_again():
    grid, rays, buffers = grid_of(0.2, 32), rays_towards(100), SampleBuffers(1000)
    first = march(rays, grid, step=0.01, buffers=buffers)
    same(first, march(rays, grid, step=0.01, max_samples=1000))
    second = march(rays_towards(50, seed=1), grid, step=0.01, buffers=buffers, directions=False)
    assert second.x.data_ptr() == first.x.data_ptr() and second.directions is None
    assert len(second) <= 1000 and second.x.stride() == (1, len(second))


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rays_that_are_not_finite_have_no_samples(bad):
    grid = OccupancyGrid(Config(resolution=16))
    origins, directions = torch.full((4, 3), 0.5), torch.tensor([[0.0, 0, 1]]).repeat(4, 1)
    origins[0, 0], directions[1, 1], directions[2] = bad, bad, 0
    for name in ("cpu", "reference"):
        with backend.use(name):
            assert march(Rays(origins, directions), grid, step=0.1).ray_start.tolist() == [0, 0, 0, 0, 5]


def test_rays_that_miss_have_no_samples():
    grid = OccupancyGrid(Config(resolution=16))
    origins = torch.tensor([[-1.0, 2.0, 0.5], [2.0, 0.5, 0.5], [0.5, 1.0001, 0.5], [0.0, 0.5, -3.0]])
    directions = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0], [0.0, 0, 1]])
    assert march(Rays(origins, directions), grid, step=0.1).ray_start.tolist() == [0, 0, 0, 0, 10]


@pytest.mark.parametrize(
    "options",
    [
        {"step": 0},
        {"step": 1e-7},
        {"cone": -1},
        {"max_step": 1e-9, "cone": 0.1},
        {"max_samples": 0},
        {"max_per_ray": 0},
    ],
)
def test_bad_options(options):
    with pytest.raises(BadInput, match=r"step|cone|max_"):
        march(rays_towards(3), OccupancyGrid(Config(resolution=16)), **options)
