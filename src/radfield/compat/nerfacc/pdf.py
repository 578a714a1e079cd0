"""Searching and sampling along rays, batched (a row per ray) or flattened. Letters: N rays, S new samples of a ray."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import BadInput
from .data_specs import RayIntervals, RaySamples

_FLAT = 1e-10  # a rise of the distribution below this is none: its middle is taken


@torch.no_grad()
def searchsorted(
    sorted_sequence: RayIntervals | RaySamples, values: RayIntervals | RaySamples
) -> tuple[Tensor, Tensor]:
    """(left, right), int64 in the shape of `values.vals`: where each value lies in the sorted sequence of its ray,

        sorted_sequence.vals[left] <= value < sorted_sequence.vals[right];

    a value outside is taken as one at the end of the sequence, as far as it goes. The numbers count from the
    beginning of the row for batched values, from that of all values for flattened ones.
    """
    ray, *_ = values.rows()
    _, starts, counts = sorted_sequence.rows()
    _check_rays(ray, counts)
    first, last = starts[ray], (starts + counts - 1)[ray]
    batched = sorted_sequence.vals.ndim > 1 and values.vals.ndim > 1
    rows = len(starts) if batched and values.vals.shape[:-1].numel() == len(starts) else None
    above = _first_above(sorted_sequence.vals.flatten(), values.vals.flatten(), first, last, rows)
    left, right = (above - 1).clamp(first, last), above.clamp(first, last)
    if values.vals.ndim > 1:
        left, right = left - first, right - first
    return left.view(values.vals.shape), right.view(values.vals.shape)


def _first_above(sequence: Tensor, values: Tensor, first: Tensor, last: Tensor, rows: int | None) -> Tensor:
    """Of each value the first place in [first, last) where the sequence is above it, else last; by bisection. rows:
    where all rays have as many in the sequence, and as many values, the number of rays."""
    if rows:
        table = sequence.view(rows, -1)[:, :-1].contiguous()
        return first + torch.searchsorted(table, values.view(rows, -1).to(table.dtype), right=True).flatten()
    low, high = first.clone(), last.clone()
    for _ in range(int((last - first).amax()).bit_length() if len(values) else 0):
        middle = (low + high) // 2
        above = sequence[middle] > values
        searching = low < high
        high = torch.where(searching & above, middle, high)
        low = torch.where(searching & ~above, middle + 1, low)
    return low


@torch.no_grad()
def importance_sampling(
    intervals: RayIntervals, cdfs: Tensor, n_intervals_per_ray: Tensor | int, stratified: bool = False
) -> tuple[RayIntervals, RaySamples]:
    """(new intervals, their samples), drawn from a distribution along each ray by its inverse.

    cdfs: in the shape of `intervals.vals`, the cumulative distribution at the edges. n_intervals_per_ray: a number,
    then vals are [..., S + 1] and [..., S]; or [N], then they are flattened with packed_info, ray_indices, is_left and
    is_right. Samples are at equal steps of the distribution, in their middles, or where `stratified` all of a ray
    shifted by the same random part of a step. Edges are halfway between samples; the first and the last interval reach
    as far out as in, within the ray's edges. The one interval of a ray with one is all of the ray.
    """
    if cdfs.shape != intervals.vals.shape:
        found = f"{list(cdfs.shape)} and {list(intervals.vals.shape)}"
        raise BadInput(f"nerfacc: cdfs and intervals.vals are {found}; the rule: the same shape")
    _, starts, counts = intervals.rows()
    batched = not isinstance(n_intervals_per_ray, Tensor)
    wanted = torch.full_like(starts, n_intervals_per_ray) if batched else n_intervals_per_ray.flatten().long()
    if len(wanted) != len(starts) or bool((wanted < int(batched)).any()):
        raise BadInput(
            f"nerfacc: n_intervals_per_ray is {_shown(n_intervals_per_ray)}; the rule: above 0, or as many as rays, "
            f"{len(starts)}, from 0"
        )
    ray = torch.arange(len(starts), device=starts.device).repeat_interleave(wanted)
    _check_rays(ray, counts)
    first, last = starts[ray], (starts + counts - 1)[ray]
    number = torch.arange(len(ray), device=ray.device) - (wanted.cumsum(0) - wanted)[ray]
    jitter = torch.rand(len(starts), dtype=cdfs.dtype, device=ray.device)[ray] if stratified else 0.5
    vals, cdf = intervals.vals.flatten(), cdfs.flatten()
    u = cdf[first] + (number + jitter) * ((cdf[last] - cdf[first]) / wanted[ray])
    rows = len(starts) if batched and intervals.vals.ndim > 1 else None
    samples = _inverse(vals, cdf, u, first, last, rows)
    edges = _edges(samples, vals[first], vals[last], number, wanted[ray])
    if batched:
        shape = intervals.vals.shape[:-1] if intervals.vals.ndim > 1 else starts.shape
        samples = samples.view(*shape, n_intervals_per_ray)
        left, right = (edge.view(samples.shape) for edge in edges)
        return RayIntervals(torch.cat((left, right[..., -1:]), -1)), RaySamples(samples)
    return _flattened(edges, ray, wanted), RaySamples(samples, _packed(wanted), ray)


def _inverse(vals: Tensor, cdf: Tensor, u: Tensor, first: Tensor, last: Tensor, rows: int | None) -> Tensor:
    """Where the distribution is u, linear between edges."""
    above = _first_above(cdf, u, first, last, rows)
    low, high = (above - 1).clamp(first, last), above.clamp(first, last)
    rise, width = cdf[high] - cdf[low], vals[high] - vals[low]
    part = torch.where(rise < _FLAT, 0.5, (u - cdf[low]) / rise.clamp_min(_FLAT))
    return vals[low] + part * width


def _edges(samples: Tensor, t_min: Tensor, t_max: Tensor, number: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right edge of each sample's interval."""
    is_first, is_last = number == 0, number == wanted - 1
    half = (samples[1:] - samples[:-1]) / 2  # half the way to the next sample; of the last of a ray without meaning
    to_next = torch.cat((half, half.new_zeros(min(len(samples), 1))))
    to_last = torch.cat((half.new_zeros(min(len(samples), 1)), half))
    left = torch.where(is_first, torch.maximum(samples - to_next, t_min), samples - to_last)
    right = torch.where(is_last, torch.minimum(samples + to_last, t_max), samples + to_next)
    alone = wanted == 1
    return torch.where(alone, t_min, left), torch.where(alone, t_max, right)


