"""The loss of an unsigned distance that is fitted to a cloud of points, which says where a surface is but not how far
from anything else (LevelSetUDF: Zhou et al. 2023, "Learning a more continuous zero level set in unsigned distance
fields through level set projection", mostly with its weights; lengths are those of a box of side 2).

    n(q) = grad f / |grad f|        q' = q - f(q) n(q)        p: the point of the cloud nearest to q

    L =  CD(q', cloud)                                      queries that are moved by f end on the surface
       + 0.002 e^(-10 f(q)) (1 - |n(q') . n(q)|)            level sets run as the zero level does
       + f(cloud)
       + 0.01 (1 - |n(q) . (q - p) / |q - p||)

CD is the mean distance of the q' to the cloud and of points of the cloud to the q', by halves. What is done otherwise:

- gradients are differences over a tetrahedron about as wide as the space between points, so that the field follows no
  bumps that single points make, any encoding will do, and first derivatives are enough; in the second term q' is a
  constant;
- f(cloud) has ten times the paper's weight, which halved f on the surface after short trainings;
- the last term leaves out queries that are not further from p than points are from each other: there the direction to p
  runs along the surface;
- queries are near the cloud; far from it (`FAR` spacings) the distance to its nearest point is that to its surface but
  for an eighth of a spacing, and is what f is compared with, as near it in the first part of a training.

Letters: Q queries, N positions, P points of the cloud.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...fields.distance import DistanceField
from ...losses import mape
from ...sampling.random import Source
from ...tracing.cloud import Cloud, nearest_index
from .sdf_samples import SOFT, near_surface, uniform

SIDE = 2.0  # of the paper's box, in scenes
LEVEL, DECAY, DIRECTION = 0.002, 10.0, 0.01  # the paper's weights
ON = 1.0  # the paper: 0.1
KNOWN = 0.2  # weight of what is compared with the distance to the cloud
FAR = 4.0  # spacings
FIRST = 0.1  # of a training: there what is near is compared with that too
ASKED = 11  # positions at which the field is asked per query near the cloud
#: corners of a tetrahedron: four values give a gradient (Quilez 2015)
_TETRAHEDRON = ((1.0, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))


def queries(cloud: Cloud, count: int, source: Source) -> tuple[Tensor, Tensor]:
    """(near [Q, 3], other [R, 3]) float32 in [0, 1]^3, for which the field is asked about `count` times: as far from
    the cloud as its points are from each other, and three times as far; eight times as far, and anywhere."""
    half, quarter = max(32, count * 3 // 4 // ASKED // 2), max(32, count // 16)

    def around(number: int, spacings: float) -> Tensor:
        return near_surface(cloud, number, source, 2 * spacings * cloud.spacing / cloud.diagonal)

    near = torch.cat((around(half, 1), around(half, 3)))
    return near.clamp(0, 1), torch.cat((around(quarter, 8), uniform(cloud, 3 * quarter, source))).clamp(0, 1)


def with_gradient(field: DistanceField, x: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """(the field's value [N], its gradient [N, 3] of length 1) at x [N, 3], by differences over a tetrahedron of that
    half width."""
    corners = x.new_tensor(_TETRAHEDRON)
    f = field.value(torch.cat((x, *(x + step * corner for corner in corners)))).view(5, -1)
    return f[0], torch.nn.functional.normalize(f[1:].T @ corners, dim=-1)


def loss(field: DistanceField, cloud: Cloud, count: int, progress: float, source: Source) -> Tensor:
    """The loss of a batch, at `progress` in [0, 1] of a training; NaN where the field is not finite."""
    q, other = queries(cloud, count, source)
    on = cloud.sample(len(q), source)
    (distance, p), other_distance = cloud.nearest(q), cloud.distance(other)
    step = 0.5 * cloud.spacing
    f, normal = with_gradient(field, q, step)
    moved = q - f[:, None] * normal
    ended = moved.detach()
    if not bool(ended.isfinite().all()):
        return f.sum() * torch.nan
    to_cloud = (moved - cloud.nearest(ended)[1]).norm(dim=-1).mean()
    to_moved = (moved[nearest_index(ended, on)] - on).norm(dim=-1).mean()
    at_zero = with_gradient(field, ended, step)[1]
    level = (-DECAY * SIDE * f.detach().abs()).exp() * (1 - (at_zero * normal).sum(-1).abs())
    away = torch.nn.functional.normalize(q - p, dim=-1)
    direction = (1 - (normal * away).sum(-1).abs()) * (distance > 2 * cloud.spacing)
    total = 0.5 * SIDE * (to_cloud + to_moved) + LEVEL * level.mean() + DIRECTION * direction.mean()
    total = total + ON * SIDE * field.value(on).abs().mean()
    every, wanted = torch.cat((f, field.value(other))), torch.cat((distance, other_distance))
    known = (wanted > FAR * cloud.spacing) | (progress < FIRST)
    return total + KNOWN * mape(every[known], wanted[known], SOFT)
