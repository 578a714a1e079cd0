"""Cameras: rays and projection are inverse to each other, and exact where the answer is known."""

import math

import pytest
import torch

from radfield.cameras import Cameras, distort, distort_jacobian, look_at, undistort
from radfield.errors import BadInput

F64 = torch.float64
FOX = (0.0578421, -0.0805099, 0.0, 0.0, -0.000980296, 0.00015575)
LENSES = {
    "pinhole": ("perspective", (0.0,) * 6),
    "fox": ("perspective", FOX),
    "all six": ("perspective", (-0.12, 0.05, -0.02, 0.004, 0.001, -0.002)),
    "equidistant": ("fisheye", (0.0,) * 6),
    "fisheye": ("fisheye", (0.05, -0.01, 0.002, -0.0003, 0.0, 0.0)),
    "rational": ("perspective", (0.1, -0.05, 0.01, 0.0, 0.001, -0.002, 0.15, -0.04, 0.01)),
    "equirectangular": ("equirectangular", (0.0,) * 6),
}


def make_cameras(model="perspective", distortion=FOX, views=3, size=(108, 192), focal=137.5) -> Cameras:
    generator = torch.Generator().manual_seed(1)
    origin = torch.randn(views, 3, generator=generator, dtype=F64)
    pose = look_at(origin, torch.zeros(3, dtype=F64), torch.tensor([0, 0, 1], dtype=F64))
    return Cameras(
        camera_to_world=pose,
        focal=torch.tensor([[focal, focal * 0.99]], dtype=F64).repeat(views, 1),
        principal=torch.tensor([[size[0] * 0.51, size[1] * 0.49]], dtype=F64).repeat(views, 1),
        size=torch.tensor([size]).repeat(views, 1),
        distortion=torch.tensor([distortion], dtype=F64).repeat(views, 1),
        model=model,
    )


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-9), (torch.float32, 1e-4)])
def test_projecting_rays_returns_the_pixels(name, dtype, tolerance):
    model, distortion = LENSES[name]
    # A fisheye of this focal length sees beyond 90 degrees off its axis in the corners.
    cameras = make_cameras(
        model, distortion, focal=137.5 if model == "perspective" else (60.0 if model == "fisheye" else 80.0)
    ).to(dtype)
    for i in range(len(cameras)):
        pixel = cameras.pixel_centres(i)
        rays = cameras.image_rays(i)
        t = torch.linspace(0.5, 3, len(pixel), dtype=dtype)
        back, depth = cameras.project(torch.full((len(pixel),), i), rays.at(t))
        assert (back - pixel).abs().max() < tolerance
        assert (rays.directions.norm(dim=-1) - 1).abs().max() < 4 * torch.finfo(dtype).eps
        if model == "perspective":
            assert (depth > 0).all()
        elif model == "fisheye":
            assert (depth < 0).any()


def test_full_size_fox_camera_round_trip():
    cameras = make_cameras(size=(1080, 1920), focal=1375.5, views=1)
    pixel = cameras.pixel_centres(0)[::97]
    view = torch.zeros(len(pixel), dtype=torch.long)
    for dtype, tolerance in ((F64, 1e-8), (torch.float32, 2e-3)):  # one float32 step at 1920 is 1.2e-4
        same = cameras.to(dtype)
        rays = same.rays(view, pixel.to(dtype))
        back, _ = same.project(view, rays.at(torch.ones_like(rays.origins[:, 0])))
        assert (back - pixel).abs().max() < tolerance


@pytest.mark.parametrize("name", LENSES)
def test_rays_of_pixels_equal_those_of_the_image(name):
    cameras = make_cameras(*LENSES[name])
    pixel = cameras.pixel_centres(1)
    rays, image = cameras.rays(torch.ones(len(pixel), dtype=torch.long), pixel), cameras.image_rays(1)
    torch.testing.assert_close(rays.directions, image.directions)
    assert torch.equal(rays.origins, image.origins)


def test_image_rays_are_row_major_through_pixel_centres():
    focal, principal = torch.tensor([[[2.0, 4.0]], [[1.5, 1.0]]], dtype=F64)
    pose, distortion = torch.eye(4, dtype=F64)[None], torch.zeros(1, 6, dtype=F64)
    cameras = Cameras(pose, focal, principal, torch.tensor([[3, 2]]), distortion)
    rays = cameras.image_rays(0)
    slopes = rays.directions[:, :2] / rays.directions[:, 2:]
    expected = [[x / 2, y / 4] for y in (-0.5, 0.5) for x in (-1, 0, 1)]
    torch.testing.assert_close(slopes, torch.tensor(expected, dtype=F64))


def test_fisheye_without_distortion_is_equidistant():
    cameras = make_cameras("fisheye", (0.0,) * 6, views=1, focal=60.0)
    cameras = Cameras(**vars_of(cameras) | {"camera_to_world": torch.eye(4, dtype=F64)[None]})
    pixel = cameras.principal + 60.0 * torch.tensor([[0.0, 0], [math.pi / 2, 0], [0.3, 0]], dtype=F64)
    directions = cameras.rays(torch.zeros(3, dtype=torch.long), pixel).directions
    expected = [[0, 0, 1], [1, 0, 0], [math.sin(0.3), 0, math.cos(0.3)]]
    torch.testing.assert_close(directions, torch.tensor(expected, dtype=F64))


