"""The distortion loss of Mip-NeRF 360 (Barron et al. 2022, eq. 15), of flattened samples."""

from __future__ import annotations

from torch import Tensor

from ...errors import BadInput
from .segments import segment_scan, starts_of_indices
from .volrend import accumulate_along_rays


def distortion(weights: Tensor, t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor, n_rays: int) -> Tensor:
    """[n_rays, 1], how far apart the weights of each ray lie: with the middles m and the lengths d of its samples

        sum_i sum_j w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i

    All of [all_samples], samples in order along each ray, so that the double sum is two running ones. Raises `BadInput`
    where the shapes differ.
    """
    shapes = [list(value.shape) for value in (weights, t_starts, t_ends, ray_indices)]
    if shapes.count(shapes[0]) < 4:
        raise BadInput(f"nerfacc: weights, t_starts, t_ends, ray_indices are {shapes}; the rule: all [all_samples]")
    ray_start = starts_of_indices(ray_indices, n_rays, len(weights))
    middles = (t_starts + t_ends) / 2
    before = segment_scan(weights, ray_start, product=False, exclusive=True)
    before_times_middle = segment_scan(weights * middles, ray_start, product=False, exclusive=True)
    between = 2 * weights * (middles * before - before_times_middle)
    within = weights.square() * (t_ends - t_starts) / 3
    return accumulate_along_rays(between + within, None, ray_indices, n_rays)
