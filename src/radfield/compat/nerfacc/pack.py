"""From the ray of each sample to where each ray's samples are."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import BadInput
from .segments import check_indices


@torch.no_grad()
def pack_info(ray_indices: Tensor, n_rays: int | None = None) -> Tensor:
    """[n_rays, 2], of the dtype of `ray_indices` [n_samples]: the first sample of each ray, and how many it has.

    n_rays: None is one more than the last ray with samples. Raises `BadInput` for numbers that are none of `n_rays`.
    """
    check_indices(ray_indices, ray_indices.numel())
    if n_rays is None and not len(ray_indices):
        raise BadInput("nerfacc: n_rays is None and there are no samples; the rule: n_rays is given then")
    if len(ray_indices):
        low, high = ray_indices.aminmax()
        n_rays = int(high) + 1 if n_rays is None else n_rays
        if low < 0 or high >= n_rays:
            found = f"goes from {int(low)} to {int(high)}"
            raise BadInput(f"nerfacc: ray_indices {found}; the rule: from 0 to below n_rays, {n_rays}")
    counts = torch.bincount(ray_indices, minlength=n_rays).to(ray_indices.dtype)
    return torch.stack((counts.cumsum(0, dtype=counts.dtype) - counts, counts), -1)