def _flattened(edges: tuple[Tensor, Tensor], ray: Tensor, wanted: Tensor) -> RayIntervals:
    """The intervals of rays with different numbers of them: n + 1 edges a ray, none where there are none."""
    left, right = edges
    counts = torch.where(wanted > 0, wanted + 1, 0)
    packed, at = _packed(counts), torch.arange(len(ray), device=ray.device) - (wanted.cumsum(0) - wanted)[ray]
    place, total = packed[ray, 0] + at, int(counts.sum())
    is_left, is_right = torch.zeros(2, total, dtype=torch.bool, device=ray.device)
    vals, rays = left.new_zeros(total), ray.new_zeros(total)
    for edge, where, mark in ((right, place + 1, is_right), (left, place, is_left)):
        vals[where], rays[where], mark[where] = edge, ray, True
    return RayIntervals(vals, packed, rays, is_left, is_right)


def _packed(counts: Tensor) -> Tensor:
    return torch.stack((counts.cumsum(0) - counts, counts), -1)


def _check_rays(ray: Tensor, counts: Tensor) -> None:
    """Every ray that is asked for has values."""
    if len(ray) and (int(ray.max()) >= len(counts) or bool((counts[ray] < 1).any())):
        raise BadInput(f"nerfacc: ray {int(ray.max())} or one before it has no values; the rule: at least one each")


def _shown(value: Tensor | int) -> str:
    return (
        f"{list(value.shape)}, the least {int(value.min()) if value.numel() else None}"
        if isinstance(value, Tensor)
        else str(value)
    )
