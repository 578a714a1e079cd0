"""How much memory training Gaussians takes, and how many Gaussians a limit leaves room for.

    bytes = 4 (6 P + 80) G + 72 K + 64 pixels

P numbers describe a Gaussian; its parameters and two moments are kept, a step adds gradients and what the passes of the
rasteriser hold (80 numbers), and a refinement has all that is kept twice. K entries are in the lists of the tiles: 8
bytes each, and a row of 64 in the backward pass (on a GPU 24 while they are sorted, before that); a box of a x b pixels
is in about (a / 16 + 1) (b / 16 + 1) tiles. Where rays are traced, 2^29 bytes of rows of sums (gaussian_trace.py) stand
in place of those of the tiles.

Letters: G Gaussians, K entries of the tiles' lists.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import torch
from torch import Tensor

from ..data.images import machine_memory
from ..errors import BadInput
from ..renderers.gaussian_color import rest_rows
from ..renderers.gaussian_tiles import TILE

PER_ENTRY, PER_PIXEL = 72, 64
ROW_BYTES = 1 << 29  # of rows of sums that tracing keeps at a time


class MemoryCap:
    """The limit in bytes for Gaussians of `degree` on images of at most `pixels`. `entries`: K / G of the step with the
    most since the last refinement."""

    def __init__(self, limit_gb: float, degree: int, pixels: int, free: int | None = None):
        """free: bytes of a GPU's memory, of which the limit is a part where none is given; None: the machine's."""
        self.limit = int(limit_gb * 1e9) if limit_gb else int(0.4 * (free or machine_memory() or 8e9))
        self.each = 4 * (6 * (14 + rest_rows(degree)) + 80)
        self.fixed, self.entries, self.peak = PER_PIXEL * pixels, 2.0, 0
        if self.most(1) < 1:
            least = (self.fixed + self.each + self.entries * PER_ENTRY) / 1e9
            raise BadInput(f"--splat.memory-gb is {self.limit / 1e9:.3g}; the rule: at least {least:.3g} for a view")

    def most(self, most: int) -> int:
        """At most `most` Gaussians, and no more than there is room for."""
        return min(most, int((self.limit - self.fixed) / (self.each + self.entries * PER_ENTRY)))

    def check(self, radius: Tensor, width: int, height: int) -> None:
        """Takes note of a step that is about to draw Gaussians of `radius` [G, 2]. Raises `MemoryError` where it would
        take more than the limit."""
        if not len(radius):
            return
        x, y = ((r * (2 / TILE)).clamp_max(size / TILE) + 1 for r, size in zip(radius.T, (width, height), strict=True))
        self.check_entries(len(radius), float(x.mul_(y).mul_(radius[:, 0] > 0).sum()), width, height)

    def check_entries(self, count: int, entries: float, width: int, height: int) -> None:
        """The same of a step with so many Gaussians and entries."""
        self.entries = max(self.entries, entries / max(count, 1))
        need = self.each * count + PER_ENTRY * entries + PER_PIXEL * width * height
        self._note(need, f"{count} Gaussians in {entries:.3g} entries of tiles")

    def check_traced(self, count: int, width: int, height: int) -> None:
        """The same of a step that is about to trace `count` Gaussians."""
        self._note(self.each * count + ROW_BYTES + PER_PIXEL * width * height, f"{count} Gaussians by tracing")

    def _note(self, need: float, what: str) -> None:
        self.peak = max(self.peak, int(need))
        if need > self.limit:
            limit = f"{self.limit / 1e9:.3g}"
            raise MemoryError(f"{what} need {need / 1e9:.3g} GB; --splat.memory-gb allows {limit}")


@contextlib.contextmanager
def exhaustion() -> Iterator[None]:
    """Makes `MemoryError` of what torch and the system raise where there is no memory left."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise MemoryError(f"the GPU has no memory left for this many Gaussians: {error}") from None
        if getattr(error, "errno", None) != errno.ENOMEM and "allocate memory" not in str(error):
            raise
        raise MemoryError("the machine has no memory left for this many Gaussians") from None
