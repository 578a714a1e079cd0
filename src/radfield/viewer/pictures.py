"""A `View` as a picture [H, W, 3] uint8: its colour, or its depth, normals or opacity made visible.

Normals are those of the surface that depth describes: differences of neighbouring points. Letters: H x W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..renderers.volume import View
from .sources import DEPTH, NORMALS, OPACITY

#: polynomial of degree 6 in t through the colours of "turbo" (Mikhailov 2019), red, green, blue
_TURBO = (
    (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
)
_SEEN = 0.5  # opacity from which a pixel has a depth


def picture_of(view: View, channel: str, camera: Cameras) -> np.ndarray:
    """[H, W, 3] uint8 of what `channel` of the view shows; camera: whose image the view is, at any size."""
    if channel == DEPTH:
        color = depth_colors(view)
    elif channel == NORMALS:
        color = normal_colors(view, camera)
    elif channel == OPACITY:
        color = view.opacity[..., None].expand(-1, -1, 3)
    else:
        color = view.color
    return (color.clamp(0, 1) * 255).round().byte().numpy()


def depth_colors(view: View) -> Tensor:
    """[H, W, 3]: near red, far blue, evenly over inverse depth; black where nothing is."""
    seen = view.opacity > _SEEN
    if not bool(seen.any()):
        return torch.zeros(*view.depth.shape, 3)
    inverse = 1 / view.depth.clamp(min=1e-3)
    of_seen = inverse[seen]
    low, high = torch.quantile(of_seen[:: max(1, len(of_seen) // 50_000)], torch.tensor([0.01, 0.99]))
    t = ((inverse - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    powers = torch.stack([t**k for k in range(6)], -1)
    return (powers @ torch.tensor(_TURBO).T).clamp(0, 1) * seen[..., None]


def normal_colors(view: View, camera: Cameras) -> Tensor:
    """[H, W, 3]: the unit normal towards the camera in scene coordinates, each component from -1 to 1 as 0 to 1."""
    height, width = view.depth.shape
    if view.normal is not None:
        return (0.5 + 0.5 * torch.nn.functional.normalize(view.normal, dim=-1)) * (view.opacity > _SEEN)[..., None]
    if min(height, width) < 2:
        return torch.zeros(height, width, 3)
    shape = torch.tensor([[width, height]])
    ratio = shape / camera.size
    from dataclasses import replace

    small = replace(camera, size=shape, focal=camera.focal * ratio, principal=camera.principal * ratio)
    rays = small.image_rays(0)
    points = (rays.origins + rays.directions * view.depth.reshape(-1, 1)).view(height, width, 3)
    across, down = (torch.gradient(points, dim=dim)[0] for dim in (1, 0))
    normal = torch.nn.functional.normalize(torch.linalg.cross(down, across, dim=-1), dim=-1)
    away = (normal * rays.directions.view(height, width, 3)).sum(-1, keepdim=True) > 0
    normal = torch.where(away, -normal, normal)
    return (0.5 + 0.5 * normal) * (view.opacity > _SEEN)[..., None]
