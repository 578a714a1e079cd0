"""The nerfacc stand-in's distributions along rays, proposal networks and lenses."""

import itertools

import pytest
import torch

from radfield.compat import nerfacc
from radfield.compat.nerfacc import cameras
from radfield.compat.nerfacc.estimators.prop_net import _lossfun_outer, get_proposal_requires_grad_fn
from radfield.errors import BadInput


def loop_inverse(t, cdf, n):
    """Samples of one ray: the distribution inverted by hand at n equal steps."""
    out = []
    for s in range(n):
        u = cdf[0] + (s + 0.5) * (cdf[-1] - cdf[0]) / n
        i = next(i for i in range(len(cdf) - 1) if u < cdf[i + 1] or i == len(cdf) - 2)
        out.append(t[i] + (u - cdf[i]) / (cdf[i + 1] - cdf[i]) * (t[i + 1] - t[i]))
    return out


def test_importance_sampling_inverts_the_distribution():
    counts, wanted = [4, 2, 6], [3, 0, 5]
    info = torch.tensor([[0, 4], [4, 2], [6, 6]])
    t = torch.cat([torch.rand(n, dtype=torch.float64).cumsum(0) for n in counts])
    cdf = torch.cat([torch.cat((torch.zeros(1), torch.rand(n - 1).add(0.1).cumsum(0))).double() for n in counts])
    edges, samples = nerfacc.importance_sampling(nerfacc.RayIntervals(t, info), cdf, torch.tensor(wanted))
    rows = zip(t.split(counts), cdf.split(counts), wanted, strict=True)
    expected = list(itertools.chain(*(loop_inverse(a.tolist(), b.tolist(), n) for a, b, n in rows)))
    torch.testing.assert_close(samples.vals, torch.tensor(expected, dtype=torch.float64))
    assert samples.packed_info.tolist() == [[0, 3], [3, 0], [3, 5]]
    assert edges.packed_info.tolist() == [[0, 4], [4, 0], [4, 6]]
    assert edges.is_left.tolist() == [True] * 3 + [False] + [True] * 5 + [False]
    assert edges.is_right.tolist() == [False] + [True] * 3 + [False] + [True] * 5
    first, second = samples.vals[:3], edges.vals[:4]
    torch.testing.assert_close(second[1:3], (first[1:] + first[:-1]) / 2)
    torch.testing.assert_close(second[0], torch.maximum(first[0] - (first[1] - first[0]) / 2, t[0]))


def test_batched_importance_sampling_is_that_of_each_row():
    t = torch.rand(5, 4, 7).cumsum(-1)
    cdf = torch.cat((torch.zeros(5, 4, 1), torch.rand(5, 4, 6).softmax(-1).cumsum(-1)), -1)
    edges, samples = nerfacc.importance_sampling(nerfacc.RayIntervals(t), cdf, 9)
    assert edges.vals.shape == (5, 4, 10) and samples.vals.shape == (5, 4, 9)
    info = torch.stack((torch.arange(20) * 7, torch.full((20,), 7)), 1)
    flat, _ = nerfacc.importance_sampling(nerfacc.RayIntervals(t.flatten(), info), cdf.flatten(), 9)
    assert torch.equal(flat.vals, edges.vals.view(20, 10))
    assert (edges.vals.diff(dim=-1) > 0).all()
    assert (edges.vals[..., 0] >= t[..., 0]).all() and (edges.vals[..., -1] <= t[..., -1]).all()
    alone, _ = nerfacc.importance_sampling(nerfacc.RayIntervals(t), cdf, 1)
    assert torch.equal(alone.vals, t[..., [0, -1]])
    _, jittered = nerfacc.importance_sampling(nerfacc.RayIntervals(torch.tensor([[0.0, 1]]).repeat(50, 1)),
                                              torch.tensor([[0.0, 1]]).repeat(50, 1), 4, stratified=True)  # fmt: skip
    torch.testing.assert_close(jittered.vals.diff(dim=-1), torch.full((50, 3), 0.25))
    assert 0 <= jittered.vals[:, 0].min() < 0.05 and 0.2 < jittered.vals[:, 0].max() <= 0.25


def test_searchsorted_brackets_every_value():
    keys = nerfacc.RaySamples(torch.rand(6, 8).sort(-1).values)
    values = nerfacc.RaySamples(torch.rand(6, 5) * 1.4 - 0.2)
    left, right = nerfacc.searchsorted(keys, values)
    inside = (values.vals >= keys.vals[:, :1]) & (values.vals < keys.vals[:, -1:])
    below, above = keys.vals.gather(-1, left), keys.vals.gather(-1, right)
    assert ((below <= values.vals) & (values.vals < above))[inside].all() and (right - left)[inside].eq(1).all()
    assert (left == right)[values.vals < keys.vals[:, :1]].all()
    key_info = torch.stack((torch.arange(6) * 8, torch.full((6,), 8)), 1)
    rows = torch.arange(6).repeat_interleave(5)
    flat = nerfacc.searchsorted(
        nerfacc.RaySamples(keys.vals.flatten(), key_info), nerfacc.RaySamples(values.vals.flatten(), ray_indices=rows)
    )
    assert torch.equal(flat[0] - rows * 8, left.flatten()) and torch.equal(flat[1] - rows * 8, right.flatten())


