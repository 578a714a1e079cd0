"""The crop box of a run: nothing outside it is shown or exported. Kept in crop.json of the run's folder, as a box along
the axes of scene coordinates, with the transform that leads there from the world."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import write_json
from ..errors import BadInput
from ..geometry import SceneTransform

NAME = "crop.json"
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Box:
    """low, high: corners in scene coordinates."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self):
        values = (*self.low, *self.high)
        if len(values) != 6 or not all(map(math.isfinite, values)):
            raise BadInput(f"crop box: {values} are its corners; the rule: two corners of 3 finite numbers")
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise BadInput(f"crop box: from {self.low} to {self.high}; the rule: every side has a length")

    def contains(self, x: Tensor) -> Tensor:
        """[N] bool: which of the scene points x [N, 3] lie inside."""
        low, high = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (self.low, self.high))
        return ((x >= low) & (x <= high)).all(1)


def save(folder: Path, box: Box | None, transform: SceneTransform) -> None:
    """Keeps the box in the run's folder; None removes it. Raises `BadInput` where the folder cannot be written."""
    path = folder / NAME
    if box is None:
        path.unlink(missing_ok=True)
        return
    write_json(path, {"version": 1, "low": box.low, "high": box.high, "transform": transform.to_dict()})


def load(folder: Path, transform: SceneTransform) -> Box | None:
    """The box kept in a run's folder, None without one. Raises `BadInput` where the file is none, or was made for other
    scene coordinates than `transform`'s."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path}: has more than {_MOST_BYTES} bytes; the rule: a crop box")
        values = json.loads(path.read_text())
        corners = [tuple(float(v) for v in values[name]) for name in ("low", "high")]
        made_for = SceneTransform.from_dict(values["transform"])
    except BadInput:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: is no crop box: {error!r:.80}") from None
    if made_for != transform:
        raise BadInput(f"{path}: was made for another scene; remove it, or save the box again in the viewer")
    return Box(*corners)
