"""A neural light field: one evaluation of a network per ray, no samples along it (R2L, Wang et al. 2022, sec. 3.2;
MobileR2L, Cao et al. 2023).

    (c, alpha) = sigmoid(MLP(gamma(p_1), ..., gamma(p_K), p_1, ..., p_K)),   p_k = (o + t_k d - centre) / radius
    t_k evenly spaced, from where the ray enters the ball of `radius` about `centre` to where it leaves

c has alpha in it, so that any background can stand behind. Rays that miss the ball see nothing. Positions enter in
place of origin and direction, so that rays along one line are one ray. MobileR2L's network is a deeper, convolutional
one that makes a picture of 8 times the size from its rays; this one answers ray by ray, for a fragment shader.

Letters: N rays, K points, L frequencies, C inputs of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encodings.frequency import frequency
from ..networks import mlp
from ..rays import Rays
from .network_texels import round_weights

RATE, LAST = 5e-3, 0.02  # learning rate at the start; it ends at this part of it
BATCH = 1 << 13  # rays of a step


@dataclass(frozen=True)
class Config:
    """The light field's options."""

    width: int = 128  # channels of the network's hidden layers, a multiple of 4
    layers: int = 6  # its hidden layers
    points: int = 12  # points along a ray
    frequencies: int = 4  # of each point's coordinates


class LightField:
    """The light field of a ball: centre [3], radius in scene units."""

    def __init__(self, config: Config, centre: Tensor, radius: float, seed: int = 0):
        self.config, self.centre, self.radius = config, centre.float(), float(radius)
        layers = mlp.Config(width=config.width, hidden_layers=config.layers, bias=True, precision="bf16")
        channels = 3 * config.points * (1 + 2 * config.frequencies)
        self.network = mlp.MLP(channels, 4, layers, torch.Generator().manual_seed(seed))

    def chord(self, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
        """(t of entry [N], t of leaving [N], whether there is a part in front [N])."""
        offset = rays.origins - self.centre
        along = (offset * rays.directions).sum(1)
        half2 = self.radius**2 - offset.square().sum(1) + along.square()
        half = half2.clamp_min(0).sqrt()
        return (-along - half).clamp_min(0), half - along, (half2 > 0) & (half > along)

    def inputs(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """(inputs [n, C] of the rays that meet the ball, which these are [N])."""
        near, far, hit = self.chord(rays)
        count = self.config.points
        share = torch.arange(count) / max(count - 1, 1)
        t = near[hit, None] + share * (far - near)[hit, None]
        x = rays.origins[hit, None] + t[..., None] * rays.directions[hit, None]
        x = ((x - self.centre) / self.radius).flatten(1)
        return torch.cat((frequency(x, self.config.frequencies), x), 1), hit

    def __call__(self, rays: Rays, *, exact: bool = False) -> Tensor:
        """[N, 4]: colour times alpha, and alpha. exact: in 32 bits, as a page computes."""
        inputs, hit = self.inputs(rays)
        seen, network = torch.zeros(len(rays), 4), self.network
        given = inputs, None, network.weights, network.layers
        seen[hit] = (mlp.mlp(*given, kernel=0) if exact else network(inputs)).sigmoid()
        return seen


def fit(
    field: LightField,
    batch: Callable[[int], tuple[Rays, Tensor]],
    used: Callable[[int], float],
    each: Callable[[int, float], None] = lambda step, loss: None,
) -> int:
    """Trains on the rays and colours [N, 4] (colour times alpha, alpha) of `batch(step)` until `used(step)`, the part
    of the budget that is used, is 1; returns the steps. each: called with the steps done and the mean squared error."""
    optimizer = torch.optim.Adam([field.network.weights], RATE)
    step = 0
    while (progress := used(step)) < 1:
        optimizer.param_groups[0]["lr"] = RATE * LAST**progress
        rays, target = batch(step)
        loss = (field(rays) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        each(step, loss.item())
    round_weights(field.network)
    return step
