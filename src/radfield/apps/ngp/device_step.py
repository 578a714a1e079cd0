"""The training step of `ngp` on a device, without the host waiting within a step: shapes are those of a fixed budget,
the number of rays adapts on the device, and what changes from step to step stands in a row of numbers that is copied
there before each. So the whole step can be captured in a CUDA graph (training/graph.py).

The host reads figures once every `READ_INTERVAL` steps: losses and counts, and whether all was finite. From a step on
whose loss or gradient was not, nothing moves: the model is that before it when the host learns of it.

Letters: N rays (the capacity; fewer are in use), G groups of the optimiser.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ... import backend
from ...camera_rays import camera_rays
from ...data.pixels import drawable, sample_pixels
from ...data.scene import Images
from ...errors import warn
from ...renderers.budget import Budget, render_budget
from ...renderers.volume import Config, longest_step
from ...sampling.random import stream
from ...training.graph import Replayed

READ_INTERVAL = 16  # steps between two waits of the host
RING = 2 * READ_INTERVAL  # rows in pinned memory: none is overwritten before the device has read it
FEWEST_RAYS, MOST_RAYS = 256, 1 << 17
_STEPS, _PIXELS, _SLOT, _GROUPS = slice(0, 4), slice(4, 5), slice(5, 6), 6  # places in a row


def obstacle(training) -> str | None:
    """Why the training's steps have to wait for the device; None where they need not."""
    config = training.model.config.per_image
    if backend.by_tinycudann():
        return "backend 'tcnn'"
    if not isinstance(training.images, Images):
        return "images are read from disk during training"
    if config.cameras or config.lenses or config.exposure or config.appearance:
        return "corrections per image"
    if not training.model.field.grid.takes_count:
        return f"encoding {training.model.config.encoding!r}"
    return None


def steps_of(training) -> DeviceSteps | None:
    """The device's steps of a training, or None, announced once, where each step has to wait."""
    if reason := obstacle(training):
        warn(f"no CUDA graph of the training step ({reason}): the host waits for the device within each step")
        return None
    return DeviceSteps(training)


