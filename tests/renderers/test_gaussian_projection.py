"""Projection of Gaussians: agreement with the reference, its laws, and what is left out."""

import dataclasses
import math

import pytest
import torch
from checks import OpCase, check_op, combine
from renderers_gaussians import camera, differentiable, of_camera, random_gaussians

from radfield import backend
from radfield.cameras import Cameras
from radfield.errors import BadInput
from radfield.renderers.gaussian_projection import EPS, Camera, project, project_reference


@pytest.mark.parametrize(("antialiased", "by_rows"), [(False, False), (True, False), (True, True)])
def test_agrees_with_reference(antialiased, by_rows):
    def inputs(size, generator):
        found, view = random_gaussians(size, generator), camera()
        if not by_rows:
            found = {k: v.mT.contiguous().mT if v.ndim == 2 else v for k, v in found.items()}
        found["means"][: size // 8, 2] -= 5  # behind the camera
        found["means"][size // 8 : size // 6] *= 8  # beside the image
        lens = {"focal": torch.tensor(view.focal), "center": torch.tensor(view.center)}
        return {**found, "pose": view.world_to_camera, **lens, "view": view, "antialiased": antialiased}

    names = ("means", "quaternions", "scales", "opacities")
    functions = of_camera(project), of_camera(project_reference)
    gradients = (*names, "pose", "focal", "center")
    options = {"rtol": 3e-5, "wrong_dtype": names, "sizes": (0, 1, 33, 1000), "most_emulated": 33}
    check_op(OpCase(*functions, inputs, gradients, differentiable, **options))


def test_gradients_of_the_camera_are_wanted_one_by_one():
    """A pose alone, a focal length alone, or nothing: the same gradients, and none where none is asked for."""
    values, view = random_gaussians(3000), camera()
    pose, focal = view.world_to_camera.clone().requires_grad_(), torch.tensor(view.focal).requires_grad_()

    def gradients(**changes):
        found = project(**values, camera=dataclasses.replace(view, **changes))
        return torch.autograd.grad(combine(found.mean2d, 0) + combine(found.conic, 1), list(changes.values()))

    both = gradients(world_to_camera=pose, focal=focal)
    assert torch.equal(gradients(world_to_camera=pose)[0], both[0])
    assert torch.equal(gradients(focal=focal)[0], both[1])
    assert not project(**values, camera=view).mean2d.requires_grad


def test_radius_agrees_with_reference():
    values = random_gaussians(1000)
    ours = project(**values, camera=camera()).radius
    with backend.use("reference"):
        theirs = project(**{k: v.double() for k, v in values.items()}, camera=camera()).radius
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [project, project_reference])
def test_what_is_degenerate_is_left_out_and_has_no_gradient(function):
    values = random_gaussians(12)
    values["means"][0, 1] = math.nan
    values["means"][1, 0] = math.inf
    values["quaternions"][2] = 0
    values["scales"][3, 2] = math.nan
    values["opacities"][4] = math.nan
    values["opacities"][5] = 0
    values["means"][6, 2] = -10  # behind
    values["means"][7] = torch.tensor([50.0, 0, 0])  # off the image
    values["means"][8:] = 0
    values["opacities"][8:] = 0.5
    values["scales"][8] = 0  # drawn: as wide as the smoothing
    values["scales"][9] = torch.tensor([1.0, 1e-12, 1e-12])  # a needle
    values["scales"][10] = torch.tensor([1.0, 1.0, 0.0])  # a pancake
    values = {k: v.requires_grad_() for k, v in values.items()}
    result = function(**values, camera=camera())
    drawn = (result.radius > 0).all(1)
    assert drawn.tolist() == [False] * 8 + [True] * 4
    assert all(bool(v.detach().isfinite().all()) for v in result)
    for each in (result.mean2d, result.conic, result.depth[:, None], result.opacity[:, None]):
        assert not each[:8].any()
    sum(v.sum() for v in (result.mean2d, result.conic, result.depth, result.opacity)).backward()
    for value in values.values():
        assert bool(value.grad[:8].eq(0).all()) and bool(value.grad.isfinite().all())
    torch.testing.assert_close(result.conic[8].detach(), torch.tensor([1 / EPS, 0, 1 / EPS]))


def test_a_ball_on_the_axis_is_a_disc():
    view = Camera(torch.eye(4), (100.0, 100.0), (32.0, 32.0), 64, 64)
    mean, scale = torch.tensor([[0.0, 0, 2]]), torch.full((1, 3), 0.04)
    found = project(mean, torch.tensor([[3.0, 1, -2, 0.5]]), scale, torch.tensor([0.5]), view)
    variance = (100 * 0.04 / 2) ** 2 + EPS
    torch.testing.assert_close(found.mean2d, torch.tensor([[32.0, 32.0]]))
    torch.testing.assert_close(found.conic, torch.tensor([[1 / variance, 0, 1 / variance]]), atol=1e-6, rtol=1e-5)
    radius = math.sqrt(2 * math.log(255 * 0.5) * variance)
    torch.testing.assert_close(found.radius, torch.full((1, 2), radius), rtol=1e-5, atol=0)


def test_antialiasing_keeps_the_energy_of_a_small_ball():
    view = Camera(torch.eye(4), (100.0, 100.0), (32.0, 32.0), 64, 64)
    mean, scale, quaternion = torch.tensor([[0.0, 0, 2]]), torch.full((1, 3), 0.01), torch.tensor([[1.0, 0, 0, 0]])
    found = project(mean, quaternion, scale, torch.tensor([0.9]), view, antialiased=True)
    before = (100 * 0.01 / 2) ** 2
    torch.testing.assert_close(found.opacity, torch.tensor([0.9 * before / (before + EPS)]))


def test_near_plane():
    view = dataclasses.replace(camera(), near=2.9)
    values = random_gaussians(200, spread=0.3)
    local = values["means"] @ view.world_to_camera[:3, :3].T + view.world_to_camera[:3, 3]
    values["opacities"][:] = 0.5
    drawn = (project(**values, camera=view).radius > 0).all(1)
    assert not drawn[local[:, 2] < 2.9].any() and drawn.any()


def test_bits_do_not_depend_on_threads(threads):
    values = random_gaussians(5000)

    def run():
        view = camera()
        view.world_to_camera.requires_grad_()
        found = differentiable(project(**values, camera=view))
        return *found, *torch.autograd.grad(sum(combine(v, 0) for v in found), view.world_to_camera)

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_lenses_that_see_all_around_are_refused():
    lens = *torch.ones(2, 1, 2), torch.tensor([[8, 8]]), torch.zeros(1, 6)
    one = Cameras(torch.eye(4)[None], *lens, "equirectangular")
    with pytest.raises(BadInput, match="camera 0 is equirectangular"):
        Camera.of(one, 0)


def test_camera_of_sees_what_cameras_project():
    pose = torch.linalg.inv(camera().world_to_camera)[None]
    lens = torch.tensor([[80.0, 85.0]]), torch.tensor([[38.0, 23.0]]), torch.tensor([[75, 50]])
    cameras = Cameras(pose, *lens, torch.zeros(1, 6))
    values = random_gaussians(50, spread=0.2)
    values["opacities"][:] = 1
    with backend.use("reference"):
        found = project(**values, camera=Camera.of(cameras, 0))
    pixel, depth = cameras.project(torch.zeros(50, dtype=torch.int64), values["means"])
    drawn = (found.radius > 0).all(1)
    torch.testing.assert_close(found.mean2d[drawn], pixel[drawn], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.depth[drawn], depth[drawn])
