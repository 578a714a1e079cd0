"""Sampling in the occupied cells of nested grids (Mueller et al. 2022, Instant NGP). Letters: N rays, L levels, C cells
of a level, M samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ....errors import BadInput
from ..grid import enlarged, sampled
from ..segments import segment_scan
from .base import AbstractEstimator


class OccGridEstimator(AbstractEstimator):
    """Grids of cells of which each is occupied or not, each level twice as large as the last and with its centre.

    roi_aabb: [6], the box of level 0. resolution: cells along the axes. Buffers, all in the state_dict: resolution [3],
    aabbs [L, 6], occs [L C] (the density times a step length that was met in a cell, fading; -1 where no camera sees
    it), binaries [L, X, Y, Z] (which cells are occupied).
    """

    DIM: int = 3

    def __init__(
        self,
        roi_aabb: list[int] | Tensor,
        resolution: int | list[int] | Tensor = 128,
        levels: int = 1,
        **kwargs,
    ) -> None:
        super().__init__()
        if "contraction_type" in kwargs:
            raise BadInput("nerfacc: contraction_type is given; the rule: there is none since nerfacc 0.4")
        resolution = torch.as_tensor([resolution] * 3 if isinstance(resolution, int) else resolution, dtype=torch.int32)
        roi_aabb = torch.as_tensor(roi_aabb, dtype=torch.float32)
        if resolution.shape != (3,) or int(resolution.min()) < 1:
            raise BadInput(f"nerfacc: resolution is {resolution.tolist()}; the rule: one or three numbers from 1")
        if roi_aabb.shape != (6,) or not bool((roi_aabb[:3] < roi_aabb[3:]).all()):
            raise BadInput(f"nerfacc: roi_aabb is {roi_aabb.tolist()}; the rule: lower corner, then upper corner")
        if levels < 1:
            raise BadInput(f"nerfacc: levels is {levels}; the rule: at least 1")
        self.levels, self.cells_per_lvl = levels, int(resolution.prod())
        shape = resolution.tolist()
        self.register_buffer("resolution", resolution)
        self.register_buffer("aabbs", torch.stack([enlarged(roi_aabb, 2**level) for level in range(levels)]))
        self.register_buffer("occs", torch.zeros(levels * self.cells_per_lvl))
        self.register_buffer("binaries", torch.zeros([levels, *shape], dtype=torch.bool))
        self.register_buffer("grid_coords", torch.cartesian_prod(*map(torch.arange, shape)), persistent=False)
        self.register_buffer("grid_indices", torch.arange(self.cells_per_lvl), persistent=False)

    @torch.no_grad()
    def sampling(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        sigma_fn: Callable | None = None,
        alpha_fn: Callable | None = None,
        near_plane: float = 0.0,
        far_plane: float = 1e10,
        t_min: Tensor | None = None,
        t_max: Tensor | None = None,
        render_step_size: float = 1e-3,
        early_stop_eps: float = 1e-4,
        alpha_thre: float = 0.0,
        stratified: bool = False,
        cone_angle: float = 0.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(ray_indices [M] int64, t_starts [M], t_ends [M]) of the samples of rays_o, rays_d [N, 3], ray after ray.

        Steps of `render_step_size` (growing by `cone_angle`) from the larger of near_plane and t_min [N] to the smaller
        of far_plane and t_max [N], in occupied cells; where `stratified` from a random part of a step further. Given
        sigma_fn, or alpha_fn, (t_starts, t_ends, ray_indices) -> densities, or opacities, [M], the samples that less
        light than `early_stop_eps` reaches, or whose opacity is below alpha_thre (or the mean of `occs`, if that is
        less), are left out.
        """
        near, far = (torch.full_like(rays_o[..., 0], plane) for plane in (near_plane, far_plane))
        near = near if t_min is None else near.clamp(min=t_min)
        far = far if t_max is None else far.clamp(max=t_max)
        if stratified:
            near = near + torch.rand_like(near) * render_step_size
        found = sampled(rays_o, rays_d, self.binaries, self.aabbs, near, far, render_step_size, cone_angle)
        samples = found.t_start, found.t_end, found.ray_index
        if (alpha_thre > 0.0 or early_stop_eps > 0.0) and (sigma_fn or alpha_fn) is not None:
            seen = self._visible(samples, found.sample_start, sigma_fn, alpha_fn, early_stop_eps, alpha_thre)
            kept = seen.nonzero()[:, 0]
            samples = samples if len(kept) == len(seen) else tuple(value.index_select(0, kept) for value in samples)
        t_starts, t_ends, ray_indices = samples
        return ray_indices, t_starts, t_ends

    def _visible(self, samples, ray_start, sigma_fn, alpha_fn, early_stop_eps: float, alpha_thre: float) -> Tensor:
        t_starts, t_ends, _ = samples
        values = (sigma_fn or alpha_fn)(*samples) if len(t_starts) else t_starts
        if values.shape != t_starts.shape:
            name = "sigma_fn" if sigma_fn else "alpha_fn"
            raise BadInput(f"nerfacc: {name} gave {list(values.shape)}; the rule: {list(t_starts.shape)}")
        if sigma_fn:
            left = values * (t_starts - t_ends)  # the logarithm of what a sample lets through
            trans = segment_scan(left, ray_start, product=False, exclusive=True).exp()
        else:
            trans = segment_scan(1 - values, ray_start, product=True, exclusive=True)
        least = min(alpha_thre, float(self.occs.mean())) if alpha_thre > 0 else 0.0
        if not least > 0:
            return trans >= early_stop_eps
        return (trans >= early_stop_eps) & ((-left.expm1() if sigma_fn else values) >= least)

    @torch.no_grad()
    def update_every_n_steps(
        self,
        step: int,
        occ_eval_fn: Callable,
        occ_thre: float = 1e-2,
        ema_decay: float = 0.95,
        warmup_steps: int = 256,
        n: int = 16,
    ) -> None:
        """Every `n` steps asks occ_eval_fn, points [P, 3] -> density times step length [P, 1] (or [P]), at a random
        point in each cell (from `warmup_steps` on in a quarter of them and as many occupied ones). A cell keeps the
        larger of what is found and `ema_decay` of what it had, and is occupied where that is above `occ_thre` or the
        mean of all, whichever is less. Raises `BadInput` in evaluation mode."""
        if not self.training:
            raise BadInput("nerfacc: update_every_n_steps is called in evaluation mode; the rule: train() before")
        if step % n == 0:
            self._update(step, occ_eval_fn, occ_thre, ema_decay, warmup_steps)

    @torch.no_grad()
    def _update(
        self,
        step: int,
        occ_eval_fn: Callable,
        occ_thre: float = 0.01,
        ema_decay: float = 0.95,
        warmup_steps: int = 256,
    ) -> None:
        if step < warmup_steps:
            drawn = self._get_all_cells()
        else:
            drawn = self._sample_uniform_and_occupied_cells(self.cells_per_lvl // 4)
        for level, cells in enumerate(drawn):
            coordinates = self.grid_coords[cells]
            inside = (coordinates + torch.rand_like(coordinates, dtype=torch.float32)) / self.resolution
            found = occ_eval_fn(self._world(level, inside)).reshape(-1)
            ids = level * self.cells_per_lvl + cells
            self.occs[ids] = torch.maximum(self.occs[ids] * ema_decay, found.to(self.occs))
        limit = self.occs[self.occs >= 0].mean().clamp(max=occ_thre)
        self.binaries = (self.occs > limit).view(self.binaries.shape)

    @torch.no_grad()
    def mark_invisible_cells(
        self, K: Tensor, c2w: Tensor, width: int, height: int, near_plane: float = 0.0, chunk: int = 32**3
    ) -> None:
        """Gives up the cells that no camera sees: to be called once, before training.

        K: [N, 3, 3] or [1, 3, 3]. c2w: [N, 3, 4] or [N, 4, 4], camera to world, z forward. A cell counts by one point
        (its corner, moved so that the outer cells reach the box's sides), and stays where that is on some image, at
        depth `near_plane` or beyond, and on none before it. `chunk`: cells at a time.
        """
        if K.shape[1:] != (3, 3) or c2w.shape[1:] not in ((3, 4), (4, 4)) or len(K) not in (1, len(c2w)):
            found = f"{list(K.shape)} and {list(c2w.shape)}"
            raise BadInput(f"nerfacc: K and c2w are {found}; the rule: [N, 3, 3] or [1, 3, 3], and [N, 3 or 4, 4]")
        turn = c2w[:, :3, :3].transpose(1, 2)
        for level, cells in enumerate(self._get_all_cells()):
            for part in cells.split(chunk):
                x = (
                    self._world(level, self.grid_coords[part] / (self.resolution - 1)) - c2w[:, None, :3, 3]
                )  # [N, P, 3]
                u, v, depth = (x @ turn.transpose(1, 2) @ K.transpose(1, 2)).unbind(-1)
                u, v = u / depth, v / depth
                on_image = (depth >= 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
                seen, too_near = (on_image & (depth >= near_plane)).any(0), (on_image & (depth < near_plane)).any(0)
                self.occs[level * self.cells_per_lvl + part] = torch.where(seen & ~too_near, 0.0, -1.0)

    def _world(self, level: int, inside: Tensor) -> Tensor:
        """Points of the world, from points in [0, 1]^3 of a level's box."""
        low, high = self.aabbs[level].split(3)
        return low + inside * (high - low)

    @torch.no_grad()
    def _get_all_cells(self) -> list[Tensor]:
        """Of each level the cells that are not given up."""
        values = self.occs.view(self.levels, -1)
        return [self.grid_indices[values[level] >= 0] for level in range(self.levels)]

    @torch.no_grad()
    def _sample_uniform_and_occupied_cells(self, n: int) -> list[Tensor]:
        """Of each level `n` random cells without those given up, and the occupied ones, or `n` of them."""
        values, drawn = self.occs.view(self.levels, -1), []
        for level in range(self.levels):
            uniform = torch.randint(self.cells_per_lvl, (n,), device=self.device)
            uniform = uniform[values[level][uniform] >= 0]
            occupied = self.binaries[level].flatten().nonzero()[:, 0]
            if n < len(occupied):
                occupied = occupied[torch.randint(len(occupied), (n,), device=self.device)]
            drawn.append(torch.cat((uniform, occupied)))
        return drawn