class DeviceSteps:
    """The steps of `training`, whose `step`, `rays` and optimiser's `steps` it keeps."""

    def __init__(self, training):
        self.training, device = training, training.model.device
        self.groups = len(training.optimizer.groups)
        self.width = _GROUPS + 3 * self.groups
        new = {"dtype": torch.float64, "device": device}
        self.now = torch.zeros(self.width, **new)  # what changes from step to step
        self.alive = torch.ones(1, **new)  # 0 from the first step on that was not finite
        self.records = torch.zeros(RING, 5, **new)  # of each step: loss, rays, marched, live, alive
        self.host = torch.zeros(RING, self.width, dtype=torch.float64)
        if device.type == "cuda":
            self.host = self.host.pin_memory()
        self.spans = drawable(training.images)
        self.unread: list[int] = []  # steps that the host has not read
        self.capacity, self.told = 0, training.rays  # the rays that the host last heard of
        self._make(training.rays)

    def _make(self, rays: int) -> None:
        """Buffers and a graph for twice as many rays as are in use."""
        model, config = self.training.model, self.training.model.config
        self.capacity = min(max(1 << math.ceil(math.log2(2 * rays)), FEWEST_RAYS), MOST_RAYS)
        marched = 8 * config.batch_samples
        self.budget = Budget(marched, 2 * config.batch_samples)
        self.rays = torch.tensor([rays], dtype=torch.int64, device=model.device)
        finest = min(config.fine_step, config.coarse_step)
        render = model.render
        self.shortest = dataclasses.replace(render, step=render.step * finest, cone=render.cone * finest)
        self.replayed = Replayed(self._work, model.device)

    def step(self, sampling: Config, lr: float):
        """One step with these steps along rays and this learning rate; the figures of those since the last reading
        where it is time to read, else None. Raises `FloatingPointError` as `ngp.train_step` does, but only then."""
        training = self.training
        if training.rays != self.told:  # the caller's choice
            self.rays.fill_(training.rays)
        if self.rays_changed():
            self._make(training.rays)
        self.told = training.rays
        training.optimizer.steps += 1
        slot = training.step % RING
        rates = [number for pair in training.optimizer.rates(lr) for number in (*pair, 0.0)]
        steps = (sampling.step, sampling.cone, longest_step(sampling, training.model.grid), training.step & 0xFFFFFFFF)
        row = (*steps, stream(training.seed, training.step), slot, *rates)
        self.host[slot] = torch.tensor(row, dtype=torch.float64)
        self.now.copy_(self.host[slot], non_blocking=True)
        self.replayed()
        self.unread.append(training.step)
        training.step += 1
        return self.read() if len(self.unread) == READ_INTERVAL or training.step % READ_INTERVAL == 0 else None

    def rays_changed(self) -> bool:
        """Whether the rays in use, as last read, need other buffers."""
        rays = self.training.rays
        return rays > self.capacity or (2 * rays > self.capacity < MOST_RAYS and not self.unread)

    def read(self):
        """Waits for the device: the sums of the unread steps' figures, None where there are none."""
        if not self.unread:
            return None
        steps, self.unread = self.unread, []
        rows = torch.cat((self.records, self.rays.expand(RING)[:, None].to(self.records)), 1).tolist()
        found = [rows[step % RING] for step in steps]
        self.training.rays = self.told = int(found[-1][-1])
        for step, (loss, *_, alive, _) in zip(steps, found, strict=True):
            if not alive:
                self.training.step = step
                self.training.optimizer.steps -= steps[-1] - step + 1
                what = f"the loss of step {step} is {loss}" if not math.isfinite(loss) else None
                raise FloatingPointError(what or f"a gradient of step {step} is not finite")
        losses, *counts = ([row[i] for row in found] for i in range(4))
        rays, marched, live = (int(sum(values)) for values in counts)
        return {"loss": sum(losses) / len(steps), "rays": rays, "marched": marched, "live": live, "steps": len(steps)}

    def _work(self) -> None:
        """All of a step that happens on the device."""
        training, model = self.training, self.training.model
        config, now = model.config, self.now
        given = {"background": _background(config, model.device), "schedule": now[_PIXELS], "spans": self.spans}
        pixels = sample_pixels(training.images, self.capacity, **given)
        rays = camera_rays(training.per_image.cameras, pixels.view, pixels.pixel, check=False)
        where = model.field, model.grid, rays, self.rays, pixels.background, self.shortest, now[_STEPS]
        render = render_budget(*where, self.budget)
        error = ((render.color - pixels.color).square().mean(1) * render.used).sum()
        loss = error / render.rays.clamp_min(1)
        loss.sum().backward()
        networks = model.field.networks
        finite = [loss.detach().isfinite(), *(network.grad_into.isfinite().all().view(1) for network in networks)]
        self.alive.mul_(torch.cat(finite).all().double())
        schedule = now[_GROUPS:].view(self.groups, 3)
        schedule[:, 2] = self.alive
        training.optimizer.step_scheduled(schedule)
        figures = [loss.detach().double(), *(n.double() for n in render[2:]), self.alive]
        self.records.index_copy_(0, now[_SLOT].long(), torch.cat(figures)[None])
        self.rays.copy_(_next_rays(self.rays, render.live, config.batch_samples, self.capacity))


def _background(config, device: torch.device) -> Tensor | None:
    from .config import background_color

    return None if config.background == "random" else background_color(config.background, device)


def _next_rays(rays: Tensor, live: Tensor, wanted: int, capacity: int) -> Tensor:
    """As `ngp.next_rays`, on the device and within the capacity."""
    scale = (wanted / live.clamp_min(1).double()).clamp(0.5, 2.0)
    return ((rays * scale).long() // 64 * 64).clamp(FEWEST_RAYS, capacity)
