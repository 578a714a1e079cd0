"""Volume rendering of a radiance field: march, ask the field, composite. Any field with `geometry`, `color_logits` and
`encode` will do; the renderer never asks which architecture it is.

Letters: N rays, M samples, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera_rays import camera_rays
from ..cameras import Cameras
from ..rays import Rays, Samples
from ..sampling.march import SampleBuffers, march
from ..sampling.occupancy import MIN_STEP, OccupancyGrid
from . import fused
from .composite import Composited, compact_streams, composite_raw


@dataclass(frozen=True)
class Config:
    """How rays are sampled."""

    step: float = MIN_STEP  # length of a step in scene units, with a cone the smallest
    cone: float = 0.0  # growth of a step per unit of distance: 0 in one cascade, 1/256 beyond
    near: float = 0.0  # nothing nearer to the camera than this is seen, in scene units
    stop: float = 1e-3  # transmittance at which a ray ends: a quarter of an 8-bit level


@dataclass(frozen=True)
class TrainingRender:
    """What a training step needs: the rays' colours and how much work they were."""

    color: Tensor  # [rays, 3]
    rays: int  # rays that fitted the budget, from the first on
    marched: int  # samples that were asked for their density
    live: int  # samples that their ray reaches: those that were trained
    left: Tensor  # [rays] the part of the background that shines through
    trace: Trace | None = None  # where asked for


@dataclass(frozen=True)
class Trace:
    """Where the M trained samples are: position [M, 3], whose gradient the backward pass leaves in `position.grad`,
    distance t [M], and index of their ray [M]."""

    position: Tensor
    t: Tensor
    ray: Tensor


class TrainingBuffers:
    """Memory of a training step's samples, kept between steps, for `capacity` samples and as many again."""

    def __init__(self, capacity: int):
        self.first, self.rest = SampleBuffers(capacity), SampleBuffers(capacity)


FIRST_SAMPLES = 16  # samples per ray that are asked for before it is known whether the ray goes on


def render_training(
    field,
    grid: OccupancyGrid,
    rays: Rays,
    background: Tensor,
    config: Config,
    seed: int,
    buffers: TrainingBuffers,
    *,
    latent: Tensor | None = None,
    traced: bool = False,
) -> TrainingRender:
    """Renders `rays` with gradients, `background` [N, 3] behind them. What `buffers` cannot hold is left out.
    latent: [N, A] of the rays' images, for a field with appearance; traced: keep the gradients by sample positions.

    Densities come first, of a ray's first samples and then, if light is left, of its others; what lies behind the point
    where the ray ends is dropped before anything is differentiated (instant-ngp's compaction), and the features found
    are used again. The two parts of a ray are composited like two rays and then blended.
    """
    samples = live_samples(field, grid, rays, config, seed, buffers)
    n, x = samples.rays, samples.x
    ray = samples.ray_index() if traced or latent is not None else None
    if traced:
        x.requires_grad_()
    logit, features = field.geometry(x, samples.encoded)
    colors = field.color_logits(features, samples.directions, *(() if latent is None else (latent[ray],)))
    color, left, _ = samples.composited(logit, colors, background)
    trace = Trace(x, 0.5 * (samples.t_start + samples.t_end), ray) if traced else None
    return TrainingRender(color, n, samples.marched, len(x), left, trace)


@dataclass(frozen=True)
class LiveSamples:
    """The M samples of training rays that the light reaches, and what is needed to composite them: each ray's first
    samples stand as a ray of their own, its others as a further one behind all of these."""

    x: Tensor  # [M, 3]
    directions: Tensor  # [M, 3]
    t_start: Tensor  # [M]
    t_end: Tensor  # [M]
    encoded: Tensor  # [M, C], of the field that found them
    ray_start: Tensor  # [first + further rays + 1]
    first: int  # rays that were marched, each a row of `ray_start`
    going: Tensor  # [G] the ray of each further row
    rays: int  # rays whose samples all fitted, from the first on
    marched: int  # samples that were asked for their density

    def ray_index(self) -> Tensor:
        """[M] int64: the ray of each sample."""
        return _ray_index(self.ray_start, self.first, self.going)

    def composited(self, logit: Tensor, color_logits: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Composited]:
        """Colour [rays, 3], `background` [N, 3] behind it, the part [rays] of the background that shines through, and
        what the rows of `ray_start` see, of a field's answers at the samples."""
        result = composite_raw(logit, color_logits, self.t_start, self.t_end, self.ray_start, stop=0.0)
        going, left = self.going, 1 - result.opacity[: self.rays]
        further = slice(self.first, self.first + len(going))
        color = result.color[: self.rays].index_add(0, going, left[going, None] * result.color[further])
        whole = left.index_put((going,), left[going] * (1 - result.opacity[further]))
        return color + whole[:, None] * background[: self.rays], whole, result

    def weights(self, seen: Composited) -> Tensor:
        """[M]: the part of its ray's colour that each sample is, of what `composited` saw."""
        reaching = torch.ones_like(seen.opacity)
        reaching[self.first : self.first + len(self.going)] = (1 - seen.opacity)[self.going]
        return seen.weights * reaching.repeat_interleave(self.ray_start.diff().long())


