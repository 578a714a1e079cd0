"""3D Gaussian splatting as Markov chain Monte Carlo (Kheradmand et al. 2024): Gaussians are samples that move.

- *Relocation* (sec. 3.3, eq. 9): a Gaussian that is nearly transparent is dead, and moves to the place of a live one,
  drawn in proportion to opacity. Where n Gaussians then stand in the place of one, they have its image together:

      o_new = 1 - (1 - o)^(1/n)
      s_new = s o / sum_(k=1..n) C(n, k) (-1)^(k-1) o_new^k / sqrt(k)

  (the paper's double sum over i and k, of which the binomial coefficients add up to C(n, k)).
- *Growth*: at each refinement a part more, drawn and placed in the same way, up to the limit.
- *Noise* (eq. 8): after each step every centre moves by noise rate Sigma z sigmoid(-100 (o - 0.005)), z normal: the
  less opaque, the more it explores.
- *Regularisers* (sec. 3.4): opacity_weight mean o + scale_weight mean s in the loss, so that what is not needed dies;
  s in units of the scene's size.

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

MOST_COPIES = 51
STEEPNESS = 100.0
_LEAST_GATE = 1e-6  # where the noise is weaker than this part of itself none is drawn


@dataclass(frozen=True)
class Config:
    """How Gaussians explore."""

    growth: float = 0.05  # so many more at each refinement, as a part of those there are
    dead_opacity: float = 0.005  # less opaque Gaussians are moved to where others are
    opacity_weight: float = 0.01  # of the mean opacity in the loss
    scale_weight: float = 0.01  # of the mean scale in the loss, as a part of the scene's size
    noise: float = 5e5  # strength of the centres' noise, as a multiple of their learning rate


def divided(opacity: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """(o_new, s_new / s) of Gaussians of `opacity` [G] where `copies` [G] of each stand in its place (eq. 9)."""
    copies = copies.clamp(1, MOST_COPIES).double()
    opacity = opacity.double().clamp(1e-12, 1 - 1e-12)
    new = -torch.expm1(torch.log1p(-opacity) / copies)  # 1 - (1 - o)^(1/n), with all digits where o is small
    total, term = torch.zeros_like(new), torch.ones_like(new)
    for k in range(1, int(copies.max()) + 1 if len(copies) else 1):
        term = term * (copies - k + 1).clamp_min(0) / k * new  # C(n, k) o_new^k; 0 for k > n
        total += term * (-1) ** (k - 1) / math.sqrt(k)
    return new.float(), (opacity / total).float()


def refine(
    scene: GaussianScene, adam: GaussianAdam, config: Config, *, most: int, generator: torch.Generator
) -> GaussianScene:
    """Relocates the dead and adds new ones, at most `most` in all; `adam` follows."""
    scene = _relocate(scene, adam, config, generator)
    added = min(most, int((1 + config.growth) * len(scene)) + 1) - len(scene)
    if added <= 0:
        return scene
    source = _drawn(scene.opacity_logits.sigmoid(), added, generator)
    scene = _divide(scene, adam, source)
    adam.select(torch.arange(len(scene), device=scene.means.device), added)
    return scene.map(lambda value: torch.cat((value, value[..., source]), -1))


def _relocate(scene: GaussianScene, adam: GaussianAdam, config: Config, generator: torch.Generator) -> GaussianScene:
    opacity = scene.opacity_logits.sigmoid()
    dead = (opacity <= config.dead_opacity) | scene.unsound()
    gone, live = dead.nonzero()[:, 0], (~dead).nonzero()[:, 0]
    if not len(gone) or not len(live):
        return scene
    source = live[_drawn(opacity[live], len(gone), generator)]
    scene = _divide(scene, adam, source)
    for name, value in scene.tensors().items():
        value[..., gone] = value[..., source]
        adam.m[name][..., gone] = 0
        adam.v[name][..., gone] = 0
    return scene


def _drawn(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count] numbers in proportion to `weights` [G], with replacement."""
    ends = weights.double().cumsum(0)
    places = torch.rand(count, dtype=torch.float64, generator=generator, device="cpu").to(ends.device) * ends[-1]
    return torch.searchsorted(ends, places, right=True).clamp_max(len(weights) - 1)


def _divide(scene: GaussianScene, adam: GaussianAdam, source: Tensor) -> GaussianScene:
    """The scene whose Gaussians each make place for as many more as `source` names them."""
    copies = torch.bincount(source, minlength=len(scene)) + 1
    shared = (copies > 1).nonzero()[:, 0]
    opacity, shrink = divided(scene.opacity_logits[shared].sigmoid(), copies[shared])
    logits, scales = scene.opacity_logits.clone(), scene.log_scales.clone()
    logits[shared] = opacity.clamp_min(0.005).logit()  # not dead at once
    scales[:, shared] += shrink.log()
    for moments in (adam.m, adam.v):
        for value in moments.values():
            value[..., shared] = 0
    return GaussianScene(**{**scene.tensors(), "opacity_logits": logits, "log_scales": scales})


def add_noise(scene: GaussianScene, rate: float, config: Config, generator: torch.Generator) -> None:
    """Moves the centres at random (eq. 8); rate: their learning rate."""
    gate = torch.sigmoid(-STEEPNESS * (scene.opacity_logits.sigmoid() - 0.005))
    moved = (gate > _LEAST_GATE).nonzero()[:, 0]
    axes = rotation_matrices(scene.quaternions.T[moved]) * scene.log_scales.T[moved].exp()[:, None]
    local = torch.randn(len(moved), 3, 1, generator=generator, device="cpu").to(axes.device)
    local = local * gate[moved, None, None] * (rate * config.noise)
    offset = (axes @ (axes.mT @ local))[..., 0]
    scene.means.T[moved] += torch.where(offset.isfinite(), offset, 0.0)


def regularise(grads: dict[str, Tensor], scene: GaussianScene, config: Config, size: float) -> None:
    """Adds the regularisers' gradients. size: that of the scene."""
    opacity = scene.opacity_logits.sigmoid()
    grads["opacity_logits"] += config.opacity_weight / len(scene) * opacity * (1 - opacity)
    grads["log_scales"] += config.scale_weight / (3 * len(scene) * size) * scene.log_scales.exp()
