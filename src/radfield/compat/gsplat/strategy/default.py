"""`gsplat.strategy.DefaultStrategy`: adaptive density control (Kerbl et al. 2023, sec. 5)."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, require
from .base import Strategy, empty_cache, require_geometry
from .ops import Optimizers, Params, duplicate, remove, reset_opa, split


@dataclass
class DefaultStrategy(Strategy):
    """Doubles Gaussians whose centre on the image has a large mean gradient, and removes nearly transparent ones.

    One deliberate difference: gsplat 1.5.3 states that opacities are reset every `reset_every` steps, and never does
    (`step % reset_every == 0 & step > 0` is always false; mended in its pull request 776). Here they are reset, as
    stated; `reset_every` beyond the last step gives what 1.5.3 does.
    """

    prune_opa: float = 0.005  # less opaque Gaussians are removed
    grow_grad2d: float = 0.0002  # mean gradient from which on a Gaussian is doubled
    grow_scale3d: float = 0.01  # up to this size, in units of scene_scale, it is copied, beyond it is split
    grow_scale2d: float = 0.05  # larger ones on the image, as a part of its longer side, are split too
    prune_scale3d: float = 0.1  # larger ones are removed, after the first reset
    prune_scale2d: float = 0.15  # larger ones on the image likewise
    refine_scale2d_stop_iter: int = 0  # until which step the sizes on the image count; 0: never
    refine_start_iter: int = 500
    refine_stop_iter: int = 15_000
    reset_every: int = 3000
    refine_every: int = 100
    pause_refine_after_reset: int = 0  # steps
    absgrad: bool = False  # takes means2d.absgrad (Ye et al. 2024)
    revised_opacity: bool = False  # of what is split (Rota Bulo et al. 2024)
    verbose: bool = False
    key_for_gradient: str = "means2d"  # or gradient_2dgs

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """The statistics, empty; `scene_scale` is what sizes are compared with."""
        state = {"grad2d": None, "count": None, "scene_scale": scene_scale}
        return state | ({"radii": None} if self.refine_scale2d_stop_iter > 0 else {})

    def check_sanity(self, params: Params, optimizers: Optimizers) -> None:
        """As `Strategy.check_sanity`; means, scales, quats and opacities have to be there."""
        super().check_sanity(params, optimizers)
        require_geometry(params)

    def step_pre_backward(
        self, params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], step: int, info: dict
    ) -> None:
        """Asks for the gradient on the image. To be called before `loss.backward()`."""
        check_choice("key_for_gradient", self.key_for_gradient, ("means2d", "gradient_2dgs"))
        require(self.key_for_gradient in info, "info", sorted(info), f"{self.key_for_gradient} is in it")
        info[self.key_for_gradient].retain_grad()

    def step_post_backward(
        self,
        params: Params,
        optimizers: Optimizers,
        state: MutableMapping[str, Any],
        step: int,
        info: dict,
        packed: bool = False,
    ) -> None:
        """Counts, and refines where `step` asks for it. `packed`: what `rasterization` was told."""
        if step >= self.refine_stop_iter:
            return
        self._update_state(params, state, info, packed=packed)
        due = step > self.refine_start_iter and step % self.refine_every == 0
        if due and step % self.reset_every >= self.pause_refine_after_reset:
            copied, halved = self._grow_gs(params, optimizers, state, step)
            self._say(f"Step {step}: {copied} GSs duplicated, {halved} GSs split.", params)
            self._say(f"Step {step}: {self._prune_gs(params, optimizers, state, step)} GSs pruned.", params)
            for name in ("grad2d", "count", "radii"):
                if state.get(name) is not None:
                    state[name].zero_()
            empty_cache()
        if step > 0 and step % self.reset_every == 0:
            reset_opa(params=params, optimizers=optimizers, state=state, value=2 * self.prune_opa)

    def _say(self, text: str, params: Params) -> None:
        if self.verbose:
            print(f"{text} Now having {len(params['means'])} GSs.")

    def _update_state(self, params: Params, state: MutableMapping[str, Any], info: dict, packed: bool = False) -> None:
        for key in ("width", "height", "n_cameras", "radii", "gaussian_ids", self.key_for_gradient):
            require(key in info, "info", sorted(info), f"{key} is in it")
        means2d, radii = info[self.key_for_gradient], info["radii"]
        grads = means2d.absgrad if self.absgrad else means2d.grad
        half = grads.new_tensor([info["width"], info["height"]]) / 2 * info["n_cameras"]
        if packed:
            numbers = info["gaussian_ids"]
        else:
            drawn = (radii > 0).all(-1)
            numbers = drawn.nonzero()[:, -1]
            grads, radii = grads[drawn], radii[drawn]
        self._begin(state, len(params["means"]), grads.device)
        state["grad2d"].index_add_(0, numbers, (grads * half).norm(dim=-1))
        state["count"].index_add_(0, numbers, torch.ones_like(numbers, dtype=torch.float32))
        if self.refine_scale2d_stop_iter > 0:
            sizes = radii.amax(-1) / float(max(info["width"], info["height"]))
            state["radii"].scatter_reduce_(0, numbers, sizes, "amax")

    def _begin(self, state: MutableMapping[str, Any], count: int, device: torch.device) -> None:
        for name in ("grad2d", "count", "radii"):
            if name in state and state[name] is None:
                state[name] = torch.zeros(count, device=device)

    def _large(self, params: Params, state: MutableMapping[str, Any], part: float) -> Tensor:
        """[N], whether a Gaussian is larger than this part of the scene."""
        return params["scales"].exp().amax(-1) > part * state["scene_scale"]

    @torch.no_grad()
    def _grow_gs(
        self, params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], step: int
    ) -> tuple[int, int]:
        """(how many were copied, how many split)."""
        steep = state["grad2d"] / state["count"].clamp_min(1) > self.grow_grad2d
        large = self._large(params, state, self.grow_scale3d)
        copied, halved = steep & ~large, steep & large
        if step < self.refine_scale2d_stop_iter:
            halved |= state["radii"] > self.grow_scale2d
        counts = int(copied.sum()), int(halved.sum())
        if counts[0]:
            duplicate(params=params, optimizers=optimizers, state=state, mask=copied)
        if counts[1]:
            halved = torch.cat((halved, halved.new_zeros(counts[0])))  # the copies are not split
            options = {"revised_opacity": self.revised_opacity}
            split(params=params, optimizers=optimizers, state=state, mask=halved, **options)
        return counts

    @torch.no_grad()
    def _prune_gs(self, params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], step: int) -> int:
        """How many were removed."""
        gone = params["opacities"].flatten().sigmoid() < self.prune_opa
        if step > self.reset_every:
            gone |= self._large(params, state, self.prune_scale3d)
            if step < self.refine_scale2d_stop_iter:
                gone |= state["radii"] > self.prune_scale2d
        count = int(gone.sum())
        if count:
            remove(params=params, optimizers=optimizers, state=state, mask=gone)
        return count
