"""The specification of `gaussian_trace.py`, in torch, of any float type: every particle for every ray, sorted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..encodings.spherical_harmonics import spherical_harmonics_reference
from .gaussian_color import HARMONIC_0
from .gaussian_projection_reference import rotation_matrices

SLOPE = 0.329630334487
THINNEST = 1e-5  # a scale counts as at least this part of the particle's largest
SMALLEST_SCALE, LARGEST_SCALE, FARTHEST_MEAN = 1e-9, 1e9, 1e12


class Meetings(NamedTuple):
    """Rays and particles [N, G]."""

    tau: Tensor  # distance of the point of largest response along the ray
    raw: Tensor  # opacity times response there
    on: Tensor  # whether the ray meets the particle
    entry: Tensor  # [N, G, 3], the normal where it enters the particle


def kernel_response(square: Tensor, degree: int) -> Tensor:
    """At the squared distance `square`, in the particle's units."""
    distance = square.clamp_min(1e-24).sqrt()
    if degree == 0:
        return (1 - SLOPE * distance).clamp_min(0)
    return (-4.5 * (square / 9 if degree == 2 else (distance / 3) ** degree)).exp()


def kernel_radius(opacity: Tensor, min_response: float, degree: int) -> Tensor:
    """Where opacity times response is `min_response`."""
    ratio = (opacity / min_response).clamp_min(1)
    if degree == 0:
        return (1 - 1 / ratio) / SLOPE
    return 3 * (ratio.log() / 4.5) ** (1 / degree)


def is_met(means, quaternions, scales, opacities, min_response: float) -> Tensor:
    """[G], whether a ray can meet the particle at all."""
    values = torch.cat((means, quaternions, scales, opacities[None])).detach()
    scales, largest = scales.detach(), scales.detach().amax(0)
    met = values.isfinite().all(0) & (quaternions.detach().square().sum(0) > 0) & (scales >= 0).all(0)
    met &= (largest >= SMALLEST_SCALE) & (largest <= LARGEST_SCALE) & (opacities.detach() > min_response)
    return met & (means.detach().abs() <= FARTHEST_MEAN).all(0)


def meetings(means, quaternions, scales, opacities, rays, kernel) -> Meetings:
    """Every ray with every particle, without a rule of order. `rays`: origins, directions, near, far."""
    origins, directions, near, far = rays
    met = is_met(means, quaternions, scales, opacities, kernel.min_response)
    unit = quaternions.new_tensor([1.0, 0.0, 0.0, 0.0])
    rotation = rotation_matrices(torch.where(met[:, None], quaternions.T, unit))
    scales = torch.where(met[:, None], scales.T, 1.0)
    scales = scales.maximum(scales.detach().amax(1, keepdim=True) * THINNEST)
    whiten = rotation.mT / scales[:, :, None]
    opacity = torch.where(met, opacities, 0.0)
    off = origins[:, None] - torch.where(met[:, None], means.T, 0.0)
    o, m = torch.einsum("gij,ngj->ngi", whiten, off), torch.einsum("gij,nj->ngi", whiten, directions)
    tau = -(o * m).sum(-1) / (m * m).sum(-1)
    u = o + tau[..., None] * m
    square = u.square().sum(-1)
    raw = opacity * kernel_response(square, kernel.degree)
    on = (raw >= kernel.min_response) & (tau > near[:, None]) & (tau < far[:, None])
    with torch.no_grad():
        reach = kernel_radius(opacity, kernel.min_response, kernel.degree).square() - square
        p = u - (reach.clamp_min(0) / (m * m).sum(-1)).sqrt()[..., None] * m
        entry = torch.nn.functional.normalize(torch.einsum("gij,ngi->ngj", whiten, p), dim=-1)
    return Meetings(tau, raw, on.detach(), entry)


def colors(base, rest, directions) -> Tensor:
    """[N, G, 3], of all particles along all rays."""
    coefficients = torch.cat((base[None], rest.view(-1, 3, base.shape[1])))  # [K, 3, G]
    degree = round(len(coefficients) ** 0.5) - 1
    values = spherical_harmonics_reference(directions, degree + 1).clone()
    values[:, 0] = HARMONIC_0
    return (0.5 + torch.einsum("nk,kcg->ngc", values, coefficients)).clamp_min(0)


def trace_reference(
    means, quaternions, scales, opacities, base, rest, rays, kernel, *, min_transmittance: float, max_alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(color [N, 3], depth [N], transmittance [N], hits [N], normals [N, 3]) of particles as streams and `rays` =
    (origins [N, 3], directions [N, 3], near [N], far [N])."""
    if not len(opacities) or not len(rays[0]):
        zeros = rays[0] * 0  # which keeps its place in the graph
        return zeros, zeros[:, 0], zeros[:, 0] + 1, zeros[:, 0].detach().int(), zeros
    found = meetings(means, quaternions, scales, opacities, rays, kernel)
    rank = torch.where(found.on, found.tau.detach().float(), torch.inf)
    limits = {"min_transmittance": min_transmittance, "max_alpha": max_alpha}
    return blend_in_order(found, rank, colors(base, rest, rays[1]), **limits)


def blend_in_order(
    found: Meetings, rank: Tensor, colors: Tensor, *, min_transmittance: float, max_alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `trace_reference`, of what rays meet, smallest `rank` [N, G] first; `colors` [N, G, 3]."""
    order = rank.argsort(dim=1, stable=True)[:, : max(int(found.on.sum(1).max()), 1)]
    tau, raw, on = (v.gather(1, order) for v in found[:3])
    alpha = torch.where(on, raw.clamp_max(max_alpha), 0.0)
    before = torch.cat((torch.ones_like(alpha[:, :1]), (1 - alpha.detach()).cumprod(1)[:, :-1]), 1)
    alpha = torch.where(before > min_transmittance, alpha, 0.0)
    after = (1 - alpha).cumprod(1)
    weight = alpha * torch.cat((torch.ones_like(alpha[:, :1]), after[:, :-1]), 1)
    pick = order[..., None].expand(-1, -1, 3)
    color = (weight[..., None] * colors.gather(1, pick)).sum(1)
    normals = (weight.detach()[..., None] * found.entry.gather(1, pick)).sum(1)
    depth = torch.where(on, weight * tau, 0.0).sum(1)
    return color, depth, after[:, -1], (alpha > 0).sum(1).int(), normals
