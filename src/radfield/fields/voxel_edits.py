"""Editing sparse voxels (encodings/sparse_voxels.py): delete, recolour, move, merge.

A field of voxels is a list of vertices of a grid of N^3 with a density's value and harmonics of colour each; a vertex
that is not listed is empty. What is cut off is bordered by vertices of EMPTY density, so that it ends within a cell,
as an object that was trained does.

Letters: N vertices along an axis, V vertices listed, n bands of harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..encodings.sparse_voxels import LEAST, _padded
from ..encodings.spherical_harmonics import spherical_harmonics_reference
from .voxels import VoxelField

#: density of a border, per unit of scene length
EMPTY = LEAST


@dataclass(frozen=True)
class Voxels:
    """vertex: [V] int64, rising, number x + N (y + N z). value: [V], of the density by the field's `activation`;
    colors: [V, 3 n^2]. cascades: the grid spans the cube of side 2^(cascades - 1)."""

    resolution: int
    cascades: int
    activation: str
    vertex: Tensor
    value: Tensor
    colors: Tensor

    def __len__(self) -> int:
        return len(self.vertex)

    def select(self, kept: Tensor) -> Voxels:
        """The vertices that `kept` [V] marks."""
        return replace(self, vertex=self.vertex[kept], value=self.value[kept], colors=self.colors[kept])

    @property
    def density(self) -> Tensor:
        """[V], per unit of scene length."""
        return self.value.exp() if self.activation == "exp" else self.value.clamp_min(0)

    def value_of(self, density: Tensor) -> Tensor:
        """The value of a density."""
        return density.clamp_min(EMPTY).log() if self.activation == "exp" else density

    def with_lengths(self, factor: float) -> Voxels:
        """The same in scene units of which `factor` are one of now."""
        return self if factor == 1 else replace(self, value=self.value_of(self.density / factor))

    @property
    def solid(self) -> Tensor:
        """[V] bool: those that are more than a border."""
        return self.value > self.value_of(torch.tensor(EMPTY))

    @property
    def place(self) -> Tensor:
        """[V, 3] int64: x, y, z of the vertices."""
        n = self.resolution
        return torch.stack([self.vertex % n, self.vertex // n % n, self.vertex // n**2], 1)

    @property
    def spacing(self) -> float:
        """The distance between neighbours, in scene units."""
        return 2.0 ** (self.cascades - 1) / (self.resolution - 2)

    def positions(self) -> Tensor:
        """[V, 3] float64 in scene coordinates."""
        return 0.5 + ((self.place.double() - 0.5) / (self.resolution - 2) - 0.5) * 2.0 ** (self.cascades - 1)

    def dense(self, values: Tensor) -> Tensor:
        """[N, N, N] (z, y, x) of values [V], 0 where no vertex is listed."""
        found = values.new_zeros(self.resolution**3)
        found[self.vertex] = values
        return found.view([self.resolution] * 3)


def voxels_of(field: VoxelField) -> Voxels:
    """What a field holds, on the CPU."""
    grid = field.grid
    index = grid.index.cpu()
    vertex = (index >= 0).nonzero()[:, 0]
    rows = index[vertex].long()
    value = grid.densities.table.detach().cpu()[rows, 0]
    blocks = grid.colors.table.detach().cpu().view(-1, grid.rows, grid.RECORD)[:, rows]
    colors = blocks.transpose(0, 1).reshape(len(vertex), grid._blocks * grid.RECORD)[:, : grid.coefficients]
    return Voxels(grid.resolution, field.cascades, grid.config.activation, vertex, value, colors)


def put(field: VoxelField, voxels: Voxels) -> None:
    """Makes `voxels` what the field holds."""
    grid, rows = field.grid, _padded(len(voxels))
    index = torch.full((voxels.resolution**3,), -1, dtype=torch.int32)
    index[voxels.vertex] = torch.arange(len(voxels), dtype=torch.int32)
    value = torch.zeros(rows, 1)
    value[: len(voxels), 0] = voxels.value
    wide = torch.zeros(rows, grid._blocks * grid.RECORD)
    wide[: len(voxels), : grid.coefficients] = voxels.colors
    colors = wide.view(rows, grid._blocks, grid.RECORD).transpose(0, 1).reshape(-1, grid.RECORD)
    grid.restore({"index": index, "densities.table": value, "colors.table": colors})
    grid.loaded()


def deleted(voxels: Voxels, inside: Tensor) -> Voxels:
    """Without what `inside` [V] marks: empty there, and not listed where no vertex nearby is left."""
    if not inside.any():
        return voxels
    kept = voxels.dense((~inside & voxels.solid).float())
    near = torch.nn.functional.max_pool3d(kept[None, None], 3, 1, 1)[0, 0].flatten() > 0
    value = torch.where(inside, voxels.value_of(torch.tensor(EMPTY)), voxels.value)
    return replace(voxels, value=value).select(near[voxels.vertex] | ~inside)


def recolored(voxels: Voxels, inside: Tensor, color: tuple[float, float, float]) -> Voxels:
    """What `inside` marks in one hue: the mean of its three channels' harmonics, shifted so that its mean colour, by
    density, is `color` (sRGB in [0, 1]). What was lighter stays lighter."""
    chosen = inside & voxels.solid
    if not chosen.any():
        return voxels
    constant = float(spherical_harmonics_reference(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), 1))
    target = torch.tensor(color, dtype=torch.float64).clamp(1 / 255, 254 / 255).logit() / constant
    channels = voxels.colors[chosen].double().unflatten(1, (3, -1))
    grey = channels.mean(1, keepdim=True).repeat(1, 3, 1)
    weight = voxels.density[chosen].double()
    mean = (weight * grey[:, 0, 0]).sum() / weight.sum()
    grey[:, :, 0] += target - mean
    colors = voxels.colors.clone()
    colors[chosen] = grey.flatten(1).to(colors.dtype)
    return replace(voxels, colors=colors)


def moved(voxels: Voxels, inside: Tensor, shift: tuple[float, float, float]) -> Voxels:
    """What `inside` marks, shifted by numbers of voxels, into what is left where it was. What leaves the grid is lost;
    by whole numbers nothing else changes, by others values are interpolated."""
    piece = deleted(voxels, ~inside)
    return merged(deleted(voxels, inside), resampled(piece, voxels, (1.0, 1.0, 1.0), tuple(-s for s in shift)))


def merged(a: Voxels, b: Voxels) -> Voxels:
    """Both in one: the sum of densities, colours in proportion to them. Of vertices where only one is not empty its
    values stay as they are. Raises `ValueError` where the grids differ."""
    if (a.resolution, a.cascades, a.colors.shape[1]) != (b.resolution, b.cascades, b.colors.shape[1]):
        raise ValueError("merged: the grids differ")
    if not len(b) or not len(a):
        return a if not len(b) else b
    vertex, where = torch.cat((a.vertex, b.vertex)).unique(return_inverse=True)
    both = [(a, where[: len(a)]), (b, where[len(a) :])]
    weight, listed = torch.zeros(2, len(vertex)), torch.zeros(2, len(vertex), dtype=torch.bool)
    value, colors = torch.zeros(2, len(vertex)), torch.zeros(2, len(vertex), a.colors.shape[1])
    for i, (each, row) in enumerate(both):
        weight[i, row], listed[i, row] = each.density * each.solid, True
        value[i, row], colors[i, row] = each.value, each.colors
    total = weight.sum(0)
    second = (weight[1] > 0) | ~listed[0]  # where one alone counts
    one = torch.where((weight[0] > 0) | ~second, 0, 1)[None]
    found, color = value.gather(0, one)[0], colors.gather(0, one[..., None].expand(-1, -1, colors.shape[2]))[0]
    mixed = (weight > 0).all(0)
    found[mixed] = a.value_of(total[mixed])
    part = (weight[:, mixed] / total[mixed])[..., None]
    color[mixed] = (part * colors[:, mixed]).sum(0)
    return replace(a, vertex=vertex, value=found, colors=color)


def resampled(
    voxels: Voxels, onto: Voxels, scale: tuple[float, float, float], offset: tuple[float, float, float]
) -> Voxels:
    """`voxels` on the grid of `onto`, whose vertex i lies at scale i + offset of theirs, axis by axis. Exact where that
    is a vertex; else the density's logarithm and the colours are interpolated between vertices."""
    n, source = onto.resolution, voxels.resolution
    index = torch.full((source**3,), -1, dtype=torch.int64)
    index[voxels.vertex] = torch.arange(len(voxels))
    axes = [_axis(n, source, a, b) for a, b in zip(scale, offset, strict=True)]
    logs = voxels.density.clamp_min(EMPTY).log()
    parts = [_slab(index, voxels, logs, axes, z, n) for z in range(n) if len(voxels)]
    nothing = voxels.vertex[:0], voxels.value[:0], voxels.colors[:0]
    vertex, value, colors = (torch.cat(each) for each in zip(nothing, *parts, strict=True))
    return replace(onto, vertex=vertex, value=value, colors=colors)


