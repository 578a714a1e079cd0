"""Pixels drawn from one picture for a step of its fitting: one from each cell of a lattice, row by row.

    column of pixel i = floor((i % across + u) W / across)      row = floor((i // across + v) H / down)

u, v: random in [0, 1) by counter (sampling/random.py). Each step sees the whole picture evenly, and neighbours in a
batch read neighbouring entries of an encoding. With `whole_rows` all cells of a row share v, so that few parts of a
picture that lies on the disk are read.

Letters: W x H = P pixels of C channels; M = across down pixels drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import memory
from ..backend import native, on_cuda
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..sampling.random import random_bits, unit_float

PIXELS = Op(
    "picture_pixels",
    Out("x", "f32", "2 M", "pixel centres in parts of the longer side"),
    Out("target", "f32", "C M", "their values times `scale`"),
    In("values", "u8 u16 f32", "P C"),
    In("schedule", "f64", "1", "CUDA only: the seed", optional=True),
    Scalar("width", "int"),
    Scalar("height", "int"),
    Scalar("across", "int"),
    Scalar("down", "int"),
    Scalar("whole_rows", "int"),
    Scalar("seed", "int"),
    Scalar("scale", "float"),
)


@PIXELS.cuda
def _(a):
    return Launch(f"picture_pixels<{a.cxx('values')}>", blocks(a.M))


_MOST = 1 << 31  # numbers of the random counter, two for a pixel


def lattice_of(size: tuple[int, int], count: int, rows: int | None = None) -> tuple[int, int]:
    """(across, down) of a lattice of about `count` cells over a picture of `size` (W, H): square ones, or `rows` rows
    of them."""
    width, height = size
    if rows is not None:
        down = min(rows, height)
        return max(1, count // down), down
    across = min(max(1, round(math.sqrt(count * width / height))), count)
    return across, max(1, count // across)


def draw_pixels(
    values: Tensor,
    lattice: tuple[int, int],
    seed: int,
    scale: float,
    *,
    whole_rows: bool = False,
    schedule: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(positions [M, 2] float32 of pixel centres in parts of the longer side, values [M, C] float32 times `scale`) of
    the picture `values` [H, W, C] uint8, uint16 or float32, one pixel from each cell of `lattice` (across, down). seed:
    of 32 bits. schedule: [1] float64, the seed where only the device knows it (CUDA only). Raises `BadInput` on another
    shape or dtype, and where lattice or picture have no cell."""
    across, down = lattice
    if values.ndim != 3 or not values.numel():
        raise BadInput(f"picture_pixels: values have shape {list(values.shape)}; the rule: [H, W, C], none of them 0")
    if not 0 < across * down <= _MOST // 2 or min(lattice) < 1:
        raise BadInput(f"picture_pixels: lattice is {lattice}; the rule: at least one cell, at most 2^30")
    if schedule is not None and not on_cuda(values):
        raise BadInput("picture_pixels: schedule is given; the rule: for CUDA kernels only")
    height, width, channels = values.shape
    if not native(values):
        return draw_pixels_reference(values, lattice, seed, scale, whole_rows=whole_rows)
    x = memory.empty((2, across * down), torch.float32, values.device)
    target = memory.empty((channels, across * down), torch.float32, values.device)
    sizes = {"width": width, "height": height, "across": across, "down": down}
    flat = values.reshape(-1, channels)
    numbers = {**sizes, "whole_rows": int(whole_rows), "seed": seed, "scale": scale}
    PIXELS(x=x, target=target, values=flat, schedule=schedule, **numbers)
    return x.T, target.T


def draw_pixels_reference(values: Tensor, lattice: tuple[int, int], seed: int, scale: float, *, whole_rows=False):
    """The specification. Arguments and results as those of `draw_pixels`."""
    height, width, channels = values.shape
    across, down = lattice
    i = torch.arange(across * down, device=values.device)
    row, column = i // across, i % across
    u, v = (unit_float(random_bits(seed, n & 0xFFFFFFFF)).double() for n in (2 * i, 2 * (row if whole_rows else i) + 1))
    x = ((column + u) * (width / across)).long().clamp_max(width - 1)
    y = ((row + v) * (height / down)).long().clamp_max(height - 1)
    at = torch.stack([x, y], 1).float().add(0.5) / max(width, height)
    return at, values.reshape(-1, channels)[y * width + x].float() * scale
