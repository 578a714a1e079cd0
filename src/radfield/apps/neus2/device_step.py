"""The training step of `neus2` on a device, without the host waiting within a step (training/device_steps.py). The
sharpness stays on the device, and with it the length of steps along rays.

The step is captured anew where a level is added and where the curvature's term begins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backend
from ...camera_rays import camera_rays
from ...data.scene import Images
from ...encodings import hash_grid
from ...errors import BadInput, warn
from ...losses import huber, mse
from ...rays import Rays
from ...renderers import surface_budget
from ...renderers.budget import MOST_SAMPLES
from ...renderers.volume import longest_step
from ...sampling.march import SampleBuffers, march_budget
from ...sampling.random import stream
from ...training import device_steps
from ..ngp.config import background_color
from . import step as on_cpu
from .model import VANISHED

_PIXELS, _ANNEALED, _CURVATURE, _LEAST, _MOST, _MARCH, _OWN = *(slice(i, i + 1) for i in range(6)), 6  # places in a row


def obstacle(training) -> str | None:
    """Why the training's steps have to wait for the device; None where they need not."""
    model = training.model
    if backend.by_tinycudann():
        return "backend 'tcnn'"
    if not isinstance(training.images, Images):
        return "images are read from disk during training"
    if model.outside is not None:
        return "a field around the surface"
    if len(training.optimizer.groups) != 1 + len(model.field.grids) + len(model.field.networks):
        return "parameters besides the grids', the networks' and the sharpness"
    if model.field.grid.grid.ops is not hash_grid.OPS:
        return f"encoding {model.config.encoding!r}"
    return None


def steps_of(training) -> DeviceSteps | None:
    """The device's steps of a training, or None, announced once, where each step has to wait."""
    if reason := obstacle(training):
        warn(f"no CUDA graph of the training step ({reason}): the host waits for the device within each step")
        return None
    return DeviceSteps(training)


