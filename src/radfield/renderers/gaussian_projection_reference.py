"""The specification of `gaussian_projection.py`, in torch, of any float type."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .gaussian_camera import SHUTTER_STEPS, Camera

EPS = 0.3  # square pixels
MIN_ALPHA = 1 / 255
MIN_COMPENSATION = 0.005
IMAGE_MARGIN = 0.1  # of the image's size: where around it a sigma point has to be


class Projected(NamedTuple):
    """G Gaussians on the image."""

    mean2d: Tensor  # [G, 2] pixels
    conic: Tensor  # [G, 3] (e, k, c)
    depth: Tensor  # [G]
    radius: Tensor  # [G, 2] pixels; 0: left out. No gradient
    opacity: Tensor  # [G] as drawn


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """[G, 3, 3] of quaternions [G, 4] (w, x, y, z) of any length; NaN where the length is 0."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project_reference(means, quaternions, scales, opacities, camera: Camera, *, antialiased=False) -> Projected:
    """The specification: `means` [G, 3], `quaternions` [G, 4], `scales` [G, 3], `opacities` [G]."""
    kept = _sound(means, quaternions, scales, opacities)
    # what is left out takes harmless values, so that no NaN enters a gradient
    pose = camera.world_to_camera.to(means)
    unit = quaternions.new_tensor([1.0, 0.0, 0.0, 0.0])
    axes = (
        rotation_matrices(torch.where(kept[:, None], quaternions, unit))
        * torch.where(kept[:, None], scales, 1.0)[:, None]
    )
    turned = pose[:3, :3] @ axes
    local = torch.where(kept[:, None], means, 0.0) @ pose[:3, :3].T + pose[:3, 3]
    seen = _unscented if camera.by_sigma_points else _linear
    mean2d, depth, (uu, uv, vv), before, kept = seen(local, turned, kept, camera)
    det = before + EPS * (uu + vv) + EPS**2
    opacity = torch.where(kept, opacities, 0.0)
    if antialiased:
        opacity = opacity * (before / det).clamp_min(MIN_COMPENSATION**2).sqrt()
    conic = torch.stack((1 / (uu + EPS), -uv / (uu + EPS), (uu + EPS) / det), 1)
    kept = kept & (opacity.detach() >= MIN_ALPHA) & conic.detach().isfinite().all(1) & mean2d.detach().isfinite().all(1)
    with torch.no_grad():
        level = 2 * (255 * opacity.clamp_min(MIN_ALPHA)).log()
        radius = (level[:, None] * (torch.stack((uu, vv), 1) + EPS)).sqrt()
        size = mean2d.new_tensor([camera.width, camera.height])
        kept = kept & ((radius > 0) & (mean2d + radius > 0) & (mean2d - radius < size)).all(1)
    rows = kept[:, None]
    values = (torch.where(rows, mean2d, 0.0), torch.where(rows, conic, 0.0), torch.where(kept, depth, 0.0))
    return Projected(*values, torch.where(rows, radius, 0.0), torch.where(kept, opacity, 0.0))


def _linear(local: Tensor, axes: Tensor, kept: Tensor, camera: Camera):
    """By the derivative J of the projection. Returns (mean2d, depth, covariance, its determinant, kept)."""
    kept = kept & (local[:, 2].detach() >= camera.near) & (local[:, 2].detach() <= camera.far)
    x, y, z = torch.where(kept[:, None], local, local.new_tensor([0.0, 0.0, 1.0])).unbind(-1)
    (fx, fy), (low_x, high_x, low_y, high_y) = camera.focal, camera.slope_limits()
    tx, ty = (x / z).clamp(low_x, high_x), (y / z).clamp(low_y, high_y)
    u = (fx / z)[:, None] * axes[:, 0] - (fx * tx / z)[:, None] * axes[:, 2]
    v = (fy / z)[:, None] * axes[:, 1] - (fy * ty / z)[:, None] * axes[:, 2]
    before = torch.linalg.cross(u, v).square().sum(1)
    mean2d = torch.stack((fx * x / z + camera.center[0], fy * y / z + camera.center[1]), 1)
    return mean2d, z, ((u * u).sum(1), (u * v).sum(1), (v * v).sum(1)), before, kept


