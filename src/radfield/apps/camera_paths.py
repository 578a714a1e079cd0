"""Camera paths for videos, found from a capture's cameras: a full turn around the scene, or a spiral in front of it.

Letters: V views, T frames. Poses are camera-to-world `[V, 4, 4]` with OpenCV axes (x right, y down, z forward), in any
one coordinate system, scene or world; paths come back in the same, float32. "Up" is a unit vector of that system.
"""

from __future__ import annotations

import math

import torch

from ..errors import BadInput

#: a path closer to the poles than this would spin the view around
_STEEPEST = math.radians(75)


def look_at(position: torch.Tensor, target: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Poses `[T, 4, 4]` of cameras at `position [T, 3]` that look at `target` (`[3]` or `[T, 3]`), `up [3]` upright.

    Raises `BadInput` where a camera stands on its target or looks exactly along `up`.
    """
    forward = target - position
    right = torch.linalg.cross(forward, up.expand_as(forward))
    if bool((right.norm(dim=-1) <= 1e-9 * forward.norm(dim=-1).clamp(min=1e-30)).any()):
        raise BadInput("a camera looks along the up axis or stands on its target; the rule: neither")
    forward, right = (torch.nn.functional.normalize(axis, dim=-1) for axis in (forward, right))
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4, dtype=position.dtype).repeat(len(position), 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, position], dim=-1)
    return pose


def focus_point(camera_to_world: torch.Tensor) -> torch.Tensor:
    """The point `[3]` nearest to all optical axes, in the least-squares sense: what the photographer walked around.

    Parallel axes meet nowhere; a faint pull towards the cameras' mean position keeps the answer finite.
    """
    poses = camera_to_world.double()
    position, forward = poses[:, :3, 3], poses[:, :3, 2]
    # I - f f^T projects onto the plane across an axis; summed over the axes it gives the normal equations.
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    pull = 1e-6 * torch.eye(3, dtype=torch.float64)
    right_side = (across @ position[:, :, None]).mean(0)[:, 0] + pull @ position.mean(0)
    return torch.linalg.solve(across.mean(0) + pull, right_side)


def up_axis(camera_to_world: torch.Tensor) -> torch.Tensor:
    """The scene's up `[3]`: the cameras' mean up, less what lies along their right axes, for those are level in
    photographs taken upright, while the mean up leans wherever all cameras look down from one side."""
    poses = camera_to_world.double()
    right, up = poses[:, :3, 0], -poses[:, :3, 1].mean(0)
    if up.norm() < 1e-3:
        raise BadInput("the cameras have no common up axis; the rule: photographs taken more or less upright")
    level = (right[:, :, None] * right[:, None, :]).mean(0)
    return torch.nn.functional.normalize(
        torch.linalg.solve(level + 0.05 * torch.eye(3, dtype=torch.float64), up), dim=0
    )


def surrounds(camera_to_world: torch.Tensor) -> bool:
    """Whether the cameras stand all around their focus, with no gap in azimuth above 120 degrees."""
    if len(camera_to_world) < 3:
        return False
    azimuth = _spherical(camera_to_world)[1].sort().values
    gaps = torch.diff(azimuth, append=azimuth[:1] + 2 * math.pi)
    return gaps.max().item() < math.radians(120)


def orbit(camera_to_world: torch.Tensor, frames: int) -> torch.Tensor:
    """One full turn `[T, 4, 4]` around the focus of the given cameras, at their median distance and elevation,
    beginning at the first camera's azimuth; after the last frame comes the first again."""
    _check(camera_to_world, frames)
    distance, azimuth, elevation = _spherical(camera_to_world)
    angle = azimuth[0] + torch.arange(frames, dtype=torch.float64) / frames * 2 * math.pi
    height = elevation.median().clamp(-_STEEPEST, _STEEPEST)
    frame = _frame(up_axis(camera_to_world))
    level = torch.stack([angle.cos() * height.cos(), angle.sin() * height.cos(), height.sin().expand_as(angle)], -1)
    focus = focus_point(camera_to_world)
    return look_at(focus + distance.median() * level @ frame, focus, frame[2]).float()


def spiral(camera_to_world: torch.Tensor, frames: int, turns: int = 2, extent: float = 0.5) -> torch.Tensor:
    """A closed spiral `[T, 4, 4]` in front of the scene, for captures taken from one side: `turns` circles around the
    mean camera, breathing in and out once, always looking at the focus. `extent` is its size as a share of the cameras'
    own spread (their standard deviations along the mean camera's axes)."""
    _check(camera_to_world, frames)
    focus, up = focus_point(camera_to_world), up_axis(camera_to_world)
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
    offset = (camera_to_world[:, :3, 3].double() - focus_point(camera_to_world)) @ _frame(up_axis(camera_to_world)).T
    distance = offset.norm(dim=-1)
    elevation = torch.asin((offset[:, 2] / distance.clamp(min=1e-12)).clamp(-1, 1))
    return distance, torch.atan2(offset[:, 1], offset[:, 0]), elevation


def _frame(up: torch.Tensor) -> torch.Tensor:
    """A right-handed orthonormal frame `[3, 3]`, one axis per row, whose third is `up`."""
    helper = torch.zeros(3, dtype=up.dtype)
    helper[up.abs().argmin()] = 1.0
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, up), dim=0)
    return torch.stack([first, torch.linalg.cross(up, first), up])


def _check(camera_to_world: torch.Tensor, frames: int) -> None:
    if camera_to_world.ndim != 3 or camera_to_world.shape[1:] != (4, 4) or len(camera_to_world) == 0:
        raise BadInput(f"camera_to_world has shape {list(camera_to_world.shape)}; the rule: [V, 4, 4] with V >= 1")
    if frames < 1:
        raise BadInput(f"frames is {frames}; the rule: at least 1")
