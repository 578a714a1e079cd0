"""One image's intrinsics, as files state them: in the pixels of an image of a stated size.

Keys (instant-ngp, nerfstudio, NeRF-synthetic), each looked up in the frame first and then in the file:
fl_x, fl_y, or camera_angle_x, camera_angle_y (the full field of view, radians), or x_fov, y_fov (degrees);
cx, cy; w, h; k1, k2, k3, k4, p1, p2; camera_model, is_fisheye, latlong. A camera_model EQUIRECTANGULAR (nerfstudio) or
latlong (instant-ngp) is a whole sphere, whatever focal length is written beside it. The camera_model FULL_OPENCV is
ours: k1 to k6, p1, p2 are then COLMAP's.
"""

import math
from collections import ChainMap
from dataclasses import dataclass, replace

from ..errors import BadInput, warn
from . import json_values

PERSPECTIVE = ("PERSPECTIVE", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
FISHEYE = ("FISHEYE", "OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
SPHERE, RATIONAL = "EQUIRECTANGULAR", "FULL_OPENCV"
# Keys of instant-ngp for lenses and rays that are not read: taking them for pinhole cameras would be wrong. What it
# calls equirectangular has rows of equal area, not of equal angles; its latlong has those.
OTHER_LENSES = ("equirectangular", "orthographic", "ftheta_p0", "enable_ray_loading")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True)
class Lens:
    """focal, principal: pixels (x, y) of an image of `size` (width, height). distortion: k1..k4, p1, p2 and, where
    there are any, d1..d3 (`cameras.py`). model: one of cameras.MODELS."""

    focal: tuple[float, float]
    principal: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, ...]
    model: str

    def resized(self, size: tuple[int, int]) -> "Lens":
        """The same lens before an image of another size: its edges stay on the same rays."""
        x, y = size[0] / self.size[0], size[1] / self.size[1]
        focal, principal = self.focal, self.principal
        return replace(
            self,
            size=size,
            focal=(focal[0] * x, focal[1] * y),
            principal=(principal[0] * x, principal[1] * y),
        )


def read_lens(frame: dict, shared: dict, size: tuple[int, int], where: str) -> Lens:
    """The lens of a frame, in an image of `size`: the declared one, or the file's where none is declared."""
    values = ChainMap(frame, shared)
    model = _model(values, where)
    if model == "equirectangular":
        return whole_sphere(size)
    focal = _focal(frame, size, where) or _focal(shared, size, where)
    if focal is None:
        raise BadInput(f"{where} has no intrinsics; it needs fl_x (pixels) or camera_angle_x (radians)")
    principal = tuple(json_values.number(values, k, where, size[i] / 2) for i, k in enumerate(("cx", "cy")))
    if values.get("camera_model") == RATIONAL:
        keys = ("k1", "k2", "k3", "", "p1", "p2", "k4", "k5", "k6")
        rational = tuple(json_values.number(values, k, where, 0.0) if k else 0.0 for k in keys)
        return Lens(focal, principal, size, rational, model)
    distortion = [json_values.number(values, k, where, 0.0) for k in DISTORTION]
    if model == "fisheye" and (distortion[4] or distortion[5]):
        warn("the fisheye model has no tangential distortion: p1 and p2 are not used")
        distortion[4:] = 0.0, 0.0
    return Lens(focal, principal, size, tuple(distortion), model)


def whole_sphere(size: tuple[int, int]) -> Lens:
    """The lens of an equirectangular image that shows all directions."""
    focal = (size[0] / (2 * math.pi), size[1] / math.pi)
    return Lens(focal, (size[0] / 2, size[1] / 2), size, (0.0,) * 6, "equirectangular")


def declared_size(frame: dict, shared: dict, where: str) -> tuple[int, int] | None:
    """(width, height) of w and h, or None where they are not given."""
    values = ChainMap(frame, shared)
    size = tuple(json_values.positive(values, key, where) for key in ("w", "h"))
    if size == (None, None):
        return None
    if None in size:
        raise BadInput(f"{where} gives only one of w and h; it must give both or neither")
    if any(v != int(v) for v in size):
        raise BadInput(f"{where}: w, h are {size[0]:g}, {size[1]:g}; they must be whole numbers")
    return int(size[0]), int(size[1])


def _focal(values: dict, size: tuple[int, int], where: str) -> tuple[float, float] | None:
    along = [_focal_along(values, *keys, size[i], where) for i, keys in enumerate(_FOCAL_KEYS)]
    x, y = along[0] or along[1], along[1] or along[0]
    return None if x is None else (x, y)


_FOCAL_KEYS = (("fl_x", "camera_angle_x", "x_fov"), ("fl_y", "camera_angle_y", "y_fov"))


def _focal_along(values: dict, focal: str, radians: str, degrees: str, pixels: int, where: str) -> float | None:
    if (value := json_values.positive(values, focal, where)) is not None:
        return value
    for key, unit in ((radians, 1.0), (degrees, math.pi / 180)):
        angle = json_values.positive(values, key, where)
        if angle is None:
            continue
        if angle * unit >= math.pi:
            raise BadInput(f"{where}: {key} is {angle:g}; a field of view must be below 180 degrees")
        return 0.5 * pixels / math.tan(0.5 * angle * unit)
    return None


def _model(values, where: str) -> str:
    for key in OTHER_LENSES:
        if values.get(key):
            raise BadInput(f"{where}: {key} is not supported; lenses must be perspective, fisheye or latlong")
    if values.get("is_fisheye"):
        return "fisheye"
    if values.get("latlong"):
        return "equirectangular"
    name = values.get("camera_model") or "PERSPECTIVE"
    if name == SPHERE:
        return "equirectangular"
    if name in PERSPECTIVE or name == RATIONAL:
        return "perspective"
    if name in FISHEYE:
        return "fisheye"
    supported = ", ".join((*PERSPECTIVE, RATIONAL, *FISHEYE, SPHERE))
    raise BadInput(f"{where}: camera_model is {name!r}; it must be one of {supported}")