def vars_of(cameras: Cameras) -> dict:
    names = ("camera_to_world", "focal", "principal", "size", "distortion", "model")
    return {name: getattr(cameras, name) for name in names}


@pytest.mark.parametrize("lens", ["all six", "rational"])
def test_undistort_inverts_distort(lens):
    q = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=F64) - 0.5
    k = torch.tensor([LENSES[lens][1]], dtype=F64)
    torch.testing.assert_close(undistort(distort(q, k), k), q, rtol=0, atol=1e-13)
    torch.testing.assert_close(distort(undistort(q, k), k), q, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lens", ["all six", "rational"])
def test_jacobian_is_the_derivative(lens):
    q = torch.tensor([[0.3, -0.6], [0.0, 0.0], [-0.2, 0.1]], dtype=F64)
    k = torch.tensor([LENSES[lens][1]], dtype=F64)
    full = torch.autograd.functional.jacobian(lambda v: distort(v, k), q)
    per_point = torch.stack([full[i, :, i] for i in range(3)])
    xx, xy, yy = distort_jacobian(q, k)
    torch.testing.assert_close(per_point, torch.stack((xx, xy, xy, yy), -1).view(3, 2, 2))


def test_known_value_of_the_rational_model():
    k = torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.4, 0.5, 0.6]], dtype=F64)
    radial = (1 + 0.1 * 0.25 + 0.2 * 0.25**2 + 0.3 * 0.25**3) / (1 + 0.4 * 0.25 + 0.5 * 0.25**2 + 0.6 * 0.25**3)
    torch.testing.assert_close(distort(torch.tensor([[0.0, 0.5]], dtype=F64), k), k.new_tensor([[0, 0.5 * radial]]))


def test_a_whole_sphere():
    size = torch.tensor([[400, 200]])
    focal = size / torch.tensor([2 * math.pi, math.pi], dtype=F64)
    cameras = Cameras(torch.eye(4, dtype=F64)[None], focal, size / 2.0, size, torch.zeros(1, 6), "equirectangular")
    pixel = torch.tensor([[200.0, 100], [300, 100], [200, 200], [0, 100], [200, 0], [100, 100]], dtype=F64)
    directions = cameras.rays(torch.zeros(6, dtype=torch.long), pixel).directions
    expected = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, -1], [0, -1, 0], [-1, 0, 0]]
    torch.testing.assert_close(directions, torch.tensor(expected, dtype=F64), atol=1e-15, rtol=0)


def test_beyond_the_fold_of_a_lens_rays_stay_finite():
    cameras = make_cameras(distortion=(-0.9, 0, 0, 0, 0, 0))
    directions = cameras.image_rays(0).directions
    assert directions.isfinite().all()


def test_known_distortion_value():
    q = torch.tensor([[0.5, 0.0]], dtype=F64)
    k = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.01, 0.02]], dtype=F64)
    radial = 1 + 0.1 * 0.25 + 0.2 * 0.25**2 + 0.3 * 0.25**3 + 0.4 * 0.25**4
    expected = [[0.5 * radial + 0.02 * 3 * 0.25, 0.01 * 0.25]]
    torch.testing.assert_close(distort(q, k), torch.tensor(expected, dtype=F64))


@pytest.mark.parametrize("factor", [0.25, 0.3, 2.0])
def test_scaled_keeps_the_image_edges_on_the_same_rays(factor):
    cameras = make_cameras()
    other = cameras.scaled(factor)
    assert other.size[0].tolist() == [round(108 * factor), round(192 * factor)]
    view = torch.arange(3)
    for corner in ((0, 0), (1, 0), (1, 1)):
        share = torch.tensor(corner)
        expected = cameras.rays(view, (cameras.size * share).double()).directions
        torch.testing.assert_close(other.rays(view, (other.size * share).double()).directions, expected)


def test_scaled_keeps_a_pixel():
    assert make_cameras().scaled(1e-6).size.tolist() == [[1, 1]] * 3


def test_selection():
    cameras = make_cameras()
    assert len(cameras[1]) == 1 and len(cameras[torch.tensor([2, 0])]) == 2 and len(cameras[1:]) == 2
    assert torch.equal(cameras[-1].camera_to_world, cameras.camera_to_world[2:])
    with pytest.raises(IndexError, match=r"camera 3 of 3"):
        cameras[3]


def test_look_at_is_rigid_and_upright():
    pose = look_at(torch.tensor([3.0, 0, 0]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(pose[:3, :3], torch.tensor([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]))
    assert pose[:, 3].tolist() == [3, 0, 0, 1]


def test_look_at_refuses_what_has_no_answer():
    for position in ([0.0, 0.0, 2.0], [0.0, 0.0, 0.0]):
        with pytest.raises(BadInput, match="up axis"):
            look_at(torch.tensor([position]), torch.zeros(3), torch.tensor([0.0, 0, 1]))


def test_bad_shape_and_model_are_named():
    values = vars_of(make_cameras())
    with pytest.raises(ValueError, match=r"Cameras.focal has shape \[3\]; it must be \[3, 2\]"):
        Cameras(**values | {"focal": torch.ones(3)})
    with pytest.raises(ValueError, match=r"Cameras.model is 'spherical'; it must be one of"):
        Cameras(**values | {"model": "spherical"})
