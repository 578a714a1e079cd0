"""Where a distillation looks from: random poses around a scene, which need no photographs. Of the capture that a
teacher was trained on only the cameras say where; without them poses follow from the scene box.

- synthetic: on a shell around the object, within the cameras' distances and heights;
- forward (facing) and unbounded: between two cameras, of all or of neighbours, a little beyond them too.

Poses are camera-to-world [P, 4, 4] in scene coordinates, OpenCV axes. Letters: P poses, V cameras of the capture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras, look_at
from ..data import scene_box
from ..errors import BadInput

KINDS = ("synthetic", "forward", "unbounded")
#: mean of the unit optical axes from which on cameras face one way
FORWARD = 0.85
NEIGHBOURS = 4
BEYOND = 0.2  # how far past two cameras, in their distance
UNSTEADY = 0.03  # of positions, in distances to the scene, and of directions, in radians
STEEPEST = 0.98  # sine of the elevation
#: without cameras, in scene units: those that the rules of data/scene_box.py lead to
OBJECT_DISTANCE, SURROUNDING_DISTANCE = 0.5 / scene_box.OBJECT_HALF_SIDE, scene_box.CAMERA_DISTANCE
OBJECT_ANGLE, SURROUNDING_ANGLE = 0.69, 1.0


@dataclass(frozen=True)
class Shell:
    """Poses that look at `centre` [3] from between two distances and two heights (sines of the elevation), about the
    axis `up` [3]."""

    centre: Tensor
    distance: tuple[float, float]
    heights: tuple[float, float]
    up: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, 4, 4]."""
        u = torch.rand(3, count, generator=generator, dtype=torch.float64)
        height = _between(self.heights, u[0]).clamp(-STEEPEST, STEEPEST)
        across, turn = (1 - height**2).sqrt(), 2 * math.pi * u[1]
        frame = scene_box.frame_of(self.up)
        level = torch.stack((across * turn.cos(), across * turn.sin(), height), -1) @ frame
        origin = self.centre + _between(self.distance, u[2])[:, None] * level
        return look_at(origin, self.centre, self.up).float()


@dataclass(frozen=True)
class Between:
    """Poses between two of the cameras [V, 4, 4], the second of the `neighbours` nearest to the first."""

    poses: Tensor
    neighbours: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, 4, 4]."""
        origin = self.poses[:, :3, 3]
        near = torch.cdist(origin, origin).topk(min(self.neighbours + 1, len(origin)), largest=False).indices
        first = torch.randint(len(origin), (count,), generator=generator)
        second = near[first, torch.randint(near.shape[1], (count,), generator=generator)]
        t = torch.rand(count, generator=generator, dtype=torch.float64) * (1 + 2 * BEYOND) - BEYOND
        mixed = torch.lerp(self.poses[first], self.poses[second], t[:, None, None])
        axis = torch.nn.functional.normalize(mixed[:, :3, 2], dim=-1)
        return look_at(mixed[:, :3, 3], mixed[:, :3, 3] + axis, -mixed[:, :3, 1]).float()


def surroundings(kind: str, cameras: Cameras | None, cascades: int) -> Shell | Between:
    """Where poses of a kind are drawn: around a scene of `cascades` cubes seen by `cameras` (scene coordinates), or by
    none that are known. kind: one of `KINDS`, or "auto" for what the cameras look like."""
    if kind not in (*KINDS, "auto"):
        raise BadInput(f"poses are {kind!r}; the rule: auto, {', '.join(KINDS)}")
    if cameras is None or len(cameras) < 2:
        return _without_cameras(kind, cascades)
    poses = cameras.camera_to_world.cpu().double()
    kind = kind_of(poses, cascades) if kind == "auto" else kind
    if kind == "synthetic":
        return _shell_of(poses)
    return Between(poses, len(poses) if kind == "forward" else NEIGHBOURS)


def kind_of(poses: Tensor, cascades: int) -> str:
    """The kind of a capture whose cameras are `poses` [V, 4, 4]."""
    if poses[:, :3, 2].mean(0).norm() > FORWARD:
        return "forward"
    return "synthetic" if cascades == 1 else "unbounded"


def _shell_of(poses: Tensor) -> Shell:
    focus = scene_box.focus_point(poses)
    focus = torch.full((3,), 0.5, dtype=torch.float64) if focus is None else focus
    up = scene_box.up_axis(poses)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) if up is None else up
    offset = poses[:, :3, 3] - focus
    distance = offset.norm(dim=-1)
    height = (offset @ up) / distance.clamp(min=1e-9)
    return Shell(focus, _range(distance), _range(height), up)


def _without_cameras(kind: str, cascades: int) -> Shell:
    if kind == "forward":
        raise BadInput("poses are 'forward' without the capture's cameras; the rule: --capture says where it is")
    centre, up = (torch.tensor(v, dtype=torch.float64) for v in ([0.5] * 3, [0.0, 0.0, 1.0]))
    if kind == "synthetic" or (kind == "auto" and cascades == 1):
        return Shell(centre, (OBJECT_DISTANCE, OBJECT_DISTANCE), (-0.2, 1.0), up)
    return Shell(centre, (0.8 * SURROUNDING_DISTANCE, 1.2 * SURROUNDING_DISTANCE), (-0.2, 0.5), up)


def pinhole(cameras: Cameras | None, cascades: int) -> tuple[Tensor, Tensor]:
    """Focal length [2] and size [2] in pixels of the drawn poses' lens: the cameras' first one without its distortion;
    a right angle where that is no perspective."""
    if cameras is not None and len(cameras):
        size = cameras.size[0].cpu()
        plain = cameras.model_of(0) == "perspective"
        return (cameras.focal[0].cpu().float() if plain else 0.5 * size.float().max().repeat(2)), size
    angle = OBJECT_ANGLE if cascades == 1 else SURROUNDING_ANGLE
    return torch.full((2,), 400 / math.tan(0.5 * angle)), torch.tensor([800, 800])


def jittered(poses: Tensor, generator: torch.Generator) -> Tensor:
    """Copies of `poses` [P, 4, 4], moved and turned a little."""
    noise = UNSTEADY * torch.randn(2, len(poses), 3, generator=generator)
    reach = (poses[:, :3, 3] - 0.5).norm(dim=-1, keepdim=True)
    origin = poses[:, :3, 3] + noise[0] * reach
    axis = torch.nn.functional.normalize(poses[:, :3, 2] + noise[1], dim=-1)
    return look_at(origin, origin + axis, -poses[:, :3, 1])


def _between(ends: tuple[float, float], u: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * u


def _range(values: Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())