def _axis(n: int, source: int, scale: float, offset: float) -> tuple[Tensor, Tensor]:
    """(the vertex below [n], how far beyond it [n]) of each vertex along an axis; -2 outside."""
    at = scale * torch.arange(n, dtype=torch.float64) + offset
    at = torch.where((at - at.round()).abs() < 1e-4, at.round(), at)
    base = at.floor()
    return torch.where((base >= -1) & (base < source), base, -2).long(), (at - base).float()


def _slab(index: Tensor, voxels: Voxels, logs: Tensor, axes, z: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The vertices of one z: numbers, values, colours."""
    source, rows, weights = voxels.resolution, [], []
    for corner in range(8):
        bits = [corner >> d & 1 for d in range(3)]
        at = [base + bit for (base, _), bit in zip(axes, bits, strict=True)]
        share = [f if bit else 1 - f for (_, f), bit in zip(axes, bits, strict=True)]
        valid = [(a >= 0) & (a < source) for a in at]
        ok = valid[0][None, :] & valid[1][:, None] & valid[2][z]
        number = at[0][None, :] + source * (at[1][:, None] + source * at[2][z])
        row = torch.where(ok, index[number.clamp(0, source**3 - 1)], -1)
        rows.append(row.flatten())
        weights.append((share[0][None, :] * share[1][:, None] * share[2][z]).flatten())
    rows, weights = torch.stack(rows), torch.stack(weights)
    weights = torch.where(rows >= 0, weights, 0)
    listed = (weights > 0).any(0).nonzero()[:, 0]
    rows, weights = rows[:, listed].clamp_min(0), weights[:, listed]
    absent = 1 - weights.sum(0)
    between = (weights * logs[rows]).sum(0) + absent.clamp_min(0) * torch.tensor(EMPTY).log()
    part = weights / weights.sum(0)
    colors = sum(p[:, None] * voxels.colors[r] for p, r in zip(part, rows, strict=True))
    exact = (weights == 1).any(0)
    nearest = voxels.value[rows.gather(0, weights.argmax(0)[None])[0]]
    return listed + z * n * n, torch.where(exact, nearest, voxels.value_of(between.exp())), colors
