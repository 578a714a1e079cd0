"""The nerfacc stand-in's grids: rays and boxes, traversal, the occupancy estimator; against brute force."""

import math

import pytest
import torch

from radfield import backend
from radfield.compat import nerfacc
from radfield.errors import BadInput

BOX = [-1.0, -0.5, -0.75, 1.0, 0.5, 0.75]


def rays(n=24, seed=0):
    """Rays towards the box from around it, from within, past it, and along the axes."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.randn(n, 3, generator=generator) * torch.linspace(0.2, 4, n)[:, None]
    towards = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator) * 0.6 - origins, dim=-1)
    axes = torch.cat((torch.eye(3), -torch.eye(3)))
    beside = torch.tensor([0.13, -0.21, 0.17])
    return torch.cat((origins, beside - 5 * axes)), torch.cat((towards, axes))


def grids(levels=2, fill=0.3, resolution=(6, 5, 4)):
    estimator = nerfacc.OccGridEstimator(BOX, resolution, levels)
    estimator.binaries = torch.rand(estimator.binaries.shape, generator=torch.Generator().manual_seed(1)) < fill
    return estimator


def occupied_at(estimator, points):
    """Whether points [..., 3] (float64) lie in an occupied cell of the finest grid that has them, and how far the
    nearest border of a cell is from them."""
    found, taken = torch.zeros(points.shape[:-1], dtype=torch.bool), torch.zeros(points.shape[:-1], dtype=torch.bool)
    border = torch.full(points.shape[:-1], math.inf, dtype=torch.float64)
    for level, aabb in enumerate(estimator.aabbs.double()):
        cells = torch.tensor(estimator.binaries.shape[1:])
        at = (points - aabb[:3]) / (aabb[3:] - aabb[:3]) * cells
        border = torch.minimum(border, ((at - at.round()).abs() * (aabb[3:] - aabb[:3]) / cells).amin(-1))
        inside = ((at >= 0) & (at < cells)).all(-1)
        index = at.long().clamp(min=torch.zeros(3, dtype=torch.long), max=cells - 1)
        here = estimator.binaries[level][tuple(index.unbind(-1))]
        found, taken = torch.where(inside & ~taken, here, found), taken | inside
    return found, border


def brute_force(estimator, o, d, near, far, step):
    """(ray, step number, doubtful) of the samples, every step of every ray tested; doubtful where rounding decides."""
    k = torch.arange(int(12 / step))
    middles = near.double()[:, None] + (k + 0.5) * step
    points = o.double()[:, None] + middles[..., None] * d.double()[:, None]
    occupied, border = occupied_at(estimator, points)
    return occupied & (middles < far.double()[:, None]), (border < 1e-6) | ((middles - far[:, None]).abs() < 1e-6)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_samples_are_the_steps_whose_middles_are_in_occupied_cells(levels):
    estimator, (o, d), step = grids(levels), rays(), 0.06
    t_min, t_max = torch.rand(len(o)) * 2, 2 + torch.rand(len(o)) * 6
    ray, t_start, t_end = estimator.sampling(o, d, t_min=t_min, t_max=t_max, render_step_size=step)
    wanted, doubtful = brute_force(estimator, o, d, t_min, t_max, step)
    number = ((t_start.double() + t_end) / 2 - t_min[ray]).div(step).sub(0.5).round().long()
    found = torch.zeros_like(wanted)
    found[ray, number] = True
    assert torch.equal(found | doubtful, wanted | doubtful) and doubtful.float().mean() < 1e-3
    assert wanted.sum() > 60 * levels and len(ray) == int(found.sum())
    assert (ray.diff() >= 0).all() and (number.diff()[ray.diff() == 0] > 0).all()
    torch.testing.assert_close(t_start, t_min[ray] + number * step)
    torch.testing.assert_close(t_end, t_start + step)
    assert ray.dtype == torch.int64 and t_start.dtype == t_end.dtype == torch.float32


def test_stratified_rays_start_within_one_step():
    estimator, (o, d) = grids(1, fill=2.0), rays()
    ray, t_start, _ = estimator.sampling(o, d, render_step_size=0.125, stratified=True)
    phase = torch.stack([t_start[ray == i].div(0.125).frac().mean() for i in ray.unique()])
    assert (phase.max() - phase.min()) > 0.3
    for i in ray.unique():
        torch.testing.assert_close(t_start[ray == i].diff(), torch.full_like(t_start[ray == i][1:], 0.125))


def test_voxels_are_met_where_no_step_is_given():
    estimator, (o, d) = grids(2), rays()
    ray, t_start, t_end = estimator.sampling(o, d, render_step_size=0.0)
    middles = o.double()[ray] + ((t_start.double() + t_end) / 2)[:, None] * d.double()[ray]
    occupied, border = occupied_at(estimator, middles)
    assert (occupied | (border < 1e-5)).all() and (t_end >= t_start).all() and (border < 1e-5).float().mean() < 0.2
    fine = estimator.sampling(o, d, render_step_size=1e-3)
    lengths = torch.zeros(len(o)).index_add(0, ray, t_end - t_start)
    by_steps = torch.zeros(len(o)).index_add(0, fine[0], fine[2] - fine[1])
    torch.testing.assert_close(lengths, by_steps, rtol=0, atol=0.02)


def test_steps_of_a_cone_grow_with_distance():
    estimator, (o, d) = grids(2, fill=2.0), rays()
    options = {"render_step_size": 0.02, "cone_angle": 0.05, "near_plane": 0.1}
    ray, t_start, t_end = estimator.sampling(o, d, **options)
    torch.testing.assert_close(t_end - t_start, (0.05 * t_start).clamp_min(0.02), rtol=1e-4, atol=1e-6)
    assert ((t_end - t_start) > 0.021).any() and ((t_end - t_start) < 0.0201).any()
    same = ray[1:] == ray[:-1]
    assert torch.equal(t_start[1:][same], t_end[:-1][same])  # full grids leave no gaps


@pytest.mark.parametrize(
    "options",
    [{}, {"cone_angle": 0.03}, {"step_size": 0.0}, {"traverse_steps_limit": 5}],
    ids=["constant", "cone", "voxels", "limit"],
)
def test_native_traversal_is_the_specification(options, threads):
    estimator, (o, d) = grids(2, 0.5, (20, 16, 12)), rays()  # some rays have more than 8 runs
    o, d = (
        torch.cat((o, torch.tensor([[torch.nan, 0, 0], [0, 0, 0]]))),
        torch.cat((d, torch.eye(3)[:1], torch.zeros(1, 3))),
    )
    mask, near = torch.arange(len(o)) % 5 != 1, torch.rand(len(o))
    arguments = {"step_size": 0.07, "near_planes": near, "rays_mask": mask} | options
    run = lambda: nerfacc.traverse_grids(o, d, estimator.binaries, estimator.aabbs, **arguments)  # noqa: E731
    with backend.use("reference"):
        wanted = run()
    for found, _ in threads(lambda: [run()]):
        for ours, theirs in zip(found[:2], wanted[:2], strict=True):
            for name, value in vars(theirs).items():
                assert torch.equal(getattr(ours, name), value), name
        torch.testing.assert_close(found[2], wanted[2], equal_nan=True)
    counts = wanted[1].packed_info[:, 1]
    assert counts[~mask].sum() == counts[-2:].sum() == 0 < counts.sum()


@pytest.mark.parametrize("options", [{}, {"cone_angle": 0.03}, {"step_size": 0.0}, {"traverse_steps_limit": 5}])
def test_every_backend_traverses_alike(options, each_backend_once):
    estimator, (o, d) = grids(2, 0.5, (20, 16, 12)), rays(9)  # some rays have more than 8 runs
    o[3], d[4] = torch.nan, 0.0
    mask = torch.arange(len(o)) % 5 != 1
    arguments = {"step_size": 0.2, "near_planes": torch.rand(len(o)), "rays_mask": mask} | options
    found, wanted = [], []
    for forced, results in ((each_backend_once, found), ("cpu", wanted)):
        with backend.use(forced):
            results += nerfacc.traverse_grids(o, d, estimator.binaries, estimator.aabbs, **arguments)
    for ours, theirs in zip(found[:2], wanted[:2], strict=True):
        assert len(theirs.vals) > 20
        for name, value in vars(theirs).items():
            assert torch.equal(getattr(ours, name), value), name
    torch.testing.assert_close(found[2], wanted[2], rtol=0, atol=0, equal_nan=True)


def test_edges_are_those_of_the_samples():
    estimator, (o, d) = grids(2), rays()
    edges, samples, reached = nerfacc.traverse_grids(o, d, estimator.binaries, estimator.aabbs, step_size=0.05)
    left, right = edges.vals[edges.is_left], edges.vals[edges.is_right]
    torch.testing.assert_close((left + right) / 2, samples.vals)
    assert torch.equal(edges.ray_indices[edges.is_left], samples.ray_indices)
    assert (edges.is_left | edges.is_right).all() and (edges.is_left & edges.is_right).any()
    assert torch.equal(nerfacc.pack_info(edges.ray_indices, len(o)), edges.packed_info)
    assert torch.equal(nerfacc.pack_info(samples.ray_indices, len(o)), samples.packed_info)
    last = torch.zeros(len(o)).scatter_reduce(0, samples.ray_indices, right, "amax")
    assert (reached >= last).all() and samples.is_valid.all() and edges.device == o.device


def test_traversal_goes_on_where_a_limit_stopped_it():
    estimator, (o, d) = grids(2), rays()
    scene, near, parts = (o, d, estimator.binaries, estimator.aabbs), torch.zeros(len(o)), []
    for _ in range(60):
        options = {"near_planes": near, "step_size": 0.07, "traverse_steps_limit": 3, "over_allocate": True}
        _, samples, near = nerfacc.traverse_grids(*scene, **options)
        assert len(samples.vals) == 3 * len(o)
        parts.append((samples.ray_indices[samples.is_valid], samples.vals[samples.is_valid]))
        if not samples.is_valid.any():
            break
    ray, middle = (torch.cat(values) for values in zip(*parts, strict=True))
    order = ray.argsort(stable=True)
    _, whole, _ = nerfacc.traverse_grids(*scene, step_size=0.07)
    assert torch.equal(ray[order], whole.ray_indices)
    torch.testing.assert_close(middle[order], whole.vals, rtol=0, atol=1e-5)


def test_boxes_against_points_along_the_rays():
    o, d = rays()
    boxes = torch.tensor([BOX, [0.5, 0.5, 0.5, 2.0, 3.0, 1.0]])
    enter, leave, hits = nerfacc.ray_aabb_intersect(o, d, boxes)
    t = torch.linspace(0, 16, 3201)
    points = o[:, None, None] + t[:, None] * d[:, None, None]
    inside = ((points >= boxes[:, None, :3]) & (points <= boxes[:, None, 3:])).all(-1)
    long = leave - enter.clamp_min(0) > 0.01  # of a shorter chord there may be no point
    assert torch.equal(inside.any(-1)[long | ~hits], hits[long | ~hits])
    for i, m in hits.nonzero().tolist():
        at = t[inside[i, m]]
        if len(at):
            assert abs(at[0] - enter[i, m].clamp_min(0)) < 0.006 and abs(at[-1] - leave[i, m]) < 0.006
    assert enter[~hits].isinf().all() and 0 < hits.float().mean() < 1
    near = nerfacc.ray_aabb_intersect(o, d, boxes, near_plane=0.5, far_plane=1.0, miss_value=-7.0)
    assert (near[0][hits] >= 0.5).all() and (near[1][hits] <= 1.0).all() and (near[1][~hits] == -7).all()


@pytest.mark.parametrize("by", ["sigma_fn", "alpha_fn"])
def test_samples_that_are_not_seen_are_left_out(by):
    estimator, (o, d) = grids(1, fill=2.0), rays()
    estimator.occs += 1
    every = estimator.sampling(o, d, render_step_size=0.05)

    def density(t_starts, t_ends, ray):
        x = o[ray] + ((t_starts + t_ends) / 2)[:, None] * d[ray]
        return 40 * (x.norm(dim=-1) < 0.4)

    def opacity(t_starts, t_ends, ray):
        return 1 - torch.exp(-density(t_starts, t_ends, ray) * (t_ends - t_starts))

    function = {"sigma_fn": density, "alpha_fn": opacity}[by]
    options = {"render_step_size": 0.05, "early_stop_eps": 0.01, "alpha_thre": 0.1, by: function}
    ray, t_start, t_end = estimator.sampling(o, d, **options)
    alpha = opacity(every[1], every[2], every[0])
    trans = nerfacc.render_transmittance_from_alpha(alpha, ray_indices=every[0], n_rays=len(o))
    kept = (trans >= 0.01) & (alpha >= 0.1)
    for found, wanted in zip((ray, t_start, t_end), every, strict=True):
        assert torch.equal(found, wanted[kept])
    assert 0 < len(ray) < len(every[0]) / 2


def test_cells_become_occupied_and_fade():
    estimator = nerfacc.OccGridEstimator(BOX, 8, levels=2)
    asked = []

    def inside(x):
        asked.append(x)
        return (x.norm(dim=-1, keepdim=True) < 0.5).float()

    estimator.update_every_n_steps(0, inside)
    assert [len(x) for x in asked] == [512, 512]
    for x, aabb in zip(asked, estimator.aabbs, strict=True):
        cell = ((x - aabb[:3]) / (aabb[3:] - aabb[:3]) * 8).long()
        assert torch.equal(cell, estimator.grid_coords)  # one point in every cell
    assert torch.equal(estimator.binaries.flatten(), estimator.occs > 0.01)
    assert torch.equal(estimator.occs[:512], inside(asked[0])[:, 0])
    estimator.update_every_n_steps(1, lambda x: pytest.fail("not its turn"))
    before = estimator.occs.clone()
    estimator.update_every_n_steps(256, lambda x: torch.zeros(len(x), 1), ema_decay=0.5)
    assert set((estimator.occs[before > 0] / before[before > 0]).tolist()) == {0.5}
    estimator.eval()
    with pytest.raises(BadInput, match="evaluation mode"):
        estimator.update_every_n_steps(0, inside)


def test_a_state_dict_goes_from_one_to_another():
    estimator = grids(2)
    assert set(estimator.state_dict()) == {"resolution", "aabbs", "occs", "binaries"}
    other = nerfacc.OccGridEstimator([0, 0, 0, 1, 1, 1], [6, 5, 4], 2)
    other.load_state_dict(estimator.state_dict())
    o, d = rays()
    for a, b in zip(other.sampling(o, d), estimator.sampling(o, d), strict=True):
        assert torch.equal(a, b)


def test_cells_that_no_camera_sees_are_given_up():
    estimator = nerfacc.OccGridEstimator([-1, -1, -1, 1, 1, 1], 9)
    pose = torch.eye(4)[None].clone()
    pose[0, 2, 3] = -3  # looks along +z at the box, 3 away
    K = torch.tensor([[[20.0, 0, 10], [0, 20, 10], [0, 0, 1]]])
    estimator.mark_invisible_cells(K, pose, 20, 20, near_plane=2.5, chunk=100)
    corner = estimator.grid_coords / 4 - 1
    depth = corner[:, 2] + 3
    on_image = (corner[:, :2] * 20 / depth[:, None]).abs().amax(1) <= 10 - 1e-4
    edge = ((corner[:, :2] * 20 / depth[:, None]).abs().amax(1) - 10).abs() < 1e-3
    assert torch.equal((estimator.occs == 0)[~edge], (on_image & (depth >= 2.5))[~edge])
    assert 0 < (estimator.occs == -1).sum() < 729
    estimator.update_every_n_steps(0, lambda x: torch.ones(len(x), 1))
    assert (estimator.occs[estimator.occs != 1] == -1).all() and estimator.binaries.any()


FROM, ALONG = torch.zeros(2, 3), torch.eye(3)[:2]
WRONG = {
    "at most 4194304 steps": lambda: grids(1).sampling(FROM, ALONG, render_step_size=1e-9),
    "rays_d is [1, 3]": lambda: grids(1).sampling(FROM, ALONG[:1]),
    "of torch.bool": lambda: nerfacc.traverse_grids(FROM, ALONG, torch.ones(1, 2, 2, 2), torch.tensor([BOX])),
    "positive to over_allocate": lambda: nerfacc.traverse_grids(FROM, ALONG, None, None, over_allocate=True),
    "twice the grids": lambda: nerfacc.traverse_grids(
        FROM, ALONG, grids(1).binaries, grids(1).aabbs, t_sorted=torch.ones(2, 2), t_indices=torch.full((2, 2), 2),
        hits=torch.ones(2, 1, dtype=torch.bool)
    ),
    "lower corner": lambda: nerfacc.OccGridEstimator([1, 0, 0, 0, 1, 1]),
    "numbers from 1": lambda: nerfacc.OccGridEstimator(BOX, 0),
    "contraction_type": lambda: nerfacc.OccGridEstimator(BOX, contraction_type=1),
    "sigma_fn gave [1]": lambda: grids(1, 2.0).sampling(FROM, ALONG, lambda *_: torch.ones(1)),
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_one_line(words):
    with pytest.raises(BadInput) as error:
        WRONG[words]()
    assert words in str(error.value) and "; the rule: " in str(error.value) and "\n" not in str(error.value)
