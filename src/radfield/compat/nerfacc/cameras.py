"""Points on the image without OpenCV's distortion. Not differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import BadInput


@torch.no_grad()
def opencv_lens_undistortion(uv: Tensor, params: Tensor, eps: float = 1e-6, iters: int = 10) -> Tensor:
    """[..., 2], where the points `uv` [..., 2] (in focal lengths from the principal point) would be without distortion.

    params: [..., P] or [P] with P = 0, 1, 2, 4, 8: k1, k2, p1, p2, k3, k4, k5, k6 as far as they go. By Newton's
    method: at most `iters` steps, until one is shorter than `eps` or the system's determinant is below it.
    """
    if uv.shape[-1] != 2 or params.shape[-1] not in (0, 1, 2, 4, 8):
        raise BadInput(
            f"nerfacc: uv, params are {_shapes(uv, params)}; the rule: [..., 2], and 0, 1, 2, 4 or 8 numbers"
        )
    if not params.shape[-1]:
        return uv
    params = torch.nn.functional.pad(params, (0, 8 - params.shape[-1])).expand(*uv.shape[:-1], 8)
    going, found = torch.ones(uv.shape[:-1], dtype=torch.bool, device=uv.device), uv
    for _ in range(iters):
        (x, y), (at, by_x, by_y) = found.unbind(-1), _distorted_with_slopes(found, params)
        off_x, off_y = (at - uv).unbind(-1)
        determinant = by_x[..., 0] * by_y[..., 1] - by_y[..., 0] * by_x[..., 1]
        going = going & (determinant.abs() >= eps)
        step_x = (off_x * by_y[..., 1] - off_y * by_y[..., 0]) / determinant
        step_y = (off_y * by_x[..., 0] - off_x * by_x[..., 1]) / determinant
        moved = torch.stack((x - step_x, y - step_y), -1)
        found = torch.where(going[..., None], moved, found)
        going = going & ~((step_x.abs() < eps) & (step_y.abs() < eps))
    return found


@torch.no_grad()
def opencv_lens_undistortion_fisheye(uv: Tensor, params: Tensor, eps: float = 1e-6, iters: int = 10) -> Tensor:
    """As `opencv_lens_undistortion`, of OpenCV's fisheye: `params` [..., 4] or [4] are k1, k2, k3, k4. Angles go up to
    90 degrees; where Newton's method has not ended within `iters` steps, the point is NaN."""
    if uv.shape[-1] != 2 or params.shape[-1] != 4:
        raise BadInput(f"nerfacc: uv, params are {_shapes(uv, params)}; the rule: [..., 2] and [..., 4]")
    k = params.expand(*uv.shape[:-1], 4).double().unbind(-1)
    radius = uv.norm(dim=-1).double().clamp_max(math.pi / 2)
    theta, ended = radius, radius <= eps
    for _ in range(iters):
        t2 = theta * theta
        value = theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3]))))
        slope = 1 + t2 * (3 * k[0] + t2 * (5 * k[1] + t2 * (7 * k[2] + t2 * 9 * k[3])))
        step = (value - radius) / slope
        theta = torch.where(ended, theta, theta - step)
        ended = ended | (step.abs() < eps)
    scale = torch.where(radius <= eps, 0.0, theta.tan() / radius.clamp_min(eps))
    scale = torch.where(ended & (theta >= 0), scale, math.nan)
    return (uv * scale[..., None]).to(uv.dtype)


def _distorted_with_slopes(xy: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's distortion of `xy` [..., 2], and its derivatives by x and by y."""
    x, y = xy.unbind(-1)
    k1, k2, p1, p2, k3, k4, k5, k6 = params.unbind(-1)
    r = x * x + y * y
    over, under = 1 + r * (k1 + r * (k2 + r * k3)), 1 + r * (k4 + r * (k5 + r * k6))
    over_r, under_r = k1 + r * (2 * k2 + 3 * r * k3), k4 + r * (2 * k5 + 3 * r * k6)
    radial, radial_r = over / under, (over_r * under - over * under_r) / (under * under)
    at = torch.stack((
        x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x),
        y * radial + 2 * p2 * x * y + p1 * (r + 2 * y * y),
    ), -1)  # fmt: skip
    cross = 2 * x * y * radial_r + 2 * p1 * x + 2 * p2 * y
    by_x = torch.stack((radial + 2 * x * x * radial_r + 2 * p1 * y + 6 * p2 * x, cross), -1)
    by_y = torch.stack((cross, radial + 2 * y * y * radial_r + 6 * p1 * y + 2 * p2 * x), -1)
    return at, by_x, by_y


def _shapes(*values: Tensor) -> str:
    return " and ".join(str(list(value.shape)) for value in values)
