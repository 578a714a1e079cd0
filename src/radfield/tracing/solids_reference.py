"""The specification of solids.py in plain torch: the same distances, steps and joins. Letters as there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rays import Rays
from .solids import KINDS, OPERATIONS, Hits, Solids

TOUCH, MOST_STEPS, NEWTON_STEPS, GRAZING = 5e-6, 256, 2, 0.02  # as in solids.h
_CLOSED = ("plane", "sphere", "box")


def trace_solids_reference(
    solids: Solids, rays: Rays, *, limit: Tensor | None = None, inside: bool = False, normals: bool = True
) -> Hits:
    """As `trace_solids`, in the rays' floating-point type."""
    o, d = rays.origins, rays.directions
    best = torch.full_like(o[:, 0], torch.inf) if limit is None else limit.to(o).clone()
    solid = torch.full_like(best, -1, dtype=torch.int32)
    for s in range(len(solids.bound)):
        near, far = _interval(solids.bound[s].to(o), o, d, best)
        shapes = range(int(solids.first[s]), int(solids.first[s + 1]))
        kind = _kind(solids, shapes[0])
        rounded = kind == "box" and bool(solids.sizes[shapes[0], 3] != 0)
        if len(shapes) == 1 and kind in _CLOSED and not inside and not rounded:
            t = torch.where(near < far, _closed(solids, shapes[0], o, d), torch.inf)
        else:
            t = _march(solids, shapes, o, d, near, far, -1 if inside else 1)
        solid = torch.where(t < best, s, solid)
        best = torch.minimum(t, best)
    x = o + best.where(solid >= 0, 0)[:, None] * d
    index, normal = torch.full_like(solid, -1), torch.zeros_like(o)
    for s in solid[solid >= 0].unique().tolist():
        mine = solid == s
        shapes = range(int(solids.first[s]), int(solids.first[s + 1]))
        _, gradient, index[mine] = solid_distance(solids, shapes, x[mine])
        normal[mine] = torch.nn.functional.normalize(gradient, dim=-1)
    return Hits(torch.where(index < 0, torch.inf, best), normal if normals else None, index)


