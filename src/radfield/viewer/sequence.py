"""A surface that moves (`radfield train-frames`) as one source: the look's frame says which run is drawn."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..apps.neus2.sequence import NAME
from ..cameras import Cameras
from ..errors import BadInput
from .sources import Answer, Look, moved, source_of

MOST_FRAMES = 1 << 14
_HELD = 8  # frames in memory


class SequenceSource:
    """runs: the folders of the frames; device: where they are drawn. The camera stands in the scene of the first one;
    every other frame has its own, which moved with the surface."""

    whole = False

    def __init__(self, runs: list[Path], device="cpu"):
        from ..apps.methods import load

        self._load, self.runs, self.device = load, runs, device
        self._held: OrderedDict[int, object] = OrderedDict()
        first = self._frame(0)
        self.transform, self.cascades, self.channels = first.transform, first.cascades, first.channels
        self.background = first.background

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.runs)

    @property
    def model(self):
        """That of the first frame."""
        return self._frame(0).model

    def _frame(self, index: int):
        """The source of a frame, read when it is first asked for; the one that was not asked for longest is dropped."""
        if index not in self._held:
            self._held[index] = source_of(self._load(self.runs[index], self.device))
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(index)
        return self._held[index]

    def ask(self, look: Look, camera: Cameras, index: Tensor) -> Answer:
        """As `sources.py` says. A crop box of the first frame's scene is none along the axes of another's: it is left
        out there."""
        frame = min(max(look.frame, 0), self.frames - 1)
        source = self._frame(frame)
        if frame:
            look = replace(look, crop=None)
        return source.ask(look, moved(camera, self.transform, source.transform), index)


def frames_of(folder: Path) -> list[Path]:
    """The runs of a sequence's frames, in order. Raises `BadInput` where sequence.json is none, or names what lies
    outside of the folder."""
    path = folder / NAME
    try:
        names = [frame["run"] for frame in json.loads(path.read_text())["frames"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read: {error!r:.80}; the rule: what `radfield train-frames` wrote") from None
    runs = [folder / str(name) for name in names[:MOST_FRAMES]]
    if not runs:
        raise BadInput(f"{path}: has no frames yet; the rule: wait for the first one")
    for name, run in zip(names, runs, strict=False):
        if not run.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{path}: a frame's run is {str(name)[:60]!r}; the rule: a folder below {folder}")
    return runs
