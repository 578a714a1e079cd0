"""Camera refinement: its gradients are those of autograd through the cameras, and it finds poses that were moved."""

import dataclasses

import pytest
import torch

from radfield.camera_rays import camera_rays
from radfield.cameras import Cameras, look_at
from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.training.camera_refinement import CameraRefinement, Config, rotations

F64 = torch.float64


FOX = (0.0578, -0.0805, 0.01, 0.0, -0.00098, 0.00016, 0.0, 0.0, 0.0)
RATIONAL = (0.1, -0.05, 0.01, 0.0, 0.001, -0.002, 0.15, -0.04, 0.01)
NONE = (0.0,) * 9


def cameras_of(views=4, dtype=torch.float32, model="perspective", distortion=NONE):
    origin = torch.nn.functional.normalize(torch.randn(views, 3, dtype=F64), dim=-1) * 2
    pose = look_at(origin, torch.zeros(3, dtype=F64), torch.tensor([0, 0.1, 1], dtype=F64)).to(dtype)
    focal = torch.tensor([[90.0, 95.0]], dtype=dtype).repeat(views, 1)
    principal = torch.tensor([[51.0, 38.0]], dtype=dtype).repeat(views, 1)
    size = torch.tensor([[100, 80]]).repeat(views, 1)
    return Cameras(pose, focal, principal, size, torch.tensor([distortion], dtype=dtype).repeat(views, 1), model)


def by_autograd(cameras, view, pixel, ray, t, weight):
    """Gradients of sum(weight * x) by turn, shift and lens at 0, through the cameras in float64."""
    cameras = cameras.to(F64)
    turn, shift, lens = (
        torch.zeros(s, dtype=F64, requires_grad=True) for s in ((len(cameras), 3), (len(cameras), 3), 5)
    )
    pose = cameras.camera_to_world
    moved = torch.cat((rotations(turn) @ pose[:, :3, :3], (pose[:, :3, 3] + shift)[..., None]), -1)
    moved = torch.cat((moved, pose[:, 3:]), 1)
    focal = cameras.focal * lens[0].exp()
    principal = cameras.principal + lens[1:3] * focal
    k = torch.cat((cameras.distortion[:, :2] + lens[3:], cameras.distortion[:, 2:]), 1)
    changed = Cameras(moved, focal, principal, cameras.size, k, cameras.model)
    rays = changed.rays(view, pixel.to(F64))
    x = rays.origins[ray] + t.to(F64)[:, None] * rays.directions[ray]
    return torch.autograd.grad((weight.to(F64) * x).sum(), (turn, shift, lens))


# Without any distortion `Cameras` does not look at it, and autograd would find no gradient: nearly none.
@pytest.mark.parametrize("distortion", [(1e-12, *NONE[1:]), FOX, RATIONAL])
def test_gradients_are_those_of_autograd(distortion):
    cameras = cameras_of(distortion=distortion)
    view, pixel = torch.randint(4, (50,)), torch.rand(50, 2) * torch.tensor([100.0, 80.0])
    ray, t, weight = torch.randint(50, (300,)), torch.rand(300) * 3, torch.randn(300, 3)
    refinement = CameraRefinement(cameras, lens=True)
    refinement.collect(weight, t, ray, camera_rays(cameras, view, pixel), view, pixel)
    expected = by_autograd(cameras, view, pixel, ray, t, weight)
    for name, gradient in zip(("turn", "shift", "lens"), expected, strict=True):
        torch.testing.assert_close(refinement.grads[name].double(), gradient, rtol=1e-4, atol=1e-4)


def test_moved_poses_are_found_again():
    # The samples are drawn to known points: the loss is the squared distance of each ray's point to its target.
    true = cameras_of(6)
    turn, shift = 0.02 * torch.randn(6, 3), 0.02 * torch.randn(6, 3)
    turn, shift = turn - turn.mean(0), shift - shift.mean(0)
    pose = true.camera_to_world.clone()
    pose[:, :3, :3] = rotations(turn) @ pose[:, :3, :3]
    pose[:, :3, 3] += shift
    refinement = CameraRefinement(
        dataclasses.replace(true, camera_to_world=pose), lens=False, config=Config(rate=3e-3, begin=0)
    )

    def errors():
        found = refinement.cameras.camera_to_world
        return (found[:, :3] - true.camera_to_world[:, :3]).abs().amax()

    before = errors()
    for step in range(300):
        view, pixel = torch.randint(6, (200,)), torch.rand(200, 2) * torch.tensor([100.0, 80.0])
        t = 0.5 + 4 * torch.rand(200)
        target, rays = camera_rays(true, view, pixel), camera_rays(refinement.cameras, view, pixel)
        grad = 2 * (rays.at(t) - target.at(t))
        refinement.collect(grad, t, torch.arange(200), rays, view, pixel)
        refinement.step(step / 300)
    assert errors() < 0.15 * before


