"""Which Gaussians each tile of the image has to draw, nearest first.

A tile is 16 x 16 pixels, in four blocks of 8 x 8. A Gaussian is *in* a block where its box (`radius` around `mean2d`)
holds the centre of one of the block's pixels, and its alpha reaches 1/255 somewhere between these centres: nothing is
left out that is drawn. All Gaussians are sorted by depth once (ties by number), then counted into the tiles.

Entry k of the list is 16 times the Gaussian's number plus its blocks in that tile (bit 0 left above, 1 right above, 2
and 3 below); tile t has the entries tile_start[t] : tile_start[t + 1]. `position` lists the entries of Gaussian g, at
slot_start[g] : slot_start[g + 1]: where the gradient of g lies in pieces, in an order that no thread changes.

Letters: G Gaussians, T tiles, K entries, B chunks of the depth order, C channels (at most 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import memory
from ..backend import on_cuda
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from .gaussian_projection import Projected

TILE, BLOCK = 16, 8  # pixels
RECORD = 16  # numbers per Gaussian: mean2d, scaled conic, opacity, colours
CHUNKS = 16
MOST_GAUSSIANS = 1 << 27
MOST_CHANNELS = 4

PACK = Op(
    "gaussian_pack",
    Out("records", "f32", "G 16", "x, y, conic of 2^-(...), opacity, C colours; not written where the box is empty"),
    Out("boxes", "i32", "G 2", "blocks [low, high) in x and in y, two 16-bit numbers each"),
    In("mean2d", "f32", "2 G"),
    In("conic", "f32", "3 G"),
    In("radius", "f32", "2 G"),
    In("opacity", "f32", "G"),
    In("colors", "f32", "C G"),
    Scalar("width", "int"),
    Scalar("height", "int"),
)
SORT = Op(
    "gaussian_sort",
    Out("order", "i32", "G", "the drawn ones by depth, in front; the rest is not written"),
    Out("drawn", "i64", "1", "how many"),
    InOut("work", "i64", "2 G", "scratch"),
    In("depth", "f32", "G"),
    In("boxes", "i32", "G 2"),
)
COUNT = Op(
    "gaussian_tiles_count",
    Out("tile_start", "i32", "T+1"),
    Out("cursors", "i32", "B T", "where the chunk's first entry of the tile goes"),
    Out("slot_start", "i32", "G+1"),
    Out("total", "i64", "1", "K; the others are not valid where it is beyond 2^31 - 1"),
    In("order", "i32", "G"),
    In("boxes", "i32", "G 2"),
    In("in_use", "i64", "1", "CUDA only: how many are drawn, at most `drawn`", optional=True),
    In("most", "i64", "1", "CUDA only: beyond so many entries there are none", optional=True),
    Scalar("drawn", "int"),
    Scalar("tiles_x", "int"),
)
FILL = Op(
    "gaussian_tiles_fill",
    Out("entries", "i32", "K"),
    Out("position", "i32", "K", optional=True),
    InOut("cursors", "i32", "B T", "moved on"),
    In("slot_start", "i32", "G+1"),
    In("order", "i32", "G"),
    In("boxes", "i32", "G 2"),
    In("in_use", "i64", "1", "CUDA only: how many are drawn, at most `drawn`", optional=True),
    In("total", "i64", "1", "CUDA only: how many entries there are; none where they are more than K", optional=True),
    Scalar("drawn", "int"),
    Scalar("tiles_x", "int"),
)
TRIM = Op(
    "gaussian_tiles_trim",
    InOut("entries", "i32", "K", "loses the blocks on which the Gaussian stays below 1/255"),
    In("tile_start", "i32", "T+1"),
    In("records", "f32", "G 16"),
    Scalar("tiles_x", "int"),
)

SORT_DIGITS, SORT_ITEMS = 256, 2048  # gaussian_sort_device.h


@PACK.cuda
def _(a):
    return Launch("gaussian_pack", blocks(a.G))


@SORT.cuda
def _(a):
    parts, (gaussians,) = -(-a.G // SORT_ITEMS), blocks(a.G)
    scratch = {"scratch": 4 * (4 + SORT_DIGITS + SORT_DIGITS * parts + 3 * gaussians)}
    return (
        Launch("gaussian_sort_limits", (gaussians,), **scratch),
        Launch("gaussian_sort_starts", (1,), **scratch),
        Launch("gaussian_sort_collect", (gaussians,), **scratch),
        *sort_passes("gaussian_sort", 4, parts, scratch),
        Launch("gaussian_sort_write", (gaussians,), **scratch),
    )


def sort_passes(name: str, passes: int, parts: int, scratch: dict) -> list[Launch]:
    """The launches of a radix sort (gaussian_sort_device.h) of items in `parts` blocks, by kernels `name`_count, _scan
    and _scatter."""
    kernels = (("count", parts), ("scan", min(parts, 1) * SORT_DIGITS), ("scatter", parts))
    return [Launch(f"{name}_{k}", (n,), extra=(p,), **scratch) for p in range(passes) for k, n in kernels]


@COUNT.cuda
def _(a):
    (gaussians,) = blocks(a.G)
    scratch = {"scratch": 8 * max(gaussians, 1)}
    return (
        Launch("gaussian_tiles_clear", blocks(a.T + 1), **scratch),
        Launch("gaussian_tiles_sum", (gaussians,), **scratch),
        Launch("gaussian_tiles_starts", (1,), **scratch),
        Launch("gaussian_tiles_slots", (gaussians,), **scratch),
        Launch("gaussian_tiles_count", blocks(32 * a.drawn), **scratch),
        Launch("gaussian_tiles_offsets", (1,), (1024,), **scratch),
    )


@FILL.cuda
def _(a):
    parts, (gaussians,) = -(-a.K // SORT_ITEMS), blocks(a.drawn)
    scratch = {"scratch": 24 * a.K + 4 * (SORT_DIGITS + SORT_DIGITS * parts + gaussians)}
    passes = -(-(a.T - 1).bit_length() // 8)
    return (
        Launch("gaussian_tiles_fill_sum", (gaussians,), **scratch),
        Launch("gaussian_tiles_fill_starts", (min(gaussians, 1),), **scratch),
        Launch("gaussian_tiles_fill_make", (gaussians,), **scratch),
        *sort_passes("gaussian_tiles_fill", passes, parts, scratch),
        Launch("gaussian_tiles_fill_write", blocks(a.K), extra=(passes,), **scratch),
    )


@TRIM.cuda
def _(a):
    return Launch("gaussian_tiles_trim", (a.T,), (128,))


@dataclass(frozen=True)
class Tiles:
    """The lists of an image of `width` x `height` pixels (see the module)."""

    entries: Tensor  # [K]
    tile_start: Tensor  # [T + 1]
    position: Tensor | None  # [K], where there will be a backward pass
    slot_start: Tensor  # [G + 1]
    boxes: Tensor  # [G, 2]
    width: int
    height: int

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // TILE)


class EntryBudget:
    """Room for `capacity` entries on a device, so that the host need not wait for their number. total: [1] int64 on the
    device, how many the last image had; where they are more, nothing of it is drawn."""

    def __init__(self, capacity: int, device: torch.device):
        self.capacity = capacity
        self.most = torch.tensor([capacity], dtype=torch.int64, device=device)
        self.total = torch.zeros_like(self.most)


def make_tiles(
    projected: Projected,
    colors: Tensor,
    width: int,
    height: int,
    *,
    differentiate: bool = True,
    trim: bool = True,
    budget: EntryBudget | None = None,
) -> tuple[Tiles, Tensor]:
    """The tiles' lists, and `records` [G, 16] for `colors` [C, G]; without `trim` all blocks of the boxes, whatever the
    conics; budget: for CUDA kernels. Raises `BadInput` beyond 2^27 Gaussians, 2^31 - 1 entries, or 2^17 pixels a side.
    """
    G, sides = len(projected.depth), (width, height)
    if G > MOST_GAUSSIANS or not all(0 < side <= 1 << 17 for side in sides):
        raise BadInput(
            f"rasterise: {G} Gaussians on {width} x {height} pixels; the rule: at most 2^27, on 1 to 2^17 a side"
        )
    records, boxes = pack(projected, colors, width, height)
    device = boxes.device
    order, drawn = torch.empty(G, dtype=torch.int32, device=device), torch.empty(1, dtype=torch.int64, device=device)
    work = memory.empty((2, G), torch.int64, device)
    SORT(order=order, drawn=drawn, work=work, depth=projected.depth.detach().contiguous(), boxes=boxes)
    tiles_x, tiles_y = (-(-side // TILE) for side in sides)
    in_use = {"drawn": int(drawn)} if budget is None else {"drawn": G, "in_use": drawn}
    counts = {"order": order, "boxes": boxes, "tiles_x": tiles_x, **in_use}
    tile_start = torch.empty(tiles_x * tiles_y + 1, dtype=torch.int32, device=device)
    chunks = 0 if on_cuda(boxes) else CHUNKS  # CUDA sorts by tile instead
    cursors = torch.empty(chunks, tiles_x * tiles_y, dtype=torch.int32, device=device)
    slot_start = torch.empty(G + 1, dtype=torch.int32, device=device)
    total, most = (torch.empty_like(drawn), None) if budget is None else (budget.total, budget.most)
    COUNT(tile_start=tile_start, cursors=cursors, slot_start=slot_start, total=total, most=most, **counts)
    K = int(total) if budget is None else budget.capacity
    if K >= 1 << 31:
        raise BadInput(f"rasterise: the Gaussians cover {K} tiles together; the rule: below 2^31")
    entries = memory.empty((K,), torch.int32, device)
    position = memory.empty((K,), torch.int32, device) if differentiate else None
    counts["total"] = None if budget is None else total
    FILL(entries=entries, position=position, cursors=cursors, slot_start=slot_start, **counts)
    if trim:
        TRIM(entries=entries, tile_start=tile_start, records=records, tiles_x=tiles_x)
    return Tiles(entries, tile_start, position, slot_start, boxes, width, height), records


def pack(projected: Projected, colors: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """(records [G, 16], boxes [G, 2]) for `colors` [C, G]."""
    G = len(projected.depth)
    records = memory.empty((G, RECORD), torch.float32, colors.device)
    boxes = torch.empty(G, 2, dtype=torch.int32, device=colors.device)
    PACK(
        records=records,
        boxes=boxes,
        mean2d=projected.mean2d.detach().T.contiguous(),
        conic=projected.conic.detach().T.contiguous(),
        radius=projected.radius.T.contiguous(),
        opacity=projected.opacity.detach().contiguous(),
        colors=colors,
        width=width,
        height=height,
    )
    return records, boxes
