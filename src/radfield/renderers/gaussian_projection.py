"""Projection of 3D Gaussians to the image (Zwicker et al. 2001, EWA splatting; Kerbl et al. 2023, sec. 4).

A Gaussian has a centre mu, a rotation R (of the quaternion (w, x, y, z), normalised here) and scales s; its covariance
is R diag(s)^2 R^T. A perspective camera looks at it from world-to-camera (R_c, t), with focal lengths f and principal
point c in pixels:

    (x, y, z) = R_c mu + t                     mean2d = f (x, y) / z + c
    U = J R_c R diag(s)  [2, 3]                J = [[f_x / z, 0, -f_x t_x / z], [0, f_y / z, -f_y t_y / z]]
    cov = U U^T + eps I                        t_x = x / z within the image and 0.3 of its half width beyond; t_y alike
    conic = (a, b, c) = those of cov^-1        depth = z

so that on the image its density is exp(-(a dx^2 + c dy^2) / 2 - b dx dy). eps is 0.3 square pixels. Antialiased (Yu et
al. 2024, Mip-Splatting): opacity *= sqrt(max(0.005^2, det(U U^T) / det cov)), the energy that eps added.

Where the opacity times the density falls below 1/255 nothing is drawn; `radius` is half the width and height of the box
around the rest, in pixels. A Gaussian is *left out* (radius 0, every output 0, no gradient) where it is nearer
than `near` or beyond `far`, off the image, with an opacity below 1/255, or degenerate: a value that is not finite, a
quaternion of length 0. A scale of 0 is drawn: eps gives it a width.

Letters: G Gaussians, B parts of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..backend import native
from ..cameras import Cameras
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import feature_major, streams

EPS = 0.3  # square pixels
MIN_ALPHA = 1 / 255
MIN_COMPENSATION = 0.005
PART = 2048  # Gaussians in a part of the sums for the camera
MARGIN = 0.3  # of the image's half width: how far beyond the image J follows the centre

_CAMERA = (
    In("world_to_camera", "f32", "3 4", "its first three rows"),
    Scalar("focal_x", "float"),
    Scalar("focal_y", "float"),
    Scalar("center_x", "float", "the principal point"),
    Scalar("center_y", "float"),
    Scalar("width", "int"),
    Scalar("height", "int"),
    Scalar("near", "float"),
    Scalar("far", "float"),
    Scalar("antialiased", "int"),
)
_GAUSSIANS = (
    In("means", "f32", "3 G"),
    In("quaternions", "f32", "4 G", "w, x, y, z"),
    In("scales", "f32", "3 G", "not their logarithms"),
    In("opacities", "f32", "G", "in [0, 1]"),
)
FORWARD = Op(
    "gaussian_project_forward",
    Out("mean2d", "f32", "2 G"),
    Out("conic", "f32", "3 G"),
    Out("depth", "f32", "G"),
    Out("radius", "f32", "2 G", "0: left out"),
    Out("opacity", "f32", "G", "as drawn"),
    *_GAUSSIANS,
    *_CAMERA,
)
BACKWARD = Op(
    "gaussian_project_backward",
    Out("grad_means", "f32", "3 G"),
    Out("grad_quaternions", "f32", "4 G"),
    Out("grad_scales", "f32", "3 G"),
    Out("grad_opacities", "f32", "G"),
    Out("grad_camera", "f32", "B 16", "of world_to_camera, focal, center: the sums over B parts", optional=True),
    In("grad_mean2d", "f32", "2 G"),
    In("grad_conic", "f32", "3 G"),
    In("grad_depth", "f32", "G"),
    In("grad_opacity", "f32", "G"),
    In("radius", "f32", "2 G"),
    *_GAUSSIANS,
    *_CAMERA,
)


@dataclass(frozen=True)
class Camera:
    """One perspective camera without distortion. world_to_camera: [4, 4]; focal, center: (x, y) in pixels, two numbers
    or a tensor [2]. world_to_camera, and tensors among the others, get gradients where they require some."""

    world_to_camera: Tensor
    focal: tuple[float, float] | Tensor
    center: tuple[float, float] | Tensor
    width: int
    height: int
    near: float = 0.01
    far: float = 1e10

    @staticmethod
    def of(cameras: Cameras, view: int, *, near: float = 0.01) -> Camera:
        """View `view` of `cameras`. Raises `BadInput` for a lens that a projection by its derivative does not fit."""
        if cameras.model != "perspective" or bool((cameras.distortion[view] != 0).any()):
            model = cameras.model if cameras.model != "perspective" else "perspective with distortion"
            raise BadInput(
                f"camera {view} is {model}; the rule: Gaussians are rasterised for perspective cameras alone"
            )
        width, height = cameras.size[view].tolist()
        pose = torch.linalg.inv(cameras.camera_to_world[view].double()).float()
        focal, center = (tuple(v[view].tolist()) for v in (cameras.focal, cameras.principal))
        return Camera(pose, focal, center, width, height, near)

    @property
    def position(self) -> Tensor:
        """[3], in the world."""
        pose = self.world_to_camera
        return -pose[:3, :3].T @ pose[:3, 3]

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


class Projected(NamedTuple):
    """G Gaussians on the image."""

    mean2d: Tensor  # [G, 2] pixels
    conic: Tensor  # [G, 3] (a, b, c)
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
    """The specification, of any float type: `means` [G, 3], `quaternions` [G, 4], `scales` [G, 3], `opacities` [G]."""
    kept = _sound(means, quaternions, scales, opacities)
    # what is left out takes harmless values, so that no NaN enters a gradient
    pose = camera.world_to_camera.to(means)
    local = torch.where(kept[:, None], means, 0.0) @ pose[:3, :3].T + pose[:3, 3]
    kept = kept & (local[:, 2].detach() >= camera.near) & (local[:, 2].detach() <= camera.far)
    x, y, z = torch.where(kept[:, None], local, local.new_tensor([0.0, 0.0, 1.0])).unbind(-1)
    unit = quaternions.new_tensor([1.0, 0.0, 0.0, 0.0])
    axes = (
        rotation_matrices(torch.where(kept[:, None], quaternions, unit))
        * torch.where(kept[:, None], scales, 1.0)[:, None]
    )
    (fx, fy), (low_x, high_x, low_y, high_y) = camera.focal, camera.slope_limits()
    tx, ty = (x / z).clamp(low_x, high_x), (y / z).clamp(low_y, high_y)
    turned = pose[:3, :3] @ axes
    u = (fx / z)[:, None] * turned[:, 0] - (fx * tx / z)[:, None] * turned[:, 2]
    v = (fy / z)[:, None] * turned[:, 1] - (fy * ty / z)[:, None] * turned[:, 2]
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    before = torch.linalg.cross(u, v).square().sum(1)
    det = before + EPS * (uu + vv) + EPS**2
    opacity = torch.where(kept, opacities, 0.0)
    if antialiased:
        opacity = opacity * (before / det).clamp_min(MIN_COMPENSATION**2).sqrt()
    mean2d = torch.stack((fx * x / z + camera.center[0], fy * y / z + camera.center[1]), 1)
    conic = torch.stack((vv + EPS, -uv, uu + EPS), 1) / det[:, None]
    kept = kept & (opacity.detach() >= MIN_ALPHA) & conic.detach().isfinite().all(1) & mean2d.detach().isfinite().all(1)
    with torch.no_grad():
        level = 2 * (255 * opacity.clamp_min(MIN_ALPHA)).log()
        radius = (level[:, None] * (torch.stack((uu, vv), 1) + EPS)).sqrt()
        size = mean2d.new_tensor([camera.width, camera.height])
        kept = kept & ((radius > 0) & (mean2d + radius > 0) & (mean2d - radius < size)).all(1)
    rows = kept[:, None]
    values = (torch.where(rows, mean2d, 0.0), torch.where(rows, conic, 0.0), torch.where(kept, z, 0.0))
    return Projected(*values, torch.where(rows, radius, 0.0), torch.where(kept, opacity, 0.0))


def _sound(means, quaternions, scales, opacities) -> Tensor:
    """[G], whether every value is finite and the quaternion has a length."""
    finite = torch.cat((means, quaternions, scales, opacities[:, None]), 1).detach().isfinite().all(1)
    return finite & (quaternions.detach().square().sum(1) > 0)


class _Project(torch.autograd.Function):
    """`pose` [3, 4] and `lens` [4] (focal, center) are those of `camera`, for their gradients."""

    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, pose, lens, camera):
        inputs = {
            "means": feature_major(means),
            "quaternions": feature_major(quaternions),
            "scales": feature_major(scales),
            "opacities": opacities.detach().contiguous(),
        }
        mean2d, conic, radius = (streams(means, n) for n in (2, 3, 2))
        depth, opacity = (torch.empty(len(means), device=means.device) for _ in range(2))
        FORWARD(mean2d=mean2d, conic=conic, depth=depth, radius=radius, opacity=opacity, **inputs, **camera)
        ctx.save_for_backward(radius, *inputs.values())
        ctx.camera, ctx.names = camera, tuple(inputs)
        outputs = mean2d.T, conic.T, depth, radius.T, opacity
        ctx.mark_non_differentiable(outputs[3])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean2d, grad_conic, grad_depth, _, grad_opacity):
        radius, *values = ctx.saved_tensors
        means, quaternions, scales, opacities = (torch.empty_like(v) for v in values)
        parts = None
        if any(ctx.needs_input_grad[4:6]):
            parts = means.new_zeros(-(-means.shape[1] // PART), 16)
        BACKWARD(
            grad_means=means,
            grad_quaternions=quaternions,
            grad_scales=scales,
            grad_opacities=opacities,
            grad_camera=parts,
            grad_mean2d=feature_major(grad_mean2d),
            grad_conic=feature_major(grad_conic),
            grad_depth=grad_depth.contiguous(),
            grad_opacity=grad_opacity.contiguous(),
            radius=radius,
            **dict(zip(ctx.names, values, strict=True)),
            **ctx.camera,
        )
        pose = lens = None
        if parts is not None:
            camera = parts.double().sum(0).float()
            pose, lens = camera[:12].view(3, 4), camera[12:] if ctx.needs_input_grad[5] else None
        return means.T, quaternions.T, scales.T, opacities, pose, lens, None


def project(
    means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, camera: Camera, *, antialiased: bool = False
) -> Projected:
    """Projects `means` [G, 3], `quaternions` [G, 4] (w, x, y, z; any length), `scales` [G, 3] (not their logarithms)
    and `opacities` [G], all float32; views with stride (1, G) are not copied.

    Gradients, once: to all four and to the camera (see there), from mean2d, conic, depth and opacity. Raises `BadInput`
    on another dtype or shape.
    """
    if not native(means):
        return project_reference(means, quaternions, scales, opacities, camera, antialiased=antialiased)
    pose, lens = camera.world_to_camera[:3].float(), None
    if any(isinstance(v, Tensor) and v.requires_grad for v in (camera.focal, camera.center)):
        lens = torch.cat([torch.as_tensor(v, dtype=torch.float32) for v in (camera.focal, camera.center)])
    return Projected(*_Project.apply(means, quaternions, scales, opacities, pose, lens, _fields(camera, antialiased)))


def _fields(camera: Camera, antialiased: bool) -> dict:
    focal, center = camera.numbers
    return {
        "world_to_camera": camera.world_to_camera[:3].detach().float().contiguous(),
        "focal_x": focal[0],
        "focal_y": focal[1],
        "center_x": center[0],
        "center_y": center[1],
        "width": camera.width,
        "height": camera.height,
        "near": camera.near,
        "far": camera.far,
        "antialiased": antialiased,
    }
