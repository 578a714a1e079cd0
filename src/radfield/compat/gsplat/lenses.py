"""Lenses and shutters that `with_ut` and `with_eval3d` see through, in torch, as gsplat has them (OpenCV's models).

A point (x, y, z) of the camera's axes reaches the pixel f q + c, with (u, v) = (x, y) / z, r^2 = u^2 + v^2:

    pinhole   q = (u, v) (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6)
                + (2 p1 u v + p2 (r^2 + 2 u^2) + s1 r^2 + s2 r^4, p1 (r^2 + 2 v^2) + 2 p2 u v + s3 r^2 + s4 r^4)
    fisheye   q = (x, y) / |(x, y)| theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8), theta from the z axis

It is *seen* where z > 0, the radial factor of a pinhole lens is above 0.8, the polynomial of a fisheye lens has not
turned back, and the pixel is within the image and a margin. With a rolling shutter rows (or columns) are exposed one
after another, from the pose at time 0 to that at time 1: the rotation turns about one axis at a constant rate, the
translation goes straight.

Letters: M points or pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

MODELS = ("pinhole", "fisheye")
SHUTTER_STEPS = 10
UNDISTORT_STEPS = 60
LEAST_RADIAL = 0.8
_TABLE = 4096  # angles at which a fisheye lens's polynomial is looked at


class RollingShutterType(Enum):
    """Which way rows or columns are exposed."""

    ROLLING_TOP_TO_BOTTOM = 0
    ROLLING_LEFT_TO_RIGHT = 1
    ROLLING_BOTTOM_TO_TOP = 2
    ROLLING_RIGHT_TO_LEFT = 3
    GLOBAL = 4


@dataclass(frozen=True)
class Lens:
    """One camera's. focal, center: [2]; radial: [6] (pinhole) or [4] (fisheye), tangential [2], prism [4]; or None."""

    model: str
    size: tuple[int, int]
    focal: Tensor
    center: Tensor
    radial: Tensor | None = None
    tangential: Tensor | None = None
    prism: Tensor | None = None

    def pixels(self, local: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """(pixels [..., 2], whether it is seen [...]) of points [..., 3]; margin: as a part of the image's size."""
        front = local[..., 2] > 0
        safe = torch.where(front[..., None], local, local.new_tensor([0.0, 0.0, 1.0]))
        q, seen = self._fisheye(safe) if self.model == "fisheye" else self._pinhole(safe[..., :2] / safe[..., 2:])
        pixels, size = q * self.focal + self.center, local.new_tensor(self.size)
        inside = ((pixels >= -margin * size) & (pixels < (1 + margin) * size)).all(-1)
        return pixels, front & seen & inside

    def _pinhole(self, uv: Tensor) -> tuple[Tensor, Tensor]:
        factor, shift = self._distortion(uv)
        return factor[..., None] * uv + shift, factor > LEAST_RADIAL

    def _distortion(self, uv: Tensor) -> tuple[Tensor, Tensor]:
        """(radial factor [...], shift [..., 2])."""
        u, v = uv.unbind(-1)
        r2 = u * u + v * v
        k = self.radial if self.radial is not None else uv.new_zeros(6)
        p = self.tangential if self.tangential is not None else uv.new_zeros(2)
        s = self.prism if self.prism is not None else uv.new_zeros(4)
        over, under = (1 + r2 * (a + r2 * (b + r2 * c)) for a, b, c in (k[:3], k[3:]))
        x = 2 * p[0] * u * v + p[1] * (r2 + 2 * u * u) + r2 * (s[0] + r2 * s[1])
        y = p[0] * (r2 + 2 * v * v) + 2 * p[1] * u * v + r2 * (s[2] + r2 * s[3])
        return over / under, torch.stack((x, y), -1)

    def _fisheye(self, local: Tensor) -> tuple[Tensor, Tensor]:
        r = local[..., :2].norm(dim=-1).clamp_min(torch.finfo(local.dtype).eps)
        theta, most = torch.atan2(r, local[..., 2]), self._most_angle()
        factor = self._polynomial(theta.clamp_max(most)) / r
        return local[..., :2] * factor[..., None], (theta <= most) & (factor > 0)

    def _polynomial(self, theta: Tensor) -> Tensor:
        k = self.radial if self.radial is not None else theta.new_zeros(4)
        t = theta * theta
        return theta * (1 + t * (k[0] + t * (k[1] + t * (k[2] + t * k[3]))))

    def _most_angle(self) -> float:
        """Up to where the polynomial rises, and no further than the image's corner (as a multiple of the angle)."""
        theta = torch.linspace(0, math.pi, _TABLE, dtype=torch.float64)
        radial = None if self.radial is None else self.radial.detach().cpu().double()
        turned = (Lens(self.model, self.size, self.focal, self.center, radial)._polynomial(theta).diff() <= 0).nonzero()
        limit = float(theta[int(turned[0])]) if len(turned) else math.pi
        corner = torch.maximum(self.center.new_tensor(self.size) - self.center, self.center).norm()
        return min(limit, float((corner / self.focal).max()))

    def rays(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(unit directions [..., 3] in the camera's axes, whether the lens has one there [...]) of pixels [..., 2]."""
        q = (pixels - self.center) / self.focal
        if self.model == "fisheye":
            return self._fisheye_rays(q)
        uv = q
        for _ in range(UNDISTORT_STEPS if self.radial is not None or self._shifts else 0):
            factor, shift = self._distortion(uv)
            uv = (q - shift) / factor[..., None]
        found, seen = self._pinhole(uv)
        seen = seen & ((found - q).norm(dim=-1) < 1e-4)
        return torch.nn.functional.normalize(torch.nn.functional.pad(uv, (0, 1), value=1.0), dim=-1), seen

    @property
    def _shifts(self) -> bool:
        return self.tangential is not None or self.prism is not None

    def _fisheye_rays(self, q: Tensor) -> tuple[Tensor, Tensor]:
        radius = q.norm(dim=-1)
        low, high = torch.zeros_like(radius), torch.full_like(radius, self._most_angle())
        seen = radius <= self._polynomial(high)
        for _ in range(UNDISTORT_STEPS):  # the polynomial rises: bisection
            middle = (low + high) / 2
            below = self._polynomial(middle) < radius
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        theta = (low + high) / 2
        xy = q / radius.clamp_min(1e-12)[..., None] * theta.sin()[..., None]
        return torch.cat((xy, theta.cos()[..., None]), -1), seen


@dataclass(frozen=True)
class Shutter:
    """World to camera [4, 4] at times 0 and 1 (the same, or None: it stands still), and which way it is exposed."""

    start: Tensor
    end: Tensor | None
    kind: RollingShutterType

    @property
    def rolling(self) -> bool:
        """Whether it moves while it is exposed."""
        return self.kind is not RollingShutterType.GLOBAL and self.end is not None

    def poses(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """(rotations [..., 3, 3], translations [..., 3]), world to camera, at `times` [...]."""
        first, shift = self.start[:3, :3], self.start[:3, 3]
        if self.end is None:
            return first.expand(*times.shape, 3, 3), shift.expand(*times.shape, 3)
        turn = self.end[:3, :3] @ first.T
        sine = torch.stack((turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])) / 2
        angle = torch.atan2(sine.norm(), (turn.trace() - 1) / 2)
        x, y, z = torch.nn.functional.normalize(sine, dim=0)
        zero = torch.zeros_like(x)
        cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero)).view(3, 3)
        part = (times * angle)[..., None, None]  # Rodrigues' formula
        turned = torch.eye(3).to(cross) + part.sin() * cross + (1 - part.cos()) * (cross @ cross)
        moved = (1 - times)[..., None] * shift + times[..., None] * self.end[:3, 3]
        return turned @ first, moved

    def times(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """[...], when pixels [..., 2] are exposed; 0 with a global shutter."""
        if not self.rolling:
            return torch.zeros_like(pixels[..., 0])
        along = self.kind.name.endswith(("LEFT_TO_RIGHT", "RIGHT_TO_LEFT"))
        part = pixels[..., 0 if along else 1].floor() / max(1, size[0 if along else 1] - 1)
        backwards = self.kind.name.endswith(("BOTTOM_TO_TOP", "RIGHT_TO_LEFT"))
        return 1 - part if backwards else part

    def seen(self, points: Tensor, lens: Lens, margin: float) -> tuple[Tensor, Tensor]:
        """(pixels [..., 2], whether it is seen [...]) of points [..., 3] in the world, each when it is exposed."""
        start, first = self._at(points, torch.zeros_like(points[..., 0]), lens, margin)
        if not self.rolling:
            return start, first
        end, last = self._at(points, torch.ones_like(points[..., 0]), lens, margin)
        pixels = torch.where(first[..., None], start, end)
        for _ in range(SHUTTER_STEPS):
            pixels, _ = self._at(points, self.times(pixels, lens.size), lens, margin)
        return pixels, first | last

    def _at(self, points: Tensor, times: Tensor, lens: Lens, margin: float) -> tuple[Tensor, Tensor]:
        turn, shift = self.poses(times)
        return lens.pixels((turn @ points[..., None])[..., 0] + shift, margin)
