"""A step of the method `neus2`.

loss = mean over rays of sum_channels huber(color - seen, 0.1) / 5
       + eikonal mean over samples and random points of (|n| - 1)^2
       + mask mean over rays of BCE(opacity, alpha)                              (NeuS2, sec. 3.3; its configuration)
       + curvature mean over some samples of |n - n'|, n' of a point next to the sample   (after Rosu and Behnke 2023,
                                                                         "PermutoSDF", which compares directions)
       + area mean over random points of e^(-|f| / BAND)         (Long et al. 2022, "SparseNeuS", eq. 10: what no ray
                                           meets has no surface; the mean is 2 BAND times the area, so that what closes
                                           a surface where no ray meets it is as small as it can be)
       + EMPTY mean over random points that masks say are empty of max(-f, 0) / BAND     (no ray has samples there, and
                                           without them nothing would say that the inside ends: f < 0 in the whole of
                                           the visual hull, falling along all rays, is as opaque as a surface)

The mask's term has its own gradient, (W - m) / (W (1 - W)); NeuS2's published code has another.
Letters: N rays, M samples.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor

from ...camera_rays import camera_rays
from ...data.resident import draw_pixels
from ...errors import BadInput
from ...losses import huber, mse
from ...renderers import surface_volume, volume
from ...sampling import occupancy_reference
from ...sampling.march import march
from ...sampling.random import stream
from ..ngp.config import background_color
from .config import Config
from .model import VANISHED
from .training import StepResult, Training

STOP = 1e-4  # transmittance at which a training ray ends
_SURE = 1e-3  # opacities are kept so far from 0 and 1 in the mask's logarithms
_SHARP = 30.0
_FINAL = 0.9  # part of the budget at which the sharpness is the final one at least
_SHARPEST = 2000.0  # of what is enforced: the surface is then as thick as a step along a ray
_SMOOTHED = 0.4, 0.7  # parts of the budget from which on normals are smoothed, and wholly
_FLAT = 0.05  # differences of normals below this count as their squares
BAND = 0.02  # of distances, in scene units, in which a point counts as next to the surface
_MANY_RAYS = 1 << 14  # of which none meets a surface that is there
_AROUND = 8.0  # training steps through what surrounds the cube, in render steps
EMPTY = 0.03  # weight of an inside where masks say that nothing is
RGB = 3 / 5  # the sum over channels, divided by 5


def train_step(training: Training, progress: float) -> StepResult:
    """One step; `progress` in [0, 1] is the part of the budget used. Raises `FloatingPointError`, with the model as
    before the step, when the loss or a gradient is not finite, and `BadInput` where no surface is left. On a device
    both are found out at a later step (device_step.py), and the figures are those of the steps in between."""
    model, config, stages = training.model, training.model.config, training.stages
    model.field.levels = levels_in_use(config, progress, useful_levels(config, training.detail))
    with stages("occupancy"):
        if training.step % config.occupancy_interval == 0:
            soon = training.step in (0, *(config.occupancy_interval * k for k in (2, 4, 8, 16)))
            whole = {"uniform": model.grid.config.cells} if soon else {}
            model.grid.update(model.density, seed=training.seed, **whole)
    if (device := training.device_steps()) is not None:
        with stages("step"):
            figures = device.step(progress)
        return StepResult(**figures) if figures else StepResult(0.0, 0, 0, 0, 0.0, steps=0)
    with stages("pixels"):
        color = None if config.background == "random" else background_color(config.background, model.device)
        pixels = draw_pixels(training.images, training.rays, seed=training.seed, step=training.step, background=color)
        rays = camera_rays(training.cameras, pixels.view, pixels.pixel, check=False)
        marched = _march(training, rays)
    with stages("visible"):
        samples = surface_volume.visible(model.field, model.outside, marched, STOP, config.least_weight)
    with stages("forward"):
        annealed = min(progress / config.anneal, 1.0) if config.anneal else 1.0
        curvature = config.curvature * smoothing(progress)
        more = functools.partial(extra_points, training, paired=curvature > 0)
        seen = surface_volume.ask(model.field, model.outside, samples, annealed, more)
    with stages("loss"):
        loss, error = frame_loss(training, seen.composited(STOP), pixels, samples.ray_count)
        eikonal = float(seen.stretch.mean()) if len(seen.stretch) else 0.0
        value = loss.item() + config.eikonal * eikonal
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {training.step} is {value}")
        loss.backward()
    with stages("backward"):
        weight = config.eikonal / max(len(seen.stretch), 1)
        bend = curvature * curvature_gradient(seen.bend()) if curvature else None
        away = point_gradient(training, *seen.around(), config.area * smoothing(progress))
        by_sharpness = surface_volume.backward(model.field, seen, weight, bend, away)
        training.grad_sharpness.fill_(10 * seen.sharpness * by_sharpness)  # s = e^(10 v)
    with stages("optimiser"):
        _check_gradients(training)
        training.optimizer.step(lr=config.learning_rate * config.final_rate**progress)
        training.model.field.log_sharpness.data.clamp_(*sharpness_bounds(training, progress))
    training.step += 1
    kept = samples.ray_count
    training.rays = _next_rays(kept, len(samples), config.batch_samples)
    return StepResult(error, kept, len(marched), len(samples), eikonal)


def sharpness_bounds(training: Training, progress: float) -> tuple[float, float]:
    """Between which v the sharpness s = e^(10 v) is kept. The upper bound rises from where it starts to `_SHARP` times
    that: a surface that is sharp at once is looked for next to the first sphere alone, and what stands apart from that
    is never met by a sample. The lower one rises to `final_sharpness`: photographs that contradict one another would
    leave the surface a fog. Where they cross the upper one holds."""
    config, least, most = training.model.config, -math.inf, math.inf
    start = math.log(training.model.field.config.sharpness)
    final = min(config.final_sharpness * training.detail, _SHARPEST)
    if final > 0:
        least = (start + (math.log(final) - start) * min(progress / _FINAL, 1.0)) / 10
    if progress < config.sharpen:
        most = (start + math.log(_SHARP) * progress / config.sharpen) / 10
    return least, most


def smoothing(progress: float) -> float:
    """The part of their weights that the curvature and the area have: none before the surface is found, since normals
    that must be alike keep it from opening gaps between things, and a small area from what sticks out."""
    begin, end = _SMOOTHED
    return min(max((progress - begin) / (end - begin), 0.0), 1.0)


def extra_points(training: Training, x: Tensor, paired: bool = True) -> surface_volume.Extra:
    """Random points of the unit cube, and, if `paired`, neighbours of some of the surface's samples x [A, 3]: a pixel
    away, or while the surface is softer than that, 1 / s."""
    config = training.model.config
    anywhere, part, way = split_numbers(random_numbers(training).to(x.device), config)
    count = int(config.neighbours * min(len(x), config.batch_samples)) * paired
    partner = (part[:count].double() * len(x)).long()
    distance = max(1 / training.model.field.sharpness, 1 / training.detail)
    near = (x.T[:, partner] + way[:, :count] * distance).clamp(0, 1)
    return surface_volume.Extra(torch.cat((near, anywhere), 1).T, partner)


def point_counts(config: Config) -> tuple[int, int]:
    """How many of `extra_points` are anywhere (E), and neighbours at most (P)."""
    return int(config.around * config.batch_samples), int(config.neighbours * config.batch_samples)


def random_numbers(training: Training) -> Tensor:
    """[3 E + 4 P] float32, of this step's extra points; on the CPU, so that a seed means the same on any device."""
    anywhere, near = point_counts(training.model.config)
    generator = torch.Generator().manual_seed(stream(training.seed, 6, training.step))
    random = {"generator": generator, "device": "cpu"}
    even = torch.rand(3 * anywhere + near, **random)
    way = torch.nn.functional.normalize(torch.randn(3, near, **random), dim=0)
    return torch.cat((even, way.flatten()))