def _unscented(local: Tensor, axes: Tensor, kept: Tensor, camera: Camera):
    """By seven sigma points. Returns as `_linear`."""
    shifts = math.sqrt(3) * torch.stack((axes, -axes), -1).flatten(-2).mT  # [G, 6, 3]
    points = torch.cat((local[:, None], local[:, None] + shifts), 1)
    safe = torch.where(kept[:, None, None], points, points.new_tensor([0.0, 0.0, 1.0]))
    safe = _at_their_times(safe, camera)
    kept = kept & _usable(safe.detach(), camera)
    depth = safe[:, 0].norm(dim=1) if camera.model == "fisheye" else safe[:, 0, 2]
    kept = kept & (depth.detach() >= camera.near) & (depth.detach() <= camera.far)
    safe = torch.where(kept[:, None, None], safe, safe.new_tensor([0.0, 0.0, 1.0]))
    pixels = camera.lens_points(safe)
    size = pixels.new_tensor([camera.width, camera.height])
    near_image = ((pixels.detach() > -IMAGE_MARGIN * size) & (pixels.detach() < (1 + IMAGE_MARGIN) * size)).all(2)
    kept = kept & near_image.any(1)
    mean2d = pixels[:, 1:].mean(1)
    off = pixels - mean2d[:, None]
    weight = pixels.new_tensor([2.0] + [1 / 6] * 6)
    u, v = off.unbind(-1)
    covariance = tuple((weight * product).sum(1) for product in (u * u, u * v, v * v))
    # Lagrange's identity: det = sum over pairs of w_i w_j (e_i x e_j)^2, never the difference of two large products
    cross = (u[:, :, None] * v[:, None, :] - v[:, :, None] * u[:, None, :]).square()
    before = 0.5 * (weight[:, None] * weight * cross).sum((1, 2))
    return mean2d, depth, covariance, before, kept


def _usable(points: Tensor, camera: Camera) -> Tensor:
    """[G], whether the image of sigma points [G, 7, 3] says where the Gaussian is: a perspective lens sees nothing
    behind itself; a fisheye lens sees all around, but across the axis behind it is spread over the whole image."""
    if camera.model == "perspective":
        return (points[..., 2] >= camera.near).all(1)
    same_side = (points[..., :2] * points[:, :1, :2]).sum(-1) > 0
    return ((points[..., 2] >= 0) | same_side).all(1) | (camera.model == "orthographic")


def _at_their_times(points: Tensor, camera: Camera) -> Tensor:
    """The points [..., 3] of the axes at time 0, each in the axes at the time when it is exposed."""
    if camera.shutter is None:
        return points
    axis, angle, shift = camera.shutter_motion()
    axis, shift = axis.to(points), shift.to(points)
    start = camera.world_to_camera[:3, 3].to(points)

    def at(x: Tensor, times: Tensor) -> Tensor:
        turn, x = (times * angle)[..., None], x - start
        along = axis * (x * axis).sum(-1, keepdim=True)
        turned = along + turn.cos() * (x - along) + turn.sin() * torch.linalg.cross(axis.expand_as(x), x)
        return turned + start + times[..., None] * shift

    times = torch.full_like(points[..., 0], 0.5)

    def seen(x: Tensor, times: Tensor) -> Tensor:
        return exposure_times(camera.lens_points(at(x, times)), camera)

    times = torch.full_like(points[..., 0], 0.5)
    with torch.no_grad():
        for _ in range(SHUTTER_STEPS):
            times = seen(points, times)
    # the time t solves t = seen(x, t): dt = (d seen / dx) dx / (1 - d seen / dt)
    with torch.enable_grad():
        leaf = times.detach().requires_grad_()
        slope = torch.autograd.grad(seen(points.detach(), leaf).sum(), leaf)[0].detach()
    now = seen(points, times)
    return at(points, times + (now - now.detach()) / (1 - slope))


def exposure_times(pixels: Tensor, camera: Camera) -> Tensor:
    """Times in [0, 1] of pixels [..., 2]; 1/2 of what is no number. Without gradient at the first and the last."""
    direction = camera.shutter.direction
    part = pixels[..., 0] / camera.width if direction in ("right", "left") else pixels[..., 1] / camera.height
    part = torch.where(part.isfinite(), part, 0.5).clamp(0, 1)
    return 1 - part if direction in ("up", "left") else part


def _sound(means, quaternions, scales, opacities) -> Tensor:
    """[G], whether every value is finite and the quaternion has a length."""
    finite = torch.cat((means, quaternions, scales, opacities[:, None]), 1).detach().isfinite().all(1)
    return finite & (quaternions.detach().square().sum(1) > 0)
