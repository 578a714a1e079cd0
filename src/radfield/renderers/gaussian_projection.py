"""Projection of 3D Gaussians to the image (Zwicker et al. 2001, EWA splatting; Kerbl et al. 2023, sec. 4).

A Gaussian has a centre mu, a rotation R (of the quaternion (w, x, y, z), normalised here) and scales s; its covariance
is R diag(s)^2 R^T. A perspective camera looks at it from world-to-camera (R_c, t), with focal lengths f and principal
point c in pixels:

    (x, y, z) = R_c mu + t                     mean2d = f (x, y) / z + c
    U = J R_c R diag(s)  [2, 3]                J = [[f_x / z, 0, -f_x t_x / z], [0, f_y / z, -f_y t_y / z]]
    cov = U U^T + eps I                        t_x = x / z within the image and 0.3 of its half width beyond; t_y alike
    conic = (e, k, c) = (1 / cov_xx, -cov_xy / cov_xx, cov_xx / det cov)        depth = z

so that on the image its density is exp(-(e dx^2 + c (dy + k dx)^2) / 2). The entries of cov^-1 itself are e + c k^2,
c k and c: in 32 bits their rounding would swamp the power of a long needle. eps is 0.3 square pixels. Antialiased (Yu
et al. 2024, Mip-Splatting): opacity *= sqrt(max(0.005^2, det(U U^T) / det cov)), the energy that eps added.

Other cameras (`gaussian_camera.py`: orthographic, fisheye, distorted, with a rolling shutter) project seven *sigma
points* (Julier & Uhlmann 1997; Wu et al. 2025, 3DGUT) through the whole map P from the camera's axes to pixels, each at
the time when it is exposed:

    x_0 = R_c mu + t,  x_(+-k) = x_0 +- sqrt(3) R_c R e_k s_k        p_i = P(x_i)
    mean2d = sum_(i > 0) p_i / 6                                   e_i = p_i - mean2d
    cov = 2 e_0 e_0^T + sum_(i > 0) e_i e_i^T / 6 + eps I          (alpha 1, beta 2, kappa 0)

What follows is the same: the response is that of the conic on the image, not evaluated in 3D along each pixel's ray as
3DGUT does; the two agree where the lens bends little within a Gaussian. For a linear P (orthographic) this is exact.
depth is z, for a fisheye lens the distance from the camera.

Where the opacity times the density falls below 1/255 nothing is drawn; `radius` is half the width and height of the box
around the rest, in pixels. A Gaussian is *left out* (radius 0, every output 0, no gradient) where its depth is below
`near` or beyond `far`, where it is off the image, where its opacity is below 1/255, or where it is degenerate: a value
that is not finite, a quaternion of length 0. A scale of 0 is drawn: eps gives it a width. With sigma points also where
one of them is nearer than `near` to the plane of a perspective lens or on the other side of the axis behind a fisheye
lens, and where none is within a tenth of the image's size of it (3DGUT's rule: such a Gaussian lies close by, beside
the view, and its seven points say little of the part in sight).

Parameters that lie as streams, and (but for sigma points) those that lie Gaussian by Gaussian, are read as they lie.

Letters: G Gaussians, B parts of them; N rows of arrays that hold these Gaussians.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import memory
from ..backend import by_gsplat, native
from ..cameras import DISTORTION
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import feature_major, streams
from .gaussian_camera import DIRECTIONS, MODELS, Camera
from .gaussian_projection_reference import EPS, MIN_ALPHA, Projected, project_reference, rotation_matrices

__all__ = ["EPS", "MIN_ALPHA", "Camera", "Projected", "project", "project_reference", "rotation_matrices"]
PART = 2048  # Gaussians in a part of the sums for the camera

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


def _by_rows(count: str) -> tuple:
    return (
        In("means", "f32", f"{count} 3"),
        In("quaternions", "f32", f"{count} 4", "w, x, y, z"),
        In("scales", "f32", f"{count} 3", "not their logarithms"),
        In("opacities", "f32", count, "in [0, 1]"),
    )


_LENS = (
    In("distortion", "f32", "9"),
    In("shutter", "f32", "6", "axis of the turn, shift of the translation; absent: no rolling shutter", optional=True),
    Scalar("model", "int", "of gaussian_camera.py: MODELS"),
    Scalar("distorted", "int"),
    Scalar("reach", "float"),
    Scalar("angle", "float", "of the turn, in turns"),
    Scalar("direction", "int", "of the shutter, of gaussian_camera.py: DIRECTIONS"),
)
_PROJECTED = (
    Out("mean2d", "f32", "2 G"),
    Out("conic", "f32", "3 G"),
    Out("depth", "f32", "G"),
    Out("radius", "f32", "2 G", "0: left out"),
    Out("opacity", "f32", "G", "as drawn"),
)
_GRADIENTS = (
    Out("grad_means", "f32", "3 G"),
    Out("grad_quaternions", "f32", "4 G"),
    Out("grad_scales", "f32", "3 G"),
    Out("grad_opacities", "f32", "G"),
)
_ROWS_GRADIENTS = (
    Out("grad_means", "f32", "N 3", "0 in the rows that are none of the Gaussians; so in the others"),
    Out("grad_quaternions", "f32", "N 4"),
    Out("grad_scales", "f32", "N 3"),
    Out("grad_opacities", "f32", "N"),
)
_OF_OUTPUTS = (
    Out("grad_camera", "f32", "B 16", "of world_to_camera, focal, center: the sums over B parts", optional=True),
    In("grad_mean2d", "f32", "2 G"),
    In("grad_conic", "f32", "3 G"),
    In("grad_depth", "f32", "G"),
    In("grad_opacity", "f32", "G"),
    In("radius", "f32", "2 G"),
)
_ROWS = In("rows", "i64", "G", "of each Gaussian, rising; absent: all rows", optional=True)
FORWARD = Op("gaussian_project_forward", *_PROJECTED, *_GAUSSIANS, *_CAMERA)
BACKWARD = Op("gaussian_project_backward", *_GRADIENTS, *_OF_OUTPUTS, *_GAUSSIANS, *_CAMERA)
ROWS_FORWARD = Op("gaussian_project_rows_forward", *_PROJECTED, *_by_rows("G"), *_CAMERA)
ROWS_BACKWARD = Op("gaussian_project_rows_backward", *_ROWS_GRADIENTS, *_OF_OUTPUTS, _ROWS, *_by_rows("N"), *_CAMERA)
UNSCENTED_FORWARD = Op("gaussian_unscented_forward", *_PROJECTED, *_GAUSSIANS, *_CAMERA, *_LENS)
UNSCENTED_BACKWARD = Op("gaussian_unscented_backward", *_GRADIENTS, *_OF_OUTPUTS, *_GAUSSIANS, *_CAMERA, *_LENS)


@FORWARD.cuda
def _(a):
    return Launch("gaussian_project_forward", blocks(a.G))


@BACKWARD.cuda
def _(a):
    return Launch(f"gaussian_project_backward<{flag(a.grad_camera)}>", (a.B,) if a.grad_camera else blocks(a.G))


@ROWS_FORWARD.cuda_in("gaussian_projection_rows.cu")
def _(a):
    return Launch("gaussian_project_rows_forward", blocks(a.G))


@ROWS_BACKWARD.cuda_in("gaussian_projection_rows.cu")
def _(a):
    grid = (a.B,) if a.grad_camera else blocks(a.G)
    named = blocks(a.N if a.rows else 0)  # and so all others are to be cleared
    return (
        Launch("gaussian_project_rows_clear", named),
        Launch(f"gaussian_project_rows_backward<{flag(a.grad_camera)}>", grid),
    )


@UNSCENTED_FORWARD.cuda_in("gaussian_unscented.cu")
def _(a):
    return Launch("gaussian_unscented_forward", blocks(a.G, threads=128), (128,))


@UNSCENTED_BACKWARD.cuda_in("gaussian_unscented.cu")
def _(a):
    grid = (a.B,) if a.grad_camera else blocks(a.G, threads=128)
    return Launch(f"gaussian_unscented_backward<{flag(a.grad_camera)}>", grid, (128,))


def by_rows(means: Tensor, camera: dict) -> bool:
    """Whether Gaussians with these `means` [G, 3] are projected from rows, by native ops: where they lie so."""
    return "model" not in camera and means.is_contiguous() and native(means)


class _Project(torch.autograd.Function):
    """`pose` [3, 4] and `lens` [4] (focal, center) are those of `camera`, for their gradients."""

    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, pose, lens, camera):
        ctx.by_rows = by_rows(means, camera)
        op = ROWS_FORWARD if ctx.by_rows else UNSCENTED_FORWARD if "model" in camera else FORWARD
        values = {"means": means, "quaternions": quaternions, "scales": scales}
        inputs = {k: v.detach().contiguous() if ctx.by_rows else feature_major(v) for k, v in values.items()}
        inputs["opacities"] = opacities.detach().contiguous()
        mean2d, conic, radius = (streams(means, n) for n in (2, 3, 2))
        depth, opacity = (torch.empty(len(means), device=means.device) for _ in range(2))
        op(mean2d=mean2d, conic=conic, depth=depth, radius=radius, opacity=opacity, **inputs, **camera)
        ctx.save_for_backward(radius, *inputs.values())
        ctx.camera = camera
        outputs = mean2d.T, conic.T, depth, radius.T, opacity
        ctx.mark_non_differentiable(outputs[3])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean2d, grad_conic, grad_depth, _, grad_opacity):
        radius, *values = ctx.saved_tensors
        op = ROWS_BACKWARD if ctx.by_rows else UNSCENTED_BACKWARD if "model" in ctx.camera else BACKWARD
        grads = grad_mean2d, grad_conic, grad_depth, grad_opacity
        found, pose, lens = backward(op, radius, grads, values, ctx.camera, ctx.needs_input_grad[4:6])
        return *(v if ctx.by_rows or v.ndim == 1 else v.T for v in found), pose, lens, None


def backward(op: Op, radius: Tensor, grads, values, camera: dict, wanted, **rows):
    """(gradients of `values`: means, quaternions, scales, opacities, as they lie; of the pose; of the lens), by one of
    the BACKWARD ops, from the gradients of (mean2d, conic, depth, opacity). `wanted`: whether of pose and of lens."""
    parts = radius.new_zeros(-(-radius.shape[1] // PART), 16) if any(wanted) else None
    names = "means", "quaternions", "scales", "opacities"
    found = [memory.empty(tuple(v.shape), v.dtype, v.device) for v in values]
    mean2d, conic, depth, opacity = grads
    op(
        grad_camera=parts,
        grad_mean2d=feature_major(mean2d),
        grad_conic=feature_major(conic),
        grad_depth=depth.contiguous(),
        grad_opacity=opacity.contiguous(),
        radius=radius,
        **{f"grad_{name}": grad for name, grad in zip(names, found, strict=True)},
        **dict(zip(names, values, strict=True)),
        **camera,
        **rows,
    )
    if parts is None:
        return found, None, None
    sums = parts.double().sum(0).float()
    return found, sums[:12].view(3, 4), sums[12:] if wanted[1] else None


def project(
    means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, camera: Camera, *, antialiased: bool = False
) -> Projected:
    """Projects `means` [G, 3], `quaternions` [G, 4] (w, x, y, z; any length), `scales` [G, 3] (not their logarithms)
    and `opacities` [G], all float32; views with stride (1, G), and contiguous rows, are not copied.

    Gradients, once: to all four and to the camera (see there), from mean2d, conic, depth and opacity. Raises `BadInput`
    on another dtype or shape.
    """
    tensors = camera.world_to_camera, camera.focal, camera.center
    if camera.shutter is not None and any(_wants_gradient(v) for v in tensors):
        raise BadInput("project: a camera's tensor requires a gradient; the rule: none does with a rolling shutter")
    if by_gsplat():
        from ..compat import gsplat_backend

        return gsplat_backend.project(means, quaternions, scales, opacities, camera, antialiased)
    if not native(means):
        return project_reference(means, quaternions, scales, opacities, camera, antialiased=antialiased)
    pose, lens = camera.world_to_camera[:3].float(), None
    if any(_wants_gradient(v) for v in (camera.focal, camera.center)):
        device = means.device
        lens = torch.cat(
            [torch.as_tensor(v, dtype=torch.float32, device=device) for v in (camera.focal, camera.center)]
        )
    values = means, quaternions, scales, opacities
    return Projected(*_Project.apply(*values, pose, lens, camera_fields(camera, antialiased)))


def _wants_gradient(value) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def camera_fields(camera: Camera, antialiased: bool) -> dict:
    """The arguments of the ops that are the camera's."""
    focal, center = camera.numbers
    fields = {
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
    return fields | _lens_fields(camera) if camera.by_sigma_points else fields


def _lens_fields(camera: Camera) -> dict:
    device = camera.world_to_camera.device
    shutter, angle = None, 0.0
    if camera.shutter is not None:
        axis, angle, shift = camera.shutter_motion()
        shutter = torch.cat((axis, shift)).float().to(device)
    return {
        "distortion": _distortion(tuple(camera.distortion) or (0.0,) * len(DISTORTION), device),
        "shutter": shutter,
        "model": MODELS.index(camera.model),
        "distorted": any(camera.distortion),
        "reach": camera.reach,
        "angle": angle / (2 * math.pi),
        "direction": 0 if camera.shutter is None else DIRECTIONS.index(camera.shutter.direction),
    }


@functools.lru_cache(maxsize=64)
def _distortion(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[9] on `device`, copied there once: no step that is captured copies from the host."""
    return torch.tensor(values, device=device)
