"""One training step of 3D Gaussian splatting, and the schedules that it follows. Letters: H rows, W columns."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.target import target_image
from ...errors import warn
from ...gaussians import densify, mcmc, organise
from ...gaussians.memory_cap import exhaustion
from ...gaussians.order import morton_order
from ...gaussians.scene import GaussianScene, Seen, see
from ...image_loss import image_loss
from ...renderers.gaussian_color import rest_rows
from ...sampling.random import stream
from ..run_files import BACKGROUNDS
from . import gut, random_rays
from .config import Config
from .tracing import see_traced
from .training import StepResult, Training

_ORDER, _BACKGROUND, _REFINE, _NOISE, _RAYS = 1, 2, 3, 4, 5  # purposes of random numbers
_SORT_INTERVAL = 0.1  # part of the budget between two sorts of self-organising Gaussians
ROWS = 4  # the squared error is taken of every so many-th row


def train_step(training: Training, progress: float) -> StepResult:
    """One step; `progress` in [0, 1] is the part of the budget used.

    Raises `FloatingPointError`, with the model as before the step, when the loss or a gradient is not finite, and
    `MemoryError`, with the model whole, when the Gaussians need more memory than there is or than they are allowed.
    """
    with exhaustion():
        if not training.step and not len(training.model.gaussians):  # an imported run has some
            with training.stages("initial"):
                training.begin()
        if (device := training.device_steps()) is not None:
            return _device_step(training, device, progress)
        return _step(training, progress)


def _device_step(training: Training, device, progress: float) -> StepResult:
    with training.stages("step"):
        figures = device.step(progress)
    if progress < training.model.config.refine_until and _refines(training):
        with training.stages("refine"):
            figures = device.read() or figures
            _refine(training)
    return training.result(figures) if figures else StepResult(0.0, 0.0, steps=0)


def _step(training: Training, progress: float) -> StepResult:
    config, stages = training.model.config, training.stages
    leaves = leaves_of(training.model.gaussians, sh_degree(config, progress))
    step = (_ray_step if config.rays else _view_step)(training, leaves, progress)
    image, target, loss = step.image, step.target, step.loss
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {training.step} is {value}")
    with stages("backward"):
        loss.backward()
    with stages("optimiser"):
        _optimise(training, leaves, step, progress)
        squared = float((image.detach()[::ROWS] - target[::ROWS]).square_().mean())
    training.step += 1
    del leaves, step, image, target, loss  # a refinement needs the memory
    with stages("refine"):
        if progress < config.refine_until:
            _refine(training)
        elif config.self_organise:
            _organise(training, progress)
    return StepResult(value, squared)


@dataclass(frozen=True)
class _Step:
    """What a step compares, [H, W, 3] or of rays [N, 3], by what loss; its view and what of it was seen, where it is
    one; the cameras' positions [V, 3]."""

    image: Tensor
    target: Tensor
    loss: Tensor
    positions: Tensor
    view: int | None = None
    seen: Seen | None = None


def _view_step(training: Training, leaves: GaussianScene, progress: float) -> _Step:
    """Of one view whole."""
    config, stages = training.model.config, training.stages
    with stages("pixels"):
        view, level = view_of(training, training.step), image_level(config, progress)
        background = _background(training)
        width, height = training.cameras[level].size[view].tolist()
        pixels, mask = training.views(view, view_of(training, training.step + 1))
        target, kept = target_image(pixels, background, (height, width), mask)
    with stages("forward"):
        seen = _see(training, leaves, view, level, background)
        views = torch.tensor([view], device=background.device)
        image = _exposed(training, seen.image.color, seen.image.alpha, background, views)
        if kept is not None:  # ignored pixels count as right
            target = torch.where(kept[..., None] > 0, target, image.detach())
        loss = image_loss(image, target, config.ssim_weight)
    return _Step(image, target, loss, training.cameras[1].camera_to_world[view, None, :3, 3], view, seen)


def _ray_step(training: Training, leaves: GaussianScene, progress: float) -> _Step:
    """Along random rays."""
    config, stages, sampler = training.model.config, training.stages, training.ray_sampler
    with stages("pixels"):
        batch = sampler.draw(_background(training), stream(training.seed, _RAYS), training.step)
    with stages("forward"):
        training.cap.check_traced(len(leaves), config.rays, 1)
        seen = random_rays.see(leaves, batch, config, training.tree)
        image = _exposed(training, seen.color, seen.opacity, batch.background, batch.pixels.view)
        loss = (image - batch.pixels.color).abs().mean()
    return _Step(image, batch.pixels.color, loss, sampler.positions)


def _see(training: Training, leaves: GaussianScene, view: int, level: int, background: Tensor) -> Seen:
    config = training.model.config
    if config.renderer == "trace":
        training.cap.check_traced(len(leaves), *training.cameras[level].size[view].tolist())
        return see_traced(leaves, training.cameras[level], view, background, config, training.tree)
    if config.renderer in gut.BUFFERS:
        return gut.see_gut(leaves, training.cameras[level], view, background, config, training.cap)
    options = {"antialiased": config.antialiased, "max_alpha": config.max_alpha, "cap": training.cap}
    seen = see(leaves, training.camera(view, level), background, **options)
    seen.projected.mean2d.retain_grad()
    return seen


def image_level(config: Config, progress: float) -> int:
    """By how much images are smaller than they are: 4, 2, 1."""
    return 4 if progress < config.coarse / 3 else 2 if progress < config.coarse else 1


def sh_degree(config: Config, progress: float) -> int:
    """The degree of the colours: a step more with each part of the first part of the budget."""
    if progress >= config.sh_rise:
        return config.sh_degree
    return min(int(progress / config.sh_rise * (config.sh_degree + 1)), config.sh_degree)