def test_proposals_learn_where_the_field_is():
    logits = torch.nn.Parameter(torch.zeros(32))
    wall = lambda t_starts, t_ends: 60.0 * ((t_starts + t_ends) / 2 > 3)  # noqa: E731
    proposal = lambda a, b: logits[((a + b) / 2 * 6.4).long().clamp(0, 31)].exp()  # noqa: E731
    optimizer = torch.optim.Adam([logits], lr=0.2)
    estimator = nerfacc.PropNetEstimator(optimizer)
    losses, due = [], get_proposal_requires_grad_fn(num_steps=200)
    for step in range(40):
        options = {"sampling_type": "uniform", "stratified": True, "requires_grad": due(step)}
        t_starts, t_ends = estimator.sampling([proposal], [32], 16, 20, 0.1, 5.0, **options)
        trans, _ = nerfacc.render_transmittance_from_density(t_starts, t_ends, wall(t_starts, t_ends))
        loss = estimator.update_every_n_steps(trans, options["requires_grad"])
        losses += [loss] if options["requires_grad"] else []
    assert 15 < len(losses) < 40 and losses[-1] < losses[0] / 3 and not estimator.prop_cache
    with torch.no_grad():
        near, far = estimator.sampling([proposal], [32], 16, 20, 0.1, 5.0, "uniform")
    assert near.shape == far.shape == (20, 16) and ((near > 2.5) & (far < 3.6)).float().mean() > 0.5


def test_weights_are_bounded_by_what_they_touch():
    t, around = torch.rand(3, 6).sort(-1).values, torch.rand(3, 9).sort(-1).values
    w, allowed = torch.rand(3, 5), torch.rand(3, 8) * 0.3
    around[:, 0], around[:, -1] = -1, 2
    touches = (t[:, :-1, None] < around[:, None, 1:]) & (around[:, None, :-1] < t[:, 1:, None])
    excess = (w - (touches * allowed[:, None]).sum(-1)).clamp_min(0)
    torch.testing.assert_close(_lossfun_outer(t, w, around, allowed), excess**2 / w, rtol=1e-4, atol=1e-6)
    assert 2 < (excess > 0).sum() < 15


def test_distances_and_their_inverses():
    estimator = nerfacc.PropNetEstimator()
    even = estimator.sampling([], [], 4, 1, 1.0, 5.0, "uniform")
    torch.testing.assert_close(even[0][0], torch.tensor([1.0, 2, 3, 4]))
    inverse = estimator.sampling([], [], 4, 1, 1.0, 5.0)
    torch.testing.assert_close(1 / inverse[1][0], torch.tensor([0.8, 0.6, 0.4, 0.2]))


def distort(xy, k1, k2, p1, p2, k3, k4, k5, k6):
    x, y = xy.unbind(-1)
    r = x * x + y * y
    radial = (1 + k1 * r + k2 * r**2 + k3 * r**3) / (1 + k4 * r + k5 * r**2 + k6 * r**3)
    return torch.stack((x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x),
                        y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y), -1)  # fmt: skip


def test_distorted_points_come_back():
    xy = torch.rand(4, 25, 2) - 0.5
    params = torch.tensor([0.1, -0.05, 0.004, -0.003, 0.02, 0.03, 0.01, -0.01])
    for used in (1, 2, 4, 8):
        given = torch.where(torch.arange(8) < used, params, 0)
        found = cameras.opencv_lens_undistortion(distort(xy, *given), params[:used])
        torch.testing.assert_close(found, xy, rtol=0, atol=1e-5)
    assert torch.equal(cameras.opencv_lens_undistortion(xy, params[:0]), xy)
    k = torch.tensor([0.05, -0.01, 0.003, -0.001])
    radius = xy.norm(dim=-1, keepdim=True)
    theta = radius.atan()
    bent = xy / radius * theta * (1 + sum(k[i] * theta ** (2 * i + 2) for i in range(4)))
    torch.testing.assert_close(cameras.opencv_lens_undistortion_fisheye(bent, k), xy, rtol=0, atol=1e-5)


def proposed():
    estimator = nerfacc.PropNetEstimator()
    estimator.sampling([], [], 4, 1, 1.0, 5.0, requires_grad=True)
    return estimator


WRONG = {
    "uniform or lindisp": lambda: nerfacc.PropNetEstimator().sampling([], [], 4, 1, 1.0, 5.0, "log"),
    "no optimizer": lambda: proposed().update_every_n_steps(torch.ones(1, 4), True),
    "the same shape": lambda: nerfacc.importance_sampling(nerfacc.RayIntervals(torch.ones(2, 3)), torch.ones(3), 2),
    "above 0": lambda: nerfacc.importance_sampling(nerfacc.RayIntervals(torch.ones(2, 3)), torch.ones(2, 3), 0),
    "one of them": lambda: nerfacc.importance_sampling(nerfacc.RayIntervals(torch.ones(3)), torch.ones(3), 2),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_one_line(words):
    with pytest.raises(BadInput) as error:
        WRONG[words]()
    assert words in str(error.value) and "; the rule: " in str(error.value) and "\n" not in str(error.value)
