"""Views of Gaussians: every output against the reference, geometry with exact answers, batches, packed and dense."""

import dataclasses

import pytest
import torch
from checks import combine
from renderers_gaussians import camera, random_gaussians

from radfield import backend
from radfield.errors import BadInput
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_views import Gaussians, gaussian_normals, render_views

ALL = ("color", "depth", "expected_depth", "normal")
NAMES = ("means", "quaternions", "scales", "opacities")


def scene(count=200, seed=0, kind=torch.float32, harmonics=False):
    generator = torch.Generator().manual_seed(seed)
    values = random_gaussians(count, generator)
    colors = torch.rand(count, 3, generator=generator)
    rest = torch.randn(72, count, generator=generator) * 0.1
    values = [values[k].to(kind).requires_grad_() for k in NAMES]
    if not harmonics:
        return Gaussians(*values, colors.to(kind).requires_grad_())
    return Gaussians(*values, (colors.T.to(kind).contiguous().requires_grad_(), rest.to(kind).requires_grad_()))


def cameras():
    first = camera(40, 30)
    pose = first.world_to_camera.clone()
    pose[:3, 3] += torch.tensor([0.3, 0.1, 0.5])
    return [first, dataclasses.replace(first, world_to_camera=pose)]


def leaves(gaussians):
    colors = gaussians.colors if isinstance(gaussians.colors, tuple) else (gaussians.colors,)
    return [*(getattr(gaussians, k) for k in NAMES), *colors]


def outputs(views):
    return [views.color, views.alpha, views.depth, views.expected_depth, views.normal]


@pytest.mark.parametrize("harmonics", [False, True])
def test_agrees_with_reference(harmonics):
    behind = torch.tensor([0.2, 0.5, 0.1])
    results = []
    for name, kind in (("cpu", torch.float32), ("reference", torch.float64)):
        with backend.use(name):
            gaussians = scene(kind=kind, harmonics=harmonics)
            views = render_views(gaussians, cameras(), ALL, behind.to(kind))
            total = sum(combine(v * (views.alpha.detach() > 1e-3).view(2, 30, 40, *[1] * (v.ndim - 3)), i)
                        for i, v in enumerate(outputs(views)))  # fmt: skip
            results.append((outputs(views), torch.autograd.grad(total, leaves(gaussians))))
    (ours, our_grads), (theirs, their_grads) = results
    seen = theirs[1] > 1e-3
    for one, other in zip(ours, theirs, strict=True):
        off = (one - other).abs().amax(-1) if one.ndim == 4 else (one - other).abs()
        assert float((off[seen] > 2e-5).float().mean()) <= 1e-3  # pixels at a threshold
    for one, other in zip(our_grads, their_grads, strict=True):
        assert (one - other).abs().max() < 1e-3 * other.abs().max()


def test_a_wall_has_its_depth_and_normal():
    """Opaque pancakes side by side at one depth: depth, normal and alpha are known."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40), indexing="ij")
    means = torch.stack((x, y, torch.full_like(x, 2.5)), -1).view(-1, 3)
    scales = torch.tensor([0.05, 0.05, 1e-4]).expand(1600, 3)
    turn = torch.tensor([[2.0, 0, 0, 0]]).expand(1600, 4)
    wall = Gaussians(means, turn, scales, torch.full((1600,), 0.9), torch.rand(1600, 5))
    view = Camera(torch.eye(4), (60.0, 60.0), (16.0, 12.0), 32, 24)
    views = render_views(wall, [view], ALL)
    assert views.color.shape == (1, 24, 32, 5) and bool((views.alpha > 0.99).all())
    torch.testing.assert_close(views.expected_depth, torch.full((1, 24, 32), 2.5), rtol=1e-5, atol=0)
    torch.testing.assert_close(views.depth, 2.5 * views.alpha, rtol=1e-5, atol=1e-6)
    wanted = torch.tensor([0.0, 0, -1]) * views.alpha[..., None]
    torch.testing.assert_close(views.normal, wanted, rtol=0, atol=1e-5)


def test_normals_look_at_the_camera():
    gaussians = scene(500)
    position = torch.tensor([0.5, -2.0, 1.0])
    normal = gaussian_normals(gaussians.means, gaussians.quaternions, gaussians.scales, position)
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(500))
    assert bool((((position - gaussians.means) * normal).sum(1) >= 0).all())
    zero = gaussian_normals(torch.zeros(1, 3), torch.zeros(1, 4), torch.ones(1, 3), position)
    assert not zero.any()


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_is_its_views_one_by_one(packed):
    options = {"packed": packed, "antialiased": True, "max_alpha": 0.999}
    gaussians = scene()
    both = render_views(gaussians, cameras(), ALL, **options)
    for i, each in enumerate(cameras()):
        alone = render_views(gaussians, [each], ALL, **options)
        assert all(torch.equal(a[i], b[0]) for a, b in zip(outputs(both), outputs(alone), strict=True))


@pytest.mark.parametrize("harmonics", [False, True])
def test_packed_and_dense_are_the_same(harmonics):
    gaussians, found = scene(harmonics=harmonics), []
    for packed in (False, True):
        views = render_views(gaussians, cameras(), ("color", "depth"), packed=packed, absolute=True)
        grads = torch.autograd.grad(combine(views.color, 0) + combine(views.depth, 1), leaves(gaussians))
        found.append((views, grads))
    (dense, dense_grads), (packed, packed_grads) = found
    assert torch.equal(dense.color, packed.color) and torch.equal(dense.depth, packed.depth)
    assert all(torch.equal(a, b) for a, b in zip(dense_grads, packed_grads, strict=True))
    drawn = (dense.projected.radius > 0).all(2)
    assert torch.equal(torch.stack((packed.view, packed.gaussian), 1), drawn.nonzero())
    assert len(packed.projected.depth) == int(drawn.sum()) < drawn.numel()
    for mask, one, other in zip(drawn, dense.absolute, packed.absolute, strict=True):
        assert one.any() and torch.equal(one[:, mask], other) and not one[:, ~mask].any()


def test_nothing_in_sight():
    gaussians = scene(5)
    away = dataclasses.replace(gaussians, means=gaussians.means.detach() - 100)
    for packed in (False, True):
        views = render_views(away, cameras(), ALL, torch.ones(3), packed=packed)
        assert bool((views.color == 1).all())
        assert not any(v.any() for v in (views.alpha, views.depth, views.expected_depth, views.normal))


def test_bad_input():
    gaussians = scene(5)
    with pytest.raises(BadInput, match="outputs are"):
        render_views(gaussians, cameras(), ("colour",))
    with pytest.raises(BadInput, match="2 cameras of 2 sizes"):
        render_views(gaussians, [camera(8, 8), camera(9, 8)])
    with pytest.raises(BadInput, match="rest has 5 rows"):
        colors = torch.zeros(3, 5), torch.zeros(5, 5)
        render_views(dataclasses.replace(gaussians, colors=colors), cameras())
