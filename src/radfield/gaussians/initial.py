"""Gaussians to begin a training with: at the sparse points of a capture, on surfaces found before, or at random.

Letters: G Gaussians, P points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.points import Points
from ..renderers.gaussian_color import HARMONIC_0, rest_rows
from .scene import GaussianScene

OPACITY = 0.1
_NEIGHBOURS_AMONG = 1 << 13  # points of which the nearest three are sought


def from_points(points: Points, most: int, degree: int, generator: torch.Generator) -> GaussianScene:
    """One Gaussian per point (of more than `most` a random choice), as wide as its three nearest neighbours are far."""
    chosen = torch.randperm(len(points.position), generator=generator)[:most]
    position = torch.from_numpy(points.position)[chosen].float()
    color = torch.from_numpy(points.color)[chosen].float() / 255
    return _scene(position, color, _spacing(position), degree)


def on_surfaces(position: Tensor, color: Tensor, degree: int) -> GaussianScene:
    """One Gaussian per point `position` [P, 3] of a surface, of `color` [P, 3] in [0, 1]; points in random order."""
    return _scene(position, color, _spacing(position, dimensions=2), degree)


def at_random(count: int, cascades: int, degree: int, generator: torch.Generator) -> GaussianScene:
    """Grey Gaussians, as many in each nested cube of the scene as in any other, their width that of their distances."""
    side = 2.0 ** torch.randint(cascades, (count, 1), generator=generator)
    position = 0.5 + side * (torch.rand(count, 3, generator=generator) - 0.5)
    spacing = 0.55 * side[:, 0] * (cascades / count) ** (1 / 3)
    color = 0.3 + 0.4 * torch.rand(count, 3, generator=generator)
    return _scene(position, color, spacing, degree)


def _scene(position: Tensor, color: Tensor, spacing: Tensor, degree: int) -> GaussianScene:
    count = len(position)
    quaternions = torch.zeros(4, count)
    quaternions[0] = 1
    return GaussianScene(
        position.T.contiguous(),
        quaternions,
        spacing.clamp_min(1e-6).log().expand(3, count).contiguous(),
        torch.full((count,), OPACITY).logit(),
        ((color - 0.5) / HARMONIC_0).T.contiguous(),
        torch.zeros(rest_rows(degree), count),
    )


def _spacing(position: Tensor, dimensions: int = 3) -> Tensor:
    """[P], the mean distance to the three nearest others; among many points estimated from a part of them, as points
    lie closer where more of them fill a set of so many dimensions."""
    part = position[: min(len(position), _NEIGHBOURS_AMONG)]  # the order is random
    if len(part) < 4:
        return torch.full((len(position),), 0.01)
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}  # so that a point is at distance 0 from itself
    chunks = (torch.cdist(chunk, part, **exact) for chunk in position.split(1 << 10))
    nearest = torch.cat([chunk.topk(4, largest=False).values for chunk in chunks])
    own = nearest[:, :1] == 0  # a point is the nearest to itself where it is in the part
    mean = torch.where(own[:, 0], nearest[:, 1:].mean(1), nearest[:, :3].mean(1))
    return mean * (len(part) / len(position)) ** (1 / dimensions)
