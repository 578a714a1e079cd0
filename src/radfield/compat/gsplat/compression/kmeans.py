"""k-means clustering (Lloyd 1982) of many points into many clusters, in torch.

Letters: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 5
_AT_ONCE = 1 << 24  # distances in memory


def clusters(points: Tensor, count: int, rounds: int = ROUNDS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(centers [K, D], label [N] of each point's) of `points` [N, D], K = `count` of at most N; the same for the same
    seed. Where K is N each point is its own centre."""
    if count == len(points):
        return points.clone(), torch.arange(count)
    start = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:count]
    centers = points[start]
    for _ in range(rounds):
        label = nearest(points, centers)
        sums = torch.zeros_like(centers).index_add_(0, label, points)
        sizes = torch.bincount(label, minlength=count)[:, None]
        centers = torch.where(sizes > 0, sums / sizes.clamp_min(1), centers)
    return centers, nearest(points, centers)


def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """[N], the number of the centre [K, D] that is nearest to each of `points` [N, D]."""
    half = centers.square().sum(1) / 2
    parts = points.split(max(1, _AT_ONCE // len(centers)))
    return torch.cat([(half - part @ centers.T).argmin(1) for part in parts])
