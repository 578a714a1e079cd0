"""Sampling where proposal networks find density (Barron et al. 2022, Mip-NeRF 360). Letters: N rays, S samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ....errors import BadInput
from ..data_specs import RayIntervals
from ..pdf import importance_sampling, searchsorted
from ..volrend import render_transmittance_from_density
from .base import AbstractEstimator


class PropNetEstimator(AbstractEstimator):
    """Samples by a chain of proposal networks, each of which says where the next one looks.

    optimizer, scheduler: those of the proposal networks, for `update_every_n_steps`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler._LRScheduler | None = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.prop_cache: list = []

    @torch.no_grad()
    def sampling(
        self,
        prop_sigma_fns: list[Callable],
        prop_samples: list[int],
        num_samples: int,
        n_rays: int,
        near_plane: float,
        far_plane: float,
        sampling_type: Literal["uniform", "lindisp"] = "lindisp",
        stratified: bool = False,
        requires_grad: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(t_starts, t_ends) [N, num_samples].

        prop_sigma_fns: (t_starts, t_ends) [N, S] -> densities [N, S], each asked at its number of `prop_samples`.
        sampling_type: samples spread evenly in distance, or in its inverse. requires_grad: what the proposal networks
        say is kept, with gradients, for the next `compute_loss` or `update_every_n_steps`.
        """
        if len(prop_sigma_fns) != len(prop_samples):
            found = f"{len(prop_sigma_fns)} and {len(prop_samples)}"
            raise BadInput(
                f"nerfacc: prop_sigma_fns and prop_samples are {found}; the rule: as many of one as of other"
            )
        cdfs = torch.tensor([0.0, 1.0], device=self.device).repeat(n_rays, 1)
        intervals = RayIntervals(cdfs)
        for density, samples in zip(prop_sigma_fns, prop_samples, strict=True):
            intervals, _ = importance_sampling(intervals, cdfs, samples, stratified)
            t = _transform_stot(sampling_type, intervals.vals, near_plane, far_plane)
            with torch.set_grad_enabled(requires_grad):
                sigmas = density(t[..., :-1], t[..., 1:])
                if sigmas.shape != t[..., 1:].shape:
                    found = list(sigmas.shape)
                    raise BadInput(f"nerfacc: a proposal gave {found}; the rule: {list(t[..., 1:].shape)}")
                cdfs = _cdfs(render_transmittance_from_density(t[..., :-1], t[..., 1:], sigmas)[0])
            if requires_grad:
                self.prop_cache.append((intervals, cdfs))
        intervals, _ = importance_sampling(intervals, cdfs.detach(), num_samples, stratified)
        if requires_grad:
            self.prop_cache.append((intervals, None))
        t = _transform_stot(sampling_type, intervals.vals, near_plane, far_plane)
        return t[..., :-1], t[..., 1:]

    @torch.enable_grad()
    def compute_loss(self, trans: Tensor, loss_scaler: float = 1.0) -> Tensor:
        """The loss of the proposal networks of the last `sampling(requires_grad=True)`, by the transmittance `trans`
        [N, num_samples] that the field itself has there: how much its weights exceed what a proposal allows. 0 where
        nothing is kept."""
        if not self.prop_cache:
            return torch.zeros((), device=self.device)
        intervals, _ = self.prop_cache.pop()
        cdfs = _cdfs(trans).detach()
        loss = 0.0
        while self.prop_cache:
            loss = loss + _pdf_loss(intervals, cdfs, *self.prop_cache.pop()).mean()
        return loss * loss_scaler

    @torch.enable_grad()
    def update_every_n_steps(self, trans: Tensor, requires_grad: bool = False, loss_scaler: float = 1.0) -> float:
        """Where `requires_grad`, a step of the optimiser on `compute_loss`, whose value is returned, else 0; and a step
        of the scheduler."""
        loss = self._update(trans, loss_scaler) if requires_grad else 0.0
        if self.scheduler is not None:
            self.scheduler.step()
        return loss

    def _update(self, trans: Tensor, loss_scaler: float) -> float:
        if not self.prop_cache or self.optimizer is None:
            what = "no optimizer" if self.prop_cache else "nothing sampled with requires_grad"
            raise BadInput(f"nerfacc: PropNetEstimator has {what}; the rule: both, to update the proposals")
        loss = self.compute_loss(trans, loss_scaler)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def get_proposal_requires_grad_fn(target: float = 5.0, num_steps: int = 1000) -> Callable:
    """step -> whether the proposals are updated: at first at every step, from `num_steps` on at one of `target`."""
    since = 0

    def proposal_requires_grad_fn(step: int) -> bool:
        nonlocal since
        due = since > min(step / num_steps, 1.0) * target
        since = 1 if due else since + 1
        return due

    return proposal_requires_grad_fn


def _cdfs(trans: Tensor) -> Tensor:
    """[..., S + 1], what is absorbed before each edge; before the last one, all."""
    return 1.0 - torch.cat((trans, torch.zeros_like(trans[..., :1])), -1)


def _transform_stot(transform_type: str, s_vals: Tensor, t_min: float | Tensor, t_max: float | Tensor) -> Tensor:
    """Distances from t_min to t_max, of s in [0, 1]."""
    if transform_type == "uniform":
        return s_vals * t_max + (1 - s_vals) * t_min
    if transform_type == "lindisp":
        return 1 / (s_vals / t_max + (1 - s_vals) / t_min)
    raise BadInput(f"nerfacc: sampling_type is {transform_type!r:.40}; the rule: uniform or lindisp")


def _pdf_loss(
    segments_query: RayIntervals, cdfs_query: Tensor, segments_key: RayIntervals, cdfs_key: Tensor, eps: float = 1e-7
) -> Tensor:
    """By how much the weight of each query interval exceeds that of all key intervals that it touches."""
    left, right = searchsorted(segments_key, segments_query)
    if segments_query.vals.ndim > 1:
        w, left, right = cdfs_query.diff(dim=-1), left[..., :-1], right[..., 1:]
    else:
        begins, ends = segments_query.is_left, segments_query.is_right
        w, left, right = cdfs_query[ends] - cdfs_query[begins], left[begins], right[ends]
    outer = cdfs_key.gather(-1, right) - cdfs_key.gather(-1, left)
    return (w - outer).clamp_min(0) ** 2 / (w + eps)


def _lossfun_outer(t: Tensor, w: Tensor, t_env: Tensor, w_env: Tensor) -> Tensor:
    """[..., S], the loss of Mip-NeRF 360 (eq. 13): by how much the weights `w` [..., S] between the edges `t`
    [..., S + 1] exceed the sum of the weights `w_env` of all intervals between `t_env` that they touch."""
    before = torch.cat((torch.zeros_like(w_env[..., :1]), w_env.cumsum(-1)), -1)
    most = w_env.shape[-1] - 1
    first = torch.searchsorted(t_env[..., :-1].contiguous(), t[..., :-1].contiguous(), right=True) - 1
    last = torch.searchsorted(t_env[..., 1:].contiguous(), t[..., 1:].contiguous(), right=True)
    outer = before.gather(-1, last.clamp(0, most) + 1) - before.gather(-1, first.clamp(0, most))
    return (w - outer).clamp_min(0) ** 2 / (w + torch.finfo(t.dtype).eps)
