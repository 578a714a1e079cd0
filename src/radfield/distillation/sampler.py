"""The rays that teacher and student are asked along: random pixels of random poses, an epoch of them at a time, on
random backgrounds. What is drawn depends on (seed, step) and on what active learning has found so far, so that an
interrupted distillation goes on as if it had not been.

Letters: N rays, P poses of an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera_rays import camera_rays
from ..cameras import Cameras
from ..rays import Rays
from ..sampling.random import stream
from .active import INACTIVE, SHARE, Active, HardPoses, HardRays
from .poses import jittered, pinhole, surroundings

POSES, EPOCH = 100, 50  # poses of an epoch, and its steps


@dataclass(frozen=True)
class Batch:
    """N rays, the first of them from the pool of hard rays (`places` in it); background [N, 3]; pose [N], -1 for rays
    of the pool."""

    rays: Rays
    background: Tensor
    pose: Tensor
    places: Tensor


class Sampler:
    """Draws rays. cameras: of the capture, in scene coordinates, None where they are not known; kind: where poses are
    drawn (poses.py)."""

    def __init__(
        self,
        cameras: Cameras | None,
        cascades: int,
        *,
        kind: str = "auto",
        seed: int = 0,
        active: Active = INACTIVE,
        device: torch.device | str = "cpu",
    ):
        self.seed, self.active, self.device = seed, active, torch.device(device)
        self.around = surroundings(kind, cameras, cascades)
        self.focal, self.size = pinhole(cameras, cascades)
        self.poses = torch.eye(4).repeat(POSES, 1, 1)
        self.error, self.seen = torch.zeros(POSES), torch.zeros(POSES)  # sums and counts of the epoch's rays
        self.hard_poses = HardPoses() if active.poses else None
        self.hard_rays = HardRays() if active.rays else None

    def draw(self, step: int, count: int) -> Batch:
        """`count` rays of a step; the first call for an epoch's first step makes its poses."""
        if step % EPOCH == 0:
            self._new_poses(step // EPOCH)
        generator = torch.Generator().manual_seed(stream(self.seed, 20, step))
        pose = torch.randint(POSES, (count,), generator=generator)
        pixel = torch.rand(count, 2, generator=generator) * self.size
        background = torch.rand(count, 3, generator=generator)
        rays = camera_rays(self.views(self.poses), pose.int().to(self.device), pixel.to(self.device))
        places = torch.empty(0, dtype=torch.int64)
        if self.hard_rays is not None:
            places = self.hard_rays.draw(count, generator)
            again = self.hard_rays.ray[places].to(self.device)
            pose[: len(places)] = -1
            origins, directions = (
                torch.cat((part, whole[len(places) :]))
                for part, whole in ((again[:, :3], rays.origins), (again[:, 3:], rays.directions))
            )
            rays = Rays(origins, directions)
        return Batch(rays, background.to(self.device), pose, places)

    def learn(self, batch: Batch, error: Tensor) -> None:
        """Takes note of the squared error [n] of the first n rays of a batch."""
        error = error.detach().float().cpu()
        if self.hard_rays is not None:
            self.hard_rays.take(batch.rays, error, batch.places)
        if self.hard_poses is not None:
            known = batch.pose[: len(error)] >= 0
            pose = batch.pose[: len(error)][known]
            self.error.index_add_(0, pose, error[known])
            self.seen.index_add_(0, pose, torch.ones(len(pose)))

    def views(self, poses: Tensor) -> Cameras:
        """Cameras at `poses` [P, 4, 4]."""
        count = len(poses)
        found = Cameras(
            camera_to_world=poses,
            focal=self.focal.expand(count, 2),
            principal=(0.5 * self.size.float()).expand(count, 2),
            size=self.size.expand(count, 2),
            distortion=torch.zeros(count, 9),
        )
        return found.to(self.device)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; values are copied into these."""
        found = {"poses": self.poses, "error": self.error, "seen": self.seen}
        for pool in (self.hard_poses, self.hard_rays):
            found |= {} if pool is None else pool.tensors()
        return found

    def _new_poses(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed(stream(self.seed, 21, epoch))
        poses = self.around.draw(POSES, generator)
        if self.hard_poses is not None:
            mean = torch.where(self.seen > 0, self.error / self.seen.clamp(min=1), -1.0)
            self.hard_poses.take(self.poses, mean)
            hard = jittered(self.hard_poses.give(round(SHARE * POSES), generator), generator)
            poses[: len(hard)] = hard
        self.poses.copy_(poses)
        self.error.zero_()
        self.seen.zero_()
