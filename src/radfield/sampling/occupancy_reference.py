"""The occupancy grid's operations in plain torch: the specification of `occupancy.cpp`.

Same names, same arguments, outputs first and written in place; same bits, except the mean behind the threshold, whose
sum is rounded in another order. Letters as in `occupancy.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .random import random_below, random_bits, unit_float

MIN_STEP = math.sqrt(3) / 1024
LARGEST = 3e38  # the largest finite value: infinity means unknown


def spread3(v: Tensor) -> Tensor:
    """Bit i of v (i < 8) to bit 3 i."""
    v = (v | (v << 8)) & 0x00F00F
    v = (v | (v << 4)) & 0x0C30C3
    return (v | (v << 2)) & 0x249249


def gather3(v: Tensor) -> Tensor:
    """Bit 3 i of v to bit i; other bits are ignored."""
    v = v & 0x249249
    v = (v | (v >> 2)) & 0x0C30C3
    v = (v | (v >> 4)) & 0x00F00F
    return (v | (v >> 8)) & 0xFF


def finest_cascade(x: Tensor, cascades: int) -> Tensor:
    """[M] int64: the smallest cascade that contains each of x [M, 3]; the last one beyond all."""
    distance = (x - 0.5).abs().amax(-1).clamp_min(1e-30)
    return (torch.frexp(distance).exponent + 1).clamp(0, cascades - 1).long()


def cell_of(x: Tensor, cascade: Tensor, resolution: int) -> Tensor:
    """[M] int64: the cells of x [M, 3] float32 in their cascades [M]."""
    inverse_side = torch.exp2(-cascade.float())[:, None]
    coordinate = (((x - 0.5) * inverse_side) * resolution + 0.5 * resolution).long().clamp(0, resolution - 1)
    a, b, c = spread3(coordinate).unbind(-1)
    return cascade * resolution**3 + (a | (b << 1) | (c << 2))


def coordinates_of(cells: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """(cascade [N], coordinates [N, 3]) of cells [N], int64."""
    cells = cells.long()
    code = cells % resolution**3
    return cells // resolution**3, torch.stack([gather3(code >> d) for d in range(3)], -1)


def uniform_cells(cells, count, values, stride, update, seed):
    """One visible cell of each run of `stride`."""
    runs = torch.arange(len(cells), device=cells.device)
    found = runs * stride + ((random_bits(seed, runs) >> 8) + update) % stride
    found = found[found < len(values)]
    _write(cells, count, found[values[found] >= 0])


def occupied_cells(cells, count, bitfield, seed):
    """Random occupied cells in rising order."""
    occupied = unpack(bitfield).nonzero()[:, 0]
    total, n = len(occupied), min(len(cells), len(occupied))
    j = torch.arange(n, device=cells.device)
    rank = (j * total + random_below(random_bits(seed, j), total)) // max(n, 1)
    _write(cells, count, occupied[rank])


def points(x, cells, resolution, seed):
    """A random point in each cell."""
    cascade, coordinate = coordinates_of(cells, resolution)
    counter = torch.arange(3 * len(cells), device=cells.device).view(-1, 3)
    place = unit_float((random_bits(seed, counter) >> 17) << 17) + 2.0**-16
    side = torch.exp2(cascade.float())[:, None]
    x.copy_((((coordinate + place) / resolution - 0.5) * side + 0.5).T)


def update(values, cells, sigma, decay):
    """values[cells] = max(decay * values, sigma)."""
    found = _largest(len(values), cells.long(), sigma)
    met = (found >= 0) & (values >= 0)
    old = torch.where(values > LARGEST, 0, values * torch.tensor(decay, dtype=torch.float32, device=values.device))
    values.copy_(torch.where(met, torch.maximum(old, found), values))


def observe(values, x, sigma, resolution, cascades):
    """values[cell of x] = max(values, sigma)."""
    x = x.T
    inside = ((x - 0.5).abs() <= 0.5 * 2 ** (cascades - 1)).all(-1)
    x, sigma = x[inside], sigma[inside]
    cells = cell_of(x, finest_cascade(x, cascades), resolution)
    found = _largest(len(values), cells, sigma)
    met = (found >= 0) & (values >= 0)
    old = torch.where(values > LARGEST, 0, values)
    values.copy_(torch.where(met, torch.maximum(old, found), values))


def bitfield(bitfield, near_blocks, threshold, values, resolution, cascades, limit):
    """Bits of the values above the threshold; coarser cascades contain the finer ones' cells."""
    known = values[(values >= 0) & (values < LARGEST)]
    threshold.fill_(min(limit, known.double().mean().item()) if len(known) else limit)
    occupied = (values > threshold).view(cascades, -1)
    _, coordinate = coordinates_of(torch.arange(resolution**3, device=values.device), resolution)
    for k in range(1, cascades):
        middle = coordinate[occupied[k - 1]] // 2 + resolution // 4
        a, b, c = spread3(middle).unbind(-1)
        occupied[k, a | (b << 1) | (c << 2)] = True
    bitfield.copy_(pack(occupied.flatten()))
    near_blocks.copy_(_near_blocks(occupied, coordinate, resolution))


def unpack(bitfield: Tensor) -> Tensor:
    """[T] bool of an [T / 64] int64 or [T / 8] uint8 bitfield."""
    bit = torch.arange(8, dtype=torch.uint8, device=bitfield.device)
    return ((bitfield.view(torch.uint8)[:, None] >> bit) & 1).bool().flatten()


def pack(occupied: Tensor) -> Tensor:
    """[T / 64] int64 of [T] bool."""
    weights = 2 ** torch.arange(8, device=occupied.device)
    return (occupied.view(-1, 8) * weights).sum(-1).to(torch.uint8).view(torch.int64)


def _near_blocks(occupied: Tensor, coordinate: Tensor, resolution: int) -> Tensor:
    # A block of 4 cells and 2 more on each side is a window of 8 cells; rows of whole 32-bit words.
    k, blocks = occupied.shape[0], resolution // 4
    dense = torch.zeros(k, 1, resolution, resolution, resolution, device=occupied.device)
    x, y, z = coordinate.unbind(-1)
    dense[:, 0, z, y, x] = occupied.float()
    near = torch.nn.functional.max_pool3d(dense, kernel_size=8, stride=4, padding=2)[:, 0] > 0
    near = torch.nn.functional.pad(near, (0, -blocks % 32)).reshape(-1, 32)
    words = (near.long() << torch.arange(32, device=near.device)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def _largest(cells: int, index: Tensor, sigma: Tensor) -> Tensor:
    # [cells]: the largest density met in each cell as its value, -1 where none was
    step = torch.tensor(MIN_STEP, dtype=torch.float32, device=sigma.device)
    found = (torch.where(sigma.isnan(), 0, sigma) * step).clamp(0, LARGEST)
    return torch.full((cells,), -1.0, device=sigma.device).scatter_reduce_(0, index, found, "amax")


def _write(cells: Tensor, count: Tensor, found: Tensor) -> None:
    cells[: len(found)] = found.int()
    count.fill_(len(found))
