"""A synthetic object that moves: a folder of captures, one per frame, whose motions are known.

Frame k shows the scene moved by the rigid motion M_k of the world: M_0 is the identity, each next one turns by `turn`
degrees about the z axis and goes on by `shift` along x. The light moves with the object, so that it looks the same.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np

from ...atomic import filling
from ...errors import BadInput
from ...geometry import SceneTransform
from .files import write_synthetic_capture
from .scene import SyntheticScene


def motion(frame: int, turn: float, shift: float) -> SceneTransform:
    """M of a frame: world of the object at rest to the world."""
    c, s = math.cos(math.radians(turn * frame)), math.sin(math.radians(turn * frame))
    return SceneTransform(1.0, ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)), (shift * frame, 0.0, 0.0))


def write_synthetic_sequence(
    folder: str | os.PathLike,
    scene: str | SyntheticScene = "solids",
    frames: int = 10,
    *,
    turn: float = 5.0,
    shift: float = 0.05,
    **options,
) -> list[SceneTransform]:
    """Writes captures `folder`/000 and on, each with other cameras; returns their motions. options: those of
    `write_synthetic_capture`, but for seed and format. Raises `BadInput` for no frames and a folder that is there."""
    if frames < 1:
        raise BadInput(f"frames is {frames}; the rule: at least 1")
    if Path(folder).exists():
        raise BadInput(f"{folder}: is there already; the rule: a new folder")
    motions = [motion(k, turn, shift) for k in range(frames)]
    with filling(Path(folder)) as temporary:
        for k, each in enumerate(motions):
            capture = temporary / f"{k:03d}"
            write_synthetic_capture(capture, scene, seed=k, **options)
            for file in capture.glob("transforms_*.json"):
                _move(file, each)
    return motions


def _move(file: Path, by: SceneTransform) -> None:
    """Moves the cameras of a transforms.json: what they see moves with them."""
    values = json.loads(file.read_text())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = by.rotation, by.offset
    for frame in values["frames"]:
        frame["transform_matrix"] = (matrix @ np.asarray(frame["transform_matrix"])).tolist()
    file.write_text(json.dumps(values, indent=1) + "\n")