def apart(a: Cameras, b: Cameras) -> float:
    """The mean distance of the directions through the pixels of the first view, in the cameras' own axes."""
    local = [c.image_rays(0).directions @ c.camera_to_world[0, :3, :3] for c in (a, b)]
    return (local[0] - local[1]).norm(dim=-1).mean().item()


def test_a_lens_is_found_again():
    true = cameras_of(6, distortion=FOX)
    given = dataclasses.replace(true, focal=true.focal * 1.02, distortion=torch.zeros(6, 9))
    given.distortion[:, 2:] = true.distortion[:, 2:]
    refinement = CameraRefinement(given, lens=True, config=Config(rate=3e-3, begin=0))
    for step in range(150):
        view, pixel = torch.randint(6, (400,)), torch.rand(400, 2) * torch.tensor([100.0, 80.0])
        t = 0.5 + 4 * torch.rand(400)
        target, rays = camera_rays(true, view, pixel), camera_rays(refinement.cameras, view, pixel)
        refinement.collect(2 * (rays.at(t) - target.at(t)), t, torch.arange(400), rays, view, pixel)
        refinement.step(step / 150)
    # Focal length and coefficients make up for each other in so narrow a view: what counts is where its rays go.
    assert apart(refinement.cameras, true) < 0.3 * apart(given, true)
    assert refinement.cameras.distortion[0, 0] > 0.1 * true.distortion[0, 0]


def test_rotations():
    turn = torch.randn(20, 3, dtype=F64) * torch.logspace(-9, -0.3, 20, dtype=F64)[:, None]
    r = rotations(turn)
    torch.testing.assert_close(r @ r.mT, torch.eye(3, dtype=F64).expand(20, 3, 3), atol=1e-14, rtol=0)
    torch.testing.assert_close(r @ turn[..., None], turn[..., None])
    cosine = (r.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    torch.testing.assert_close(cosine, turn.norm(dim=-1).cos(), rtol=0, atol=1e-14)
    axis = torch.tensor([[0, 0, torch.pi / 2]], dtype=F64)
    torch.testing.assert_close(rotations(axis)[0], torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=F64))


def test_nothing_moves_before_it_begins_and_the_means_stay():
    cameras = cameras_of()
    refinement = CameraRefinement(cameras, lens=True)
    view, pixel, ray = torch.randint(4, (50,)), torch.rand(50, 2) * 80, torch.arange(50)
    rays = Rays(torch.zeros(50, 3), torch.nn.functional.normalize(torch.randn(50, 3), dim=-1))
    refinement.collect(torch.randn(50, 3), torch.ones(50), ray, rays, view, pixel)
    refinement.step(0.0)
    assert torch.equal(refinement.cameras.camera_to_world, cameras.camera_to_world)
    refinement.collect(torch.randn(50, 3), torch.ones(50), ray, rays, view, pixel)
    refinement.step(0.5)
    assert not torch.equal(refinement.cameras.camera_to_world, cameras.camera_to_world)
    for name in ("turn", "shift"):
        assert refinement.values[name].mean(0).abs().max() < 1e-8


def test_lenses_that_cannot_be_refined():
    with pytest.raises(BadInput, match="the lens models are fisheye; the rule: only perspective"):
        CameraRefinement(cameras_of(model="fisheye"), lens=True)


def test_the_pose_handed_out_has_the_gradients_of_autograd():
    cameras = cameras_of()
    points, weight = torch.rand(20, 3), torch.randn(20, 3)
    refinement = CameraRefinement(cameras, lens=False)
    for turn in (torch.zeros(4, 3), 0.3 * torch.randn(4, 3)):
        refinement.values["turn"].copy_(turn)
        refinement.refresh()
        pose = refinement.world_to_camera(2)
        expected = torch.linalg.inv(refinement.cameras.camera_to_world[2])
        torch.testing.assert_close(pose.detach(), expected, rtol=0, atol=1e-5)
        (weight * (points @ pose[:3, :3].T + pose[:3, 3])).sum().backward()
        refinement.collect_pose(2)
        leaves = [torch.zeros(3, dtype=F64, requires_grad=True) for _ in range(2)]
        given = refinement.cameras.camera_to_world[2].to(F64)
        axes = torch.linalg.matrix_exp(skew(leaves[0])) @ given[:3, :3]
        local = (points.to(F64) - given[:3, 3] - leaves[1]) @ axes
        (weight.to(F64) * local).sum().backward()
        for name, leaf in zip(("turn", "shift"), leaves, strict=True):
            torch.testing.assert_close(refinement.grads[name][2].double(), leaf.grad, rtol=1e-4, atol=1e-4)
            assert not refinement.grads[name][[0, 1, 3]].any()
            refinement.grads[name].zero_()


def skew(v):
    zero = torch.zeros_like(v[0])
    return torch.stack((zero, -v[2], v[1], v[2], zero, -v[0], -v[1], v[0], zero)).view(3, 3)
