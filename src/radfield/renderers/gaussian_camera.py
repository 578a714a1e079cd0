"""Cameras that Gaussians are seen by: pose, lens and shutter.

A point X of the camera's axes (x right, y down, z forward) reaches the pixel f * q + c, where

- perspective: q = distort(x / z, y / z) with the coefficients of `cameras.py`;
- fisheye: q = (x, y) / |(x, y)| * theta_d of the angle theta from the z axis, as in `cameras.py`;
- orthographic: q = (x, y): focal lengths are pixels per unit of length.

A polynomial turns back somewhere beyond the image, and would show there what is outside it. So a lens holds up to a
*reach*, a radius |(x, y)| / z (perspective) or an angle (fisheye); from there on q goes on in proportion to it.

With a *rolling shutter* rows (or columns) are exposed one after another: from `world_to_camera` at one edge of the
image (time 0) to `end` at the other (time 1). Between them the rotation turns about one axis at a constant rate, and
the translation goes straight: X(t) = Rot(t angle) R mu + (1 - t) T_0 + t T_1. The time of a point is that of the row
where it is seen, found by SHUTTER_STEPS steps of a fixed point iteration from t = 1/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..cameras import DISTORTION, Cameras, _fisheye_polynomial, _radial, distort
from ..errors import BadInput

MODELS = ("perspective", "fisheye", "orthographic")
DIRECTIONS = ("down", "up", "right", "left")
MARGIN = 0.3  # of the image's half width: how far beyond the image J of `project` follows the centre
SHUTTER_STEPS = 5
LEAST_SLOPE = 0.05  # of a lens's radius by that of the scene: below, it is about to turn back


@dataclass(frozen=True)
class RollingShutter:
    """The camera moves while the image is exposed: `end` [4, 4] is world to camera for the last row or column.
    direction: "down" exposes the top row first, "up" the bottom row, "right" the left column, "left" the right one."""

    end: Tensor
    direction: str = "down"

    def __post_init__(self):
        if self.direction not in DIRECTIONS:
            raise BadInput(f"RollingShutter: direction is {self.direction!r}; the rule: one of {', '.join(DIRECTIONS)}")


@dataclass(frozen=True)
class Camera:
    """One camera. world_to_camera: [4, 4] rigid; focal, center: (x, y) in pixels, two numbers or a tensor [2].
    world_to_camera, and tensors among the others, get gradients where they require some (not with a shutter).

    distortion: k1, k2, k3, k4, p1, p2, d1, d2, d3 of `cameras.py`, or none. unscented: whether to project by sigma
    points where the lens would not need them (see `gaussian_projection.py`)."""

    world_to_camera: Tensor
    focal: tuple[float, float] | Tensor
    center: tuple[float, float] | Tensor
    width: int
    height: int
    near: float = 0.01
    far: float = 1e10
    model: str = "perspective"
    distortion: tuple[float, ...] = ()
    shutter: RollingShutter | None = None
    unscented: bool = False

    def __post_init__(self):
        if self.model not in MODELS:
            raise BadInput(f"Camera: model is {self.model!r}; the rule: one of {', '.join(MODELS)}")
        if len(self.distortion) not in (0, len(DISTORTION)):
            raise BadInput(
                f"Camera: distortion has {len(self.distortion)} numbers; the rule: none or {len(DISTORTION)}"
            )
        if any(self.distortion) and self.model == "orthographic":
            raise BadInput("Camera: orthographic with distortion; the rule: perspective or fisheye has one")

    @staticmethod
    def of(cameras: Cameras, view: int, *, near: float = 0.01) -> Camera:
        """View `view` of `cameras`. Raises `BadInput` for a lens that sees a whole sphere: Gaussians on its seam have
        no one place on the image."""
        model = cameras.model_of(view)
        if model not in MODELS:
            raise BadInput(f"camera {view} is {model}; the rule: Gaussians are seen by {' or '.join(MODELS)}")
        width, height = cameras.size[view].tolist()
        pose = torch.linalg.inv(cameras.camera_to_world[view].double()).float()
        focal, center, distortion = (
            tuple(v[view].tolist()) for v in (cameras.focal, cameras.principal, cameras.distortion)
        )
        options = {"model": model, "distortion": distortion if any(distortion) else ()}
        return Camera(pose, focal, center, width, height, near, **options)

    def to(self, device: torch.device | str) -> Camera:
        """The same camera for Gaussians on `device`."""
        shutter = self.shutter and replace(self.shutter, end=self.shutter.end.to(device))
        return replace(self, world_to_camera=self.world_to_camera.to(device), shutter=shutter)

    @property
    def position(self) -> Tensor:
        """[3], in the world; with a rolling shutter halfway."""
        pose = self.world_to_camera
        start = -pose[:3, :3].T @ pose[:3, 3]
        if self.shutter is None:
            return start
        end = self.shutter.end
        return (start - end[:3, :3].T @ end[:3, 3]) / 2

    @property
    def by_sigma_points(self) -> bool:
        """Whether `project` takes sigma points: for all but a perspective lens without distortion that stands still."""
        return self.unscented or self.model != "perspective" or any(self.distortion) or self.shutter is not None

    @property
    def numbers(self) -> tuple[list[float], list[float]]:
        """(focal, center) as numbers."""
        return tuple(v.detach().tolist() if isinstance(v, Tensor) else list(v) for v in (self.focal, self.center))

    def slope_limits(self) -> tuple[float, float, float, float]:
        """(low x, high x, low y, high y) of t_x, t_y: numbers, without gradient."""
        limits, (focal, center) = [], self.numbers
        for f, c, size in zip(focal, center, (self.width, self.height), strict=True):
            margin = MARGIN * 0.5 * size / f
            limits += [-c / f - margin, (size - c) / f + margin]
        return tuple(limits)

    @cached_property
    def reach(self) -> float:
        """Up to where the lens holds (see the module)."""
        end = math.pi if self.model == "fisheye" else 20.0
        if not any(self.distortion):
            return end
        radius = torch.linspace(0, end, 4096, dtype=torch.float64)
        k = torch.tensor([self.distortion], dtype=torch.float64)
        if self.model == "fisheye":
            slope = _fisheye_polynomial(radius, k)[1]
        else:
            value, by_r2 = _radial(radius * radius, k)
            slope = value + 2 * radius * radius * by_r2
        turned = (~(slope > LEAST_SLOPE)).nonzero()
        return end if not len(turned) else float(radius[max(int(turned[0]) - 1, 1)])

    def scaled(self, width: int, height: int) -> Camera:
        """The same view with other numbers of pixels."""
        ratio = width / self.width, height / self.height
        focal, center = (tuple(v * r for v, r in zip(values, ratio, strict=True)) for values in self.numbers)
        return replace(self, focal=focal, center=center, width=width, height=height)

    def shutter_motion(self) -> tuple[Tensor, float, Tensor]:
        """(axis [3], angle in radians, shift of the translation [3]) from time 0 to 1, float64, without gradient."""
        start, end = self.world_to_camera.detach().double(), self.shutter.end.detach().double()
        turn = end[:3, :3] @ start[:3, :3].T
        sine = torch.stack((turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])) / 2
        angle = math.atan2(float(sine.norm()), float(turn.trace() - 1) / 2)
        if angle > math.pi / 2:
            raise BadInput(f"RollingShutter: turns by {math.degrees(angle):.0f} degrees; the rule: at most 90")
        axis = sine / sine.norm() if float(sine.norm()) > 0 else sine.new_tensor([0.0, 0.0, 1.0])
        return axis, angle, end[:3, 3] - start[:3, 3]

    def lens_points(self, local: Tensor) -> Tensor:
        """Pixels [..., 2] of points [..., 3] of the camera's axes, of any float type; meaningless for z <= 0 of a
        perspective lens."""
        focal, center = (torch.as_tensor(v).to(local) for v in (self.focal, self.center))
        flat, k = local.reshape(-1, 3), local.new_tensor([self.distortion or (0.0,) * len(DISTORTION)])
        if self.model == "orthographic":
            q = flat[:, :2]
        elif self.model == "perspective":
            q = flat[:, :2] / flat[:, 2:]
            if any(self.distortion):
                squared = q.square().sum(1, keepdim=True)
                beyond = squared > self.reach**2
                within = torch.where(beyond, self.reach / torch.where(beyond, squared, 1.0).sqrt(), 1.0)
                q = distort(q * within, k) / within
        else:
            q = self._fisheye_points(flat, k)
        return (q * focal + center).view(*local.shape[:-1], 2)

    def _fisheye_points(self, flat: Tensor, k: Tensor) -> Tensor:
        squared = flat[:, :2].square().sum(1)
        off_axis = squared > 0
        r = torch.where(off_axis, squared, 1.0).sqrt()
        theta = torch.where(off_axis, torch.atan2(r, flat[:, 2]), 0.0)
        beyond = theta > self.reach
        value = _fisheye_polynomial(torch.where(beyond, self.reach, theta), k)[0]
        value = torch.where(beyond, value * theta / self.reach, value)
        axis = torch.where(off_axis, 1.0, flat[:, 2])  # on the axis q = (x, y) / z to first order
        scale = torch.where(off_axis, value / r, 1 / torch.where(axis == 0, 1.0, axis))
        return flat[:, :2] * scale[:, None]


def along_rays(cameras: Cameras, view: int) -> Tensor:
    """[rows, columns], by which the depth of `project` is multiplied to be a distance along the pixels' rays."""
    width, height = cameras.size[view].tolist()
    if cameras.model_of(view) == "fisheye":
        return torch.ones(height, width, device=cameras.focal.device)
    forward = cameras.camera_to_world[view, :3, 2]
    return 1 / (cameras.image_rays(view).directions @ forward).view(height, width)
