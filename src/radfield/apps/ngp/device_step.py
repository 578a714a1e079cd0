"""The training step of `ngp` on a device, without the host waiting within a step (training/device_steps.py)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ... import backend
from ...camera_rays import camera_rays
from ...data.scene import Images
from ...errors import BadInput, warn
from ...renderers.budget import Budget, render_budget
from ...renderers.volume import Config, longest_step
from ...sampling.random import stream
from ...training import device_steps

#: in "f16" gradients of samples are so much larger than they are, since fp16 holds 6e-8 to 65504 and a ray's part of
#: the loss has the gradient 1 / rays. Networks get theirs divided again, since weight decay is added to it; that of the
#: table, summed in fp32, stays as it is: Adam's step does not depend on its scale. What overflows all the same ends the
#: training, as every gradient does that is not finite.
LOSS_SCALE = 2.0**15
_STEPS, _PIXELS, _OWN = slice(0, 4), slice(4, 5), 5  # places in a row of numbers


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
        if training.model.config.precision == "f16":
            raise BadInput(f"--ngp.precision is f16; the rule: f32 or bf16 where steps wait for the device ({reason})")
        warn(f"no CUDA graph of the training step ({reason}): the host waits for the device within each step")
        return None
    return DeviceSteps(training)


class DeviceSteps(device_steps.RaySteps):
    """The steps of `training` (training/device_steps.py)."""

    def __init__(self, training):
        super().__init__(training, _OWN)

    def make(self) -> None:
        """Memory for 8 batches of marched samples, and the shortest steps of the training."""
        model, config = self.training.model, self.training.model.config
        self.budget = Budget(8 * config.batch_samples, 2 * config.batch_samples)
        finest = min(config.fine_step, config.coarse_step)
        render = model.render
        self.shortest = dataclasses.replace(render, step=render.step * finest, cone=render.cone * finest)

    def step(self, sampling: Config, lr: float) -> dict | None:
        """`take` with these steps along rays."""
        training = self.training
        longest = longest_step(sampling, training.model.grid)
        steps = (sampling.step, sampling.cone, longest, training.step & 0xFFFFFFFF)
        return self.take((*steps, stream(training.seed, training.step)), lr)

    def work(self) -> None:
        """Rays, their rendering, the loss and its gradients."""
        training, model, now = self.training, self.training.model, self.now
        pixels = self.pixels(now[_PIXELS], _background(model.config, model.device))
        rays = camera_rays(training.per_image.cameras, pixels.view, pixels.pixel, check=False)
        where = model.field, model.grid, rays, self.rays, pixels.background, self.shortest, now[_STEPS]
        render = render_budget(*where, self.budget)
        error = ((render.color - pixels.color).square().mean(1) * render.used).sum()
        loss = error / render.rays.clamp_min(1)
        gradients = [network.grad_into for network in model.field.networks]
        if model.config.precision == "f16":
            (loss.sum() * LOSS_SCALE).backward()
            for gradient in gradients:
                gradient.mul_(1 / LOSS_SCALE)
        else:
            loss.sum().backward()
        self.finish([loss, *gradients], [loss, *render[2:]], self.rays, render.live)


def _background(config, device: torch.device) -> Tensor | None:
    from .config import background_color

    return None if config.background == "random" else background_color(config.background, device)