class DeviceSteps(device_steps.RaySteps):
    """The steps of `training` (training/device_steps.py)."""

    means = ("loss", "eikonal")

    def __init__(self, training):
        config = training.model.config
        self.anywhere, self.neighbours = on_cpu.point_counts(config)
        super().__init__(training, _OWN)
        count = 3 * self.anywhere + 4 * self.neighbours
        self.drawn, self.numbers = self.ring(count), torch.zeros(count, device=self.device)
        self.background = None
        if config.background != "random":
            self.background = background_color(config.background, self.device)
        self.captured: tuple | None = None  # what the step was captured for

    def make(self) -> None:
        """Memory for 4 batches of marched samples; two are trained at most."""
        config = self.training.model.config
        self.buffers, self.live = SampleBuffers(4 * config.batch_samples), 2 * config.batch_samples

    def step(self, progress: float) -> dict | None:
        """`take` at this part of the budget."""
        training, config = self.training, self.training.model.config
        curvature = config.curvature * on_cpu.smoothing(progress)
        if self.captured != (kind := (training.model.field.levels, curvature > 0)):
            self.captured = kind
            self.forget()
        slot = training.step % device_steps.RING
        self.drawn[slot] = on_cpu.random_numbers(training)
        self.numbers.copy_(self.drawn[slot], non_blocking=True)
        annealed = min(progress / config.anneal, 1.0) if config.anneal else 1.0
        pixels, march = stream(training.seed, training.step), stream(training.seed, 3, training.step)
        bounds = on_cpu.sharpness_bounds(training, progress)
        rate = config.learning_rate * config.final_rate**progress
        return self.take((pixels, annealed, curvature, *bounds, march), rate)

    def told(self, figures: list[list[float]]) -> None:
        """Raises `BadInput` where no ray met anything."""
        if not all(marched for *_, marched, _ in figures):
            raise BadInput(VANISHED)

    def work(self) -> None:
        """Rays, the samples that count, loss, gradients and the sharpness."""
        training, model, now = self.training, self.training.model, self.now
        config, value = model.config, model.field.log_sharpness.data
        pixels = self.pixels(now[_PIXELS], self.background)
        rays = camera_rays(training.cameras, pixels.view, pixels.pixel, check=False)
        sharpness = (10 * value.double()).exp()
        samples, totals = self._marched(rays, sharpness)
        limits = {"stop": on_cpu.STOP, "least": config.least_weight, "capacity": self.live}
        kept = surface_budget.visible(model.field, samples, totals, self.rays, sharpness, **limits)
        paired = self.captured[1]
        points = self._points(kept, sharpness, paired)
        seen = surface_budget.ask(model.field, kept, points, torch.cat((sharpness, now[_ANNEALED])))
        loss, error = self._loss(seen.composited(on_cpu.STOP), pixels, kept.rays)
        loss.backward()
        bend = now[_CURVATURE].float() * on_cpu.curvature_gradient(seen.bend(), points.count) if paired else None
        away = self._away(seen)
        by_sharpness = surface_budget.backward(model.field, seen, config.eikonal, bend, away)
        training.grad_sharpness.copy_(10 * sharpness * by_sharpness)  # s = e^(10 v)
        stretch = seen.stretch().view(1)
        gradients = [network.grad_into for network in model.field.networks]
        checked = [loss, stretch, training.grad_sharpness, *gradients]
        figures = [error.view(1), stretch, kept.rays, totals[1:], kept.live]
        self.finish(checked, figures, kept.rays, kept.live)
        held = value.clamp(now[_LEAST].float(), now[_MOST].float())
        value.copy_(torch.where(self.alive > 0, held, value))

    def _marched(self, rays: Rays, sharpness: Tensor):
        """The samples of the rays in use, at steps as long as the surface is soft."""
        model, config = self.training.model, self.training.model.config
        render, n = model.render, len(rays)
        scale = (config.step_width / (sharpness * render.step)).clamp(1.0, config.coarse_step)
        longest = (scale * render.step).clamp_min(longest_step(render, model.grid))
        schedule = torch.cat((scale * render.step, scale * render.cone, longest, self.now[_MARCH]))
        near = torch.full((n,), render.near, device=self.device)
        wanted = torch.arange(n, device=self.device) < self.rays
        far = torch.full_like(near, torch.inf) if rays.far is None else rays.far
        rays = Rays(rays.origins, rays.directions, near, far.masked_fill(~wanted, -1.0))  # none: ends before it begins
        shortest = {"step": render.step, "cone": render.cone, "max_step": longest_step(render, model.grid)}
        limits = {"jitter": True, "max_per_ray": MOST_SAMPLES, "buffers": self.buffers}
        return march_budget(rays, model.grid, schedule=schedule, **shortest, **limits)

    def _points(self, kept: surface_budget.Kept, sharpness: Tensor, paired: bool) -> surface_budget.Points:
        """As `step.extra_points`."""
        config = self.training.model.config
        anywhere, part, way = on_cpu.split_numbers(self.numbers, config)
        if not paired:
            part, way = part[:0], way[:, :0]
        live = kept.live.double()
        count = (config.neighbours * live.clamp_max(config.batch_samples)).long() * paired
        partner = (part.double() * live).long()
        distance = (1 / sharpness).clamp_min(1 / self.training.detail).float()
        near = (kept.samples.x.T[:, partner] + way * distance).clamp(0, 1)
        used = torch.arange(len(part), device=self.device) < count
        return surface_budget.Points(anywhere, torch.where(used, near, 0.5), partner, count)

    def _away(self, seen: surface_budget.Seen) -> Tensor | None:
        """As `step.point_gradient`; the weight of the area's term grows with the curvature's."""
        config, anywhere = self.training.model.config, seen.points.anywhere
        area = 0.0
        if self.captured[1] and config.area and config.curvature:
            area = config.area * (self.now[_CURVATURE] / config.curvature).float()
        return on_cpu.point_gradient(self.training, anywhere.T, seen.tape.f[: anywhere.shape[1]], area)

    def _loss(self, result, pixels, kept: Tensor) -> tuple[Tensor, Tensor]:
        """As `step.frame_loss`, of the first `kept` rays: means over all rays, of which the others are right, in parts
        of the rays kept."""
        used, more = torch.arange(self.capacity, device=self.device) < kept, self.capacity / kept.clamp_min(1)
        color = result.color + (1 - result.opacity)[:, None] * pixels.background
        color = torch.where(used[:, None], color, pixels.color)
        loss = on_cpu.RGB * huber(color, pixels.color) * more
        weight = self.training.model.config.mask
        if weight and self.training.has_alpha:
            losses = on_cpu.mask_losses(result.opacity, pixels.alpha)
            loss = loss + weight * torch.where(used, losses, 0.0).mean() * more
        return loss, mse(color.detach(), pixels.color) * more
