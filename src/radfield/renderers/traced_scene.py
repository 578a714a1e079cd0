"""Triangle meshes and Gaussians in one scene, by rays that are mirrored, bent and shadowed.

A ray first finds the nearest triangle (tracing/bvh.py), then the Gaussians up to there (gaussian_trace.py); what is
left of it goes on by the surface's material:

- matte: its colour, in the ambient light and in that of the sun where neither a mesh nor Gaussians stand before it;
- mirror: the reflected ray, tinted by the colour;
- glass: the bent ray and the reflected one, shared out by Fresnel's equations for unpolarised light. Rays that leave
  the mesh are bent back, or reflected totally.

Rays whose share of the picture is below LEAST_SHARE end, as do those after `bounces` surfaces. `shadowed` is the other
direction: Gaussians that stand in the shadow of meshes.

Letters: N rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from ..gaussians.scene import GaussianScene
from ..rays import Rays
from ..tracing.bvh import FAR, Bvh, trace_triangles
from ..tracing.particle_bvh import ParticleBvh
from .gaussian_color import HARMONIC_0
from .gaussian_trace import DEFAULT, Tracing, scene_bvh, trace

MATERIALS = ("matte", "mirror", "glass")
LEAST_SHARE = 0.01
_STEP = 1e-5  # off a surface, as a part of its distance and the scene's size


@dataclass(frozen=True)
class Surface:
    """A mesh and what it is made of. color: of matte, or the tint of mirror and glass. index: of refraction. smooth:
    normals are interpolated between the corners, so that a few triangles bend light like the round thing they stand
    for."""

    bvh: Bvh
    material: str = "matte"
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    index: float = 1.5
    smooth: bool = True

    def __post_init__(self):
        if self.material not in MATERIALS:
            raise BadInput(f"Surface: material is {self.material!r:.40}; the rule: one of {', '.join(MATERIALS)}")
        if not 1 <= self.index <= 10:
            raise BadInput(f"Surface: index is {self.index}; the rule: from 1 to 10")

    @cached_property
    def corner_normals(self) -> Tensor:
        """[P, 3], the mean of the triangles around each corner by their area."""
        a, b, c = self.bvh.vertices[self.bvh.triangles].unbind(1)
        across = torch.linalg.cross(b - a, c - a)
        total = torch.zeros_like(self.bvh.vertices)
        for corner in range(3):
            total.index_add_(0, self.bvh.triangles[:, corner], across)
        return torch.nn.functional.normalize(total, dim=-1)

    def normals(self, index: Tensor, weights: Tensor) -> Tensor:
        """[N, 3] at hits on triangles `index` [N]."""
        flat = self.bvh.normals[index]
        if not self.smooth:
            return flat
        second, third = weights.unbind(-1)
        shares = torch.stack((1 - second - third, second, third), -1)
        round_ = (self.corner_normals[self.bvh.triangles[index]] * shares[..., None]).sum(1)
        return torch.nn.functional.normalize(round_, dim=-1)


@dataclass(frozen=True)
class Sun:
    """Light from one direction: `towards` the sun, any length; `ambient` is the share of light from everywhere."""

    towards: tuple[float, float, float] = (0.3, 0.4, 1.0)
    ambient: float = 0.35

    def __post_init__(self):
        if not any(self.towards) or not 0 <= self.ambient <= 1:
            found = f"towards {self.towards}, ambient {self.ambient}"
            raise BadInput(f"Sun: {found}; the rule: a direction, and from 0 to 1")


NOON = Sun()


class Hits(NamedTuple):
    """The nearest surface: its number (-1: none), the distance (inf), the normal."""

    surface: Tensor
    depth: Tensor
    normal: Tensor


def nearest_surface(surfaces: list[Surface], rays: Rays) -> Hits:
    """Where rays meet the first of all triangles."""
    n = len(rays)
    found = Hits(torch.full((n,), -1), torch.full((n,), torch.inf), torch.zeros(n, 3))
    for number, surface in enumerate(surfaces):
        hit = trace_triangles(surface.bvh, rays)
        nearer = hit.depth < found.depth
        normal = surface.normals(hit.index.clamp_min(0).long(), hit.weights)
        found = Hits(
            torch.where(nearer, number, found.surface),
            torch.where(nearer, hit.depth, found.depth),
            torch.where(nearer[:, None], normal, found.normal),
        )
    return found


class _Scene(NamedTuple):
    gaussians: GaussianScene
    surfaces: list[Surface]
    sun: Sun
    background: Tensor
    tracing: Tracing
    bvh: ParticleBvh | None


class _Paths(NamedTuple):
    """Rays under way, the pixel that each belongs to, and its share [N, 3] of that."""

    rays: Rays
    pixel: Tensor
    share: Tensor


def trace_scene(
    gaussians: GaussianScene,
    surfaces: list[Surface],
    rays: Rays,
    *,
    sun: Sun = NOON,
    background: Tensor | None = None,
    bounces: int = 8,
    tracing: Tracing = DEFAULT,
    bvh: ParticleBvh | None = None,
) -> Tensor:
    """[N, 3], the colours that `rays` see of Gaussians and surfaces together, over `background` [3], black by default.
    `bvh` is the tree of the Gaussians, made here where there is none. Not differentiable. Raises `BadInput` for a
    number of bounces out of range, and what `trace` refuses."""
    if not 0 <= bounces <= 64:
        raise BadInput(f"trace_scene: bounces is {bounces}; the rule: from 0 to 64")
    with torch.no_grad():
        bvh = bvh or scene_bvh(gaussians, tracing.kernel)
        background = torch.zeros(3) if background is None else background
        scene = _Scene(gaussians, surfaces, sun, background, tracing, bvh)
        color = torch.zeros(len(rays), 3)
        paths = _Paths(rays, torch.arange(len(rays)), torch.ones(len(rays), 3))
        for bounce in range(bounces + 1):
            if not len(paths.pixel):
                break
            paths = _bounce(scene, paths, color, last=bounce == bounces)
    return color


def _bounce(scene: _Scene, paths: _Paths, color: Tensor, last: bool) -> _Paths:
    """Adds what the paths see up to the next surface, and of it; returns those that go on."""
    hits = nearest_surface(scene.surfaces, paths.rays)
    far = hits.depth if paths.rays.far is None else hits.depth.minimum(paths.rays.far)
    rays = Rays(paths.rays.origins, paths.rays.directions, paths.rays.near, far.clamp_max(FAR))
    seen = trace(scene.gaussians, rays, tracing=scene.tracing, bvh=scene.bvh)
    color.index_add_(0, paths.pixel, paths.share * seen.color)
    share = paths.share * (1 - seen.opacity)[:, None]
    missed = hits.surface < 0
    color.index_add_(0, paths.pixel[missed], share[missed] * scene.background)
    on = []
    for number, surface in enumerate(scene.surfaces):
        here = (hits.surface == number) & (share.amax(1) > LEAST_SHARE)
        if not bool(here.any()):
            continue
        tint = share[here] * torch.tensor(surface.color)
        part = _Paths(rays[here], paths.pixel[here], tint)
        at = Hits(hits.surface[here], hits.depth[here], hits.normal[here])
        if surface.material == "matte":
            color.index_add_(0, part.pixel, tint * _light(scene, part.rays, at)[:, None])
        elif not last:
            on += _mirrored(part, at) if surface.material == "mirror" else _through_glass(part, at, surface.index)
    if not on:
        return _Paths(rays[:0], paths.pixel[:0], share[:0])
    joined = [
        torch.cat(values)
        for values in zip(*((p.rays.origins, p.rays.directions, p.pixel, p.share) for p in on), strict=True)
    ]
    kept = joined[3].amax(1) > LEAST_SHARE
    return _Paths(Rays(joined[0][kept], joined[1][kept]), joined[2][kept], joined[3][kept])


def _facing(rays: Rays, at: Hits) -> tuple[Tensor, Tensor]:
    """The normals towards where the rays come from, and the cosine there."""
    along = (at.normal * rays.directions).sum(-1, keepdim=True)
    return torch.where(along > 0, -at.normal, at.normal), along.abs()


def _leaving(rays: Rays, at: Hits, directions: Tensor, normal: Tensor) -> Rays:
    """Rays from the hits on the side of `normal`, a little off the surface."""
    off = _STEP * (1 + at.depth)[:, None] * normal
    return Rays(rays.at(at.depth) + off, torch.nn.functional.normalize(directions, dim=-1))


def _mirrored(paths: _Paths, at: Hits) -> list[_Paths]:
    normal, cosine = _facing(paths.rays, at)
    reflected = paths.rays.directions + 2 * cosine * normal
    return [_Paths(_leaving(paths.rays, at, reflected, normal), paths.pixel, paths.share)]


def fresnel(cosine: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """(share reflected, cosine behind the surface) of unpolarised light that comes in at `cosine`; ratio: index before
    the surface over that behind it. All is reflected beyond the critical angle."""
    squared = 1 - ratio.square() * (1 - cosine.square())
    behind = squared.clamp_min(0).sqrt()
    across = (ratio * cosine - behind) / (ratio * cosine + behind).clamp_min(1e-9)
    along = (cosine - ratio * behind) / (cosine + ratio * behind).clamp_min(1e-9)
    return torch.where(squared <= 0, 1.0, (across.square() + along.square()) / 2), behind


def _through_glass(paths: _Paths, at: Hits, index: float) -> list[_Paths]:
    normal, cosine = _facing(paths.rays, at)
    outside = (at.normal * paths.rays.directions).sum(-1, keepdim=True) < 0
    ratio = torch.where(outside, 1 / index, index)
    reflected, behind = fresnel(cosine, ratio)
    bent = ratio * paths.rays.directions + (ratio * cosine - behind) * normal
    through = _Paths(_leaving(paths.rays, at, bent, -normal), paths.pixel, paths.share * (1 - reflected))
    mirrored = _mirrored(paths, at)[0]
    return [through, mirrored._replace(share=paths.share * reflected)]


def sun_reaches(surfaces: list[Surface], rays: Rays) -> Tensor:
    """[N], 0 where matte and mirror stand before the sun, the tint's mean for glass."""
    left = torch.ones(len(rays))
    for surface in surfaces:
        blocked = trace_triangles(surface.bvh, rays).index >= 0
        passes = sum(surface.color) / 3 if surface.material == "glass" else 0.0
        left = torch.where(blocked, left * passes, left)
    return left


