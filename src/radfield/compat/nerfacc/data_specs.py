"""What lies along rays, batched (a row per ray) or flattened (all rays one after another). Letter: N rays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from .segments import check_indices, starts_of_indices, starts_of_packed


class _AlongRays:
    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.vals.device

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """(the ray of each value, flattened; the number of each ray's first value, [N]; how many it has, [N]).

        Raises `BadInput` for flattened values of which nothing says whose they are.
        """
        if self.vals.ndim > 1:
            each, rays = self.vals.shape[-1], self.vals.shape[:-1].numel()
            starts = torch.arange(rays, device=self.device) * each
            return starts.repeat_interleave(each) // max(each, 1), starts, torch.full_like(starts, each)
        if self.packed_info is not None:
            ray_start = starts_of_packed(self.packed_info, len(self.vals))
        elif self.ray_indices is not None:
            ray_start = starts_of_indices(self.ray_indices, None, len(self.vals))
        else:
            raise BadInput("nerfacc: vals is flattened without packed_info or ray_indices; the rule: one of them")
        ray = self.ray_indices
        if ray is None:
            ray = torch.arange(len(ray_start) - 1, device=self.device).repeat_interleave(ray_start.diff())
        check_indices(ray, len(self.vals))
        return ray, ray_start[:-1], ray_start.diff()


@dataclass
class RaySamples(_AlongRays):
    """Values at samples.

    vals: [..., n_samples], or flattened [all_samples]; then packed_info [N, 2] (start and count of each ray) or
    ray_indices [all_samples] say whose they are. is_valid [all_samples]: which were written, of over-allocated ones.
    """

    vals: Tensor
    packed_info: Tensor | None = None
    ray_indices: Tensor | None = None
    is_valid: Tensor | None = None


@dataclass
class RayIntervals(_AlongRays):
    """The edges of intervals.

    vals: [..., n_edges], or flattened [all_edges]; then packed_info [N, 2] (start and count of each ray) or ray_indices
    [all_edges] say whose they are, and is_left, is_right [all_edges] at which of them an interval begins and ends.
    """

    vals: Tensor
    packed_info: Tensor | None = None
    ray_indices: Tensor | None = None
    is_left: Tensor | None = None
    is_right: Tensor | None = None
