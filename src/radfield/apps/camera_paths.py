"""Camera paths for videos, found from a capture's cameras: a full turn around the scene, or a spiral in front of it.

Letters: V views, T frames. Poses are camera-to-world `[V, 4, 4]` with OpenCV axes (x right, y down, z forward), in any
one coordinate system, scene or world; paths come back in the same, float32. "Up" is a unit vector of that system.
"""

from __future__ import annotations

import math

import torch

from ..cameras import look_at
from ..data import scene_box
from ..errors import BadInput

#: a path closer to the poles than this would spin the view around
_STEEPEST = math.radians(75)
#: cameras side by side stand apart by about a quarter of the distance to what they see
_AHEAD = 4.0


def target(camera_to_world: torch.Tensor) -> torch.Tensor:
    """The point `[3]`, float64, that a path looks at: the one nearest to all optical axes.

    Parallel axes have none; then it lies ahead of the mean camera, `_AHEAD` times as far as the cameras stand apart.
    """
    poses = camera_to_world.double()
    found = scene_box.nearest_to_axes(poses)
    if found is not None:
        return found
    centre = poses[:, :3, 3].mean(0)
    spread = (poses[:, :3, 3] - centre).norm(dim=-1).mean()
    ahead = torch.nn.functional.normalize(poses[:, :3, 2].mean(0), dim=0)
    return centre + ahead * (_AHEAD * spread if spread > 1e-6 else 1.0)


def up_axis(camera_to_world: torch.Tensor) -> torch.Tensor:
    """The scene's up `[3]` (`data/scene_box.py`). Raises `BadInput` where the cameras have none in common."""
    up = scene_box.up_axis(camera_to_world)
    if up is None:
        raise BadInput("the cameras have no common up axis; the rule: photographs taken more or less upright")
    return up


def orbit(camera_to_world: torch.Tensor, frames: int) -> torch.Tensor:
    """One full turn `[T, 4, 4]` around the focus of the given cameras, at their median distance and elevation,
    beginning at the first camera's azimuth; after the last frame comes the first again."""
    _check(camera_to_world, frames)
    distance, azimuth, elevation = _spherical(camera_to_world)
    angle = azimuth[0] + torch.arange(frames, dtype=torch.float64) / frames * 2 * math.pi
    height = elevation.median().clamp(-_STEEPEST, _STEEPEST)
    frame = scene_box.frame_of(up_axis(camera_to_world))
    level = torch.stack([angle.cos() * height.cos(), angle.sin() * height.cos(), height.sin().expand_as(angle)], -1)
    focus = target(camera_to_world)
    return look_at(focus + distance.median() * level @ frame, focus, frame[2]).float()


def spiral(camera_to_world: torch.Tensor, frames: int, turns: int = 2, extent: float = 0.5) -> torch.Tensor:
    """A closed spiral `[T, 4, 4]` in front of the scene, for captures taken from one side: `turns` circles around the
    mean camera, breathing in and out once, always looking at the focus. `extent` is its size as a share of the cameras'
    own spread (their standard deviations along the mean camera's axes)."""
    _check(camera_to_world, frames)
    focus, up = target(camera_to_world), up_axis(camera_to_world)
    position = camera_to_world[:, :3, 3].double()
    centre = position.mean(0)
    axes = look_at(centre[None], focus, up)[0, :3, :3]
    distance = (focus - centre).norm()
    spread = ((position - centre) @ axes).std(dim=0, correction=0)
    # A single camera, or cameras in a row, would make a path that stands still: a twentieth of the distance is the
    # least, and depth stays within a third of it, so that the path cannot run into the subject.
    size = (extent * math.sqrt(2) * spread).clamp(min=0.05 * distance.item(), max=0.33 * distance.item())
    angle = torch.arange(frames, dtype=torch.float64) / frames * 2 * math.pi
    offset = torch.stack([(turns * angle).cos(), (turns * angle).sin(), angle.sin()], dim=-1) * size
    return look_at(centre + offset @ axes.T, focus, up).float()


def _spherical(camera_to_world: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distance, azimuth and elevation `[V]` (radians) of the cameras, seen from their focus."""
    offset = (camera_to_world[:, :3, 3].double() - target(camera_to_world)) @ scene_box.frame_of(
        up_axis(camera_to_world)
    ).T
    distance = offset.norm(dim=-1)
    elevation = torch.asin((offset[:, 2] / distance.clamp(min=1e-12)).clamp(-1, 1))
    return distance, torch.atan2(offset[:, 1], offset[:, 0]), elevation


def _check(camera_to_world: torch.Tensor, frames: int) -> None:
    if camera_to_world.ndim != 3 or camera_to_world.shape[1:] != (4, 4) or len(camera_to_world) == 0:
        raise BadInput(f"camera_to_world has shape {list(camera_to_world.shape)}; the rule: [V, 4, 4] with V >= 1")
    if frames < 1:
        raise BadInput(f"frames is {frames}; the rule: at least 1")
