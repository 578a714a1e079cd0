"""`gsplat.strategy.MCMCStrategy`: Gaussians as samples that move (Kheradmand et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Strategy, empty_cache, require_geometry
from .ops import Optimizers, Params, inject_noise_to_position, relocate, sample_add

MOST_COPIES = 51


@dataclass
class MCMCStrategy(Strategy):
    """Moves dead Gaussians to live ones, adds 5 % at each refinement, and moves all centres at random."""

    cap_max: int = 1_000_000  # Gaussians
    noise_lr: float = 5e5  # the noise as a multiple of the means' learning rate
    refine_start_iter: int = 500
    refine_stop_iter: int = 25_000
    refine_every: int = 100
    min_opacity: float = 0.005  # up to which a Gaussian is dead
    verbose: bool = False

    def initialize_state(self) -> dict[str, Any]:
        """The binomial coefficients that `compute_relocation` asks for."""
        rows = [[math.comb(n, k) for k in range(MOST_COPIES)] for n in range(MOST_COPIES)]
        return {"binoms": torch.tensor(rows, dtype=torch.float32)}

    def check_sanity(self, params: Params, optimizers: Optimizers) -> None:
        """As `Strategy.check_sanity`; means, scales, quats and opacities have to be there."""
        super().check_sanity(params, optimizers)
        require_geometry(params)

    def step_post_backward(
        self,
        params: Params,
        optimizers: Optimizers,
        state: MutableMapping[str, Any],
        step: int,
        info: dict,
        lr: float,
    ) -> None:
        """Refines where `step` asks for it, and moves the centres. `lr`: the means' learning rate. To be called after
        `loss.backward()`, or after the optimisers' steps as gsplat's trainer does."""
        state["binoms"] = binoms = state["binoms"].to(params["means"].device)
        if self.refine_start_iter < step < self.refine_stop_iter and step % self.refine_every == 0:
            moved = self._relocate_gs(params, optimizers, binoms)
            added = self._add_new_gs(params, optimizers, binoms)
            if self.verbose:
                print(f"Step {step}: Relocated {moved} GSs. Added {added} GSs. Now having {len(params['means'])} GSs.")
            empty_cache()
        scaler = lr * self.noise_lr
        inject_noise_to_position(params=params, optimizers=optimizers, state={}, scaler=scaler)

    @torch.no_grad()
    def _relocate_gs(self, params: Params, optimizers: Optimizers, binoms: Tensor) -> int:
        """How many were dead."""
        dead = params["opacities"].flatten().sigmoid() <= self.min_opacity
        count, options = int(dead.sum()), {"binoms": binoms, "min_opacity": self.min_opacity}
        if count:
            relocate(params=params, optimizers=optimizers, state={}, mask=dead, **options)
        return count

    @torch.no_grad()
    def _add_new_gs(self, params: Params, optimizers: Optimizers, binoms: Tensor) -> int:
        """How many were added."""
        now = len(params["means"])
        count, options = max(0, min(self.cap_max, int(1.05 * now)) - now), {"binoms": binoms}
        if count:
            options["min_opacity"] = self.min_opacity
            sample_add(params=params, optimizers=optimizers, state={}, n=count, **options)
        return count
