"""Light: a sun, a sky brighter from above, Phong highlights and the sky's mirror image.

With n the outward normal, d the ray's direction, r = d - 2 (d . n) n, s towards the sun, v the sun's visibility:

    sky(w) = mix(horizon, zenith, sqrt(w_z)) above, mix(horizon, ground, sqrt(-w_z)) below
    light  = mix(ground light, sky light, (1 + n_z) / 2) + sun max(n . s, 0) v
    F      = R + (1 - R) (1 - |d . n|)^5 where the reflection R > 0, else 0     (Schlick 1994)
    linear = (1 - F) albedo light + F sky(r) + highlight max(r . s, 0)^shininess v

sky light and ground light are grey: `AMBIENT`. Colours leave as sRGB, cut at 1: pictures are averaged and blended in
sRGB, which is what a trained field does too. Letters: N points or directions, Q materials.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..op import In, Op, Out
from ..srgb import encode_srgb
from ..tensors import feature_major

AMBIENT = (0.14, 0.38)  # from below, from above

SHADE = Op(
    "shade",
    Out("color", "f32", "3 N", "sRGB"),
    In("albedo", "f32", "3 N", "linear light"),
    In("normal", "f32", "3 N", "outward unit vectors"),
    In("directions", "f32", "3 N", "of the rays that see the points"),
    In("visible", "f32", "N", "the share of the sun that arrives"),
    In("index", "i32", "N", "material, from 0 to Q - 1"),
    In("gloss", "f32", "Q 3", "highlight, shininess, reflection"),
    In("light", "f32", "5 3", "towards the sun (a unit vector); sun, zenith, horizon, ground (linear light)"),
)
SKY = Op(
    "sky",
    Out("color", "f32", "3 N", "sRGB"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("light", "f32", "5 3", "as for shade"),
)


@SHADE.cuda
def _(a):
    return Launch("shade", blocks(a.N))


@SKY.cuda
def _(a):
    return Launch("sky", blocks(a.N))


@dataclass(frozen=True)
class Light:
    """towards: the sun's direction, any length. The others are linear light."""

    towards: tuple[float, float, float] = (0.45, -0.35, 0.82)
    sun: tuple[float, float, float] = (0.80, 0.80, 0.80)
    zenith: tuple[float, float, float] = (0.20, 0.36, 0.68)
    horizon: tuple[float, float, float] = (0.72, 0.78, 0.84)
    ground: tuple[float, float, float] = (0.16, 0.14, 0.12)

    def table(self) -> Tensor:
        """[5, 3], the op's argument."""
        towards = torch.nn.functional.normalize(torch.tensor(self.towards), dim=0)
        return torch.stack((towards, *map(torch.tensor, (self.sun, self.zenith, self.horizon, self.ground))))


def shade(albedo, normal, directions, visible, index, gloss, light) -> Tensor:
    """[N, 3] sRGB. albedo, normal, directions: [N, 3]; the others as the op's arguments."""
    if not native(albedo):
        return shade_reference(albedo, normal, directions, visible, index, gloss, light)
    color, device = torch.empty(3, len(albedo), device=albedo.device), albedo.device
    SHADE(
        color=color,
        albedo=feature_major(albedo),
        normal=feature_major(normal),
        directions=feature_major(directions),
        visible=visible.contiguous(),
        index=index.contiguous(),
        gloss=gloss.to(device),
        light=light.to(device),
    )
    return color.T


def sky(directions: Tensor, light: Tensor) -> Tensor:
    """[N, 3] sRGB of what stands behind everything."""
    if not native(directions):
        return sky_reference(directions, light)
    color = torch.empty(3, len(directions), device=directions.device)
    SKY(color=color, directions=feature_major(directions), light=light.to(directions.device))
    return color.T


def shade_reference(albedo, normal, directions, visible, index, gloss, light) -> Tensor:
    """The specification, in the type of albedo."""
    light, gloss = light.to(albedo), gloss.to(albedo)[index.long()]
    cosine = (normal @ light[0]).clamp_min(0)
    from_above = AMBIENT[0] + (AMBIENT[1] - AMBIENT[0]) * (0.5 + 0.5 * normal[:, 2])
    across = (directions * normal).sum(-1)
    mirrored = directions - 2 * across[:, None] * normal
    reflection = gloss[:, 2]
    fresnel = reflection + (1 - reflection) * (1 - across.abs().clamp_max(1)) ** 5
    fresnel = torch.where(reflection > 0, fresnel, 0)[:, None]
    glint = (mirrored @ light[0]).clamp_min(1e-6) ** gloss[:, 1] * gloss[:, 0] * visible
    lit = albedo * (from_above[:, None] + (cosine * visible)[:, None] * light[1])
    return encode_srgb((1 - fresnel) * lit + fresnel * _sky_light(mirrored, light) + glint[:, None] * light[1])


def sky_reference(directions: Tensor, light: Tensor) -> Tensor:
    """The specification, in the type of the directions."""
    return encode_srgb(_sky_light(directions, light.to(directions)))


def _sky_light(w: Tensor, light: Tensor) -> Tensor:
    end = torch.where(w[:, 2:] < 0, light[4], light[2])
    return light[3] + w[:, 2:].abs().sqrt() * (end - light[3])
