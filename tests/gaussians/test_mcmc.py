"""MCMC densification: many Gaussians in the place of one look like it; the dead move; limits hold; noise explores."""

import math

import pytest
import torch
from gaussians.test_ply import random_scene

from radfield.gaussians.mcmc import Config, add_noise, divided, refine, regularise
from radfield.gaussians.optimizer import GaussianAdam
from radfield.gaussians.scene import see
from radfield.renderers.gaussian_projection import Camera


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def state(count):
    scene = random_scene(count, 0)
    scene.opacity_logits[:] = 0
    scene.log_scales[:] = -3.0
    adam = GaussianAdam(scene)
    adam.step(scene, {k: torch.rand_like(v) for k, v in scene.tensors().items()}, dict.fromkeys(scene.tensors(), 0.0))
    return scene, adam


def test_one_copy_changes_nothing():
    opacity, shrink = divided(torch.tensor([0.01, 0.5, 0.99]), torch.ones(3, dtype=torch.int64))
    torch.testing.assert_close(opacity, torch.tensor([0.01, 0.5, 0.99]))
    torch.testing.assert_close(shrink, torch.ones(3))


@pytest.mark.parametrize("copies", [2, 7, 51])
def test_equals_the_double_sum_of_the_paper(copies):
    for o in (0.01, 0.3, 0.9):
        new = 1 - (1 - o) ** (1 / copies)
        total = sum(
            math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * new ** (k + 1)
            for i in range(1, copies + 1)
            for k in range(i)
        )
        opacity, shrink = divided(torch.tensor([o]), torch.tensor([copies]))
        assert opacity.item() == pytest.approx(new, rel=1e-5) and shrink.item() == pytest.approx(o / total, rel=1e-4)


@pytest.mark.parametrize("copies", [2, 4])
def test_the_copies_keep_the_opacity_and_the_mass_on_the_image(copies):
    camera = Camera(torch.eye(4), (400.0, 400.0), (32.0, 32.0), 64, 64)
    scene, _ = state(1)
    scene.means[:, 0] = torch.tensor([0.0, 0, 4])
    scene.opacity_logits[:] = torch.tensor(0.8).logit()
    before = see(scene, camera).image.alpha
    opacity, shrink = divided(torch.tensor([0.8]), torch.tensor([copies]))
    scene.opacity_logits[:] = opacity.logit()
    scene.log_scales.add_(shrink.log())
    after = see(scene.select(torch.zeros(copies, dtype=torch.int64)), camera).image.alpha
    assert after.max() == pytest.approx(before.max().item(), rel=2e-2)
    assert float(after.sum()) == pytest.approx(float(before.sum()), rel=0.3)
    along = (after[32].double().sum() / before[32].double().sum()).item()  # eq. 9 keeps the integral along a line
    assert along == pytest.approx(1, abs=0.03)


def test_the_dead_move_to_the_living():
    scene, adam = state(20)
    scene.opacity_logits[[3, 8]] = -10.0
    places = {tuple(p) for p in scene.means.T.tolist()} - {tuple(scene.means[:, i].tolist()) for i in (3, 8)}
    found = refine(scene, adam, Config(), most=20, generator=generator())
    assert len(found) == 20 and found.opacity_logits.sigmoid().min() > 0.005
    assert {tuple(p) for p in found.means.T.tolist()} == places
    assert not adam.m["means"][:, [3, 8]].any() and adam.m["means"].any()


def test_growth_and_its_limit():
    scene, adam = state(100)
    found = refine(scene, adam, Config(growth=0.1), most=1000, generator=generator())
    assert len(found) in (110, 111) and adam.m["means"].shape == found.means.shape
    scene, adam = state(100)
    assert len(refine(scene, adam, Config(growth=0.1), most=104, generator=generator())) == 104


def test_nobody_lives():
    scene, adam = state(5)
    scene.opacity_logits[:] = -20.0
    assert len(refine(scene, adam, Config(), most=5, generator=generator())) == 5


def test_noise_moves_the_transparent_within_their_shape():
    scene, _ = state(2000)
    scene.opacity_logits[:1000] = -12.0
    scene.opacity_logits[1000:] = 3.0
    scene.quaternions[:] = torch.tensor([1.0, 0, 0, 0])[:, None]
    scene.log_scales[0], scene.log_scales[1:] = -1.0, -3.0
    before = scene.means.clone()
    add_noise(scene, 1e-6, Config(), generator())
    moved = scene.means - before
    assert not moved[:, 1000:].any()
    gate = 1 / (1 + math.exp(-100 * (0.005 - 1 / (1 + math.exp(12)))))
    for axis, log_scale in enumerate((-1.0, -3.0, -3.0)):
        expected = math.exp(2 * log_scale) * 1e-6 * 5e5 * gate  # Sigma z, z of variance 1
        assert float(moved[axis, :1000].std()) == pytest.approx(expected, rel=0.1)


def test_regularisers_are_the_gradients_of_the_mean():
    scene, _ = state(7)
    leaves = scene.map(lambda value: value.clone().requires_grad_())
    loss = 0.3 * leaves.opacity_logits.sigmoid().mean() + 0.2 * leaves.log_scales.exp().mean() / 2.5
    loss.backward()
    grads = {name: torch.zeros_like(value) for name, value in scene.tensors().items()}
    regularise(grads, scene, Config(opacity_weight=0.3, scale_weight=0.2), 2.5)
    torch.testing.assert_close(grads["opacity_logits"], leaves.opacity_logits.grad)
    torch.testing.assert_close(grads["log_scales"], leaves.log_scales.grad)
