"""Light through a medium in a box (Novak et al. 2018, "Monte Carlo methods for volumetric light transport simulation").

    sigma(x)   extinction per unit of length        a(x)   albedo, the part of it that scatters
    L(w)       radiance of the environment          p(w' | w)   phase function (Henyey and Greenstein 1941)

`delta_track` gives all orders of scattering without bias (Woodcock et al. 1965): free flights of length
-ln(1 - u) / sigma_max; a collision is real with probability sigma / sigma_max. `march` gives what is scattered once,
without noise:

    C = T(far) L(w) + sum_i T_i (1 - exp(-sigma_i dt)) a_i mean_k L(w_k) 4 pi p(w_k | w) T(x_i, w_k)

A medium is any function from [M, 3] points to (sigma [M], a [M, 3] or one for all). That of a field (`FieldMedium`) is
marched in one pass (op `media_march`): tiles of rays step, ask grid and network and gather light without
anything but their colours being in memory. What `march` does with any other, step after step over all rays, is its
specification.

Letters: N rays (R in the op, whose other letters are those of networks/grid_mlp.py), M points, K directions of light.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from ..fields.values import ValueField
from ..networks.grid_mlp import FIELD, RAYS_IN_A_ROW, field_arguments, frame_launches, takes
from ..op import In, InOut, Op, Out, Scalar
from ..rays import Rays, check_width
from ..sampling.random import random_bits, stream, unit_float
from ..tensors import feature_major

Medium = Callable[[Tensor], tuple[Tensor, Tensor]]
_NUMBERS = 4  # random numbers of an event
MOST_EVENTS = 1 << 12  # of a path: flights, real collisions or not
MOST_RAYS = 1 << 18  # at once, so that every event has numbers of its own
_PER_CALL = 1 << 17
MARCH = Op(
    "media_march",
    Out("color", "f32", "R 3"),
    InOut("nanoseconds", "i64", "3", "CPU time of all threads: grid, network, altogether; not on CUDA", optional=True),
    In("origins", "f32", "3 R"),
    In("directions", "f32", "3 R"),
    In("box", "f32", "2 3"),
    In("towards", "f32", "3 K", "directions to the light"),
    In("light", "f32", "3 K", "their radiance"),
    In("sky", "f32", "5 3", "zenith, horizon, ground, the sun's direction, its colour"),
    Scalar("sharpness", "float"),
    Scalar("extinction", "float", "of the field's density 1"),
    Scalar("g", "float"),
    Scalar("least", "float"),
    Scalar("steps", "int"),
    Scalar("light_steps", "int"),
    Scalar("width", "int", "of the image whose pixels, row by row, the rays are; 0: of none"),
    *FIELD,
)


@MARCH.cuda
def _(a):
    return frame_launches(a, "media_march", -(-a.R // RAYS_IN_A_ROW))


@dataclass(frozen=True)
class FieldMedium:
    """The medium that a field of values is in [0, 1]^3: a density, whose 1 has this extinction, and where there are
    four values an albedo."""

    field: ValueField
    extinction: float = 1.0

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(sigma [M], albedo [M, 3] or [1, 3]) at points [M, 3]."""
        parts = [self.field.values(part) for part in x.split(_PER_CALL)]
        found = torch.cat(parts) if parts else x.new_zeros(0, self.field.config.channels)
        density = self.extinction * found[:, 0].clamp(0, 1)
        return density, x.new_ones(1, 3) if found.shape[1] == 1 else found[:, 1:].clamp(0, 1)


@dataclass(frozen=True)
class Environment:
    """A sky that brightens around a sun. Colours are linear radiance; sun: the direction to it; sharpness: the larger,
    the smaller the sun."""

    zenith: tuple[float, float, float] = (0.25, 0.4, 0.8)
    horizon: tuple[float, float, float] = (0.7, 0.75, 0.8)
    ground: tuple[float, float, float] = (0.15, 0.13, 0.1)
    sun: tuple[float, float, float] = (0.5, 0.4, 0.77)
    sun_color: tuple[float, float, float] = (6.0, 5.4, 4.5)
    sharpness: float = 24.0

    def table(self) -> Tensor:
        """[5, 3]: zenith, horizon, ground, the unit direction to the sun, its colour."""
        table = torch.tensor([self.zenith, self.horizon, self.ground, self.sun, self.sun_color])
        table[3] = torch.nn.functional.normalize(table[3], dim=0)
        return table

    def radiance(self, w: Tensor) -> Tensor:
        """L [N, 3] of directions w [N, 3]."""
        zenith, horizon, ground, sun, color = self.table().to(w)
        end = torch.where(w[:, 2:] < 0, ground, zenith)
        sky = horizon + w[:, 2:].abs().sqrt() * (end - horizon)
        return sky + color * torch.exp(self.sharpness * (w @ sun - 1))[:, None]


