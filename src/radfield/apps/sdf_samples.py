"""Where a signed distance is asked for in training: on the surface, near it, and anywhere (the mix of Mueller et al.
2022, Instant-NGP, sec. 5.2: 4/8 on the surface, 3/8 near it, 1/8 uniform). Letter: N points, in the mesh's unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..tracing.surface import Surface

NEAR = 1 / 1024  # scale of the noise near the surface, in parts of the radius of the mesh's box
MARGIN = 0.01  # of the diagonal, by which the box of uniform points is larger than the mesh


def box(surface: Surface) -> tuple[Tensor, Tensor]:
    """(low, high), [3] float64 each: the mesh's box with the margin around it."""
    low, high = surface.corners.amin((0, 1)), surface.corners.amax((0, 1))
    return low - MARGIN * surface.diagonal, high + MARGIN * surface.diagonal


def uniform(surface: Surface, count: int, generator: torch.Generator) -> Tensor:
    """[N, 3] float32 points, evenly in `box`."""
    low, high = box(surface)
    return (low + (high - low) * torch.rand(count, 3, generator=generator, dtype=torch.float64)).float()


def near_surface(surface: Surface, count: int, generator: torch.Generator) -> Tensor:
    """[N, 3] float32 points of the surface, moved by logistic noise along each axis."""
    share = torch.rand(count, 3, generator=generator).clamp(1e-6, 1 - 1e-6)
    noise = torch.log(share / (1 - share)) * math.sqrt(3) / math.pi  # of variance 1
    return surface.sample(count, generator) + noise * (0.5 * surface.diagonal * NEAR)


def training_batch(surface: Surface, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(x [N, 3], signed distance [N]) of the mix; what is on the surface has distance 0 without being asked for."""
    on = surface.sample(count // 2, generator)
    near = near_surface(surface, count * 3 // 8, generator)
    asked = torch.cat((near, uniform(surface, count - len(on) - len(near), generator)))
    distance = surface.signed_distance(asked)
    return torch.cat((on, asked)), torch.cat((torch.zeros(len(on)), distance))