def solid_distance(solids: Solids, shapes: range, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(distance [N], its gradient [N, 3], deciding shape [N] int32) of points x [N, 3]."""
    for q in shapes:
        turn = solids.placement[q, :9].to(x).view(3, 3)
        p = (x - solids.placement[q, 9:].to(x)) @ turn.T
        d, g = primitive(_kind(solids, q), solids.sizes[q].tolist(), p)
        g = g @ turn
        if q == shapes[0]:
            distance, gradient, index = d, g, torch.full_like(d, q, dtype=torch.int32)
            continue
        blend = float(solids.sizes[q, 4])
        distance, old, new = _join(OPERATIONS[int(solids.operation[q])], blend, distance, d)
        gradient = gradient * old[:, None] + g * new[:, None]
        index = torch.where(new.abs() > old.abs(), q, index)
    return distance, gradient, index


def primitive(kind: str, s: list[float], p: Tensor) -> tuple[Tensor, Tensor]:
    """(distance [N], gradient [N, 3]) of points p [N, 3] in the shape's axes."""
    x, y, z = p.unbind(-1)
    if kind == "plane":
        return z, torch.stack((0 * x, 0 * x, 0 * x + 1), -1)
    if kind in ("sphere", "capsule"):
        rest = p if kind == "sphere" else torch.stack((x, y, z - z.clamp(-s[1], s[1])), -1)
        length = rest.norm(dim=-1)
        return length - s[0], rest / length.clamp_min(1e-20)[:, None]
    if kind == "box":
        d, g = _slabs(p.abs() - (p.new_tensor(s[:3]) - s[3]))
        return d - s[3], _sign(p) * g
    a = torch.hypot(x, y)
    radial = p[:, :2] / a.clamp_min(1e-20)[:, None]
    if kind == "torus":
        rest = torch.stack((a - s[0], z), -1)
        length = rest.norm(dim=-1)
        rest = rest / length.clamp_min(1e-20)[:, None]
        return length - s[1], torch.cat((radial * rest[:, :1], rest[:, 1:]), -1)
    if kind == "cylinder":
        d, g = _slabs(torch.stack((a - (s[0] - s[2]), z.abs() - (s[1] - s[2])), -1))
        return d - s[2], torch.cat((radial * g[:, :1], _sign(z)[:, None] * g[:, 1:]), -1)
    return _gyroid(s, p)


def _slabs(q: Tensor) -> tuple[Tensor, Tensor]:
    # Distance to the corner region q <= 0 and its gradient; q [N, 2 or 3]. Of equally deep faces all count.
    outside, deepest = q.clamp_min(0).norm(dim=-1), q.amax(-1)
    face = (q == deepest[:, None]).to(q)
    if q.shape[1] == 2:  # the cylinder's mantle comes before its caps
        face = torch.stack((face[:, 0], 1 - face[:, 0]), -1)
    away = q.clamp_min(0) / outside.clamp_min(1e-20)[:, None]
    return outside + deepest.clamp_max(0), torch.where(deepest[:, None] > 0, away, face)


def _gyroid(s: list[float], p: Tensor) -> tuple[Tensor, Tensor]:
    u = 2 * math.pi * s[0] * p
    sine, cosine = u.sin(), u.cos()
    wave = (sine * cosine.roll(-1, -1)).sum(-1)
    slope = cosine * cosine.roll(-1, -1) - sine.roll(1, -1) * sine
    root = math.sqrt(3)
    return wave.abs() / (2 * math.pi * root * s[0]) - s[1], _sign(wave)[:, None] * slope / root


def _join(operation: str, blend: float, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # (distance, weight of a's gradient, weight of b's)
    if operation == "union":
        h = (blend - (a - b).abs()).clamp_min(0) / blend if blend > 0 else torch.zeros_like(a)
        old = torch.where(a <= b, 1 - 0.5 * h, 0.5 * h)
        return torch.minimum(a, b) - 0.25 * blend * h * h, old, 1 - old
    sign = -1 if operation == "subtract" else 1
    first = a >= sign * b
    return torch.maximum(a, sign * b), first.to(a), torch.where(first, 0.0, float(sign)).to(a)


def _interval(bound: Tensor, o: Tensor, d: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    if bound[3] < 0:
        return torch.zeros_like(best), best
    o = o - bound[:3]
    b = (o * d).sum(-1)
    inside = bound[3] ** 2 - (o - b[:, None] * d).square().sum(-1)
    half = inside.clamp_min(0).sqrt()
    near, far = (-b - half).clamp_min(0), torch.minimum(half - b, best)
    return near, torch.where((inside > 0) & (near < far), far, -1)


def _march(solids: Solids, shapes: range, o: Tensor, d: Tensor, near: Tensor, far: Tensor, sign: int) -> Tensor:
    t, on = near.clone(), near < far
    met = torch.zeros_like(on)
    for _ in range(MOST_STEPS):
        if not on.any():
            break
        distance = solid_distance(solids, shapes, o + t[:, None] * d)[0] * sign
        met |= on & (distance < TOUCH)
        on &= distance >= TOUCH
        t = torch.where(on, t + distance, t)
        on &= t < far
    for _ in range(NEWTON_STEPS):
        distance, gradient, _ = solid_distance(solids, shapes, o + t[:, None] * d)
        slope = (gradient * d).sum(-1)
        steep = slope * sign < -GRAZING
        t = torch.where(met & steep, t - distance / torch.where(steep, slope, 1), t)
    return torch.where(met, t.clamp_min(0), torch.inf)


def _closed(solids: Solids, q: int, o: Tensor, d: Tensor) -> Tensor:
    turn = solids.placement[q, :9].to(o).view(3, 3)
    o, d = (o - solids.placement[q, 9:].to(o)) @ turn.T, d @ turn.T
    kind, s = _kind(solids, q), solids.sizes[q].to(o)
    if kind == "plane":
        t = -o[:, 2] / torch.where(d[:, 2] == 0, 1e-20, d[:, 2])
        return torch.where((d[:, 2] < 0) & (o[:, 2] >= 0), t, torch.inf)
    if kind == "sphere":
        b = (o * d).sum(-1)
        inside = s[0] ** 2 - (o - b[:, None] * d).square().sum(-1)
        t = -b - inside.clamp_min(0).sqrt()
        return torch.where((inside > 0) & (t > 0), t, torch.inf)
    inverse = 1 / torch.where(d.abs() < 1e-12, 1e-12, d)
    middle, reach = -o * inverse, s[:3] * inverse.abs()
    near, far = (middle - reach).amax(-1), (middle + reach).amin(-1)
    return torch.where((near <= far) & (near > 0), near, torch.inf)


def _kind(solids: Solids, q: int) -> str:
    return list(KINDS)[int(solids.kind[q])]


def _sign(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1, 1).to(x)
