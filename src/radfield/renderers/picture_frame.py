"""A field of values over the pixels of a picture, in one pass: each block of pixels goes from positions to grid,
network and stored values before the next one, so that memory holds none of what lies between.

    values[j, i] = stored(mlp(grid(across_i, down_j))),    stored(v) = floor(most clip(v, 0, 1) + 1/2)   or   peak v

with `most` the largest number of 8 or 16 bits, or `peak` for floats. The features of a block are found row by row: a
level's entries are interpolated down once for all pixels of a row, and then across (encodings/grid_lattice.h).

Letters: O values per point; those of the grid and the network are in networks/grid_mlp.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..encodings.hash_grid import HashGrid
from ..networks.grid_mlp import FIELD, field_arguments, frame_launches, takes
from ..networks.mlp import MLP
from ..op import In, InOut, Op, Out, Scalar

FRAME = Op(
    "picture_frame",
    Out("values", "u8 u16 f32", "rows columns O"),
    InOut("nanoseconds", "i64", "3", "CPU time of all threads: grid, network, altogether; not on CUDA", optional=True),
    In("across", "f32", "columns", "positions, clamped to [0, 1]"),
    In("down", "f32", "rows"),
    Scalar("peak", "float", "what 1 is stored as, of floats"),
    *FIELD,
)


@FRAME.cuda
def _(a):
    return frame_launches(a, "picture_frame", -(-a.rows * a.columns // 32), a.cxx("values"))


MOST = {torch.uint8: 255, torch.uint16: 65535}


def stored(values: Tensor, dtype: torch.dtype, peak: float) -> Tensor:
    """Values as a picture of this dtype has them: integers of all their range, or floats in parts of the peak."""
    if dtype == torch.float32:
        return (values * peak).float()
    return (values.clamp(0, 1) * MOST[dtype] + 0.5).floor().to(dtype)


def picture_frame_reference(grid, network, across: Tensor, down: Tensor, dtype: torch.dtype, peak: float) -> Tensor:
    """The specification, one stage after another."""
    at = torch.stack([across.expand(len(down), -1), down[:, None].expand(-1, len(across))]).flatten(1).T
    return stored(network(grid(at)).float(), dtype, peak).view(len(down), len(across), network.layers.outputs)


@torch.no_grad()
def picture_frame(
    grid: HashGrid,
    network: MLP,
    across: Tensor,
    down: Tensor,
    dtype: torch.dtype = torch.uint8,
    peak: float = 1.0,
    nanoseconds: Tensor | None = None,
) -> Tensor:
    """[rows, columns, O] of `dtype` (uint8, uint16 or float32) at the points across [columns] x down [rows], float32 in
    [0, 1]. nanoseconds: [3] int64, to which the CPU time of the stages is added. Encodings that the op does not take go
    stage by stage. Raises `BadInput` on another shape or dtype."""
    if not takes(grid, across):
        return picture_frame_reference(grid, network, across, down, dtype, peak)
    values = torch.empty(len(down), len(across), network.layers.outputs, dtype=dtype, device=across.device)
    given = {"across": across.contiguous(), "down": down.contiguous(), "nanoseconds": nanoseconds}
    FRAME(values=values, peak=peak, **given, **field_arguments(grid, network, across))
    return values
