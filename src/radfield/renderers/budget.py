"""Rendering a batch of training rays on a device with a fixed budget: no value is brought to the host, and no shape
depends on one, so that a whole training step can be captured in a CUDA graph. What is computed is what
`volume.render_training` computes (Mueller et al. 2022, Instant-NGP, appendix E), laid out for this:

- each of the N rays has its two parts in the rows i and N + i, with no samples where it ends in the first part;
- streams have the rows of their budget, and the number of rows in use stands on the device (`count`);
- rays beyond the number in use have an empty interval.

Letters: N rays, M samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..rays import Rays
from ..sampling.march import SampleBuffers, march_budget
from ..sampling.occupancy import OccupancyGrid
from .composite import compact_streams, composite_raw, live_start
from .volume import FIRST_SAMPLES, Config, longest_step

MOST_SAMPLES = 1024  # of a ray, behind its first ones


class Budget:
    """The memory of a step: `marched` samples in each of the two parts of the rays, `live` ones that are trained."""

    def __init__(self, marched: int, live: int):
        self.first, self.rest, self.live = SampleBuffers(marched), SampleBuffers(marched), live


class BudgetRender(NamedTuple):
    """What a step needs; all on the device. color: [N, 3]; used: [N] bool, the rays that were rendered, the first
    `rays`; rays, marched, live: [1] int64, as in `volume.TrainingRender`."""

    color: Tensor
    used: Tensor
    rays: Tensor
    marched: Tensor
    live: Tensor


def render_budget(
    field,
    grid: OccupancyGrid,
    rays: Rays,
    in_use: Tensor,
    background: Tensor,
    config: Config,
    schedule: Tensor,
    budget: Budget,
) -> BudgetRender:
    """Renders the first `in_use` ([1] int64) of `rays` with gradients, `background` [N, 3] behind them.

    config: the sampling with the shortest steps of the training; schedule: [4] float64 on the device, the steps in use
    (`march_budget`). Rays from the first that no longer fits into `budget` on are left out.
    """
    n = len(rays)
    with torch.no_grad():
        index = torch.arange(n, device=rays.origins.device)
        wanted = index < in_use
        near = torch.full((n,), config.near, device=index.device)
        ask = _Asking(field, grid, config, schedule)
        first, found, encoded, seen = ask(rays, near, wanted, budget.first, jitter=True, max_per_ray=FIRST_SAMPLES)
        count = first.ray_start.diff()
        going = (count == FIRST_SAMPLES) & (1 - seen.opacity > config.stop)
        near = first.t_end[(first.ray_start[1:] - 1).clamp_min(0).long()]
        rest, more, encoded_rest, behind = ask(rays, near, going, budget.rest, jitter=False, max_per_ray=MOST_SAMPLES)
        live = torch.cat((seen.live, behind.live))
        kept = torch.minimum(torch.minimum(found[:1], more[:1]), in_use)
        kept = torch.minimum(kept, _fitting(live[:n] + live[n:], budget.live))
        used = index < kept
        live = live.masked_fill(~used.repeat(2), 0)
        starts = torch.cat((first.ray_start[:-1], rest.ray_start + len(first.x)))
        streams = [
            _behind(getattr(first, name), getattr(rest, name)) for name in ("x", "directions", "t_start", "t_end")
        ]
        packed = compact_streams(starts, live, *streams, _behind(encoded, encoded_rest), capacity=budget.live)
        ray_start, x, directions, t_start, t_end, encoded = packed
        rows = ray_start[-1:].long()
    logit, features = field.geometry(x, encoded, count=rows)
    colors = field.color_logits(features, directions, count=rows)
    result = composite_raw(logit, colors, t_start, t_end, ray_start, stop=0.0)
    left = 1 - result.opacity
    color = result.color[:n] + left[:n, None] * result.color[n:] + (left[:n] * left[n:])[:, None] * background
    return BudgetRender(color, used, kept, found[1:] + more[1:], rows)


class _Asking(NamedTuple):
    """What both parts of the rays are asked with."""

    field: Any
    grid: OccupancyGrid
    config: Config
    schedule: Tensor

    def __call__(self, rays: Rays, near: Tensor, wanted: Tensor, buffers: SampleBuffers, **limits):
        """The samples of the `wanted` rays from `near` on, rays kept and samples found, the samples' features, and what
        was composited of them."""
        config, field = self.config, self.field
        far = torch.full_like(near, torch.inf) if rays.far is None else rays.far
        part = Rays(rays.origins, rays.directions, near, far.masked_fill(~wanted, -1.0))  # none: ends before it begins
        steps = {"step": config.step, "cone": config.cone, "max_step": longest_step(config, self.grid)}
        samples, totals = march_budget(part, self.grid, schedule=self.schedule, buffers=buffers, **steps, **limits)
        encoded = field.encode(samples.x, count=totals[1:])
        logit = field.geometry(samples.x, encoded, count=totals[1:])[0]
        seen = composite_raw(logit, None, samples.t_start, samples.t_end, samples.ray_start, stop=config.stop)
        return samples, totals, encoded, seen


def _fitting(counts: Tensor, capacity: int) -> Tensor:
    """[1] int64: how many rays, from the first on, have no more than `capacity` samples together."""
    return (live_start(counts)[1:] <= capacity).sum(dtype=torch.int64).view(1)


def _behind(a: Tensor, b: Tensor) -> Tensor:
    """The rows of `b` behind those of `a`, stored feature by feature."""
    return torch.cat([a.T, b.T], -1).T if a.ndim == 2 else torch.cat([a, b])
