"""Active learning, at three levels (PVD-AL, Fang et al. 2023b, sec. 3.3): more of what the student is worst at.

- poses: the worst tenth of an epoch's poses go to a pool; jittered copies from it are a tenth of the next epoch's.
- rays: the worst tenth of a step's rays go to a pool; once it is full, a tenth of a batch is drawn from it, and these
  places take the next worst rays.
- points: features, density and colour are compared at the three tenths of the samples with the largest weights in the
  picture, the teacher's or the student's.

Letters: N rays, M samples, P poses, K rays in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..rays import Rays

SHARE = 0.1  # of poses and rays
POINTS = 0.3
POSE_POOL = 100
#: published: 4096 * 150, which 1500 steps fill; a distillation of a minute on a CPU has fewer
RAY_POOL = 1 << 14


@dataclass(frozen=True)
class Active:
    """The three switches."""

    poses: bool = False
    rays: bool = False
    points: bool = False


INACTIVE = Active()


class HardPoses:
    """The pool of poses. tensors: [POSE_POOL, 4, 4], and the mean squared error at each, -1 where there is none."""

    def __init__(self):
        self.pose = torch.eye(4).repeat(POSE_POOL, 1, 1)
        self.error = torch.full((POSE_POOL,), -1.0)

    def take(self, poses: Tensor, error: Tensor) -> None:
        """The worst of an epoch's poses [P, 4, 4] by their mean error [P]; the pool keeps the worst it ever saw."""
        worst = error.topk(max(1, round(SHARE * len(error)))).indices
        worst = worst[error[worst] >= 0]
        pose, known = torch.cat((self.pose, poses[worst])), torch.cat((self.error, error[worst]))
        kept = known.topk(POSE_POOL).indices
        self.pose.copy_(pose[kept])
        self.error.copy_(known[kept])

    def give(self, count: int, generator: torch.Generator) -> Tensor:
        """[at most `count`, 4, 4]: poses of the pool at random, none while it is empty."""
        filled = int((self.error >= 0).sum())
        if not filled:
            return self.pose[:0]
        return self.pose[torch.randint(filled, (count,), generator=generator)]

    def tensors(self) -> dict[str, Tensor]:
        return {"hard_poses": self.pose, "hard_pose_error": self.error}


class HardRays:
    """The pool of rays: origins and directions [K, 6], and how many places are filled."""

    def __init__(self, capacity: int = RAY_POOL):
        self.ray, self.filled = torch.zeros(capacity, 6), torch.tensor([0])

    @property
    def full(self) -> bool:
        return int(self.filled) == len(self.ray)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """[n] places, different ones, whose rays a batch shall have; none before the pool is full."""
        if not self.full:
            return torch.empty(0, dtype=torch.int64)
        count = min(max(1, round(SHARE * count)), len(self.ray))
        first = torch.randint(len(self.ray), (1,), generator=generator)
        stride = 2 * torch.randint(len(self.ray) // 2, (1,), generator=generator) + 1
        return (first + stride * torch.arange(count)) % len(self.ray)  # an odd stride meets 2^k places once each

    def take(self, rays: Rays, error: Tensor, places: Tensor) -> None:
        """The worst of a step's rays by error [n], the first of `rays`: into `places`, or behind what is there."""
        worst = error.topk(max(1, round(SHARE * len(error)))).indices.to(rays.origins.device)
        found = torch.cat((rays.origins[worst], rays.directions[worst]), 1).cpu()
        if not len(places):
            places = torch.arange(int(self.filled), min(int(self.filled) + len(found), len(self.ray)))
            self.filled += len(places)
        count = min(len(places), len(found))
        self.ray[places[:count]] = found[:count]

    def tensors(self) -> dict[str, Tensor]:
        return {"hard_rays": self.ray, "hard_rays_filled": self.filled}


def hard_points(teacher: Tensor, student: Tensor) -> Tensor:
    """[M] bool: the POINTS of all samples with the largest weights [M] in the teacher's or the student's picture."""
    hard, count = torch.zeros_like(teacher, dtype=torch.bool), round(POINTS * len(teacher))
    for weights in (teacher, student):
        hard[weights.topk(count).indices] = True
    return hard