def split_numbers(numbers: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Of `random_numbers`: points [3, E]; for each neighbour how far among the samples its partner is, [P] in [0, 1),
    and the unit vector [3, P] from there to it."""
    anywhere, near = point_counts(config)
    points, part, way = numbers.split((3 * anywhere, near, 3 * near))
    return points.view(3, anywhere), part, way.view(3, near)


def curvature_gradient(bend: Tensor, count: Tensor | None = None) -> Tensor:
    """[3, P]: by differences d [3, P] of the normals of neighbours, of the mean of sqrt(|d|^2 + e^2) - e: as the angle
    where it is large, so that edges stay; as its square where it is small. count: how many are in use where not all
    are; the others' differences are 0."""
    number = max(bend.shape[1], 1) if count is None else count.clamp_min(1)
    return bend / ((bend.square().sum(0) + _FLAT**2).sqrt() * number)


def area_gradient(f: Tensor) -> Tensor:
    """[E]: by distances f [E] of random points, of the mean of e^(-|f| / BAND)."""
    return f.sign() * (f.abs() / -BAND).exp() / (-BAND * max(len(f), 1))


def point_gradient(training: Training, x: Tensor, f: Tensor, area: float | Tensor) -> Tensor | None:
    """[E]: by distances f [E] at random points x [E, 3], of the terms that are of these: the area's, whose weight is
    `area`, and the one of emptiness. None where there is neither."""
    terms = [] if isinstance(area, float) and not area else [area * area_gradient(f)]
    if training.empty is not None:
        first = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        cell = occupancy_reference.cell_of(x, first, training.model.grid.config.resolution)
        terms.append(EMPTY * empty_gradient(f, training.empty[cell]))
    return sum(terms[1:], terms[0]) if terms else None


def empty_gradient(f: Tensor, empty: Tensor) -> Tensor:
    """[E]: by distances f [E] of random points, of the mean over all of max(-f, 0) / BAND where `empty` [E] bool."""
    return ((f < 0) & empty).to(f.dtype) / (-BAND * max(len(f), 1))


def levels_in_use(config: Config, progress: float, most: int) -> int:
    """From the coarsest on; all of `most` from `all_levels` of the budget on (NeuS2, sec. 3.3; there by steps)."""
    part = config.first_levels + (1 - config.first_levels) * progress / max(config.all_levels, 1e-9)
    return min(max(math.ceil(part * most), 1), most)


def useful_levels(config: Config, detail: float) -> int:
    """How many levels are not too fine for photographs with `detail` pixels per scene unit: finer ones learn their
    noise, and show it as ridges. They count for nothing, since the SDF network's weights of them stay 0."""
    finest = config.cells_per_pixel * detail / config.base_resolution
    growth = (config.finest_resolution / config.base_resolution) ** (1 / max(config.levels - 1, 1))
    useful = math.log(max(finest, 1.0)) / math.log(growth) if growth > 1 else math.inf
    return min(max(math.ceil(useful) + 1, 2), config.levels) if math.isfinite(useful) else config.levels


def _march(training: Training, rays):
    """The samples of as many rays as the buffers hold."""
    model, config = training.model, training.model.config
    scale = min(max(config.step_width / (model.field.sharpness * model.render.step), 1.0), config.coarse_step)
    near = model.render.near
    if model.outside is not None:
        samples = _march_through(training, rays, model.render.step * scale)
    else:
        rays = dataclasses.replace(rays, near=torch.full((len(rays),), near, device=model.device)) if near > 0 else rays
        samples = _marched(training, rays, scale, 3, training.buffers)
    # a few rays may miss an object that is small in the photographs: then more are drawn next time
    if not len(samples) and (training.rays >= _MANY_RAYS or model.grid.occupied_fraction() == 0):
        raise BadInput(VANISHED)
    return samples


def _march_through(training: Training, rays, step: float):
    """The samples in the unit cube, at even steps, and behind them those of what surrounds it, at longer ones that grow
    with the distance: what is there is no surface, and need not be found to a step."""
    near = training.model.render.near
    enter, leave = surface_volume.through_the_cube(rays)
    within = dataclasses.replace(rays, near=enter.clamp_min(near), far=leave)
    beyond = dataclasses.replace(rays, near=leave.clamp_min(near))
    inside = _marched(training, within, step / training.model.render.step, 3, training.buffers, cone=0.0)
    around = _marched(training, beyond, _AROUND, 7, training.more_buffers)
    return surface_volume.behind(inside, around)


def _marched(training: Training, rays, scale: float, purpose: int, buffers, cone: float | None = None):
    """The samples of rays at steps `scale` times longer than a renderer's."""
    render = training.model.render
    render = dataclasses.replace(render, step=render.step * scale, cone=render.cone * scale if cone is None else cone)
    longest = volume.longest_step(render, training.model.grid)
    seed = stream(training.seed, purpose, training.step)
    lengths = {"step": render.step, "cone": render.cone, "max_step": max(longest, render.step)}
    return march(rays, training.model.grid, **lengths, jitter_seed=seed, buffers=buffers)


def frame_loss(training: Training, result, pixels, n: int) -> tuple[Tensor, float]:
    """Of what the first n rays see, `result`: the part of the loss that is of rays, and the mean squared error of their
    colours."""
    color = result.color + (1 - result.opacity)[:, None] * pixels.background[:n]
    wanted = pixels.color[:n]
    loss = RGB * huber(color, wanted)
    weight = training.model.config.mask
    if weight and training.has_alpha:
        loss = loss + weight * mask_loss(result.opacity, pixels.alpha[:n])
    return loss, float(mse(color.detach(), wanted))


def mask_loss(opacity: Tensor, alpha: Tensor) -> Tensor:
    """Mean cross-entropy of the rays' opacities W [N] and the mask m [N]; its gradient is (W - m) / (W (1 - W)) / N."""
    return mask_losses(opacity, alpha).mean()


def mask_losses(opacity: Tensor, alpha: Tensor) -> Tensor:
    """[N] that of each ray."""
    inside = opacity.clamp(_SURE, 1 - _SURE)
    # the gradient passes the clamp, or an opacity of 0 inside the mask would never be told
    inside = opacity + (inside - opacity).detach()
    return -(alpha * inside.log() + (1 - alpha) * (1 - inside).log())


def _check_gradients(training: Training) -> None:
    """A bad gradient anywhere shows in the networks' too, since every gradient passes through them."""
    model = training.model
    networks = model.field.networks + (() if model.outside is None else model.outside.networks)
    for network in networks:
        if not network.grad_into.isfinite().all():
            raise FloatingPointError(f"a gradient of step {training.step} is not finite")
    if not training.grad_sharpness.isfinite().all():
        raise FloatingPointError(f"the sharpness's gradient of step {training.step} is not finite")


def _next_rays(rays: int, samples: int, wanted: int) -> int:
    """Rays that would have filled the batch, in multiples of 64; at most doubled at a time."""
    scale = min(max(wanted / max(samples, 1), 0.5), 2.0)
    return min(max(int(rays * scale) // 64 * 64, 256), 1 << 17)