@torch.no_grad()
def live_samples(
    field, grid: OccupancyGrid, rays: Rays, config: Config, seed: int, buffers: TrainingBuffers
) -> LiveSamples:
    """The samples of `rays` in occupied cells, without those behind the point where `field` ends their ray. What
    `buffers` cannot hold is left out."""
    samples = _march(grid, rays, config, jitter_seed=seed, max_per_ray=FIRST_SAMPLES, buffers=buffers.first)
    first, seen = _live_part(field, samples, config)
    going = _going_on(samples, seen, FIRST_SAMPLES, config)
    near = samples.t_end[(samples.ray_start[1:][going] - 1).long()]
    further = Rays(rays.origins[going], rays.directions[going], near, None if rays.far is None else rays.far[going])
    rest = _march(grid, further, config, buffers=buffers.rest)
    second, _ = _live_part(field, rest, config)
    *streams, ray_start = _joined(first, second)
    n = samples.ray_count
    if rest.ray_count < len(going):  # the first ray whose samples do not all fit, and those after it, are left out
        n, going = int(going[rest.ray_count]), going[: rest.ray_count]
    return LiveSamples(*streams, ray_start, samples.ray_count, going, n, len(samples.x) + len(rest.x))


def _ray_index(ray_start: Tensor, rays: int, going: Tensor) -> Tensor:
    """[M] int64: the ray of each sample, where the parts of `rays` rays are followed by those of the rays `going`."""
    count = (ray_start[1:] - ray_start[:-1]).long()
    return torch.cat((torch.arange(rays, device=going.device), going[: len(count) - rays])).repeat_interleave(count)


def _live_part(field, samples: Samples, config: Config) -> tuple[tuple, Composited]:
    """Positions, directions, starts, ends and encodings of the samples that their ray reaches, where each ray's start,
    and what was composited to find them."""
    encoded = field.encode(samples.x)
    logit = field.geometry(samples.x, encoded)[0]
    seen = composite_raw(logit, None, samples.t_start, samples.t_end, samples.ray_start, stop=config.stop)
    streams = samples.x, samples.directions, samples.t_start, samples.t_end, encoded
    ray_start, *packed = compact_streams(samples.ray_start, seen.live, *streams)
    return (*packed, ray_start), seen


def _going_on(samples: Samples, seen: Composited, count: int, config: Config) -> Tensor:
    """Indices of the rays that have all `count` samples and light left."""
    full = samples.ray_start[1:] - samples.ray_start[:-1] == count
    return (full & (1 - seen.opacity > config.stop)).nonzero()[:, 0]


def _joined(first: tuple, second: tuple) -> list[Tensor]:
    """The samples and rays of `second` behind those of `first`, stored feature by feature."""
    *streams, start = zip(first, second, strict=True)
    joined = [torch.cat([a.T, b.T], -1).T if a.ndim == 2 else torch.cat([a, b]) for a, b in streams]
    return [*joined, torch.cat([start[0], start[1][1:] + start[0][-1]])]