def view_of(training: Training, step: int) -> int:
    """Every view once per round, in a new random order each time."""
    views = len(training.scene.train)
    seed = stream(training.seed, _ORDER, step // views)
    return int(torch.randperm(views, generator=torch.Generator().manual_seed(seed), device="cpu")[step % views])


def _background(training: Training) -> Tensor:
    """[3], on the device."""
    return torch.tensor(background_of(training), dtype=torch.float32, device=training.device)


def background_of(training: Training) -> tuple[float, float, float]:
    """Images without alpha have a background of their own: behind them is black, or what is asked for."""
    name, scene = training.model.config.background, training.scene
    if name == "random" and scene.has_alpha:
        return tuple(torch.rand(3, generator=_random(training, _BACKGROUND), device="cpu").tolist())
    return (BACKGROUNDS[scene.background if name == "random" else name],) * 3


def _random(training: Training, purpose: int) -> torch.Generator:
    """The random numbers of this step for a purpose: drawn on the CPU, so that a seed means the same everywhere."""
    return torch.Generator().manual_seed(stream(training.seed, purpose, training.step))


def leaves_of(gaussians: GaussianScene, degree: int) -> GaussianScene:
    """The parameters as leaves of this step's graph; of the colours those up to `degree`."""
    active = dataclasses.replace(gaussians, rest=gaussians.rest[: rest_rows(degree)])
    return active.map(lambda value: value.detach().requires_grad_())


def _exposed(training: Training, image: Tensor, alpha: Tensor, background: Tensor, views: Tensor) -> Tensor:
    """[..., 3], the image as the camera of its view, or of each ray's, would have exposed it."""
    if not training.model.config.exposure:
        return image
    left = 1 - alpha.reshape(-1)
    return training.per_image.exposed(image.view(-1, 3), left, background, views).view(image.shape)


def _optimise(training: Training, leaves: GaussianScene, step: _Step, progress: float) -> None:
    config, gaussians = training.model.config, training.model.gaussians
    grads = {name: leaf.grad for name, leaf in leaves.tensors().items()}
    if not all(bool(grads[name].isfinite().all()) for name in ("means", "opacity_logits")):
        raise FloatingPointError(f"a gradient of step {training.step} is not finite")
    rates = rates_at(training, progress)
    if config.densification == "mcmc":
        mcmc.regularise(grads, gaussians, config.mcmc, training.size)
    elif progress < config.refine_until:
        if config.renderer != "raster":
            training.statistics.add_traced(grads["means"], gaussians.means, step.positions.to(training.device))
        else:
            height, width, _ = step.image.shape
            projected = step.seen.projected
            training.statistics.add(projected.mean2d.grad, projected.radius, width, height)
    if training.organised:
        organise.regularise(grads, gaussians, config.self_organise)
    training.adam.step(gaussians, grads, rates)
    if config.densification == "mcmc":
        mcmc.add_noise(gaussians, rates["means"], config.mcmc, _random(training, _NOISE))
    if training.per_image.refinement is not None:
        training.per_image.refinement.collect_pose(step.view)
    training.per_image.step(progress)


def rates_at(training: Training, progress: float) -> dict[str, float]:
    config = training.model.config
    return {
        "means": config.mean_rate * training.size * config.final_rate**progress,
        "quaternions": config.quaternion_rate,
        "log_scales": config.scale_rate,
        "opacity_logits": config.opacity_rate,
        "base": config.color_rate,
        "rest": config.color_rate / 20,
    }


def _grows(training: Training) -> bool:
    """Whether it is time to add and remove Gaussians."""
    interval = training.model.config.refine_interval
    return training.step % interval == 0 and training.step >= 5 * interval


def _resets(training: Training) -> bool:
    """Whether it is time to reset opacities."""
    config = training.model.config
    return config.densification == "default" and training.step % config.reset_interval == 0


def _refines(training: Training) -> bool:
    return _grows(training) or _resets(training)


def _refine(training: Training) -> None:
    """Adds and removes Gaussians where it is time for that, and resets their opacities."""
    config, model = training.model.config, training.model
    if _grows(training):
        most, generator = training.cap.most(config.max_gaussians), _random(training, _REFINE)
        state = model.gaussians, training.adam
        if config.densification == "mcmc":
            found = mcmc.refine(*state, config.mcmc, most=most, generator=generator)
        else:
            limits = {"most": most, "size": training.size, "prune_large": training.resets > 0}
            found = densify.refine(*state, training.statistics, config.densify, **limits, generator=generator)
        order = morton_order(found.means)
        training.adam.select(order, 0)
        model.gaussians = found.select(order)
        training.tree.forget()
        training.statistics = densify.Statistics(len(found), training.device)
        training.cap.entries = 1.0
        if len(found) >= most:
            _announce_limit(config, most)
    if _resets(training):
        training.resets += 1
        densify.reset_opacity(model.gaussians, training.adam, config.densify)


def _organise(training: Training, progress: float) -> None:
    """Sorts the Gaussians onto their grid where it is time for that: once their number is fixed, and then after each
    part of the budget."""
    due = 1 + int((progress - training.model.config.refine_until) / _SORT_INTERVAL)
    if training.organised < due:
        first = not training.organised
        training.model.gaussians = organise.organise(training.model.gaussians, training.adam, first=first)
        training.tree.forget()
        training.organised = due


def _announce_limit(config: Config, most: int) -> None:
    if most == config.max_gaussians:
        warn(f"the Gaussians have reached --splat.max-gaussians {most}: no more are added")
    else:
        warn(f"the Gaussians have reached what memory allows, {most}: no more are added; --splat.memory-gb sets it")
