"""A step of the method `ngp`."""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor

from ...camera_rays import camera_rays
from ...data.resident import draw_pixels
from ...encodings import registry
from ...losses import mse
from ...renderers import volume
from . import device_step
from .config import Config, background_color
from .model import Model
from .training import StepResult, Training

REGULARISE_INTERVAL = 16  # steps between two steps against the encoding's regulariser


def refine(training: Training, progress: float) -> None:
    """Has the encoding grow, shrink and be regularised as it states."""
    model = training.model
    samples = training.step / progress * model.config.batch_samples if progress else math.inf
    if model.field.grid.refine(progress, lambda: grid_box(model), samples):
        training.take_parameters()
    if training.step % REGULARISE_INTERVAL == 0:
        rate = learning_rate(model.config, progress) * registry.ENCODINGS[model.config.encoding].rate
        model.field.grid.regularise(REGULARISE_INTERVAL * rate)


def grid_box(model: Model) -> Tensor:
    """[2, 3]: the occupied part of the cube that the encoding spans, in [0, 1]."""
    return model.field.grid_positions(model.grid.occupied_box())


def train_step(training: Training, progress: float) -> StepResult:
    """One step; `progress` in [0, 1] is the part of the budget used, which sets the learning rate.

    Raises `FloatingPointError`, with the model as before the step, when the loss is not finite. On a device that is
    found out at a later step (`device_step`), and the figures are those of the steps in between.
    """
    if (device := training.device_steps()) is not None:
        return _device_step(training, device, progress)
    model, config, stages, images = training.model, training.model.config, training.stages, training.per_image
    with stages("encoding"):
        refine(training, progress)
    with stages("pixels"):
        color = None if config.background == "random" else background_color(config.background, model.device)
        n = training.rays
        pixels = draw_pixels(training.images, n, seed=training.seed, step=training.step, background=color)
        rays = camera_rays(images.cameras, pixels.view, pixels.pixel, check=False)
    with stages("forward"):
        sampling = _sampling(model, progress)
        given = model.field, model.grid, rays, pixels.background, sampling, training.step, training.buffers
        render = volume.render_training(*given, latent=images.latent(pixels.view), traced=images.traces)
        n = render.rays
        color = images.exposed(render.color, render.left, pixels.background[:n], pixels.view[:n])
        loss = mse(color, pixels.color[:n])
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {training.step} is {value}")
    with stages("backward"):
        loss.backward()
    with stages("optimiser"):
        # a bad gradient anywhere shows in the networks' too, since every gradient passes through them
        for network in model.field.networks:
            if not network.grad_into.isfinite().all():
                raise FloatingPointError(f"a gradient of step {training.step} is not finite")
        model.field.grid.add_gradients()
        bad = training.optimizer.step(lr=learning_rate(config, progress))
        if bad and not model.field.networks:
            raise FloatingPointError(f"{bad} gradients of step {training.step} are not finite")
        images.finish(render, rays, pixels.view, pixels.pixel, progress)
    training.step += 1
    _update_grid(training)
    training.rays = _next_rays(training.rays, render.live, config.batch_samples)
    return StepResult(value, render.rays, render.marched, render.live)


def _device_step(training: Training, device: device_step.DeviceSteps, progress: float) -> StepResult:
    model = training.model
    with training.stages("step"):
        figures = device.step(_sampling(model, progress), learning_rate(model.config, progress))
    _update_grid(training)
    return StepResult(**figures) if figures else StepResult(0.0, 0, 0, 0, steps=0)


def _update_grid(training: Training) -> None:
    with training.stages("occupancy"):
        if training.step % training.model.config.occupancy_interval == 0:
            training.model.grid.update(training.model.density, seed=training.seed)


def learning_rate(config: Config, progress: float) -> float:
    """It falls geometrically, to `final_rate` of itself."""
    return config.learning_rate * config.final_rate**progress


def _sampling(model: Model, progress: float) -> volume.Config:
    """The steps along training rays."""
    scale = step_scale(model.config, progress)
    return dataclasses.replace(model.render, step=model.render.step * scale, cone=model.render.cone * scale)


def step_scale(config: Config, progress: float) -> float:
    """How much longer than a renderer's steps are those of training: `coarse_step` at first, falling geometrically, so
    that it would reach 1 at half the budget, but not below `fine_step`. A field that is still blurred needs no fine
    steps, and the time goes into more rays."""
    return max(config.coarse_step ** (1 - 2 * progress), config.fine_step)


def _next_rays(rays: int, live: int, wanted: int) -> int:
    """Rays that would have filled the batch, in multiples of 64; at most doubled at a time."""
    scale = min(max(wanted / max(live, 1), 0.5), 2.0)
    return min(max(int(rays * scale) // 64 * 64, 256), 1 << 17)
