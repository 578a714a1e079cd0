"""The scene box: the focus is where axes meet, and the three rules do what they say."""

import math

import pytest
import torch

from radfield.cameras import look_at
from radfield.data.scene_box import find_box, focus_point, scale_and_offset, up_axis, upright_box
from radfield.errors import RadfieldWarning

F64 = torch.float64
TANGENT = math.tan(0.5 * 0.6911112)  # NeRF-synthetic's field of view


def cameras_around(centre, distance: float, count: int = 20, outward: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    away = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=F64), dim=-1)
    centre = torch.tensor(centre, dtype=F64)
    origin = centre + distance * away
    return look_at(origin, origin + away if outward else centre, torch.tensor([0, 0, 1], dtype=F64))


def scene_corners(box) -> torch.Tensor:
    """World corners of the unit cube."""
    return box.transform.inverse().points(torch.tensor([[0.0, 0, 0], [1, 1, 1]], dtype=F64))


def test_focus_is_where_the_axes_meet():
    focus = focus_point(cameras_around((1, 2, 3), 5.0))
    torch.testing.assert_close(focus, torch.tensor([1.0, 2, 3], dtype=F64))


def test_no_focus_behind_cameras_or_of_parallel_axes():
    assert focus_point(cameras_around((1, 2, 3), 5.0, outward=True)) is None
    poses = torch.eye(4, dtype=F64).repeat(5, 1, 1)
    poses[:, 0, 3] = torch.arange(5)
    assert focus_point(poses) is None
    assert focus_point(poses[:1]) is None


def test_object_rule_gives_the_published_box_of_nerf_synthetic():
    box = find_box(cameras_around((0, 0, 0), 4.0311), TANGENT, is_object=True)
    assert box.cascades == 1
    expected = 0.375 * 4.0311 * torch.tensor([[-1.0] * 3, [1.0] * 3], dtype=F64)
    torch.testing.assert_close(scene_corners(box), expected)
    assert expected[1, 0] == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("tangent, share", [(0.1, 0.375), (0.5, 0.52), (2.0, 0.75)])
def test_object_cube_widens_with_the_field_of_view(tangent, share):
    box = find_box(cameras_around((1, 0, 0), 2.0), tangent, is_object=True)
    low, high = scene_corners(box)
    torch.testing.assert_close(high - low, torch.full((3,), 2 * share * 2.0, dtype=F64))
    torch.testing.assert_close((high + low) / 2, torch.tensor([1.0, 0, 0], dtype=F64))


@pytest.mark.parametrize("outward", [False, True])
def test_surroundings_put_cameras_at_the_stated_distance(outward):
    poses = cameras_around((3, -1, 0), 7.0, outward=outward)
    box = find_box(poses, TANGENT, is_object=False)
    assert box.cascades == 5
    distance = (box.transform.poses(poses)[:, :3, 3] - 0.5).norm(dim=-1)
    assert distance.mean().item() == pytest.approx(1.32)


def test_an_object_seen_from_inside_out_is_a_surrounding():
    assert find_box(cameras_around((0, 0, 0), 1.0, outward=True), TANGENT, is_object=True).cascades == 5


def test_cameras_in_one_point_are_announced():
    poses = cameras_around((5, 5, 5), 0.0, outward=True)
    poses[:, :3, :3] = cameras_around((0, 0, 0), 1.0, outward=True)[:, :3, :3]
    with pytest.warns(RadfieldWarning, match="all cameras stand at one point"):
        box = find_box(poses, TANGENT, is_object=False)
    assert box.transform.scale == 1.32


def test_stated_box_is_used_as_it_is():
    box = scale_and_offset(0.33, (0.5, 0.5, 0.5), 3)
    assert (box.transform.scale, box.transform.offset, box.cascades) == (0.33, (0.5, 0.5, 0.5), 3)


def turned(poses, generator):
    """The poses in a world turned at random, and the turn."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=F64))[0]
    turn = turn * torch.linalg.det(turn)
    out = poses.clone()
    out[:, :3] = turn @ poses[:, :3]
    return out, turn


@pytest.mark.parametrize("is_object", [False, True])
def test_scenes_without_axes_of_their_own_are_turned_upright(is_object):
    generator = torch.Generator().manual_seed(3)
    poses = cameras_around((1, 2, 3), 5.0)
    for _ in range(5):
        other, turn = turned(poses, generator)
        box = find_box(other, TANGENT, is_object, upright=False)
        up = box.transform.directions(turn[:, 2])
        assert up[2] > math.cos(math.radians(8))  # cameras on a sphere that look inward have their mean up near z
        same = find_box(poses, TANGENT, is_object)
        assert box.cascades == same.cascades and box.transform.scale == pytest.approx(same.transform.scale)
        middle = box.transform.points(turn @ torch.tensor([1.0, 2, 3], dtype=F64))
        torch.testing.assert_close(middle, torch.full((3,), 0.5, dtype=F64))


def test_level_cameras_have_an_exact_up():
    angle = torch.arange(8, dtype=F64)
    origin = torch.stack((angle.cos(), angle.sin(), torch.zeros(8, dtype=F64)), -1)
    poses = look_at(origin, torch.zeros(3, dtype=F64), torch.tensor([0, 0, 1], dtype=F64))
    other, turn = turned(poses, torch.Generator().manual_seed(0))
    torch.testing.assert_close(up_axis(other), turn[:, 2])
    over = poses.clone()
    over[::2, :3, :2] *= -1  # every second camera upside down
    assert up_axis(over) is None


def test_a_box_is_turned_around_its_centre():
    poses, turn = turned(cameras_around((0, 0, 0), 3.0), torch.Generator().manual_seed(1))
    box = scale_and_offset(0.5, (0.1, 0.2, 0.3), 1)
    other = upright_box(box, poses)
    middle = box.transform.inverse().points(torch.full((3,), 0.5, dtype=F64))
    torch.testing.assert_close(other.transform.points(middle), torch.full((3,), 0.5, dtype=F64))
    assert other.transform.scale == 0.5 and other.transform.directions(turn[:, 2])[2] > 0.99


@pytest.mark.parametrize("reach, cascades", [(0.2, 3), (1.9, 3), (2.1, 4), (7.9, 5), (1000.0, 8)])
def test_points_say_how_far_the_scene_reaches(reach, cascades):
    poses = cameras_around((0, 0, 0), 4.0)
    half = reach / 1.32 * 4.0  # in the world, where 1.32 scene units are 4
    points = torch.zeros(200, 3, dtype=F64)
    points[:, 0] = torch.linspace(-half, half, 200, dtype=F64)
    points[0, 1] = 1e6  # an outlier
    distance = (poses[:, :3, 3] * 1.32 / 4.0).abs().max()
    assert 1 < distance < 2  # so that the cameras alone ask for 3 cascades
    assert find_box(poses, TANGENT, False, points=points).cascades == cascades
    assert find_box(poses, TANGENT, False, points=points[:10]).cascades == 5
