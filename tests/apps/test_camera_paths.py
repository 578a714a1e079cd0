"""Paths are rigid poses that look at the scene, wherever the capture stands in the world."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radfield.apps.camera_paths import orbit, spiral, target, up_axis
from radfield.cameras import look_at
from radfield.errors import BadInput

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def capture(
    count: int = 40, around: float = 360.0, focus=(0.0, 0.0, 0.0), rotation=None, elevation=(10.0, 60.0)
) -> torch.Tensor:
    """Cameras at distances near 4 that look at `focus` from an arc of `around` degrees, z up; `rotation` turns all."""
    generator = torch.Generator().manual_seed(count)
    angle = torch.linspace(0, math.radians(around), count + 1, dtype=torch.float64)[:-1]
    low, high = (math.radians(value) for value in elevation)
    height = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
    distance = 4 + 0.2 * torch.rand(count, generator=generator, dtype=torch.float64)
    offset = torch.stack([angle.cos() * height.cos(), angle.sin() * height.cos(), height.sin()], dim=-1)
    centre = torch.tensor(focus, dtype=torch.float64)
    poses = look_at(centre + distance[:, None] * offset, centre, UP)
    if rotation is not None:
        poses[:, :3] = rotation @ poses[:, :3]
    return poses.float()


def some_rotation(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * torch.linalg.det(q)


def assert_rigid(poses: torch.Tensor) -> None:
    rotation = poses[:, :3, :3].double()
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).double().expand_as(rotation), atol=1e-5, rtol=0)
    assert bool((torch.linalg.det(rotation) > 0.99).all())
    assert torch.equal(poses[:, 3], torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(poses), 4))


def looks_at(poses: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """The cosine between each camera's axis and its way to the point."""
    way = torch.nn.functional.normalize(point - poses[:, :3, 3], dim=-1)
    return (way * poses[:, :3, 2]).sum(-1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), around=st.sampled_from([120.0, 200.0, 360.0]))
def test_focus_and_up_are_found_in_any_world(seed, around):
    rotation = some_rotation(seed)
    focus = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    poses = capture(around=around, focus=focus.tolist(), rotation=rotation)
    torch.testing.assert_close(target(poses), rotation @ focus, atol=1e-3, rtol=0)
    tilt = math.degrees(math.acos(min(1.0, (up_axis(poses) @ (rotation @ UP)).item())))
    assert tilt < (3 if around == 360 else 15)


def test_parallel_axes_are_looked_at_from_where_the_cameras_stand():
    poses = torch.eye(4).repeat(5, 1, 1)
    poses[:, 0, 3] = torch.arange(5.0)
    torch.testing.assert_close(target(poses), torch.tensor([2.0, 0.0, 4 * 1.2], dtype=torch.float64))
    path = spiral(poses, 12)
    assert_rigid(path)
    assert bool((path[:, 2, 2] > 0.9).all())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_orbit_circles_the_focus(seed):
    rotation = some_rotation(seed)
    poses = capture(focus=(1.0, 2.0, 3.0), rotation=rotation)
    path = orbit(poses, 24)
    assert path.shape == (24, 4, 4) and path.dtype == torch.float32
    assert_rigid(path)
    focus = target(poses).float()
    offset = path[:, :3, 3] - focus
    distance = offset.norm(dim=-1)
    assert bool((looks_at(path, focus) > 0.99999).all())
    assert distance.std() < 1e-4 and 4.0 <= distance.mean() <= 4.2
    height = offset @ up_axis(poses).float()
    assert height.std() < 1e-4 and 10 < math.degrees(math.asin(height.mean() / distance.mean())) < 60
    steps = (path[:, :3, 3] - path.roll(1, 0)[:, :3, 3]).norm(dim=-1)
    assert steps.std() < 1e-3 * steps.mean(), "the last frame leads on to the first"
    upright = -(path[:, :3, 1] @ up_axis(poses).float())
    assert bool((upright > 0).all())


def test_orbit_begins_where_the_first_camera_stands():
    poses = capture(elevation=(30.0, 30.1))
    assert (orbit(poses, 10)[0, :3, 3] - poses[0, :3, 3]).norm() < 0.5


def test_spiral_stays_before_the_scene_and_looks_at_it():
    poses = capture(around=60.0)
    path = spiral(poses, 48)
    assert path.shape == (48, 4, 4)
    assert_rigid(path)
    focus = target(poses).float()
    assert bool((looks_at(path, focus) > 0.99999).all())
    centre = poses[:, :3, 3].mean(0)
    reach = (poses[:, :3, 3] - centre).norm(dim=-1).max()
    away = (path[:, :3, 3] - centre).norm(dim=-1)
    assert 0.1 * reach < away.max() < reach
    steps = (path[:, :3, 3] - path.roll(1, 0)[:, :3, 3]).norm(dim=-1)
    assert steps.max() < 5 * steps.mean()


def test_spiral_of_a_single_camera_moves_a_little():
    path = spiral(capture(count=1), 12)
    assert_rigid(path)
    assert bool(((path - path.roll(1, 0))[:, :3, 3].norm(dim=-1) > 0.01).all())
    assert bool((looks_at(path, target(capture(count=1)).float()) > 0.99999).all())


def test_what_cannot_be_a_path():
    with pytest.raises(BadInput, match="frames"):
        orbit(capture(), 0)
    with pytest.raises(BadInput, match="camera_to_world"):
        spiral(torch.zeros(0, 4, 4), 5)
    opposite = torch.eye(4).repeat(2, 1, 1)
    opposite[1, :3, :3] = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    with pytest.raises(BadInput, match="up axis"):
        orbit(opposite, 5)
