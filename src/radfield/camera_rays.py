"""Rays through pixels, natively: what `Cameras.rays` does in torch, which is the reference.

Letters: N rays, V views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .backend import native
from .cameras import MODELS, Cameras
from .cuda.plan import Launch, blocks, flag
from .errors import BadInput
from .op import In, Op, Out, Scalar
from .rays import Rays
from .tensors import feature_major

MIXED = len(MODELS)

RAYS = Op(
    "camera_rays",
    Out("origins", "f32", "3 N"),
    Out("directions", "f32", "3 N", "unit vectors"),
    In("view", "i32", "N", "from 0 to V - 1"),
    In("pixel", "f32", "2 N", "continuous coordinates (x, y)"),
    In("camera_to_world", "f32", "V 4 4"),
    In("focal", "f32", "V 2"),
    In("principal", "f32", "V 2"),
    In("distortion", "f32", "V 9", "k1, k2, k3, k4, p1, p2, d1, d2, d3"),
    In("models", "i32", "V", "per view, where model is MIXED", optional=True),
    Scalar("model", "int", "index into cameras.MODELS, or MIXED"),
    Scalar("distorted", "int", "whether any distortion is not 0"),
)


@RAYS.cuda
def _(a):
    return Launch(f"camera_rays<{a.model}, {flag(a.distorted)}>", blocks(a.N))


def camera_rays_reference(cameras: Cameras, view: Tensor, pixel: Tensor) -> Rays:
    """The specification: in the cameras' floating-point type."""
    return cameras.rays(view.long(), pixel)


def camera_rays(cameras: Cameras, view: Tensor, pixel: Tensor, *, check: bool = True) -> Rays:
    """Rays through pixel [N, 2] (x, y), float32, of views [N] int32 or int64; not differentiable. check: False
    where the views are known to be there, since on a GPU the host waits for the answer.

    Raises `BadInput` for a view that there is not, or cameras or pixels that are not float32.
    """
    if check and len(view) and not 0 <= int(view.min()) <= int(view.max()) < len(cameras):
        raise BadInput(f"view reaches {int(view.min())} to {int(view.max())}; the rule: from 0 to {len(cameras) - 1}")
    if not native(pixel):
        return camera_rays_reference(cameras, view, pixel)
    mixed = not isinstance(cameras.model, str)
    origins, directions = (torch.empty(3, len(view), device=pixel.device) for _ in range(2))
    RAYS(
        origins=origins,
        directions=directions,
        view=view.int().contiguous(),
        pixel=feature_major(pixel),
        camera_to_world=cameras.camera_to_world.contiguous(),
        focal=cameras.focal.contiguous(),
        principal=cameras.principal.contiguous(),
        distortion=cameras.distortion.contiguous(),
        models=cameras.model_codes if mixed else None,
        model=MIXED if mixed else MODELS.index(cameras.model),
        distorted=cameras.distorted,
    )
    return Rays(origins.T, directions.T)


def image_rays(cameras: Cameras, view: int) -> Rays:
    """The rays through all pixel centres of a view, row by row: `Cameras.image_rays`, natively. Raises as
    `camera_rays`."""
    width, height = cameras.size[view].tolist()
    device = cameras.size.device
    pixel = torch.empty(2, height, width, device=device)
    pixel[0] = torch.arange(width, device=device) + 0.5
    pixel[1] = torch.arange(height, device=device)[:, None] + 0.5
    views = torch.full((height * width,), view, dtype=torch.int32, device=device)
    return camera_rays(cameras, views, pixel.view(2, -1).T, check=False)
