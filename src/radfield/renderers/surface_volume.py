"""Rendering a neural surface, and a radiance field around it (NeuS, sec. 3; its supplement for the outside).

Samples in the unit cube are the surface's, others, where there are cascades, those of a radiance field `outside`. Both
become densities and colours that `composite` takes together, in the order of their distance.

Letters: N rays, M samples, A of them in the unit cube, B outside. Streams are [channels, M].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cameras import Cameras
from ..fields import surface_passes
from ..fields.neural_surface import NeuralSurface
from ..rays import Rays, Samples
from ..sampling.occupancy import OccupancyGrid
from . import neus_alpha, volume
from .composite import Composited, composite
from .volume import View

RAYS_PER_CALL = 1 << 13  # fewer than of a radiance field, whose samples take less memory
_LARGEST_LOGIT = 15.0  # of the outside's density, as composite_raw bounds its gradient


@dataclass(frozen=True)
class Part:
    """The samples of one of the two fields. index: [A] int64 which they are, None for all."""

    index: Tensor | None
    x: Tensor  # [A, 3]
    directions: Tensor  # [A, 3]
    t_start: Tensor  # [A]
    t_end: Tensor  # [A]

    def streams(self) -> dict:
        """What neus_alpha takes."""
        return {
            "directions": self.directions.T.contiguous(),
            "t_start": self.t_start.contiguous(),
            "t_end": self.t_end.contiguous(),
        }


def divided(samples: Samples, with_outside: bool) -> tuple[Part, Part | None]:
    """The samples in the unit cube, and the others."""
    whole = samples.x, samples.directions, samples.t_start, samples.t_end
    if not with_outside:
        return Part(None, *whole), None
    is_inside = ((samples.x >= 0) & (samples.x <= 1)).all(1)
    rows = is_inside.nonzero()[:, 0], (~is_inside).nonzero()[:, 0]
    return tuple(Part(row, *(each[row] for each in whole)) for row in rows)


@dataclass(frozen=True)
class Extra:
    """Points of the unit cube that no ray passes, where the gradient of the distance is held to what it should be: of
    length 1, and like that of its neighbour. x: [E, 3]; partner: [P] int64, which of the surface's samples the first P
    of them are neighbours of."""

    x: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Seen:
    """What the fields say of samples, and what the backward pass needs. sigma, rgb: leaves of the graph that leads to
    the loss. The streams of `inside`, `tape` and `answers` have the extra points behind the A samples."""

    samples: Samples
    inside: Part
    tape: surface_passes.Tape
    answers: dict  # of neus_alpha
    sigma: Tensor  # [M]
    rgb: Tensor  # [3, M]
    outside: Part | None = None
    outside_sigma: Tensor | None = None  # [B], in a graph
    outside_rgb: Tensor | None = None  # [B, 3], in a graph
    sharpness: float = 0.0
    annealed: float = 1.0
    extra: Extra | None = None

    @property
    def stretch(self) -> Tensor:
        """[A + E] (|n| - 1)^2."""
        return self.answers["stretch"]

    def bend(self) -> Tensor:
        """[3, P] the difference of the gradients at samples and at their neighbours."""
        first = self.tape.normal.shape[1] - len(self.extra.x)
        near = self.tape.normal[:, first : first + len(self.extra.partner)]
        return self.tape.normal[:, self.extra.partner] - near

    def around(self) -> tuple[Tensor, Tensor]:
        """The extra points that are no neighbours, [E - P, 3], and the distances there, [E - P]."""
        count = len(self.extra.partner)
        return self.extra.x[count:], self.tape.f[len(self.tape.f) - len(self.extra.x) + count :]

    def composited(self, stop: float) -> Composited:
        """What the rays see, in front of black; differentiable."""
        given = self.sigma, self.rgb.T, self.samples.t_start, self.samples.t_end, self.samples.ray_start
        return composite(*given, stop=stop)


@torch.no_grad()
def visible(surface: NeuralSurface, outside, samples: Samples, stop: float, least: float = 0.0) -> Samples:
    """The samples that their ray's light reaches, by distances alone: where the next sample's distance is f', a sample
    lets Phi(f') / Phi(f) through (NeuS, eq. 13). What lies behind a surface, such as the other side of an object, is
    left out before anything is differentiated, and so is what is less than `least` of its ray's colour. Samples of
    `outside` count with its density."""
    if not len(samples):
        return samples
    inside, others = divided(samples, outside is not None)
    loss = torch.nn.functional.softplus(surface_passes.distance(surface, inside.x) * -surface.sharpness)  # -log Phi
    if others is not None:
        loss = loss.new_full((len(samples),), torch.nan).index_copy(0, inside.index, loss)
    tau = torch.zeros_like(loss)
    torch.sub(loss[1:], loss[:-1], out=tau[:-1])
    last = samples.ray_start[1:].long() - 1
    tau[last[samples.ray_start.diff() > 0]] = 0.0  # its next sample is another ray's
    sigma = tau.nan_to_num_(nan=0.0).clamp_min_(0) / (samples.t_end - samples.t_start)
    if others is not None:
        sigma[others.index] = outside.geometry(others.x)[0].clamp_max(_LARGEST_LOGIT).exp()
    ends = samples.t_start, samples.t_end, samples.ray_start
    result = composite(sigma, sigma.new_empty(len(sigma), 0), *ends, stop=stop)
    return _chosen(samples, reached(samples, result.live) & weighty(result.weights, least))


def reached(samples: Samples, live: Tensor) -> Tensor:
    """[M] bool: the first live [N] samples of each ray."""
    change = live.new_zeros(len(samples) + 1)
    starts = samples.ray_start[:-1].long()
    change.index_add_(0, starts, torch.ones_like(live))
    change.index_add_(0, starts + live, -torch.ones_like(live))
    return change[:-1].cumsum(0) > 0


def weighty(weights: Tensor, least: float) -> Tensor:
    """[M] bool: which samples, or the ones just before them, have a weight of `least` or more. What `visible` counts
    as a sample's weight is lost between it and the next one, half of it in the next one's own length."""
    enough = weights >= least
    spread = enough.clone()
    spread[1:] |= enough[:-1]
    return spread


def _chosen(samples: Samples, kept: Tensor) -> Samples:
    """The samples where kept [M] is true."""
    before = torch.zeros(len(kept) + 1, dtype=torch.int32, device=kept.device)
    torch.cumsum(kept, 0, dtype=torch.int32, out=before[1:])
    row = kept.nonzero()[:, 0]
    streams = (each.T[:, row].T for each in (samples.x, samples.directions))
    ends = (each[row] for each in (samples.t_start, samples.t_end))
    return Samples(*streams, *ends, before[samples.ray_start.long()])


def ask(surface: NeuralSurface, outside, samples: Samples, annealed: float = 1.0, more=None) -> Seen:
    """The forward pass at samples; `outside`: a radiance field, or None where all samples are in the unit cube; more:
    what gives the `Extra` points of the surface's samples x [A, 3], or None."""
    inside, others = divided(samples, outside is not None)
    count, extra = len(inside.t_start), None if more is None else more(inside.x)
    if extra is not None:
        inside = _with_points(inside, extra.x)
    tape = surface_passes.forward(surface, inside.x, inside.directions)
    s = surface.sharpness
    found = neus_alpha.answers(tape.f, tape.normal, tape.logits, inside.streams(), neus_alpha.Shape(s, annealed))
    shared = {"sharpness": s, "annealed": annealed, "extra": extra}
    own_sigma, own_rgb = found["sigma"][:count], found["rgb"][:, :count]
    if others is None:
        return Seen(samples, inside, tape, found, _leaf(own_sigma), _leaf(own_rgb), **shared)
    logit, features = outside.geometry(others.x)
    outside_sigma = logit.clamp_max(_LARGEST_LOGIT).exp()
    outside_rgb = outside.color_logits(features, others.directions).sigmoid()
    sigma, rgb = tape.f.new_empty(len(samples)), tape.f.new_empty(3, len(samples))
    sigma[inside.index], rgb[:, inside.index] = own_sigma, own_rgb
    sigma[others.index], rgb[:, others.index] = outside_sigma.detach(), outside_rgb.detach().T
    shared |= {"outside": others, "outside_sigma": outside_sigma, "outside_rgb": outside_rgb}
    return Seen(samples, inside, tape, found, _leaf(sigma), _leaf(rgb), **shared)


def _with_points(part: Part, x: Tensor) -> Part:
    """The part with points [E, 3] behind its samples; what they are as samples counts for nothing."""
    along = x.new_zeros(3, len(x))
    along[2] = 1.0
    streams = (torch.cat((a.T, b), 1).T for a, b in ((part.x, x.T), (part.directions, along)))
    ends = (
        torch.cat((each, x.new_full((len(x),), value))) for each, value in ((part.t_start, 0.0), (part.t_end, 1e-3))
    )
    return Part(part.index, *streams, *ends)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def backward(
    surface: NeuralSurface, seen: Seen, eikonal: float, bend: Tensor | None = None, away: Tensor | None = None
) -> float:
    """Adds the gradients of both fields' parameters, after the loss's own backward pass left those of sigma and rgb;
    eikonal: the gradient of each stretch; bend: [3, P] that of `seen.bend()`; away: [E - P] that of the distances
    of `seen.around()`. Returns the gradient by the sharpness."""
    grad_sigma, grad_rgb = seen.sigma.grad, seen.rgb.grad
    if seen.outside is not None:
        row = seen.outside.index
        if len(row):
            given = [grad_sigma[row], grad_rgb[:, row].T]
            torch.autograd.backward([seen.outside_sigma, seen.outside_rgb], given)
        grad_sigma, grad_rgb = grad_sigma[seen.inside.index], grad_rgb[:, seen.inside.index].contiguous()
    tape, count = seen.tape, len(grad_sigma)
    if seen.extra is not None:  # which no ray sees
        more = (0, len(seen.extra.x))
        grad_sigma, grad_rgb = (torch.nn.functional.pad(each, more) for each in (grad_sigma, grad_rgb))
    shape = seen.inside.streams(), neus_alpha.Shape(seen.sharpness, seen.annealed)
    found = neus_alpha.gradients(grad_sigma, grad_rgb, eikonal, tape.f, tape.normal, seen.answers["rgb"], *shape)
    if bend is not None:
        for grad, part in zip(found["grad_normal"], bend, strict=True):  # torch adds rows in order, and fast
            grad.index_add_(0, seen.extra.partner, part)
        found["grad_normal"][:, count : count + bend.shape[1]] -= bend
    if away is not None:
        found["grad_f"][len(found["grad_f"]) - len(away) :] += away
    surface_passes.backward(surface, tape, found["grad_f"], found["grad_normal"], found["grad_logits"])
    return float(found["grad_sharpness"].sum())


def from_the_cube(rays: Rays, near: float = 0.0) -> Rays:
    """The rays from where they enter the unit cube on, those that meet it; no ray before `near`. What surrounds an
    object is behind it (Zhang et al. 2020, "NeRF++"): in front of it a film of any picture would hide it."""
    enter, leave = through_the_cube(rays)
    start = torch.where(enter < leave, enter, 0.0).clamp_min(near)
    return replace(rays, near=start if rays.near is None else rays.near.maximum(start))


def through_the_cube(rays: Rays) -> tuple[Tensor, Tensor]:
    """[N] each: where rays enter the unit cube (0 where they start in it) and leave it; both 0 where they miss it."""
    low, high = ((bound - rays.origins) / rays.directions for bound in (0.0, 1.0))
    enter = torch.minimum(low, high).nan_to_num(nan=-torch.inf).amax(1)  # NaN: along a face, in its plane
    leave = torch.maximum(low, high).nan_to_num(nan=torch.inf).amin(1)
    meets = (enter < leave) & (leave > 0)
    return torch.where(meets, enter, 0.0).clamp_min(0.0), torch.where(meets, leave, 0.0)


def behind(first: Samples, then: Samples) -> Samples:
    """Each ray's samples of `first` and behind them those of `then`, of as many rays as both have."""
    n = min(first.ray_count, then.ray_count)
    starts = first.ray_start[: n + 1], then.ray_start[: n + 1]
    total = starts[0] + starts[1]
    count = [int(start[-1]) for start in starts]
    rows = [torch.arange(k, device=total.device) for k in count]
    for row, other, end in zip(rows, starts[::-1], (0, 1), strict=True):  # how many of the other's stand before
        own = starts[end].diff().long()
        row += (other[:-1] if end == 0 else other[1:]).long().repeat_interleave(own)

    def joined(a: Tensor, b: Tensor) -> Tensor:
        out = a.new_empty(*a.shape[1:], sum(count))
        out[..., rows[0]], out[..., rows[1]] = a[: count[0]].movedim(0, -1), b[: count[1]].movedim(0, -1)
        return out.movedim(-1, 0)

    names = ("x", "directions", "t_start", "t_end")
    return Samples(*(joined(getattr(first, name), getattr(then, name)) for name in names), total)


@torch.no_grad()
def render_rays(
    surface: NeuralSurface,
    outside,
    grid: OccupancyGrid,
    rays: Rays,
    background: Tensor,
    config: volume.Config,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [N, 3] on `background` [3], opacity [N], mean depth [N] (0 where all is empty) and mean normal [N, 3], of
    the surface alone."""

    def seen(samples: Samples) -> Composited:
        found = ask(surface, outside, samples)
        normal = found.tape.normal
        if found.inside.index is not None:
            normal = normal.new_zeros(3, len(samples)).index_copy(1, found.inside.index, normal)
        both = torch.cat((found.rgb, normal)).T
        given = samples.t_start, samples.t_end, samples.ray_start
        return composite(found.sigma, both, *given, stop=config.stop)

    if outside is not None:
        rays = from_the_cube(rays)
    both, opacity, depth = volume.seen_along(seen, grid, rays, config, channels=6)
    return both[:, :3] + (1 - opacity)[:, None] * background, opacity, depth, both[:, 3:]


def _rays(cameras: Cameras, view: int):
    return volume.view_rays(cameras, view, RAYS_PER_CALL)


def render_view(
    surface: NeuralSurface, outside, grid: OccupancyGrid, cameras: Cameras, view: int, background: Tensor, config
) -> View:
    """One view of `cameras` (in scene coordinates) at its own size, on `background` [3]."""
    given = (background, config)
    parts = [render_rays(surface, outside, grid, rays, *given) for rays in _rays(cameras, view)]
    color, opacity, depth, normal = (torch.cat(part) for part in zip(*parts, strict=True))
    width, height = cameras.size[view].tolist()
    shape = (height, width)
    return View(color.view(*shape, 3), opacity.view(shape), depth.view(shape), normal.view(*shape, 3))
