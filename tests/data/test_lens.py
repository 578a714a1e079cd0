"""Intrinsics from their many spellings."""

import math

import pytest

from radfield.data.lens import declared_size, read_lens
from radfield.errors import BadInput, RadfieldWarning

SIZE = (200, 100)


def read(shared: dict, frame: dict | None = None):
    return read_lens(frame or {}, shared, SIZE, "here")


@pytest.mark.parametrize(
    "keys, focal",
    [
        ({"fl_x": 150, "fl_y": 140}, (150, 140)),
        ({"fl_x": 150}, (150, 150)),
        ({"fl_y": 140}, (140, 140)),
        ({"camera_angle_x": math.pi / 2}, (100, 100)),
        ({"camera_angle_y": math.pi / 2}, (50, 50)),
        ({"x_fov": 90.0, "y_fov": 90.0}, (100, 50)),
        ({"fl_x": 150, "camera_angle_x": 0.1}, (150, 150)),
    ],
)
def test_focal(keys, focal):
    assert read(keys).focal == pytest.approx(focal)


def test_principal_point_defaults_to_the_centre():
    assert read({"fl_x": 1}).principal == (100, 50)
    assert read({"fl_x": 1, "cx": 90.5, "cy": 0}).principal == (90.5, 0)


def test_a_frame_overrides_the_file():
    lens = read({"fl_x": 1, "fl_y": 2, "k1": 0.5}, {"camera_angle_x": math.pi / 2, "k1": 0.1})
    assert lens.focal == pytest.approx((100, 100))
    assert lens.distortion == (0.1, 0, 0, 0, 0, 0)


def test_distortion_order():
    keys = dict(k1=1, k2=2, k3=3, k4=4, p1=5, p2=6)
    assert read({"fl_x": 1, **keys}).distortion == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    "keys, model",
    [
        ({}, "perspective"),
        ({"camera_model": "OPENCV"}, "perspective"),
        ({"camera_model": "SIMPLE_PINHOLE"}, "perspective"),
        ({"camera_model": "OPENCV_FISHEYE"}, "fisheye"),
        ({"is_fisheye": True}, "fisheye"),
    ],
)
def test_model(keys, model):
    assert read({"fl_x": 1, **keys}).model == model


def test_fisheye_without_tangential_terms():
    with pytest.warns(RadfieldWarning, match="p1 and p2 are not used"):
        assert read({"fl_x": 1, "is_fisheye": True, "p1": 0.1}).distortion == (0,) * 6


@pytest.mark.parametrize(
    "keys, rule",
    [
        ({}, "here has no intrinsics"),
        ({"fl_x": 0}, "here: fl_x is 0; it must be positive"),
        ({"fl_x": -3}, "here: fl_x is -3; it must be positive"),
        ({"camera_angle_x": 3.2}, "camera_angle_x is 3.2; a field of view must be below 180 degrees"),
        ({"fl_x": 1, "k1": "a"}, "k1 is 'a'; it must be a number"),
        ({"fl_x": 1, "camera_model": "VR180_L"}, "camera_model is 'VR180_L'; it must be one of"),
        ({"fl_x": 1, "equirectangular": True}, "equirectangular is not supported"),
        ({"fl_x": 1, "camera_model": ["x"]}, r"camera_model is \['x'\]; it must be one of"),
        ({"fl_x": 1, "ftheta_p0": 0.5}, "ftheta_p0 is not supported"),
    ],
)
def test_bad_intrinsics(keys, rule):
    with pytest.raises(BadInput, match=rule):
        read(keys)


@pytest.mark.parametrize("keys", [{"camera_model": "EQUIRECTANGULAR", "fl_x": 3}, {"latlong": True}])
def test_a_whole_sphere(keys):
    lens = read(keys)
    width, height = lens.size
    assert lens.model == "equirectangular" and lens.principal == (width / 2, height / 2)
    assert lens.focal == (width / (2 * math.pi), height / math.pi)


def test_rational_coefficients_have_opencvs_names():
    names = dict(k1=1, k2=2, k3=3, k4=4, k5=5, k6=6, p1=7, p2=8)
    assert read({"fl_x": 9, "camera_model": "FULL_OPENCV", **names}).distortion == (1, 2, 3, 0, 7, 8, 4, 5, 6)


def test_resized_lens_scales_with_the_image():
    lens = read({"fl_x": 100, "cx": 80, "k1": 0.1}).resized((100, 25))
    assert (lens.focal, lens.principal, lens.size) == ((50, 25), (40, 12.5), (100, 25))
    assert lens.distortion[0] == 0.1


def test_declared_size():
    assert declared_size({}, {}, "here") is None
    assert declared_size({"w": 3, "h": 4.0}, {"w": 9, "h": 9}, "here") == (3, 4)
    with pytest.raises(BadInput, match="only one of w and h"):
        declared_size({"w": 3}, {}, "here")
    with pytest.raises(BadInput, match="must be whole numbers"):
        declared_size({"w": 3.5, "h": 4}, {}, "here")