def phase(cosine: Tensor, g: float) -> Tensor:
    """4 pi p of the cosine between two directions of flight: 1 everywhere for g = 0."""
    return (1 - g * g) / (1 + g * g - 2 * g * cosine) ** 1.5


def scattered(w: Tensor, u: Tensor, v: Tensor, g: float) -> Tensor:
    """Directions [N, 3] drawn by the phase function around w [N, 3], of numbers u, v [N] in [0, 1)."""
    if abs(g) < 1e-3:
        cosine = 1 - 2 * u
    else:
        cosine = (1 + g * g - ((1 - g * g) / (1 - g + 2 * g * u)) ** 2) / (2 * g)
    sine = (1 - cosine * cosine).clamp_min(0).sqrt()
    # an orthonormal basis without branches (Duff et al. 2017)
    sign = torch.where(w[:, 2] < 0, -1.0, 1.0)
    a = -1 / (sign + w[:, 2])
    b = w[:, 0] * w[:, 1] * a
    first = torch.stack([1 + sign * w[:, 0] ** 2 * a, sign * b, -sign * w[:, 0]], 1)
    second = torch.stack([b, sign + w[:, 1] ** 2 * a, -w[:, 1]], 1)
    angle = 2 * math.pi * v
    around = angle.cos()[:, None] * first + angle.sin()[:, None] * second
    return torch.nn.functional.normalize(sine[:, None] * around + cosine[:, None] * w, dim=1)


def crossing(origins: Tensor, directions: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """(near, far) [N] of rays in the box [2, 3]; near >= far where they miss it. near is at least 0."""
    divisor = torch.where(directions == 0, torch.finfo(directions.dtype).tiny, directions)
    to = (box[:, None] - origins) / divisor
    return to.amin(0).amax(1).clamp_min(0), to.amax(0).amin(1)


@torch.no_grad()
def delta_track(
    medium: Medium,
    majorant: float,
    box: Tensor,
    rays: Rays,
    environment: Environment,
    *,
    seed: int = 0,
    g: float = 0.0,
    most_scatterings: int = 64,
) -> Tensor:
    """Radiance [N, 3] that one path per ray finds; the mean over seeds converges to what is seen. majorant: no sigma in
    the box [2, 3] is larger (what is, counts as this). After `most_scatterings` a path ends in the dark, which is all
    the bias there is. The same seed gives two media the same random numbers."""
    parts = [
        _delta_track(medium, majorant, box, rays[i : i + MOST_RAYS], environment, stream(seed, i), g, most_scatterings)
        for i in range(0, len(rays), MOST_RAYS)
    ]
    return torch.cat(parts) if parts else rays.origins.new_zeros(0, 3)


def _delta_track(medium, majorant, box, rays, environment, seed, g, most_scatterings) -> Tensor:
    color = environment.radiance(rays.directions)
    near, far = crossing(rays.origins, rays.directions, box)
    ray = ((far > near) & (majorant > 0)).nonzero()[:, 0]
    w, left = rays.directions[ray], (far - near)[ray]
    x = rays.origins[ray] + near[ray, None] * w
    through, bounces = torch.ones_like(x), torch.zeros_like(ray)
    color[ray] = 0
    for event in range(MOST_EVENTS):
        if not len(ray):
            break
        first = (ray * MOST_EVENTS + event) * _NUMBERS
        flight = -torch.log1p(-unit_float(random_bits(seed, first))) / majorant
        inside = flight < left
        color.index_add_(0, ray[~inside], through[~inside] * environment.radiance(w[~inside]))
        ray, w, left, through, bounces, flight, first = (
            v[inside] for v in (ray, w, left - flight, through, bounces, flight, first)
        )
        x = x[inside] + flight[:, None] * w
        sigma, albedo = medium(x)
        real = (unit_float(random_bits(seed, first + 1)) * majorant < sigma).nonzero()[:, 0]
        bounces[real] += 1
        through[real] *= albedo.expand(len(x), 3)[real]
        u, v = (unit_float(random_bits(seed, first[real] + n)) for n in (2, 3))
        w[real] = scattered(w[real], u, v, g)
        left[real] = crossing(x[real], w[real], box)[1]
        kept = (bounces < most_scatterings) & (through.amax(1) > 0)
        ray, w, left, through, bounces, x = (v[kept] for v in (ray, w, left, through, bounces, x))
    return color


def sphere_directions(count: int) -> Tensor:
    """[K, 3] directions spread evenly (Fibonacci's lattice)."""
    i = torch.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, math.pi * (1 + 5**0.5) * i
    return torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], 1)


