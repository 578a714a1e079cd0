"""A picture from coarse to fine, in pieces between which it can be given up.

The pixels of the whole picture are asked for in order: every fourth of every fourth row, then every second of every
second, then the rest. None is asked for twice, so that the whole costs what it costs at once, and its pixels are those
of `radfield render`. Each pass ends with a picture of all its pixels.

Letters: H x W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras
from ..renderers.volume import View
from .sources import Answer, Look, moved

#: the first pixel of a pass by its stride: nested, and as near to the middle of stride x stride pixels as that goes
OFFSET = {1: 0, 2: 1, 4: 1, 8: 5}
PIECE = 1 << 13  # rays between two chances to give up: 20 to 80 ms on two cores
#: seconds after which an unfinished last pass shows what it has
_SHOWN_EVERY = 0.4


@dataclass(frozen=True)
class Picture:
    """A picture on the way: the best so far, or the whole one."""

    view: View
    whole: bool


def refine(source, look: Look, camera: Cameras, first: int = 4) -> Iterator[Picture | None]:
    """Yields None after every piece of work, and a picture whenever there is a better one; the last one is whole.
    first: the stride of the first pass (1, 2, 4 or 8). source: of `sources.py`, or `Split`."""
    if source.whole:
        yield Picture(source.draw(look, camera), True)
        return
    width, height = camera.size[0].tolist()
    picture = _Canvas(height, width)
    shown = time.monotonic()
    for stride in (s for s in (8, 4, 2, 1) if s <= first and (s == 1 or min(width, height) >= 16 * s)):
        if stride == 1:
            picture.fill_from_coarser()
        wanted = picture.wanted(stride)
        for piece in wanted.split(PIECE):
            picture.put(piece, source.ask(look, camera, piece))
            yield None
            if stride == 1 and picture.stride and time.monotonic() - shown > _SHOWN_EVERY and piece[-1] != wanted[-1]:
                yield Picture(picture.view(1), False)
                shown = time.monotonic()
        yield Picture(picture.view(stride), stride == 1)
        shown = time.monotonic()


class _Canvas:
    """The pixels found so far: five values each (colour, opacity, depth)."""

    def __init__(self, height: int, width: int):
        self.values, self.known = torch.zeros(height, width, 5), torch.zeros(height, width, dtype=torch.bool)
        self.stride = None

    def wanted(self, stride: int) -> Tensor:
        """The pixels of a pass that are not known yet, row by row."""
        of_pass = torch.zeros_like(self.known)
        offset = OFFSET[stride]
        of_pass[offset::stride, offset::stride] = True
        return (of_pass & ~self.known).view(-1).nonzero()[:, 0]

    def put(self, index: Tensor, answer: Answer) -> None:
        values = torch.cat((answer.color, answer.opacity[:, None], answer.depth[:, None]), 1)
        self.values.view(-1, 5)[index] = values
        self.known.view(-1)[index] = True

    def view(self, stride: int) -> View:
        """The picture of a pass: one pixel per `stride` in each direction."""
        self.stride = stride
        offset = OFFSET[stride]
        values = self.values[offset::stride, offset::stride]
        return View(values[..., :3].contiguous(), values[..., 3].contiguous(), values[..., 4].contiguous())

    def fill_from_coarser(self) -> None:
        """Every unknown pixel takes the value of the pass before, so that an unfinished picture has no holes."""
        if self.stride is None:
            return
        offset, (height, width) = OFFSET[self.stride], self.known.shape
        coarse = self.values[offset :: self.stride, offset :: self.stride]
        row, column = (
            (torch.arange(size) // self.stride).clamp(max=count - 1)
            for size, count in zip((height, width), coarse.shape, strict=False)
        )
        self.values = torch.where(self.known[..., None], self.values, coarse[row][:, column])


class Split:
    """Two sources side by side in one picture: `left` up to the part `at` of its width, `right` beyond. Where `left`
    does not answer (opacity 0, no `background` of its own: a photograph ends) `right` does."""

    whole = False

    def __init__(self, left, right, at: float, transform=None):
        self.left, self.right, self.at = left, right, at
        self.transform = transform  # of the scene in which the camera stands
        self._drawn: dict[str, tuple] = {}

    def ask(self, look: Look, camera: Cameras, index: Tensor) -> Answer:
        """As `sources.py` says."""
        width = int(camera.size[0, 0])
        is_left = (index % width + 0.5) < self.at * width
        if not hasattr(self.left, "transform"):  # a photograph
            found = self.left.ask(look, camera, index)
            is_left &= found.opacity > 0
            left = Answer(*(each[is_left] for each in (found.color, found.opacity, found.depth)))
        else:
            left = self._part("left", look, camera, index[is_left])
        right = self._part("right", look, camera, index[~is_left])
        out = Answer(torch.empty(len(index), 3), torch.empty(len(index)), torch.empty(len(index)))
        for whole, a, b in zip(vars(out).values(), vars(left).values(), vars(right).values(), strict=True):
            whole[is_left], whole[~is_left] = a, b
        return out

    def _part(self, side: str, look: Look, camera: Cameras, index: Tensor) -> Answer:
        """The pixels of one side; a source that draws whole images draws one for all pieces."""
        source = getattr(self, side)
        look = look if look.channel in source.channels else Look(background=look.background, crop=look.crop)
        if self.transform is not None:
            camera = moved(camera, self.transform, source.transform)
        if not source.whole:
            return source.ask(look, camera, index)
        if side not in self._drawn:
            self._drawn[side] = source.draw(look, camera)
        view = self._drawn[side]
        return Answer(view.color.reshape(-1, 3)[index], view.opacity.reshape(-1)[index], view.depth.reshape(-1)[index])