@torch.no_grad()
def render_rays(
    field,
    grid: OccupancyGrid,
    rays: Rays,
    background: Tensor,
    config: Config,
    *,
    width: int = 0,
    nanoseconds: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [N, 3] on `background` [3] or [N, 3], opacity [N] and mean depth [N] (scene units, 0 where all is empty).

    Rays advance a few samples at a time and leave when they end, so that nothing behind a surface is asked for. They
    begin at their `near`, or at the config's where that is farther. width, nanoseconds: as of `fused.render_fused`, for
    fields that are rendered in one pass.
    """
    if fused.applies(field, rays.origins):
        return _render_fused(field, grid, rays, background, config, width=width, nanoseconds=nanoseconds)
    color, opacity, depth = seen_along(lambda samples: _ask(field, samples, config), grid, rays, config)
    return color + (1 - opacity)[:, None] * background, opacity, depth


def seen_along(
    ask, grid: OccupancyGrid, rays: Rays, config: Config, channels: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """What `render_rays` returns, in front of black: ask(samples) composites samples of any field, of so many channels.

    Rays advance a few samples at a time and leave when they end."""
    n, device = len(rays), rays.origins.device
    color, opacity, depth = (torch.zeros(*shape, device=device) for shape in ((n, channels), (n,), (n,)))
    alive, near = torch.arange(n, device=device), torch.full((n,), config.near, device=device)
    near = near if rays.near is None else near.maximum(rays.near)
    count = 4
    while len(alive):
        part = Rays(rays.origins[alive], rays.directions[alive], near, None if rays.far is None else rays.far[alive])
        samples = _march(grid, part, config, max_per_ray=count)
        seen = ask(samples)
        left = 1 - opacity[alive]
        color[alive] += left[:, None] * seen.color
        depth[alive] += left * seen.depth
        opacity[alive] += left * seen.opacity
        going = (samples.ray_start[1:] - samples.ray_start[:-1] == count) & (1 - opacity[alive] > config.stop)
        near = samples.t_end[(samples.ray_start[1:][going] - 1).long()]
        alive = alive[going]
        count = min(2 * count, 128)
    return color, opacity, depth / opacity.clamp(min=1e-6)


def _render_fused(field, grid, rays, background, config, **options):
    """`render_rays` in one pass."""
    steps = {"step": config.step, "cone": config.cone, "max_step": longest_step(config, grid), "stop": config.stop}
    color, opacity, depth = fused.render_fused(field, grid, _from_near(rays, config), **steps, **options)
    return color + (1 - opacity)[:, None] * background, opacity, depth / opacity.clamp(min=1e-6)


def _ask(field, samples: Samples, config: Config) -> Composited:
    logit, features = field.geometry(samples.x)
    colors = field.color_logits(features, samples.directions)
    return composite_raw(logit, colors, samples.t_start, samples.t_end, samples.ray_start, stop=config.stop)


def _from_near(rays: Rays, config: Config) -> Rays:
    """The rays from the config's near distance on, where their own is not farther."""
    if config.near <= 0:
        return rays
    near = torch.full((len(rays),), config.near, device=rays.origins.device)
    return Rays(rays.origins, rays.directions, near if rays.near is None else near.maximum(rays.near), rays.far)


def _march(grid, rays, config, **options) -> Samples:
    rays = _from_near(rays, config)
    return march(rays, grid, step=config.step, cone=config.cone, max_step=longest_step(config, grid), **options)


def longest_step(config: Config, grid: OccupancyGrid) -> float:
    """`max_step`: cone steps grow to the diagonal of a cell of the outermost cascade (instant-ngp's limit), or are all
    longer."""
    diagonal = MIN_STEP * 2 ** (grid.config.cascades - 1) * 1024 / grid.config.resolution
    return max(diagonal, config.step)


@dataclass(frozen=True)
class View:
    """A rendered view: color [H, W, 3] sRGB in [0, 1], opacity [H, W], depth [H, W] in scene units along the ray;
    normal [H, W, 3] of surfaces that know theirs, the mean along the ray (else it follows from depth: pictures.py)."""

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor | None = None

    def cpu(self) -> View:
        """The same view on the CPU."""
        normal = None if self.normal is None else self.normal.cpu()
        return View(self.color.cpu(), self.opacity.cpu(), self.depth.cpu(), normal)


RAYS_PER_CALL = 1 << 15
_FUSED_RAYS_PER_CALL = 1 << 17  # about: so many that threads wait little for the last tile


def render_view(field, grid: OccupancyGrid, cameras: Cameras, view: int, background: Tensor, config: Config) -> View:
    """Renders one view of `cameras` at its own size, on `background` [3]. Cameras, field and grid are on one device."""
    width, height = cameras.size[view].tolist()
    count, image = RAYS_PER_CALL, 0
    if fused.applies(field, cameras.focal):
        rows = fused.TILE_ROWS * max(1, _FUSED_RAYS_PER_CALL // (fused.TILE_ROWS * width))
        count, image = rows * width, width
    rays = view_rays(cameras, view, count)
    parts = [render_rays(field, grid, part, background, config, width=image) for part in rays]
    color, opacity, depth = (torch.cat(part) for part in zip(*parts, strict=True))
    return View(color.view(height, width, 3), opacity.view(height, width), depth.view(height, width))


def view_rays(cameras: Cameras, view: int, count: int = RAYS_PER_CALL):
    """Yields the rays of a view's pixels, row by row, `count` at a time."""
    width, height = cameras.size[view].tolist()
    device = cameras.size.device
    for begin in range(0, width * height, count):
        index = torch.arange(begin, min(begin + count, width * height), device=device)
        pixel = torch.stack([index % width + 0.5, index.div(width, rounding_mode="floor") + 0.5], 1)
        views = torch.full((len(index),), view, dtype=torch.int32, device=device)
        yield camera_rays(cameras, views, pixel)
