"""Training steps on a device, without the host waiting within a step: shapes are those of a fixed budget, and what
changes from step to step stands in a row of numbers that is copied there before each. So the whole step can be captured
in a CUDA graph (graph.py). A method derives from `DeviceSteps`, or where it follows random rays from `RaySteps`.

The host reads figures once every `READ_INTERVAL` steps: losses and counts, and whether all was finite. From a step on
whose loss or gradient was not, nothing moves: the model is that before it when the host learns of it.

Letters: N rays (the capacity; fewer are in use), G groups of the optimiser.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..data.pixels import Pixels, drawable, sample_pixels
from .graph import Replayed

READ_INTERVAL = 16  # steps between two waits of the host
RING = 2 * READ_INTERVAL  # rows in pinned memory: none is overwritten before the device has read it
FEWEST_RAYS, MOST_RAYS = 256, 1 << 17


class DeviceSteps:
    """The steps of `training`, whose `step` it counts, on its model's device.

    A row of numbers, `now`, has `own` of the method, the record's slot, and of each of `groups` parameters that the
    optimiser steps two rates and whether they move. A record has the mean of each of `means` over a step, the `counts`,
    and whether all has been finite so far.
    """

    means: tuple[str, ...] = ("loss",)
    counts: tuple[str, ...] = ()

    def __init__(self, training, own: int, groups: int):
        self.training, self.device, self.own, self.groups = training, training.model.device, own, groups
        self.now = torch.zeros(own + 1 + 3 * groups, dtype=torch.float64, device=self.device)
        self.alive = torch.ones(1, dtype=torch.float64, device=self.device)  # 0 from the first bad step on
        columns = len(self.means) + len(self.counts) + 1
        self.records = torch.zeros(RING, columns, dtype=torch.float64, device=self.device)
        self.host = self.ring(len(self.now), dtype=torch.float64)
        self.unread: list[int] = []  # steps that the host has not read

    def ring(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """[RING, *shape] of the host's memory, one for each step on its way, from which a device can copy by itself."""
        rows = torch.zeros(RING, *shape, dtype=dtype, device="cpu")
        return rows.pin_memory() if self.device.type == "cuda" else rows

    def took_back(self, steps: int) -> None:
        """Counts so many steps of the optimiser less: they did nothing."""
        raise NotImplementedError

    def told(self, figures: list[list[float]]) -> None:
        """Follows a reading of these means and counts of some steps; raises where they end the training."""

    def launch(self, replayed: Replayed, numbers: tuple[float, ...], rates: list[tuple[float, float]]) -> dict | None:
        """One step by `replayed`, with these `own` numbers and two rates for each group; the figures of those since the
        last reading where it is time to read, else None. Raises `FloatingPointError` as a step on the CPU does, but
        only then."""
        training, slot = self.training, self.training.step % RING
        row = (*numbers, slot, *(number for pair in rates for number in (*pair, 0.0)))
        self.host[slot] = torch.tensor(row, dtype=torch.float64, device="cpu")
        self.now.copy_(self.host[slot], non_blocking=True)
        replayed()
        self.unread.append(training.step)
        training.step += 1
        return self.read() if len(self.unread) == READ_INTERVAL or training.step % READ_INTERVAL == 0 else None

    def fetch(self) -> list[list[float]]:
        """The records, row by row: the one place where the host waits."""
        return self.records.tolist()

    def read(self) -> dict | None:
        """Waits for the device: the figures of the unread steps, means of `means` and sums of `counts`; None where
        there are none."""
        if not self.unread:
            return None
        steps, self.unread = self.unread, []
        rows = self.fetch()
        found, first = [rows[step % RING] for step in steps], len(self.means)
        for step, (*figures, alive) in zip(steps, found, strict=True):
            if not alive:
                self.training.step = step
                self.took_back(steps[-1] - step + 1)
                bad = [value for value in figures[:first] if not math.isfinite(value)]
                what = f"the loss of step {step} is {bad[0]}" if bad else f"a gradient of step {step} is not finite"
                raise FloatingPointError(what)
        self.told([row[:-1] for row in found])
        sums = [sum(column) for column in zip(*found, strict=True)]
        means = {name: total / len(steps) for name, total in zip(self.means, sums, strict=False)}
        return means | {k: int(n) for k, n in zip(self.counts, sums[first:], strict=False)} | {"steps": len(steps)}

    def schedule(self, checked: list[Tensor]) -> Tensor:
        """[groups, 3] for the optimiser: nothing moves where an entry of `checked` is not finite, now or before."""
        finite = torch.stack([each.detach().isfinite().all() for each in checked]).all()
        self.alive.mul_(finite.double())
        schedule = self.now[self.own + 1 :].view(self.groups, 3)
        schedule[:, 2] = self.alive
        return schedule

    def record(self, figures: list[Tensor]) -> None:
        """Keeps the step's means and counts, [1] each."""
        row = torch.cat([*(each.detach().double() for each in figures), self.alive])
        self.records.index_copy_(0, self.now[self.own : self.own + 1].long(), row[None])


