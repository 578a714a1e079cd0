"""Ray marching in plain torch, testing every step of every ray: the specification of `march.cpp`.

Same arguments, outputs first and written in place. Constant steps give the same bits as native code; with a cone,
exponential and logarithm are rounded differently, so that a sample at the border of a cell may differ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import cascade_box, intersect_box
from .occupancy_reference import finest_cascade, spread3, unpack
from .random import random_bits, unit_float


def count(ray_start, totals, chunks, max_per_ray, max_samples, most_steps, skip, **scene):
    """Where the samples of each ray start; what is for speed (chunks, skip) is ignored."""
    found = _occupied_steps(**scene)[0].sum(-1).clamp_max(max_per_ray)
    fits = found.cumsum(0) <= max_samples
    ray_start[0] = 0
    ray_start[1:] = torch.where(fits, found, 0).cumsum(0)
    totals.copy_(torch.stack((fits.sum(), torch.where(fits, found, 0).sum())))


def fill(x, directions_out, t_start, t_end, ray_index, ray_start, **scene):
    """The samples themselves."""
    occupied, t0, t1, points = _occupied_steps(**scene)
    kept = occupied & (occupied.cumsum(-1) <= ray_start.diff()[:, None])
    x.copy_(points[kept].T)
    t_start.copy_(t0[kept])
    t_end.copy_(t1[kept])
    ray = kept.nonzero()[:, 0]
    if directions_out is not None:
        directions_out.copy_(scene["directions"][:, ray])
    if ray_index is not None:
        ray_index.copy_(ray.int())


def _occupied_steps(origins, directions, near, far, bitfield, near_blocks, resolution, cascades, jitter, seed, **steps):
    # ([N, I] bool, start, end [N, I], middle points [N, I, 3]) of I steps, enough for the longest ray
    origins, directions = origins.T, directions.T
    low, high = _interval(origins, directions, near, far, cascades)
    start, most = _start(low, high, **steps)
    number = int(most.clamp_min(0).max().ceil()) + 2 if len(most) else 0
    offset = torch.zeros(len(low), device=low.device)
    if jitter:
        offset = unit_float(random_bits(seed, torch.arange(len(low), device=low.device)))
    i = torch.arange(number, device=low.device)
    offset = offset[:, None]
    t0, middle, t1 = (_time(start[:, None], s, **steps) for s in (i + offset, i + (offset + 0.5), i + 1 + offset))
    x = origins[:, None] + middle[..., None] * directions[:, None]
    length = (middle * steps["cone"]).clamp(steps["step"], steps["max_step"])
    cell = cell_of_step(x, length, resolution, cascades)
    return unpack(bitfield)[cell] & (middle < high[:, None]) & (low < high)[:, None], t0, t1, x


def _interval(origins, directions, near, far, cascades) -> tuple[Tensor, Tensor]:
    low, high = intersect_box(origins, directions, *cascade_box(cascades - 1))
    low = low if near is None else torch.maximum(low, near)
    high = high if far is None else torch.minimum(high, far)
    finite = (origins.sum(-1) + directions.sum(-1) + high).isfinite() & ~low.isnan()
    return torch.where(finite, low, 0), torch.where(finite, high, 0)


def cell_of_step(x: Tensor, length: Tensor, resolution: int, cascades: int) -> Tensor:
    """The cells [...] that steps of these lengths [...] with their middles at x [..., 3] look at."""
    by_length = torch.frexp(length * (2.0 * resolution)).exponent
    k = torch.maximum(finest_cascade(x.reshape(-1, 3), cascades).view(x.shape[:-1]), by_length).clamp(0, cascades - 1)
    inverse_side = torch.exp2(-k.float())[..., None]
    coordinate = (((x - 0.5) * inverse_side) * resolution + 0.5 * resolution).long().clamp(0, resolution - 1)
    a, b, c = spread3(coordinate).unbind(-1)
    return k.long() * resolution**3 + (a | (b << 1) | (c << 2))


def _start(low: Tensor, high: Tensor, **steps) -> tuple[Tensor, Tensor]:
    # (what `_time` calls start, steps between low and high)
    if steps["cone"] == 0:
        return low, (high - low) / steps["step"]
    start = stepping_space(low, **steps)
    return start, stepping_space(high, **steps) - start


def stepping_space(t: Tensor, step: float, cone: float, max_step: float) -> Tensor:
    """The u of distance t, in which every step has length 1; see march.h: Stepping. cone > 0."""
    growth, (t_low, t_high), (u_low, u_high) = _table(step, cone, max_step)
    middle = t.clamp_min(t_low).log() / growth
    upper = (t - t_high) / max_step + u_high
    return torch.where(t <= t_low, (t - t_low) / step + u_low, torch.where(t <= t_high, middle, upper))


def _time(start: Tensor, s: Tensor, step: float, cone: float, max_step: float) -> Tensor:
    if cone == 0:
        return start + s * torch.tensor(step, dtype=torch.float32, device=s.device)
    growth, (t_low, t_high), (u_low, u_high) = _table(step, cone, max_step)
    u = start + s
    middle, upper = (u * growth).exp(), (u - u_high) * max_step + t_high
    return torch.where(u <= u_low, (u - u_low) * step + t_low, torch.where(u <= u_high, middle, upper))


def _table(step: float, cone: float, max_step: float):
    growth = math.log1p(cone)
    limits = step / growth, max_step / growth
    return growth, limits, tuple(math.log(t) / growth for t in limits)
