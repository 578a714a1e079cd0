"""A batch of training rays through a neural surface on a device, with a fixed budget: no value is brought to the host,
and no shape depends on one, so that a whole training step can be captured in a CUDA graph. What is computed is what
`surface_volume` computes (its docstrings have the equations), laid out for this:

- streams have the rows of their budget, and the number of rows in use stands on the device (`count`);
- further points, whose number is fixed, stand in front of the samples: first those anywhere, then the neighbours;
- the sharpness stands on the device.

For surfaces without a field around them. Letters: N rays, M samples marched at most, B of them trained at most, E
points anywhere, P neighbours at most, R = E + P + B rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..fields import surface_passes
from ..fields.neural_surface import NeuralSurface
from ..rays import Samples
from . import neus_alpha
from .composite import Composited, composite
from .surface_volume import reached, weighty


class Kept(NamedTuple):
    """samples: of B rows, the first `live` in use, of the first `rays` of N rays; both [1] int64."""

    samples: Samples
    rays: Tensor
    live: Tensor


@torch.no_grad()
def visible(
    surface: NeuralSurface,
    samples: Samples,
    totals: Tensor,
    in_use: Tensor,
    sharpness: Tensor,
    *,
    stop: float,
    least: float,
    capacity: int,
) -> Kept:
    """As `surface_volume.visible`, of what `march_budget` gave: `samples` [M] and `totals`. in_use: [1] int64, the rays
    in use; sharpness: [1]. Rays from the first on that no longer fits into the `capacity` B have none."""
    m = len(samples.t_start)
    number = torch.arange(m, device=totals.device)
    f = surface_passes.distance(surface, samples.x, totals[1:])
    loss = torch.nn.functional.softplus(f * -sharpness.float())  # -log Phi
    tau = loss.new_zeros(m + 1)
    torch.sub(loss[1:], loss[:-1], out=tau[: m - 1])
    ends = samples.ray_start[1:].long() - 1
    tau.index_fill_(0, torch.where(samples.ray_start.diff() > 0, ends, m), 0.0)  # its next sample is another ray's
    sigma = tau[:m].nan_to_num(nan=0.0).clamp_min_(0) / (samples.t_end - samples.t_start)
    intervals = samples.t_start, samples.t_end, samples.ray_start
    result = composite(sigma, sigma.new_empty(m, 0), *intervals, stop=stop)
    marched = number < totals[1:]
    weights = torch.where(marched, result.weights, 0.0)
    kept = reached(samples, result.live) & weighty(weights, least) & marched
    return _packed(samples, kept, torch.minimum(totals[:1], in_use), capacity)


def _packed(samples: Samples, kept: Tensor, rays: Tensor, capacity: int) -> Kept:
    """The samples of the first `rays` where kept [M] is true; rows that are not in use repeat the first sample."""
    before = torch.zeros(len(kept) + 1, dtype=torch.int32, device=kept.device)
    torch.cumsum(kept, 0, dtype=torch.int32, out=before[1:])
    start = before[samples.ray_start.long()]
    rays = torch.minimum(rays, (start[1:] <= capacity).sum(dtype=torch.int64).view(1))
    live = start[rays]
    goal = torch.where(kept & (before[:-1] < live), before[:-1], capacity).long()
    row = torch.zeros(capacity + 1, dtype=torch.int64, device=kept.device)
    row = row.scatter_(0, goal, torch.arange(len(kept), device=kept.device))[:capacity]
    streams = (each.T[:, row].T for each in (samples.x, samples.directions))
    ends = (each[row] for each in (samples.t_start, samples.t_end))
    return Kept(Samples(*streams, *ends, torch.minimum(start, live)), rays, live.long())


class Points(NamedTuple):
    """Points of the unit cube that no ray passes, as `surface_volume.Extra`. anywhere: [3, E]; near: [3, P], of which
    the first `count` [1] int64 are in use; partner: [P] int64, which sample each is a neighbour of."""

    anywhere: Tensor
    near: Tensor
    partner: Tensor
    count: Tensor

    def __len__(self) -> int:
        return self.anywhere.shape[1] + self.near.shape[1]


class Seen(NamedTuple):
    """What the field says of R rows, and what the backward pass needs. sigma [B], rgb [3, B]: leaves of the graph that
    leads to the loss."""

    kept: Kept
    points: Points
    streams: dict
    tape: surface_passes.Tape
    answers: dict  # of neus_alpha
    shape: neus_alpha.Shape
    sigma: Tensor
    rgb: Tensor

    def composited(self, stop: float) -> Composited:
        """What the rays see, in front of black; differentiable."""
        samples = self.kept.samples
        given = samples.t_start, samples.t_end, samples.ray_start
        return composite(self.sigma, self.rgb.T, *given, stop=stop)

    def used(self) -> tuple[Tensor, Tensor]:
        """[R] bool: the rows in use; and their number [1]."""
        number, first = torch.arange(len(self.tape.f), device=self.sigma.device), len(self.points)
        beyond = self.points.anywhere.shape[1] + self.points.count  # the first neighbour that is not in use
        used = (number < first + self.kept.live) & ((number < beyond) | (number >= first))
        return used, beyond + self.kept.live

    def stretch(self) -> Tensor:
        """[1] the mean of (|n| - 1)^2 over samples and points."""
        used, total = self.used()
        return torch.where(used, self.answers["stretch"], 0.0).sum() / total.clamp_min(1)

    def bend(self) -> Tensor:
        """[3, P] the difference of the gradients at samples and at their neighbours; 0 where a neighbour is not in
        use."""
        points, normal = self.points, self.tape.normal
        near = normal[:, points.anywhere.shape[1] : len(points)]
        used = torch.arange(near.shape[1], device=near.device) < points.count
        return torch.where(used, normal[:, len(points) + points.partner] - near, 0.0)


def ask(surface: NeuralSurface, kept: Kept, points: Points, schedule: Tensor) -> Seen:
    """The forward pass at samples and points. schedule: [2] float64 on the device, sharpness and annealing."""
    samples, first = kept.samples, len(points)
    count = kept.live + first
    x = torch.cat((points.anywhere, points.near, samples.x.T), 1)
    along = x.new_zeros(3, first)
    along[2] = 1.0
    directions = torch.cat((along, samples.directions.T), 1)
    starts, ends = (
        torch.cat((each.new_full((first,), value), each))
        for each, value in ((samples.t_start, 0.0), (samples.t_end, 1e-3))
    )
    streams = {"directions": directions, "t_start": starts, "t_end": ends}
    tape = surface_passes.forward(surface, x.T, directions.T, count)
    shape = neus_alpha.Shape(schedule=schedule, count=count)
    found = neus_alpha.answers(tape.f, tape.normal, tape.logits, streams, shape)
    leaves = (each.detach().requires_grad_() for each in (found["sigma"][first:], found["rgb"][:, first:]))
    return Seen(kept, points, streams, tape, found, shape, *leaves)


def backward(
    surface: NeuralSurface, seen: Seen, eikonal: float, bend: Tensor | None = None, away: Tensor | None = None
) -> Tensor:
    """Adds the gradients of the field's parameters, after the loss's own backward pass left those of sigma and rgb;
    eikonal: the gradient of the mean stretch; bend: [3, P] that of `seen.bend()`; away: [E] that of the distances at
    points anywhere. Returns [1] the gradient by the sharpness."""
    tape, points = seen.tape, seen.points
    grad_sigma, grad_rgb = (torch.nn.functional.pad(x.grad, (len(points), 0)) for x in (seen.sigma, seen.rgb))
    used, total = seen.used()
    weight = used * (eikonal / total.clamp_min(1))
    given = weight.float(), tape.f, tape.normal, seen.answers["rgb"], seen.streams, seen.shape
    found = neus_alpha.gradients(grad_sigma, grad_rgb, *given)
    if bend is not None:
        grad_normal = found["grad_normal"]
        grad_normal[:, len(points) :].index_add_(1, points.partner, bend)
        grad_normal[:, points.anywhere.shape[1] : len(points)] -= bend
    if away is not None:
        found["grad_f"][: len(away)] += away
    surface_passes.backward(surface, tape, found["grad_f"], found["grad_normal"], found["grad_logits"])
    return torch.where(used, found["grad_sharpness"], 0.0).sum().view(1)
