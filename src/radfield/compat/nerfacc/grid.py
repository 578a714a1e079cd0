"""Rays and boxes, and rays through grids of occupied cells. Letters: N rays, K grids, m boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import BadInput
from .data_specs import RayIntervals, RaySamples
from .traversal import Traversed, traverse


@torch.no_grad()
def ray_aabb_intersect(
    rays_o: Tensor,
    rays_d: Tensor,
    aabbs: Tensor,
    near_plane: float = -float("inf"),
    far_plane: float = float("inf"),
    miss_value: float = float("inf"),
) -> tuple[Tensor, Tensor, Tensor]:
    """(where each ray enters each box, where it leaves it, whether it meets it), [N, m] each.

    rays_o, rays_d: [N, 3]. aabbs: [m, 6], lower and upper corners. What is met begins at `near_plane` at the earliest
    and ends at `far_plane` at the latest; a box behind the ray is not met; for what is not met both are `miss_value`.
    """
    _check_rays(rays_o, rays_d)
    _check("aabbs", aabbs, (None, 6))
    low, high = aabbs[None, :, :3], aabbs[None, :, 3:]
    o, d = rays_o[:, None], rays_d[:, None]
    to_low, to_high = (low - o) / d, (high - o) / d
    # along an axis that the ray does not move on it is always between the two planes, or never
    still, between = d == 0, (low <= o) & (o <= high)
    enters = torch.where(still, torch.where(between, -math.inf, math.inf), torch.minimum(to_low, to_high)).amax(-1)
    leaves = torch.where(still, torch.where(between, math.inf, -math.inf), torch.maximum(to_low, to_high)).amin(-1)
    hits = (enters <= leaves) & (leaves > 0) & ~still.all(-1)
    enters = torch.where(hits, enters.clamp_min(near_plane), miss_value)
    leaves = torch.where(hits, leaves.clamp_max(far_plane), miss_value)
    return enters, leaves, hits


@torch.no_grad()
def traverse_grids(
    rays_o: Tensor,
    rays_d: Tensor,
    binaries: Tensor,
    aabbs: Tensor,
    near_planes: Tensor | None = None,
    far_planes: Tensor | None = None,
    step_size: float | None = 1e-3,
    cone_angle: float | None = 0.0,
    traverse_steps_limit: int | None = None,
    over_allocate: bool | None = False,
    rays_mask: Tensor | None = None,
    t_sorted: Tensor | None = None,
    t_indices: Tensor | None = None,
    hits: Tensor | None = None,
) -> tuple[RayIntervals, RaySamples, Tensor]:
    """(the intervals of the rays in occupied cells, their middles, where the traversal of each ray ended [N]).

    rays_o, rays_d: [N, 3] float32. binaries: [K, X, Y, Z] bool, of the grids in `aabbs` [K, 6], each inside the next;
    the inner one counts. near_planes, far_planes: [N], 0 and infinity by default. step_size: of steps along rays, of
    which those are samples whose middle is in an occupied cell; not positive: a sample is what a ray has of an occupied
    cell. cone_angle: how much steps grow per unit of distance. traverse_steps_limit: most samples of a ray; where
    `over_allocate` the values have that many places per ray (edges twice as many), of which `is_valid`, `is_left` and
    `is_right` say what is in use. rays_mask: [N] bool, the rays that are traversed. t_sorted, t_indices [N, 2 K], hits
    [N, K]: the sorted results of `ray_aabb_intersect`, where they are known.
    """
    limit = traverse_steps_limit or 0
    if over_allocate and limit <= 0:
        raise BadInput(f"nerfacc: traverse_steps_limit is {traverse_steps_limit}; the rule: positive to over_allocate")
    options = (rays_o, rays_d, binaries, aabbs, near_planes, far_planes, step_size, cone_angle, limit)
    found = traverse(grid_scene(*options, rays_mask, t_sorted, t_indices, hits), edges=True)
    counts = found.edge_start.diff(), found.sample_start.diff()
    edges = RayIntervals(found.edge, _packed(counts[0]), found.edge_ray, found.is_left, found.is_right)
    valid = torch.ones_like(found.ray_index, dtype=torch.bool)
    samples = RaySamples((found.t_start + found.t_end) / 2, _packed(counts[1]), found.ray_index, valid)
    if over_allocate:
        allocated = torch.ones_like(counts[0]) if rays_mask is None else rays_mask.long()
        _spread(edges, counts[0], allocated * 2 * limit, ("vals", "ray_indices", "is_left", "is_right"))
        _spread(samples, counts[1], allocated * limit, ("vals", "ray_indices", "is_valid"))
    return edges, samples, found.reached


def _packed(counts: Tensor) -> Tensor:
    return torch.stack((counts.cumsum(0) - counts, counts), -1)


def _spread(values: RayIntervals | RaySamples, counts: Tensor, places: Tensor, names: tuple[str, ...]) -> None:
    """Puts what each ray has, `counts`, at the beginning of its `places`; the others are 0."""
    free = (places - counts).cumsum(0) - (places - counts)  # places not in use before each ray
    target = torch.arange(int(counts.sum()), device=counts.device) + free.repeat_interleave(counts)
    for name in names:
        value = getattr(values, name)
        setattr(values, name, value.new_zeros(int(places.sum())).index_copy(0, target, value))


def sampled(rays_o, rays_d, binaries, aabbs, near_planes, far_planes, step_size, cone_angle) -> Traversed:
    """What `OccGridEstimator.sampling` takes of a traversal: samples, no edges."""
    options = (rays_o, rays_d, binaries, aabbs, near_planes, far_planes, step_size, cone_angle, 0)
    return traverse(grid_scene(*options), edges=False)


def grid_scene(
    rays_o, rays_d, binaries, aabbs, near_planes, far_planes, step_size, cone_angle, limit,
    rays_mask=None, t_sorted=None, t_indices=None, hits=None,
) -> dict:  # fmt: skip
    """The arguments of a traversal by their names there (`traversal.py`), checked."""
    _check_rays(rays_o, rays_d)
    n, k = len(rays_o), len(aabbs)
    _check("aabbs", aabbs, (k, 6))
    _check("binaries", binaries, (k, None, None, None), torch.bool)
    if min(binaries.shape) < 1:
        raise BadInput(f"nerfacc: binaries is {list(binaries.shape)}; the rule: at least one grid and one cell")
    step, cone = float(step_size or 0.0), float(cone_angle or 0.0)
    if not (step < math.inf and 0 <= cone < math.inf):
        raise BadInput(f"nerfacc: step_size is {step}, cone_angle {cone}; the rule: finite, cone_angle at least 0")
    near = torch.zeros_like(rays_o[:, 0]) if near_planes is None else near_planes
    far = torch.full_like(rays_o[:, 0], math.inf) if far_planes is None else far_planes
    if t_sorted is None or t_indices is None or hits is None:
        enters, leaves, hits = ray_aabb_intersect(rays_o, rays_d, aabbs)
        t_sorted, t_indices = torch.cat((enters, leaves), -1).sort(-1)
    elif t_indices.numel() and not 0 <= int(t_indices.min()) <= int(t_indices.max()) < 2 * k:
        found = f"from {int(t_indices.min())} to {int(t_indices.max())}"
        raise BadInput(f"nerfacc: t_indices goes {found}; the rule: from 0 to below {2 * k}, twice the grids")
    shapes = {"near_planes": (near, (n,)), "far_planes": (far, (n,)), "t_sorted": (t_sorted, (n, 2 * k))}
    shapes |= {"t_indices": (t_indices, (n, 2 * k)), "hits": (hits, (n, k))}
    shapes |= {} if rays_mask is None else {"rays_mask": (rays_mask, (n,))}
    for name, (value, shape) in shapes.items():
        _check(name, value, shape)
    return dict(
        origins=rays_o.detach().float().contiguous(),
        directions=rays_d.detach().float().contiguous(),
        near=near.float().contiguous(),
        far=far.float().contiguous(),
        mask=None if rays_mask is None else rays_mask.bool().contiguous().view(torch.uint8),
        t_sorted=t_sorted.float().contiguous(),
        t_indices=t_indices.long().contiguous(),
        hits=hits.bool().contiguous().view(torch.uint8),
        occupied=binaries.contiguous().view(torch.uint8),
        aabbs=aabbs.float().contiguous(),
        step=step,
        cone=cone,
        limit=limit,
    )


def enlarged(aabb: Tensor, factor: float) -> Tensor:
    """[6], the box `aabb` [6] with the same centre and `factor` times its sides."""
    low, high = aabb.split(3)
    centre, half = (low + high) / 2, (high - low) / 2 * factor
    return torch.cat((centre - half, centre + half))


def _check_rays(rays_o: Tensor, rays_d: Tensor) -> None:
    _check("rays_o", rays_o, (None, 3))
    _check("rays_d", rays_d, (len(rays_o), 3))


def _check(name: str, value: Tensor, shape: tuple, dtype: torch.dtype | None = None) -> None:
    fits = value.ndim == len(shape) and all(b in (None, a) for a, b in zip(value.shape, shape, strict=True))
    if not fits or (dtype is not None and value.dtype != dtype):
        rule = ", ".join("any" if size is None else str(size) for size in shape)
        of = "" if dtype is None else f" of {dtype}"
        raise BadInput(f"nerfacc: {name} is {list(value.shape)} of {value.dtype}; the rule: [{rule}]{of}")
