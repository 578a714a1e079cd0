"""The tree of bvh.py with 16 children per node, for questions of a single point: SIMD lanes are boxes, or triangles.

A node is 16 boxes, stream by stream (x, y, z of the low corners, then of the high ones), and 16 numbers: above 0 an
inner node, below 0 the block of triangles -1 - number, 0 nothing. A block is 16 triangles: first corner a, and the
edges b - a and c - a, stream by stream. Node 0 is the root. Letters: K nodes of the binary tree, T triangles, B
nodes, L blocks.

Coordinates are brought into the box of side 1 around the origin, so that float32 resolves a mesh in any unit, wherever
it lies: x' = (x - centre) / scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import backend
from ..op import In, Op, Out
from ..tensors import on_device
from .bvh import build

WIDE = 16

BUILD = Op(
    "wide_bvh_build",
    Out("box", "f32", "B 6 16", optional=True),
    Out("child", "i32", "B 16", optional=True),
    Out("span", "i32", "B 16 2", "the triangles of each child: first, count", optional=True),
    Out("block", "f32", "L 9 16", "absent: only counted", optional=True),
    Out("triangle", "i32", "L 16", "the triangle of each lane, in the order of the tree; -1 for none", optional=True),
    Out("used", "i64", "2", "nodes, blocks"),
    In("tree_box", "f32", "K 6"),
    In("node", "i32", "K 2"),
    In("order", "i32", "T"),
    In("corners", "f32", "T 9", "of the triangles in this order"),
)


@dataclass(frozen=True)
class WideBvh:
    """Names as in the op. order: [T] int32, the tree's triangles in the mesh. centre, scale: see the module."""

    box: Tensor
    child: Tensor
    span: Tensor
    block: Tensor
    triangle: Tensor
    order: Tensor
    corners: Tensor
    centre: tuple[float, float, float]
    scale: float
    _copies: dict = field(default_factory=dict, repr=False, compare=False)  # of the tables, on other devices

    def tables(self, device: torch.device) -> dict[str, Tensor]:
        """What is asked of the tree, by the names of the ops' arguments, on `device`; copied there once."""
        names = ("box", "child", "block", "triangle", "order", "corners")
        tables = on_device(tuple(getattr(self, name) for name in names), device, self._copies)
        return dict(zip(names, tables, strict=True))

    @staticmethod
    def of(corners: Tensor) -> WideBvh:
        """The tree over triangles [T, 3, 3], float64, T >= 1; made on the CPU, wherever these are."""
        corners = corners.cpu()
        low, high = corners.amin((0, 1)), corners.amax((0, 1))
        centre, scale = 0.5 * (low + high), max(float((high - low).max()), 1e-300)
        unit = ((corners - centre) / scale).float()
        tree_box, node, order = build(torch.cat((unit.amin(1), unit.amax(1)), -1))
        tree = {"tree_box": tree_box, "node": node, "order": order}
        tree["corners"] = unit[order.long()].reshape(-1, 9).contiguous()
        used = torch.zeros(2, dtype=torch.int64)
        _build(used=used, **tree)
        nodes, blocks = used.tolist()
        found = {
            "box": torch.empty(nodes, 6, WIDE),
            "child": torch.empty(nodes, WIDE, dtype=torch.int32),
            "span": torch.empty(nodes, WIDE, 2, dtype=torch.int32),
            "block": torch.empty(blocks, 9, WIDE),
            "triangle": torch.empty(blocks, WIDE, dtype=torch.int32),
        }
        _build(used=used, **found, **tree)
        return WideBvh(**found, order=order, corners=tree["corners"], centre=tuple(centre.tolist()), scale=scale)


def _build(**tensors: Tensor) -> None:
    with backend.use("cpu"):
        BUILD(**tensors)
