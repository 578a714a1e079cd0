"""The nerfacc stand-in's volume rendering, scans and losses against loops over rays; its interface."""

import importlib
import inspect
import sys

import pytest
import torch

from radfield import backend, compat
from radfield.compat import nerfacc
from radfield.compat.nerfacc.losses import distortion
from radfield.compat.nerfacc.segments import segment_scan, segment_scan_reference
from radfield.compat.nerfacc.volrend import accumulate_along_rays_
from radfield.errors import BadInput

COUNTS = (3, 0, 1, 5, 2)
SCANS = ("inclusive_sum", "exclusive_sum", "inclusive_prod", "exclusive_prod")


def packed(counts=COUNTS):
    """(packed_info, ray_indices) of rays with so many samples."""
    counts = torch.tensor(counts)
    return torch.stack((counts.cumsum(0) - counts, counts), 1), torch.arange(len(counts)).repeat_interleave(counts)


def samples(dtype=torch.float64, counts=COUNTS):
    """Intervals one after another along each ray, and a density in each."""
    info, ray = packed(counts)
    lengths = torch.rand(len(ray), dtype=dtype) + 0.1
    t_end = torch.cat([lengths[a : a + n].cumsum(0) for a, n in info.tolist()])
    return t_end - lengths, t_end, torch.rand(len(ray), dtype=dtype) * 2, info, ray


def loop_scan(name, x, info):
    """A running sum or product, sample by sample."""
    out = []
    for start, count in info.tolist():
        found = x.new_tensor(1.0 if "prod" in name else 0.0)
        for i in range(start, start + count):
            before = found
            found = found * x[i] if "prod" in name else found + x[i]
            out.append(before if "exclusive" in name else found)
    return torch.stack(out)


def loop_render(t_start, t_end, sigma, rgb, info):
    """(colour, opacity, depth, weights, transmittance), ray by ray."""
    color, opacity, depth, weights, reached = [], [], [], [], []
    for start, count in info.tolist():
        trans, seen, mass, far = sigma.new_tensor(1.0), torch.zeros(3).to(sigma), 0 * sigma.sum(), 0 * sigma.sum()
        for i in range(start, start + count):
            alpha = 1 - torch.exp(-sigma[i] * (t_end[i] - t_start[i]))
            w = trans * alpha
            weights.append(w), reached.append(trans)
            seen, mass, far = seen + w * rgb[i], mass + w, far + w * (t_start[i] + t_end[i]) / 2
            trans = trans * (1 - alpha)
        color.append(seen), opacity.append(mass), depth.append(far / mass.clamp_min(1e-10))
    return [torch.stack(value) for value in (color, opacity, depth, weights, reached)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SCANS)
def test_scans_are_loops_with_their_gradients(name, dtype, each_backend):
    info, ray = packed((3, 0, 1, 70, 2))  # one ray is longer than a warp
    x = torch.rand(len(ray), dtype=dtype) + 0.5
    x[4] = 0  # where the gradient of a product must not divide
    weight = torch.rand(len(ray), dtype=dtype)
    expected = x.double().clone().requires_grad_()
    wanted = loop_scan(name, expected, info)
    (wanted * weight.double()).sum().backward()
    for options in ({"packed_info": info}, {"indices": ray}):
        for forced in (each_backend, "reference"):
            with backend.use(forced):
                leaf = x.clone().requires_grad_()
                found = getattr(nerfacc, name)(leaf, **options)
                (found * weight).sum().backward()
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(leaf.grad.double(), expected.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SCANS)
def test_batched_scans_are_the_flattened_ones_row_by_row(name):
    x = torch.rand(3, 4, dtype=torch.float64)
    flat = getattr(nerfacc, name)(x.flatten(), packed((4, 4, 4))[0])
    torch.testing.assert_close(getattr(nerfacc, name)(x), flat.view(3, 4))


def test_what_is_not_finite_stays_in_its_ray(each_backend_once):
    info, ray = packed()
    x = torch.rand(len(ray))
    x[1] = torch.inf
    for name in SCANS:
        assert getattr(nerfacc, name)(x, info)[ray != 0].isfinite().all()


