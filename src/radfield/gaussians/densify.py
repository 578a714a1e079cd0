"""Adaptive density control (Kerbl et al. 2023, sec. 5; the constants are gsplat's).

Between two refinements `Statistics` averages, over the views that show a Gaussian, the length of the gradient of its
centre on the image, in units of half the image. Where that is large the scene lacks detail: a small Gaussian gets a
copy, a large one becomes two that are 1.6 times smaller, drawn from itself. What is nearly transparent, or much too
large, is removed. The number of Gaussians never exceeds `most`: beyond it those with the largest gradients are taken.

Letter: G Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..renderers.gaussian_projection import rotation_matrices
from .optimizer import GaussianAdam
from .scene import GaussianScene

SHRINK = 1.6


@dataclass(frozen=True)
class Config:
    """When a Gaussian is doubled or removed."""

    grow_gradient: float = 0.0002  # mean gradient of the centre on the image from which on a Gaussian is doubled
    grow_scale: float = 0.01  # up to this size, as a part of the scene's, it is copied, beyond it is split
    prune_opacity: float = 0.005  # less opaque Gaussians are removed
    prune_scale: float = 0.1  # larger ones too, as a part of the scene's size, once opacities have been reset


class Statistics:
    """Gradients seen since the last refinement."""

    def __init__(self, count: int, device: torch.device | str = "cpu"):
        self.gradient, self.views = (torch.zeros(count, device=device) for _ in range(2))

    def add(self, grad_mean2d: Tensor, radius: Tensor, width: int, height: int) -> None:
        """Of one view: the gradient of mean2d [G, 2], and radius [G, 2], 0 where it shows nothing."""
        x, y = grad_mean2d.unbind(1)
        squares = (x * (width / 2)).square_().add_((y * (height / 2)).square_())
        self.gradient += squares.sqrt_()
        self.views += radius[:, 0] > 0

    def add_traced(self, grad_means: Tensor, means: Tensor, positions: Tensor) -> None:
        """Of traced rays, which have no projection: the gradient of the centres [3, G] in the scene, times half their
        mean distance from the cameras at `positions` [V, 3], which brings it to about the same units (Moenne-Loccoz et
        al. 2024)."""
        length = grad_means.norm(dim=0)
        distance = sum((means - position[:, None]).norm(dim=0) for position in positions) / len(positions)
        self.gradient += length * distance / 2
        self.views += length > 0

    def mean(self) -> Tensor:
        """[G]."""
        return self.gradient / self.views.clamp_min(1)


def refine(
    scene: GaussianScene,
    adam: GaussianAdam,
    statistics: Statistics,
    config: Config,
    *,
    most: int,
    size: float,
    prune_large: bool,
    generator: torch.Generator,
) -> GaussianScene:
    """The refined scene; `adam` follows. size: that of the scene, to which scales are compared."""
    gradient, scale = statistics.mean(), scene.log_scales.exp().amax(0)
    removed = (scene.opacity_logits.sigmoid() < config.prune_opacity) | scene.unsound()
    if prune_large:
        removed |= scale > config.prune_scale * size
    grown = ((gradient > config.grow_gradient) & ~removed).nonzero()[:, 0]
    room = most - int((~removed).sum())
    if len(grown) > room:
        grown = grown[gradient[grown].argsort(descending=True, stable=True)[: max(room, 0)]].sort().values
    is_split = scale[grown] > config.grow_scale * size
    split, copied = grown[is_split], grown[~is_split]
    removed[split] = True
    kept = (~removed).nonzero()[:, 0]
    parts = [scene.select(kept), scene.select(copied), *(_drawn(scene.select(split), generator) for _ in range(2))]
    adam.select(kept, len(copied) + 2 * len(split))
    return GaussianScene(**{name: torch.cat([p.tensors()[name] for p in parts], -1) for name in scene.tensors()})


def _drawn(scene: GaussianScene, generator: torch.Generator) -> GaussianScene:
    """Smaller Gaussians at random points of these."""
    values = scene.tensors()
    local = torch.randn(len(scene), 3, generator=generator, device="cpu").to(scene.means.device)
    local = local * scene.log_scales.exp().T
    offset = (rotation_matrices(scene.quaternions.T) * local[:, None]).sum(-1)
    shrunk = scene.log_scales - math.log(SHRINK)
    return GaussianScene(**{**values, "means": (scene.means.T + offset).T.contiguous(), "log_scales": shrunk})


def reset_opacity(scene: GaussianScene, adam: GaussianAdam, config: Config) -> None:
    """Makes every Gaussian nearly transparent: those that are needed recover, the others are removed."""
    ceiling = 2 * config.prune_opacity
    scene.opacity_logits.clamp_(max=math.log(ceiling / (1 - ceiling)))
    adam.forget("opacity_logits")
