"""Procedural textures: a pattern of two colours in a shape's own axes, and fine detail of value noise over it.

With p the point in the shape's axes times the material's frequency, a pattern gives the weight w in [0, 1] of the
second colour (`PATTERNS`), and the detail multiplies the colour by 1 + detail (2 n - 1 + c), n three octaves of noise
and c chips: in each cell a ball of random place, radius and tone, at two scales, which feature detectors find again:

- checker: blocks of side 1 in all three axes; stripes, gradient, rings: waves of period 1 (gradient: 2);
- noise: the same octaves as the detail's; spots: a ball of random place and radius in each unit cell;
- tiles: a random weight per unit cell, darkened along the joints in x and y.

What is finer than a pixel fades: a part of frequency f keeps the share clamp(2 - 4 f width, 0, 1), width being the
distance between pixels on the surface, and goes to its mean; so pictures do not alias and COLMAP finds what is there.
Random numbers are hashes of lattice points. Letters: N points, Q materials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out
from ..sampling.random import pcg, unit_float
from ..tensors import feature_major

PATTERNS = ("plain", "checker", "stripes", "gradient", "rings", "noise", "spots", "tiles")
OCTAVES = 3
CHIP_SCALES = (1.0, 2.3)
JOINT, JOINT_SHADE = 0.03, 0.45  # of tiles: half width, and how much of the colour is left there

TEXTURE = Op(
    "texture",
    Out("color", "f32", "3 N", "linear light"),
    In("x", "f32", "3 N", "in the world"),
    In("width", "f32", "N", "distance between pixels there"),
    In("index", "i32", "N", "material, from 0 to Q - 1; others give black"),
    In("pattern", "i32", "Q", "place in PATTERNS"),
    In("values", "f32", "Q 9", "first colour, second colour, frequency, detail, frequency of the detail"),
    In("placement", "f32", "Q 12", "rotation from world to the shape's axes by rows, then the shape's centre"),
)


@TEXTURE.cuda
def _(a):
    return Launch("texture", blocks(a.N))


Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """How a surface looks. Colours are linear light from 0 to 1; frequencies are periods per unit of length.

    highlight, shininess: strength and exponent of the sun's Phong highlight. reflection: the share of the sky that is
    mirrored when looked at straight on (Schlick's Fresnel term); 0 mirrors nothing.
    """

    pattern: str = "plain"
    colors: tuple[Color, Color] = ((0.6, 0.6, 0.6), (0.6, 0.6, 0.6))
    frequency: float = 1.0
    detail: float = 0.0
    detail_frequency: float = 8.0
    highlight: float = 0.1
    shininess: float = 30.0
    reflection: float = 0.0

    def __post_init__(self):
        if self.pattern not in PATTERNS:
            raise BadInput(f"material: pattern is {self.pattern!r}; the rule: one of {', '.join(PATTERNS)}")


@dataclass(frozen=True)
class Textures:
    """The materials' tables; names as in the op. gloss: [Q, 3] highlight, shininess, reflection."""

    pattern: Tensor
    values: Tensor
    placement: Tensor
    gloss: Tensor

    @staticmethod
    def of(materials: list[Material], placement: Tensor) -> Textures:
        """placement: [Q, 12], as the op's: where each material's axes lie."""
        rows = [[*m.colors[0], *m.colors[1], m.frequency, m.detail, m.detail_frequency] for m in materials]
        return Textures(
            torch.tensor([PATTERNS.index(m.pattern) for m in materials], dtype=torch.int32),
            torch.tensor(rows, dtype=torch.float32).view(-1, 9),
            placement,
            torch.tensor([[m.highlight, m.shininess, m.reflection] for m in materials]).view(-1, 3),
        )


def texture(textures: Textures, x: Tensor, width: Tensor, index: Tensor) -> Tensor:
    """[N, 3] linear colours of points x [N, 3] of materials `index` [N] int32, seen in pixels of `width` [N]."""
    tables = dict(pattern=textures.pattern, values=textures.values, placement=textures.placement)
    if not native(x):
        return texture_reference(x=x, width=width, index=index, **tables)
    color = torch.empty(3, len(x), device=x.device)
    tables = {name: table.to(x.device) for name, table in tables.items()}
    TEXTURE(color=color, x=feature_major(x), width=width.contiguous(), index=index.contiguous(), **tables)
    return color.T


def texture_reference(x, width, index, pattern, values, placement) -> Tensor:
    """The specification: [N, 3] in the type of x."""
    color = torch.zeros_like(x)
    for q in index[(index >= 0) & (index < len(pattern))].unique().tolist():
        mine = index == q
        turn = placement[q, :9].to(x).view(3, 3)
        p = (x[mine] - placement[q, 9:].to(x)) @ turn.T
        first, second = values[q, :3].to(x), values[q, 3:6].to(x)
        frequency, detail, fine = values[q, 6:].tolist()
        weight, shade = pattern_weight(PATTERNS[int(pattern[q])], p * frequency, frequency * width[mine])
        mixed = (first + weight[:, None] * (second - first)) * shade[:, None]
        grain = 2 * octaves(p * fine, fine * width[mine]) - 1 + chips(p * fine, fine * width[mine])
        color[mine] = mixed * (1 + detail * grain).clamp_min(0)[:, None]
    return color


def pattern_weight(name: str, p: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """(weight of the second colour, share of the colour that is left), each [N]; width in units of p."""
    keep = _keep(width)
    x, y, z = p.unbind(-1)
    one = torch.ones_like(x)
    if name == "plain":
        return 0 * x, one
    if name == "noise":
        return octaves(p, width), one
    if name == "tiles":
        cell = (p + p.new_tensor((0, 0, 0.5))).floor()
        inside = p[:, :2] - cell[:, :2]
        edge = torch.minimum(inside, 1 - inside).amin(-1)
        open_share = (edge / JOINT - 1).clamp(0, 1)
        weight = 0.5 + (_lattice(cell, 3) - 0.5) * keep
        return weight, 1 - (1 - JOINT_SHADE) * (1 - open_share) * _keep(width * 4)
    weight = {
        "checker": lambda: 0.5 + 0.5 * (6 * torch.cos(math.pi * p)).clamp(-1, 1).prod(-1),
        "stripes": lambda: _steps(_wave(z + 0.35 * x)),
        "gradient": lambda: _wave(0.5 * (z + 0.3 * y)),
        "rings": lambda: _steps(_wave(torch.hypot(x, y) + z)),
        "spots": lambda: _balls(p, 5)[0],
    }[name]()
    return 0.5 + (weight - 0.5) * keep, one


def octaves(p: Tensor, width: Tensor) -> Tensor:
    """[N] in [0, 1]: octaves of value noise, each twice as fine and half as strong; width in units of p."""
    total, scale = torch.zeros_like(width), 1.0
    for octave in range(OCTAVES):
        value = noise(p * 2**octave + 17.31 * octave, octave) - 0.5
        total = total + scale * value * _keep(width * 2**octave)
        scale *= 0.5
    return 0.5 + total / (2 - 2 * scale)


def chips(p: Tensor, width: Tensor) -> Tensor:
    """[N] in [-1, 1], 0 between the chips; width in units of p. Where those of both scales meet they add up."""
    total = torch.zeros_like(width)
    for i, scale in enumerate(CHIP_SCALES):
        ball, tone = _balls(p * scale + 7.7 * i, 9 + 5 * i)
        total = total + ball * (2 * tone - 1) * _keep(width * scale)
    return total.clamp(-1, 1)


def noise(p: Tensor, seed: int) -> Tensor:
    """[N] in [0, 1): random numbers of the lattice's points, interpolated smoothly."""
    cell = p.floor()
    inside = p - cell
    s = inside * inside * (3 - 2 * inside)
    total = torch.zeros_like(p[:, 0])
    for corner in range(8):
        offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])
        weight = torch.where(offset.bool(), s, 1 - s).prod(-1)
        total = total + weight * _lattice(cell + offset.to(p), seed)
    return total


