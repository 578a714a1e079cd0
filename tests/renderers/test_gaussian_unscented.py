"""Projection by sigma points: agreement with the reference, exact cases, other lenses, rolling shutters."""

import dataclasses
import math

import pytest
import torch
from checks import OpCase, check_op
from renderers_gaussians import camera, differentiable, inverse_covariances, of_camera, random_gaussians

from radfield import backend
from radfield.cameras import Cameras
from radfield.errors import BadInput
from radfield.renderers.gaussian_camera import Camera, RollingShutter
from radfield.renderers.gaussian_projection import EPS, project, project_reference, rotation_matrices

BARREL = (-0.25, 0.08, 0.01, 0.0, 0.002, -0.003, 0.05, 0.01, 0.0)
FISHEYE = (0.05, -0.01, 0.002, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def moved(view: Camera, turn=0.06, shift=(0.05, -0.03, 0.02)) -> torch.Tensor:
    """The pose a moment later."""
    axis = torch.tensor([0.3, 0.9, -0.2])
    x, y, z = (axis / axis.norm() * turn).double().tolist()
    motion = torch.zeros(4, 4, dtype=torch.float64)
    motion[:3, :3] = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    pose = torch.matrix_exp(motion).float() @ view.world_to_camera
    pose[:3, 3] = view.world_to_camera[:3, 3] + torch.tensor(shift)
    return pose


def lens(name: str, **changes) -> Camera:
    view = camera(75, 50)
    kinds = {
        "perspective": {"unscented": True},
        "distorted": {"distortion": BARREL},
        "fisheye": {"model": "fisheye"},
        "fisheye distorted": {"model": "fisheye", "distortion": FISHEYE},
        "orthographic": {"model": "orthographic", "focal": (20.0, 22.0)},
        "shutter": {"shutter": RollingShutter(moved(view))},
        "shutter left": {"shutter": RollingShutter(moved(view), "left"), "distortion": BARREL},
        "shutter up": {"shutter": RollingShutter(moved(view), "up"), "model": "fisheye"},
    }
    return dataclasses.replace(view, **{**kinds[name], **changes})


LENSES = ("perspective", "distorted", "fisheye", "fisheye distorted", "orthographic")
SHUTTERS = ("shutter", "shutter left", "shutter up")


@pytest.mark.parametrize("name", LENSES + SHUTTERS)
def test_agrees_with_reference(name):
    def inputs(size, generator):
        found, view = random_gaussians(size, generator, size=-3.5), lens(name)
        found["means"][: size // 8, 2] -= 5  # behind the camera
        found["means"][size // 8 : size // 6] *= 8  # beside the image
        own = {"focal": torch.tensor(view.focal), "center": torch.tensor(view.center)}
        return {**found, "pose": view.world_to_camera, **own, "view": view, "antialiased": "distorted" in name}

    names = ("means", "quaternions", "scales", "opacities")
    wanted = names + (() if name in SHUTTERS else ("pose", "focal", "center"))
    functions = of_camera(project), of_camera(project_reference)
    options = {"rtol": 5e-5, "atol": 1e-5, "sizes": (0, 1, 33, 1000), "most_emulated": 33}
    check_op(OpCase(*functions, inputs, wanted, differentiable, **options))


@pytest.mark.parametrize("name", LENSES + SHUTTERS)
def test_the_same_are_drawn(name):
    values, view = random_gaussians(2000, torch.Generator().manual_seed(4)), lens(name)
    ours = project(**values, camera=view).radius
    theirs = project_reference(**{k: v.double() for k, v in values.items()}, camera=view).radius
    differ = ((ours > 0) != (theirs > 0)).any(1)
    assert int(differ.sum()) <= 2 and bool((ours > 0).any())
    torch.testing.assert_close(ours[~differ].double(), theirs[~differ], rtol=1e-3, atol=1e-3)


def test_orthographic_is_exact():
    """The covariance of a linear map is that map's, whatever the size of the Gaussian."""
    values, view = random_gaussians(300, torch.Generator().manual_seed(1), size=-1.0), lens("orthographic")
    values = {k: v.double() for k, v in values.items()}
    found = project_reference(**values, camera=view)
    axes = rotation_matrices(values["quaternions"]) * values["scales"][:, None]
    flat = torch.diag(torch.tensor(view.focal).double()) @ view.world_to_camera[:2, :3].double()
    covariance = flat @ axes @ axes.mT @ flat.T + EPS * torch.eye(2)
    drawn = (found.radius > 0).all(1)
    product = inverse_covariances(found.conic[drawn]) @ covariance[drawn]
    torch.testing.assert_close(product, torch.eye(2).double().expand_as(product), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["distorted", "fisheye", "fisheye distorted"])
def test_small_ones_are_where_the_camera_sees_them(name):
    view = lens(name)
    pose = torch.linalg.inv(view.world_to_camera)[None]
    size, k = torch.tensor([[view.width, view.height]]), torch.tensor([view.distortion or (0.0,) * 9])
    own = torch.tensor([view.focal]), torch.tensor([view.center])
    cameras = Cameras(pose, *own, size, k, view.model)
    values = random_gaussians(100, torch.Generator().manual_seed(2), spread=0.3)
    values["scales"][:], values["opacities"][:] = 1e-4, 1
    assert Camera.of(cameras, 0).by_sigma_points
    found = project(**values, camera=Camera.of(cameras, 0))
    pixel, _ = cameras.project(torch.zeros(100, dtype=torch.int64), values["means"])
    drawn = (found.radius > 0).all(1)
    assert drawn.sum() > 50
    torch.testing.assert_close(found.mean2d[drawn], pixel[drawn], rtol=1e-5, atol=2e-4)


def test_small_ones_agree_with_the_derivative():
    """Sigma points and J see the same covariance where the Gaussian is small: the difference falls with its area."""
    values, view = random_gaussians(200, torch.Generator().manual_seed(3), spread=0.3), lens("perspective")
    values = {k: v.double() for k, v in values.items()}
    values["opacities"][:] = 1
    errors = []
    for scale in (0.02, 0.01):
        values["scales"][:] = scale
        by_points = project_reference(**values, camera=view)
        by_slope = project_reference(**values, camera=dataclasses.replace(view, unscented=False))
        drawn = ((by_points.radius > 0) & (by_slope.radius > 0)).all(1)
        errors.append(float((by_points.mean2d - by_slope.mean2d)[drawn].abs().max()))
    assert errors[1] < 0.05 and 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("name", ["distorted", "fisheye distorted", "shutter left"])
def test_covariance_is_that_of_samples(name):
    view, generator = lens(name), torch.Generator().manual_seed(5)
    mean, axes = torch.tensor([0.3, 0.2, 0.1]), torch.diag(torch.tensor([0.12, 0.2, 0.06]))
    found = project(mean[None], torch.tensor([[1.0, 0, 0, 0]]), axes.diag()[None], torch.ones(1), view)
    points = torch.randn(40000, 3, generator=generator) @ axes + mean
    tiny = torch.full((40000, 3), 1e-5)
    samples = project(points, torch.tensor([[1.0, 0, 0, 0]]).expand(40000, 4), tiny, torch.ones(40000), view)
    seen = samples.mean2d[(samples.radius > 0).all(1)]
    assert len(seen) > 39000
    covariance = torch.linalg.inv(inverse_covariances(found.conic)[0]) - EPS * torch.eye(2)
    torch.testing.assert_close(found.mean2d[0], seen.mean(0), rtol=0, atol=0.15)
    torch.testing.assert_close(covariance, seen.T.cov(), rtol=0.05, atol=0.3)


@pytest.mark.parametrize("direction", ["down", "up", "right", "left"])
def test_rolling_shutter_sees_each_point_at_its_time(direction):
    """mean2d is the pinhole image of the point at the pose of the time that mean2d says, made by another route."""
    start = camera(75, 50)
    end = moved(start)
    view = dataclasses.replace(start, shutter=RollingShutter(end, direction))
    values = random_gaussians(60, torch.Generator().manual_seed(6), spread=0.3)
    values["scales"][:], values["opacities"][:] = 1e-4, 1
    found = project(**values, camera=view)
    for i in (found.radius > 0).all(1).nonzero()[:, 0].tolist():
        x, y = (found.mean2d[i] / torch.tensor([75.0, 50.0])).tolist()
        time = {"down": y, "up": 1 - y, "right": x, "left": 1 - x}[direction]
        turned = moved(start, turn=0.06 * time)[:3, :3]
        shift = torch.lerp(start.world_to_camera[:3, 3], end[:3, 3], time)
        local = turned @ values["means"][i] + shift
        seen = local[:2] / local[2] * torch.tensor(start.focal) + torch.tensor(start.center)
        torch.testing.assert_close(found.mean2d[i], seen, rtol=0, atol=5e-3)


def test_a_shutter_that_stands_still_changes_nothing():
    values, view = random_gaussians(500), lens("perspective")
    still = dataclasses.replace(view, shutter=RollingShutter(view.world_to_camera.clone()))
    for ours, theirs in zip(*(differentiable(project(**values, camera=c)) for c in (view, still)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_what_is_far_beside_a_lens_is_not_folded_into_the_image():
    """A polynomial of barrel distortion comes back to the axis: not so here."""
    view = lens("distorted", distortion=(-0.3, *[0.0] * 8), center=(37.0, 25.0), world_to_camera=torch.eye(4))
    slopes = torch.linspace(1.2, 15, 200)
    means = torch.stack((slopes, torch.zeros(200), torch.ones(200)), 1)
    found = project(
        means, torch.tensor([[1.0, 0, 0, 0]]).expand(200, 4), torch.full((200, 3), 1e-3), torch.ones(200), view
    )
    assert not (found.radius > 0).any()
    assert 0.9 < view.reach < math.sqrt(1 / 0.9)
    pixels = view.lens_points(means)[:, 0]
    assert bool((pixels.diff() > 0).all())


def test_nothing_behind_a_fisheye_lens_covers_the_image():
    view = lens("fisheye", focal=(20.0, 20.0), world_to_camera=torch.eye(4), center=(37.0, 25.0))
    means = torch.tensor([[0.01, 0.0, -1.0], [0.0, 0.0, -1.0], [1.0, 0.0, -0.2], [0.0, 0.0, 1.0]])
    found = project(means, torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4), torch.full((4, 3), 0.1), torch.ones(4), view)
    assert (found.radius > 0).all(1).tolist() == [False, False, True, True]
    torch.testing.assert_close(found.depth[2:], means[2:].norm(dim=1))


@pytest.mark.parametrize("name", LENSES + SHUTTERS)
def test_what_is_degenerate_is_left_out_and_has_no_gradient(name):
    values = random_gaussians(10, torch.Generator().manual_seed(8))
    values["means"][:], values["opacities"][:], values["scales"][:] = 0, 0.5, 0.01
    values["means"][0, 1] = math.nan
    values["quaternions"][1] = 0
    values["scales"][2, 2] = math.inf
    values["opacities"][3] = 0
    values["means"][4] = torch.tensor([1e4, 0, 0])
    values["means"][5] = torch.tensor([0.0, 0, -1e3])  # far behind
    values["scales"][6] = 0
    values["scales"][7] = torch.tensor([0.3, 1e-12, 1e-12])
    values = {k: v.requires_grad_() for k, v in values.items()}
    result = project(**values, camera=lens(name))
    assert (result.radius > 0).all(1).tolist() == [False] * 6 + [True] * 4
    sum(v.sum() for v in differentiable(result)).backward()
    for value in values.values():
        assert bool(value.grad[:6].eq(0).all()) and bool(value.grad.isfinite().all())


def test_bits_do_not_depend_on_threads(threads):
    values = random_gaussians(5000)
    for ours, theirs in threads(lambda: differentiable(project(**values, camera=lens("shutter left")))):
        assert torch.equal(ours, theirs)


def test_bad_input():
    view = camera()
    with pytest.raises(BadInput, match="model is 'round'"):
        dataclasses.replace(view, model="round")
    with pytest.raises(BadInput, match="distortion has 2 numbers"):
        dataclasses.replace(view, distortion=(0.1, 0.2))
    with pytest.raises(BadInput, match="orthographic with distortion"):
        dataclasses.replace(view, model="orthographic", distortion=BARREL)
    with pytest.raises(BadInput, match="direction is 'in'"):
        RollingShutter(torch.eye(4), "in")
    with pytest.raises(BadInput, match="none does with a rolling shutter"):
        pose = view.world_to_camera.clone().requires_grad_()
        shutter = RollingShutter(moved(view))
        project(**random_gaussians(3), camera=dataclasses.replace(view, world_to_camera=pose, shutter=shutter))
    with backend.use("reference"), pytest.raises(BadInput, match="turns by 115 degrees"):
        project(**random_gaussians(3), camera=dataclasses.replace(view, shutter=RollingShutter(moved(view, turn=2.0))))


def test_what_lies_beside_the_view_does_not_cover_it():
    """Close to the camera's plane the map bends so much that seven points say little: such Gaussians are left out."""
    view = lens("perspective", world_to_camera=torch.eye(4))
    means = torch.tensor([[1.5, 0.0, 0.2], [0.5, 0.0, 1.0]])
    turn = torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4)
    found = project(means, turn, torch.full((2, 3), 0.05), torch.ones(2), view)
    assert (found.radius > 0).all(1).tolist() == [False, True]