def _light(scene: _Scene, rays: Rays, at: Hits) -> Tensor:
    """[N], the light that a matte surface sends back of a white sun."""
    towards = torch.nn.functional.normalize(torch.tensor(scene.sun.towards), dim=0)
    normal, _ = _facing(rays, at)
    cosine = (normal @ towards).clamp_min(0)
    shadow = _leaving(rays, at, towards.expand_as(normal), normal)
    left = sun_reaches(scene.surfaces, shadow)
    left = left * (1 - trace(scene.gaussians, shadow, tracing=scene.tracing, bvh=scene.bvh).opacity)
    return scene.sun.ambient + (1 - scene.sun.ambient) * cosine * left


def shadowed(gaussians: GaussianScene, surfaces: list[Surface], sun: Sun = NOON) -> GaussianScene:
    """The Gaussians with the colours that they have where the meshes keep the sun from them: each as a whole, by a ray
    from its centre."""
    towards = torch.nn.functional.normalize(torch.tensor(sun.towards), dim=0)
    centres = gaussians.means.detach().T.contiguous()
    left = sun_reaches(surfaces, Rays(centres, towards.expand_as(centres).contiguous()))
    share = sun.ambient + (1 - sun.ambient) * left
    parts = gaussians.tensors()
    parts["base"] = gaussians.base * share + (share - 1) * (0.5 / HARMONIC_0)
    parts["rest"] = gaussians.rest * share
    return GaussianScene(**parts)