@torch.no_grad()
def march(
    medium: Medium,
    box: Tensor,
    rays: Rays,
    environment: Environment,
    *,
    steps: int = 64,
    light_directions: int = 12,
    light_steps: int = 12,
    g: float = 0.0,
    least: float = 1e-3,
    width: int = 0,
    nanoseconds: Tensor | None = None,
) -> Tensor:
    """Radiance [N, 3] scattered at most once, by `steps` steps along every ray, and `light_steps` towards each of
    `light_directions` from where at least `least` of a step's light is scattered. width: of the image whose pixels, row
    by row, the rays are, which lets neighbours go together. nanoseconds: [3] int64, to which the CPU time of the stages
    is added, where all is one pass."""
    if isinstance(medium, FieldMedium) and takes(medium.field.grid, rays.origins):
        options = {"steps": steps, "light_steps": light_steps, "g": g, "least": least, "width": width}
        return _in_one_pass(medium, box, rays, environment, light_directions, nanoseconds, options)
    near, far = crossing(rays.origins, rays.directions, box)
    length = (far - near).clamp_min(0) / steps
    through, color = torch.ones_like(near), torch.zeros_like(rays.origins)
    towards = sphere_directions(light_directions).to(rays.origins)
    light = environment.radiance(towards)
    for step in range(steps):
        alive = (through > least) & (length > 0)
        index = alive.nonzero()[:, 0]
        x = rays.origins[index] + (near[index] + (step + 0.5) * length[index])[:, None] * rays.directions[index]
        sigma, albedo = medium(x)
        lost = -torch.expm1(-sigma * length[index])
        seen = lost * through[index] > least
        at = index[seen]
        received = _received(medium, box, x[seen], rays.directions[at], towards, light, light_steps, g)
        color[at] += (lost * through[index])[seen, None] * albedo.expand(len(x), 3)[seen] * received
        through[index] *= 1 - lost
    return color + through[:, None] * environment.radiance(rays.directions)


def _in_one_pass(medium, box, rays, environment, light_directions, nanoseconds, options) -> Tensor:
    check_width("march", options["width"], rays)
    for name, value in {**options, "light_directions": light_directions}.items():
        if name in ("steps", "light_steps", "light_directions") and not 1 <= value <= 1 << 16:
            raise BadInput(f"march: {name} is {value}; the rule: from 1 to 2^16")
    device = rays.origins.device
    color = torch.empty(len(rays), 3, device=device)
    towards = sphere_directions(light_directions).to(rays.origins)
    MARCH(
        color=color,
        nanoseconds=nanoseconds,
        origins=feature_major(rays.origins),
        directions=feature_major(rays.directions),
        box=box.to(device).contiguous(),
        towards=feature_major(towards),
        light=feature_major(environment.radiance(towards)),
        sky=environment.table().to(device),
        sharpness=environment.sharpness,
        extinction=medium.extinction,
        **options,
        **field_arguments(medium.field.grid, medium.field.network, rays.origins),
    )
    return color


def _received(medium, box, x, w, towards, light, steps, g) -> Tensor:
    """[M, 3]: the mean over directions of the light that comes from there and is scattered into w."""
    total = torch.zeros_like(x)
    for direction, radiance in zip(towards, light, strict=True):
        length = crossing(x, direction.expand_as(x), box)[1].clamp_min(0) / steps
        depth = torch.zeros_like(length)
        for step in range(steps):
            depth += medium(x + ((step + 0.5) * length)[:, None] * direction)[0] * length
        total += ((-depth).exp() * phase(w @ direction, g))[:, None] * radiance
    return total / len(towards)