def test_long_rays_are_native_as_in_the_reference(threads):
    counts = torch.randint(0, 400, (200,))
    info, ray = packed(counts.tolist())
    x, start = torch.rand(len(ray)), torch.cat((info[:, 0], info[-1:].sum(1)))
    for product in (False, True):
        options = {"product": product, "exclusive": True}
        for some, one in threads(lambda options=options: [segment_scan(x, start, **options)]):
            assert torch.equal(some, one)
        expected = segment_scan_reference(x.double(), start, **options)
        torch.testing.assert_close(segment_scan(x, start, **options).double(), expected, rtol=1e-6, atol=1e-7)


def test_gradients_of_gradients_of_sums(each_backend_once):
    info, ray = packed()
    x = torch.rand(len(ray), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: nerfacc.exclusive_sum(x, info), (x,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rendering_of_densities_is_a_loop_over_rays(dtype):
    t_start, t_end, sigma, info, ray = samples(dtype)
    rgb, background = torch.rand(len(ray), 3, dtype=dtype), torch.rand(3, dtype=dtype)
    leaves = [value.double().clone().requires_grad_() for value in (sigma, rgb)]
    wanted = loop_render(t_start.double(), t_end.double(), *leaves, info)
    wanted[0] = wanted[0] + background.double() * (1 - wanted[1][:, None])
    wanted[1], wanted[2] = wanted[1][:, None], wanted[2][:, None]
    mix = [torch.rand_like(value) for value in wanted]
    sum((value * part).sum() for value, part in zip(wanted, mix, strict=True)).backward()
    ours = [value.clone().requires_grad_() for value in (sigma, rgb)]
    *found, extras = nerfacc.rendering(
        t_start, t_end, ray, n_rays=5, rgb_sigma_fn=lambda *_: (ours[1], ours[0]), render_bkgd=background
    )
    assert set(extras) == {"weights", "alphas", "trans", "sigmas", "rgbs"}
    found += [extras["weights"], extras["trans"]]
    sum((value * part.to(dtype)).sum() for value, part in zip(found, mix, strict=True)).backward()
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-6}
    for value, expected in zip(found, wanted, strict=True):
        assert value.dtype == dtype and value.shape == expected.shape
        torch.testing.assert_close(value.double(), expected, **tolerance)
    for leaf, expected in zip(ours, leaves, strict=True):
        torch.testing.assert_close(leaf.grad.double(), expected.grad, **tolerance)


def test_every_way_to_say_which_ray_gives_the_same():
    t_start, t_end, sigma, info, ray = samples()
    alpha = 1 - torch.exp(-sigma * (t_end - t_start))
    wanted = loop_render(t_start, t_end, sigma, torch.zeros(len(ray), 3), info)[3:]
    for options in ({"packed_info": info}, {"ray_indices": ray, "n_rays": 5}, {"ray_indices": ray}):
        by_density = nerfacc.render_weight_from_density(t_start, t_end, sigma, **options)
        by_alpha = nerfacc.render_weight_from_alpha(alpha, **options)
        for found in (by_density[:2], by_alpha):
            torch.testing.assert_close(list(found), wanted)
        torch.testing.assert_close(by_density[2], alpha)
        half = nerfacc.render_transmittance_from_alpha(alpha, **options, prefix_trans=torch.full_like(alpha, 0.5))
        torch.testing.assert_close(half, wanted[1] / 2)
        limits = {"early_stop_eps": 0.4, "alpha_thre": 0.3}
        seen = (wanted[1] >= 0.4) & (alpha >= 0.3)
        assert torch.equal(nerfacc.render_visibility_from_alpha(alpha, **options, **limits), seen)
        assert torch.equal(nerfacc.render_visibility_from_density(t_start, t_end, sigma, **options, **limits), seen)
    assert 0 < seen.sum() < len(seen)


def test_batched_rendering_is_the_flattened_one():
    t_start, t_end, sigma, _, ray = samples(counts=(4, 4, 4))
    rgb = torch.rand(12, 3, dtype=torch.float64)
    flat = nerfacc.rendering(t_start, t_end, ray, 3, rgb_sigma_fn=lambda *_: (rgb, sigma))
    shaped = [value.view(3, 4, *value.shape[1:]) for value in (t_start, t_end, sigma, rgb)]
    rows = nerfacc.rendering(*shaped[:2], rgb_sigma_fn=lambda *_: (shaped[3], shaped[2]))
    torch.testing.assert_close(rows[:3], flat[:3])
    alpha = nerfacc.rendering(*shaped[:2], rgb_alpha_fn=lambda *_: (shaped[3], rows[3]["alphas"]))
    torch.testing.assert_close(alpha[:3], flat[:3])
    assert set(alpha[3]) == {"weights", "trans", "rgbs", "alphas"}


def test_nothing_to_render_is_the_background():
    empty = torch.zeros(0)
    options = {"rgb_sigma_fn": lambda *_: pytest.fail("asked"), "render_bkgd": torch.ones(3)}
    color, opacity, depth, _ = nerfacc.rendering(empty, empty, empty.long(), 2, **options)
    assert torch.equal(color, torch.ones(2, 3)) and not opacity.any() and not depth.any()


@pytest.mark.parametrize("columns", [1, 3, 11])
def test_accumulation_takes_samples_in_any_order(columns):
    ray = torch.tensor([2, 0, 2, 4, 0])
    weights = torch.rand(5, dtype=torch.float64, requires_grad=True)
    values = torch.rand(5, columns, dtype=torch.float64, requires_grad=True)
    rows = [(weights[ray == i, None] * values[ray == i]).sum(0) for i in range(5)]
    found = nerfacc.accumulate_along_rays(weights, values, ray, 5)
    torch.testing.assert_close(found, torch.stack(rows))
    torch.autograd.gradcheck(lambda w, v: nerfacc.accumulate_along_rays(w, v, ray, 5), (weights, values))
    total = torch.ones(5, columns, dtype=torch.float64)
    accumulate_along_rays_(weights.detach(), values.detach(), ray, total)
    torch.testing.assert_close(total, found.detach() + 1)
    plain = nerfacc.accumulate_along_rays(weights, None, ray, 5)
    assert plain.shape == (5, 1)
    torch.testing.assert_close(plain.sum(), weights.sum())


def test_distortion_is_the_double_sum():
    t_start, t_end, _, info, ray = samples()
    weights = torch.rand(len(ray), dtype=torch.float64, requires_grad=True)

    def loop(weights):
        rows = []
        for a, n in info.tolist():
            w, lo, hi = weights[a : a + n], t_start[a : a + n], t_end[a : a + n]
            middle = (lo + hi) / 2
            apart = (w[:, None] * w * (middle[:, None] - middle).abs()).sum()
            rows.append(apart + (w.square() * (hi - lo)).sum() / 3)
        return torch.stack(rows)[:, None]

    found = distortion(weights, t_start, t_end, ray, 5)
    torch.testing.assert_close(found, loop(weights))
    ours, wanted = (torch.autograd.grad(f.sum(), weights)[0] for f in (found, loop(weights)))
    torch.testing.assert_close(ours, wanted)


def test_pack_info():
    info, ray = packed()
    assert torch.equal(nerfacc.pack_info(ray, 5), info)
    assert torch.equal(nerfacc.pack_info(ray), info)
    assert nerfacc.pack_info(ray.int(), 7).dtype == torch.int32
    assert nerfacc.pack_info(ray, 7)[5:].tolist() == [[11, 0], [11, 0]]
    assert nerfacc.pack_info(ray[:0], 2).tolist() == [[0, 0], [0, 0]]


ONES = torch.ones(3)
WRONG = {
    "falls at sample 2": lambda: nerfacc.exclusive_sum(ONES, indices=torch.tensor([0, 1, 0])),
    "both given": lambda: nerfacc.exclusive_sum(ONES, torch.tensor([[0, 3]]), torch.zeros(3).long()),
    "3 samples, ray after ray": lambda: nerfacc.inclusive_prod(ONES, torch.tensor([[0, 1], [2, 1]])),
    "[n_rays, 2] of int64": lambda: nerfacc.inclusive_sum(ONES, ONES),
    "below n_rays, 1": lambda: nerfacc.render_weight_from_alpha(ONES, ray_indices=torch.tensor([0, 0, 1]), n_rays=1),
    "goes from -1": lambda: nerfacc.accumulate_along_rays(ONES, None, torch.tensor([0, -1, 1]), 2),
    "without n_rays": lambda: nerfacc.accumulate_along_rays(ONES, None, torch.zeros(3).long()),
    "one per sample": lambda: nerfacc.accumulate_along_rays(ONES, None, torch.zeros(2).long(), 2),
    "neither rgb_sigma_fn": lambda: nerfacc.rendering(ONES, ONES),
    "the radiance field gave": lambda: nerfacc.rendering(ONES, ONES, rgb_sigma_fn=lambda *_: (ONES, ONES)),
    "n_rays is given then": lambda: nerfacc.pack_info(torch.zeros(0).long()),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_one_line(words):
    with pytest.raises(BadInput) as error:
        WRONG[words]()
    assert words in str(error.value) and "; the rule: " in str(error.value) and "\n" not in str(error.value)


#: of nerfacc 0.5.3: the parameters, as Python shows them without their annotations
SIGNATURES = {
    "pack_info": "ray_indices, n_rays=None",
    "ray_aabb_intersect": "rays_o, rays_d, aabbs, near_plane=-inf, far_plane=inf, miss_value=inf",
    "traverse_grids": "rays_o, rays_d, binaries, aabbs, near_planes=None, far_planes=None, step_size=0.001, "
    "cone_angle=0.0, traverse_steps_limit=None, over_allocate=False, rays_mask=None, t_sorted=None, t_indices=None, "
    "hits=None",
    "importance_sampling": "intervals, cdfs, n_intervals_per_ray, stratified=False",
    "searchsorted": "sorted_sequence, values",
    "rendering": "t_starts, t_ends, ray_indices=None, n_rays=None, rgb_sigma_fn=None, rgb_alpha_fn=None, "
    "render_bkgd=None",
    "accumulate_along_rays": "weights, values=None, ray_indices=None, n_rays=None",
    "render_weight_from_alpha": "alphas, packed_info=None, ray_indices=None, n_rays=None, prefix_trans=None",
    "render_visibility_from_density": "t_starts, t_ends, sigmas, packed_info=None, ray_indices=None, n_rays=None, "
    "early_stop_eps=0.0001, alpha_thre=0.0, prefix_trans=None",
    "OccGridEstimator": "roi_aabb, resolution=128, levels=1, **kwargs",
    "OccGridEstimator.sampling": "self, rays_o, rays_d, sigma_fn=None, alpha_fn=None, near_plane=0.0, "
    "far_plane=10000000000.0, t_min=None, t_max=None, render_step_size=0.001, early_stop_eps=0.0001, alpha_thre=0.0, "
    "stratified=False, cone_angle=0.0",
    "OccGridEstimator.update_every_n_steps": "self, step, occ_eval_fn, occ_thre=0.01, ema_decay=0.95, "
    "warmup_steps=256, n=16",
    "OccGridEstimator.mark_invisible_cells": "self, K, c2w, width, height, near_plane=0.0, chunk=32768",
    "PropNetEstimator": "optimizer=None, scheduler=None",
    "PropNetEstimator.sampling": "self, prop_sigma_fns, prop_samples, num_samples, n_rays, near_plane, far_plane, "
    "sampling_type='lindisp', stratified=False, requires_grad=False",
    "PropNetEstimator.update_every_n_steps": "self, trans, requires_grad=False, loss_scaler=1.0",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_nerfacc(name):
    found = nerfacc
    for part in name.split("."):
        found = getattr(found, part)
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(found).parameters.values()]
    assert ", ".join(map(str, parameters)) == SIGNATURES[name]


def test_programs_import_it_by_nerfaccs_names():
    if importlib.util.find_spec("nerfacc") is not None:
        pytest.skip("a nerfacc is installed here")
    try:
        compat.install()
        assert importlib.import_module("nerfacc") is nerfacc
        for name in ("estimators.occ_grid", "estimators.prop_net", "volrend", "scan", "grid", "pdf", "losses", "pack"):
            assert importlib.import_module(f"nerfacc.{name}").__name__ == f"radfield.compat.nerfacc.{name}"
    finally:
        compat.uninstall()
    assert not [name for name in sys.modules if name.split(".")[0] == "nerfacc"]
