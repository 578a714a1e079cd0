"""A cloud of points of a surface that has no triangles: made clean, and asked for the nearest point.

The tree is that of triangles (wide_bvh.py): a point is a triangle whose corners are in one place. Letters: N positions
that ask, P points of the cloud.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..backend import native
from ..errors import BadInput, warn
from ..sampling.random import Source, whole_numbers
from ..tensors import on_device
from .mesh_distance import mesh_distance
from .surface import MOST_TRIANGLES
from .wide_bvh import WideBvh

FEWEST = 64  # points that a surface is made of


@dataclass(frozen=True)
class Cloud:
    """points: [P, 3] float64, finite, no two in one place. not_finite, repeated: how many were left out."""

    points: Tensor
    not_finite: int = 0
    repeated: int = 0
    _copies: dict = field(default_factory=dict, init=False, repr=False, compare=False)  # of the points, on devices

    @staticmethod
    def of(points: Tensor) -> Cloud:
        """The points [P, 3] without those that are not finite and repeated ones. BadInput for fewer than `FEWEST` that
        are left, points on one line, and more than can be kept."""
        finite = points[points.isfinite().all(-1)].double()
        distinct = finite.unique(dim=0)
        not_finite, repeated = len(points) - len(finite), len(finite) - len(distinct)
        if len(distinct) < FEWEST:
            left_out = f" ({not_finite} not finite, {repeated} repeated)" if not_finite or repeated else ""
            raise BadInput(f"cloud: it has {len(distinct)} points{left_out}; the rule: at least {FEWEST}")
        if len(distinct) > MOST_TRIANGLES:
            rule = f"at most {MOST_TRIANGLES} (thin it first)"
            raise BadInput(f"cloud: it has {len(distinct)} points; the rule: {rule}")
        cloud = Cloud(distinct, not_finite, repeated)
        spread = torch.linalg.svdvals((distinct - distinct.mean(0)) / cloud.diagonal)
        if float(spread[1]) <= 1e-6 * float(spread[0]):
            raise BadInput("cloud: all of its points are on one line; the rule: points of a surface")
        return cloud

    def announce(self, name: str) -> None:
        """Says what a user should know of the cloud before a surface is believed."""
        for count, what in ((self.not_finite, "not finite"), (self.repeated, "repeated")):
            if count:
                total = len(self.points) + self.not_finite + self.repeated
                warn(f"{name}: {count} of {total} points are {what}, and left out")

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(low, high), [3] each, of its box."""
        return self.points.amin(0), self.points.amax(0)

    @property
    def diagonal(self) -> float:
        """Of its box."""
        low, high = self.bounds
        return float((high - low).norm())

    @cached_property
    def tree(self) -> WideBvh:
        """The tree of its points."""
        return _tree(self.points)

    @cached_property
    def spacing(self) -> float:
        """The median distance of a point to the nearest other one: of every eighth point to those between, which on a
        surface are further apart by the root of 8/7."""
        chosen = torch.arange(len(self.points)) % 8 == 0
        others = Cloud(self.points[~chosen])
        return float(others.distance(self.points[chosen].float()).median()) * (7 / 8) ** 0.5

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(distance [N], the nearest point [N, 3] float32) of finite positions x [N, 3] float32 on any device."""
        points = self._on(x.device)
        point = points[nearest_index(points, x, self.tree if native(x) else None)].to(x.dtype)
        return (x - point).norm(dim=-1), point

    def distance(self, x: Tensor) -> Tensor:
        """[N] to the nearest point, at x [N, 3] float32."""
        return self.nearest(x)[0]

    def sample(self, count: int, source: Source) -> Tensor:
        """[count, 3] float32, points of the cloud, on the device of the random numbers."""
        return self._on(source.device)[whole_numbers(source, len(self.points), count)].float()

    def _on(self, device: torch.device) -> Tensor:
        # the points on `device`
        return on_device((self.points,), device, self._copies)[0]


def nearest_index(points: Tensor, x: Tensor, tree: WideBvh | None = None) -> Tensor:
    """[N] int64: which of points [P, 3] is nearest to each of x [N, 3] float32, all of them finite; tree: of the
    points, where it is there."""
    if native(x):
        return mesh_distance(tree or _tree(points.double()), x)[1].long()
    parts = [torch.cdist(part.double(), points.double()).argmin(-1) for part in x.split(1 << 10)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=x.device)


def _tree(points: Tensor) -> WideBvh:
    return WideBvh.of(points[:, None].expand(-1, 3, -1).contiguous())
