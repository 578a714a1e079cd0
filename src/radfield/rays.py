"""Rays and the samples along them: the two types that cameras, samplers and renderers exchange.

Letters: N rays, M samples. Lengths are in the units of the coordinates the origins are in
(scene units for the rays of a `Scene`'s cameras). Directions are unit vectors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import BadInput


@dataclass(frozen=True)
class Rays:
    """N half-lines `x(t) = origin + t * direction`, optionally limited to near <= t <= far.

    origins, directions: [N, 3]; directions have length 1. near, far: [N], or None where unlimited.
    """

    origins: Tensor
    directions: Tensor
    near: Tensor | None = None
    far: Tensor | None = None

    def __post_init__(self):
        n = self.origins.shape[0]
        for name, shape in (("origins", (n, 3)), ("directions", (n, 3)), ("near", (n,)), ("far", (n,))):
            _check_shape(self, name, shape)

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "Rays":
        """The rays that a slice, an index tensor or a boolean mask selects."""
        return Rays(**{k: v if v is None else v[index] for k, v in vars(self).items()})

    def at(self, t: Tensor) -> Tensor:
        """Points [N, 3] at distances t [N]."""
        return self.origins + t[:, None] * self.directions

    def to(self, *args, **kwargs) -> "Rays":
        """The same rays on another device or in another floating-point type (`Tensor.to`)."""
        return Rays(**{k: v if v is None else v.to(*args, **kwargs) for k, v in vars(self).items()})


@dataclass(frozen=True)
class Samples:
    """M samples of N rays, packed without padding: ray i owns samples ray_start[i]:ray_start[i + 1].

    x: [M, 3] sample positions; directions: [M, 3] of their rays; t_start, t_end: [M], the interval of
    its ray that each sample stands for; ray_start: [N + 1] int32, from 0 to M, never decreasing.
    Samples of a ray are in order of distance.
    """

    x: Tensor
    directions: Tensor
    t_start: Tensor
    t_end: Tensor
    ray_start: Tensor

    def __post_init__(self):
        m = self.x.shape[0]
        shapes = (("x", (m, 3)), ("directions", (m, 3)), ("t_start", (m,)), ("t_end", (m,)))
        for name, shape in shapes:
            _check_shape(self, name, shape)
        if self.ray_start.ndim != 1 or self.ray_start.dtype != torch.int32 or not len(self.ray_start):
            found = f"{self.ray_start.dtype} {list(self.ray_start.shape)}"
            raise ValueError(f"Samples.ray_start is {found}; it must be int32 [N + 1]")

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def ray_count(self) -> int:
        """N, rays without samples included."""
        return self.ray_start.shape[0] - 1

    def ray_index(self) -> Tensor:
        """[M] int64: the ray that each sample belongs to."""
        count = self.ray_start.diff().long()
        return torch.repeat_interleave(torch.arange(self.ray_count, device=count.device), count)


def check_width(op: str, width: int, rays: Rays) -> None:
    """Raises `BadInput` where `rays` cannot be the pixels, row by row, of an image of this width; 0 is of none."""
    if width and (width < 0 or len(rays) % width):
        raise BadInput(f"{op}: width is {width}; the rule: 0, or a divisor of the {len(rays)} rays")


def _check_shape(owner, name: str, shape: tuple[int, ...]) -> None:
    value = getattr(owner, name)
    if value is not None and tuple(value.shape) != shape:
        kind = type(owner).__name__
        raise ValueError(f"{kind}.{name} has shape {list(value.shape)}; it must be {list(shape)}")