class RaySteps(DeviceSteps):
    """Steps along random rays of the `images` of `training`, whose `rays` adapt: as many as have filled a batch, up to
    a capacity, N. Where the host reads that more than half of it is in use, all is made anew."""

    counts = ("rays", "marched", "live")

    def __init__(self, training, own: int):
        super().__init__(training, own, len(training.optimizer.groups))
        self.spans = drawable(training.images)
        self.capacity, self.known = 0, training.rays  # the rays that the host last heard of
        self._make(training.rays)

    def make(self) -> None:
        """Makes what depends on the capacity: the method's buffers."""
        raise NotImplementedError

    def work(self) -> None:
        """All of a step that happens on the device; ends with `finish`."""
        raise NotImplementedError

    def _make(self, rays: int) -> None:
        """Buffers and a graph for twice as many rays as are in use."""
        self.capacity = min(max(1 << math.ceil(math.log2(2 * rays)), FEWEST_RAYS), MOST_RAYS)
        self.rays = torch.tensor([rays], dtype=torch.int64, device=self.device)
        self.make()
        self.forget()

    def forget(self) -> None:
        """Has the step captured anew, where its shapes or what it does have changed."""
        self.replayed = Replayed(self.work, self.device)

    def take(self, numbers: tuple[float, ...], lr: float) -> dict | None:
        """`launch` with these `own` numbers and this learning rate."""
        training = self.training
        if training.rays != self.known:  # the caller's choice
            self.rays.fill_(training.rays)
        if self.rays_changed():
            self._make(training.rays)
        self.known = training.rays
        training.optimizer.steps += 1
        return self.launch(self.replayed, numbers, training.optimizer.rates(lr))

    def rays_changed(self) -> bool:
        """Whether the rays in use, as last read, need other buffers."""
        rays = self.training.rays
        return rays > self.capacity or (2 * rays > self.capacity < MOST_RAYS and not self.unread)

    def took_back(self, steps: int) -> None:
        """Of the group's optimiser."""
        self.training.optimizer.steps -= steps

    def fetch(self) -> list[list[float]]:
        """The records, and with them how many rays are in use."""
        rows = torch.cat((self.records, self.rays.double().expand(RING)[:, None]), 1).tolist()
        self.training.rays = self.known = int(rows[0].pop())
        return [rows[0], *(row[:-1] for row in rows[1:])]

    def pixels(self, schedule: Tensor, background: Tensor | None) -> Pixels:
        """As many pixels as the capacity, of the seed `schedule` [1] on the device."""
        given = {"background": background, "schedule": schedule, "spans": self.spans}
        return sample_pixels(self.training.images, self.capacity, **given)

    def finish(self, checked: list[Tensor], figures: list[Tensor], kept: Tensor, live: Tensor) -> None:
        """The optimiser's step, unless an entry of `checked` is not finite; the record of `figures` ([1] each), and the
        rays of the next step from the `kept` [1] rays' `live` [1] samples."""
        self.training.optimizer.step_scheduled(self.schedule(checked))
        self.record(figures)
        self.rays.copy_(next_rays(kept, live, self.training.model.config.batch_samples, self.capacity))


def next_rays(rays: Tensor, live: Tensor, wanted: int, capacity: int) -> Tensor:
    """[1] int64: rays that would have filled the batch, in multiples of 64; at most doubled at a time, and no more than
    there is room for."""
    scale = (wanted / live.clamp_min(1).double()).clamp(0.5, 2.0)
    return ((rays * scale).long() // 64 * 64).clamp(FEWEST_RAYS, capacity)
