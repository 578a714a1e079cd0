"""Projection of Gaussians to those that a camera sees, alone: *packed*, in rows of their own.

What is kept is what `project` draws, by its rule, in the order of the Gaussians. Values are compacted once and
gradients written once, into rows of the parameters as these lie; where they lie as streams, and of sigma points, this
is `project` and a selection.

Letters: N Gaussians, G of them seen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..rows import columns_of, rows_above_zero
from ..tensors import streams
from .gaussian_camera import Camera
from .gaussian_projection import ROWS_BACKWARD, ROWS_FORWARD, Projected, backward, by_rows, camera_fields, project


def project_packed(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    camera: Camera,
    *,
    antialiased: bool = False,
    radius_clip: float = 0.0,
) -> tuple[Projected, Tensor]:
    """(the Gaussians seen, [G, ...] each; their numbers [G] int64, rising); arguments as those of `project`, [N, ...].

    Left out is also what has both radii, rounded up to whole pixels, at most `radius_clip`. Gradients as of `project`,
    but to no tensor of focal lengths and principal point. Raises `BadInput` on another dtype or shape.
    """
    values = means, quaternions, scales, opacities
    if camera.by_sigma_points or not by_rows(means, {}):
        return _selected(project(*values, camera, antialiased=antialiased), radius_clip)
    pose = camera.world_to_camera[:3].float()
    *found, rows = _ProjectPacked.apply(*values, pose, camera_fields(camera, antialiased), radius_clip)
    return Projected(*found), rows


def _selected(found: Projected, radius_clip: float) -> tuple[Projected, Tensor]:
    rows = _seen(found.radius.T, radius_clip)
    return Projected(*(v[rows] for v in found)), rows


def _seen(radius: Tensor, radius_clip: float) -> Tensor:
    """The numbers of those with `radius` [2, N] above 0 and `radius_clip`."""
    seen = radius[0] > 0
    return (seen & (radius.ceil() > radius_clip).any(0) if radius_clip > 0 else seen).nonzero()[:, 0]


class _ProjectPacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, pose, camera, radius_clip):
        values = [v.detach().contiguous() for v in (means, quaternions, scales, opacities)]
        names = "means", "quaternions", "scales", "opacities"
        whole = streams(means, 9)
        ROWS_FORWARD(**_parts(whole), **dict(zip(names, values, strict=True)), **camera)
        radius = _parts(whole)["radius"]
        rows = _seen(radius, radius_clip) if radius_clip > 0 else rows_above_zero(radius[0])
        seen = _parts(columns_of(whole, rows))
        ctx.save_for_backward(rows, seen["radius"], *values)
        ctx.camera = camera
        outputs = seen["mean2d"].T, seen["conic"].T, seen["depth"], seen["radius"].T, seen["opacity"], rows
        ctx.mark_non_differentiable(outputs[3], rows)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean2d, grad_conic, grad_depth, _, grad_opacity, __):
        rows, radius, *values = ctx.saved_tensors
        if not len(rows):
            pose = radius.new_zeros(3, 4) if ctx.needs_input_grad[4] else None
            return *(torch.zeros_like(v) for v in values), pose, None, None
        grads, wanted = (grad_mean2d, grad_conic, grad_depth, grad_opacity), (ctx.needs_input_grad[4], False)
        found, pose, _ = backward(ROWS_BACKWARD, radius, grads, values, ctx.camera, wanted, rows=rows)
        return *found, pose, None, None


def _parts(whole: Tensor) -> dict[str, Tensor]:
    """The outputs of the op, of [9, G]."""
    names, sizes = ("mean2d", "conic", "radius", "depth", "opacity"), (2, 3, 2, 1, 1)
    parts = dict(zip(names, whole.split(sizes), strict=True))
    return parts | {name: parts[name][0] for name in ("depth", "opacity")}
