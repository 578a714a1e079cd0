"""Density control: who is copied, split and removed; moments follow; the number never exceeds its limit."""

import torch
from gaussians.test_ply import random_scene

from radfield.gaussians.densify import SHRINK, Config, Statistics, refine, reset_opacity
from radfield.gaussians.initial import at_random, from_points
from radfield.gaussians.optimizer import GaussianAdam


def state(count):
    scene = random_scene(count, 1)
    scene.opacity_logits[:] = 0
    scene.log_scales[:] = -8.0
    adam = GaussianAdam(scene)
    adam.step(scene, {k: torch.rand_like(v) for k, v in scene.tensors().items()}, dict.fromkeys(scene.tensors(), 0.0))
    statistics = Statistics(count)
    statistics.views[:] = 1
    return scene, adam, statistics


def refined(scene, adam, statistics, most=100, prune_large=False):
    generator = torch.Generator().manual_seed(0)
    return refine(scene, adam, statistics, Config(), most=most, size=1.0, prune_large=prune_large, generator=generator)


def test_copies_splits_and_removes():
    scene, adam, statistics = state(10)
    statistics.gradient[[2, 5]] = 1.0
    scene.log_scales[:, 5] = -1.0  # large: split
    scene.opacity_logits[7] = -10.0  # removed
    before, m = scene.select(torch.arange(10)), adam.m["means"].clone()
    found = refined(scene, adam, statistics)
    kept = [0, 1, 2, 3, 4, 6, 8, 9]
    assert len(found) == 11
    torch.testing.assert_close(found.means[:, :9], before.means[:, [*kept, 2]])
    torch.testing.assert_close(found.log_scales[:, 9:].exp() * SHRINK, before.log_scales[:, [5, 5]].exp())
    assert not torch.equal(found.means[:, 9], found.means[:, 10])
    torch.testing.assert_close(adam.m["means"][:, :8], m[:, kept])
    assert not adam.m["means"][:, 8:].any() and adam.v["rest"].shape == found.rest.shape


def test_the_limit_takes_the_largest_gradients():
    scene, adam, statistics = state(10)
    statistics.gradient[:] = torch.arange(10) + 1.0
    found = refined(scene, adam, statistics, most=12)
    assert len(found) == 12
    torch.testing.assert_close(found.means[:, 10:], scene.means[:, [8, 9]])
    assert len(refined(*state(10), most=10)) == 10


def test_large_ones_go_only_after_a_reset():
    for prune, left in ((False, 10), (True, 9)):
        scene, adam, statistics = state(10)
        scene.log_scales[0, 3] = 0.0
        assert len(refined(scene, adam, statistics, prune_large=prune)) == left


def test_reset_leaves_nothing_opaque():
    scene, adam, _ = state(5)
    reset_opacity(scene, adam, Config())
    torch.testing.assert_close(scene.opacity_logits.sigmoid(), torch.full((5,), 0.01))
    assert not adam.m["opacity_logits"].any() and adam.m["means"].any()


def test_selective_adam_leaves_what_has_no_gradient():
    scene, adam, _ = state(6)
    before = scene.means.clone()
    grads = {k: torch.ones_like(v) for k, v in scene.tensors().items()}
    grads["means"][:, 3] = 0
    adam.step(scene, grads, dict.fromkeys(scene.tensors(), 0.1))
    assert torch.equal(scene.means[:, 3], before[:, 3]) and bool((scene.means[:, :3] != before[:, :3]).all())


def test_initial_gaussians_are_as_wide_as_their_neighbours_are_far():
    from radfield.data.points import Points

    grid = torch.cartesian_prod(*(torch.arange(6) * 0.1,) * 3).double().numpy()
    color = (torch.rand(len(grid), 3) * 255).byte().numpy()
    scene = from_points(Points(grid, color), 1000, 3, torch.Generator().manual_seed(0))
    assert len(scene) == 216 and scene.degree == 3
    torch.testing.assert_close(scene.log_scales.exp(), torch.full((3, 216), 0.1), rtol=1e-4, atol=0)
    assert len(from_points(Points(grid, color), 50, 0, torch.Generator().manual_seed(0))) == 50
    spread = at_random(4000, 3, 2, torch.Generator().manual_seed(0)).means
    assert (
        float((spread - 0.5).abs().max()) <= 2
        and 0.3 < float(((spread - 0.5).abs().amax(0) < 0.5).float().mean()) < 0.5
    )
