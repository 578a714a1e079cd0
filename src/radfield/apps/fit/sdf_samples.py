"""Where a distance is asked for in training: on the surface, near it, and anywhere.

Mueller et al. 2022 (Instant-NGP) take 4/8 on the surface, 3/8 near it and 1/8 uniform points. For fits of a minute the
mix here has fewer points on the surface, which say nothing of the sign, and noise of two scales near it: 2/8 on the
surface, 4/8 near it, 2/8 uniform; 5/8 uniform where distances have no sign, since what is far is then learned as its
own, not as what is near carried on. The surface may be a cloud of points. Letter: N points, in the mesh's unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...sampling.random import Source
from ...sampling.random import uniform as random_numbers
from ...tracing.cloud import Cloud
from ...tracing.surface import Surface

NEAR = 1 / 1024  # scale of the noise near the surface, in parts of the radius of the mesh's box
AROUND = 1 / 64  # the same for points around it
SOFT = 0.03  # added to an unsigned distance where an error is made relative to it, in scene units
MARGIN = 0.01  # of the diagonal, by which the box of uniform points is larger than the mesh


def box(surface: Surface | Cloud) -> tuple[Tensor, Tensor]:
    """(low, high), [3] float64 each: the mesh's box with the margin around it."""
    low, high = surface.bounds
    return low - MARGIN * surface.diagonal, high + MARGIN * surface.diagonal


def uniform(surface: Surface | Cloud, count: int, source: Source) -> Tensor:
    """[N, 3] float32 points, evenly in `box`, here and below on the device of the random numbers."""
    share = random_numbers(source, count, 3, dtype=torch.float64)
    low, high = box(surface)  # on the CPU: numbers, of which no device need be asked
    return torch.stack([low[i] + (high[i] - low[i]) * share[:, i] for i in range(3)], 1).float()


def near_surface(surface: Surface | Cloud, count: int, source: Source, scale: float = NEAR) -> Tensor:
    """[N, 3] float32 points of the surface, moved by logistic noise along each axis; scale: in parts of the radius."""
    share = random_numbers(source, count, 3).clamp(1e-6, 1 - 1e-6)
    noise = torch.log(share / (1 - share)) * math.sqrt(3) / math.pi  # of variance 1
    return surface.sample(count, source) + noise * (0.5 * surface.diagonal * scale)


def training_batch(surface: Surface, count: int, source: Source, unsigned: bool = False) -> tuple[Tensor, Tensor]:
    """(x [N, 3], distance [N], signed or not) of the mix; what is on the surface has distance 0 without being asked
    for."""
    part = count // 8 if unsigned else count // 4
    on = surface.sample(part, source)
    near = (near_surface(surface, part, source, scale) for scale in (NEAR, AROUND))
    asked = torch.cat((*near, uniform(surface, count - 3 * part, source)))
    distance = surface.distance(asked) if unsigned else surface.signed_distance(asked)
    return torch.cat((on, asked)), torch.cat((distance.new_zeros(len(on)), distance))