def _lattice(cell: Tensor, seed: int) -> Tensor:
    # A random number in [0, 1) per lattice point; cell: whole numbers [N, 3].
    x, y, z = (cell.long() & 0xFFFFFFFF).unbind(-1)
    bits = pcg((x + seed) & 0xFFFFFFFF)
    bits = pcg((bits + y) & 0xFFFFFFFF)
    return unit_float(pcg((bits + z) & 0xFFFFFFFF)).to(cell)


def _balls(p: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    # (1 inside each cell's ball, 0 outside; the ball's random number in [0, 1)), each [N]
    cell = p.floor()
    centre = torch.stack([0.3 + 0.4 * _lattice(cell, seed + i) for i in range(3)], -1)
    radius = 0.14 + 0.16 * _lattice(cell, seed + 3)
    inside = ((radius - (p - cell - centre).norm(dim=-1)) * 12 + 0.5).clamp(0, 1)
    return inside, _lattice(cell, seed + 4)


def _wave(phase: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.cos(2 * math.pi * phase)


def _steps(wave: Tensor) -> Tensor:
    # A square wave with soft edges: a sharper one would alias in small images.
    return ((wave - 0.5) * 6 + 0.5).clamp(0, 1)


def _keep(width: Tensor) -> Tensor:
    return (2 - 4 * width).clamp(0, 1)
