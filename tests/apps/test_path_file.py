"""Camera paths: a smooth way through the keyframes, files that are read as they were written, and videos of them."""

import json
import math

import pytest
import torch

from radfield.apps.path_file import MARK, CameraPath, read_path
from radfield.cameras import look_at
from radfield.errors import BadInput
from radfield.geometry import SceneTransform


def path(closed=False, count=5, **options):
    angle = torch.arange(count, dtype=torch.float64) / count * 2 * math.pi
    place = torch.stack([angle.cos() * 3, angle.sin() * 3, 0.5 + 0.2 * angle], 1)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    poses = look_at(place, torch.zeros(3, dtype=torch.float64), up)
    return CameraPath(poses, torch.linspace(0.5, 0.9, count, dtype=torch.float64), closed=closed, **options)


@pytest.mark.parametrize("closed", [False, True])
def test_the_way_leads_through_the_keyframes_and_is_smooth(closed):
    keys = path(closed)
    spans, each = (5, 100) if closed else (4, 100)
    poses, fov = keys.poses(spans * each + (0 if closed else 1))
    at = torch.arange(5) * each
    assert torch.allclose(poses[at], keys.camera_to_world, atol=1e-9)
    assert torch.allclose(fov[at], keys.fov)
    turn = poses[:, :3, :3]
    assert torch.allclose(turn @ turn.mT, torch.eye(3, dtype=torch.float64).expand_as(turn), atol=1e-9)
    loop = torch.cat((poses, poses[:1])) if closed else poses
    steps = loop.diff(dim=0)
    assert float(steps.abs().max()) < 0.1  # nowhere a leap, in no column
    assert float(steps.diff(dim=0).abs().max()) < 0.01  # nor a corner


def test_half_turns_take_one_way_only():
    up, right = torch.eye(4, dtype=torch.float64), torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64))
    poses, _ = CameraPath(torch.stack([up, right, up]), torch.full((3,), 0.8, dtype=torch.float64)).poses(101)
    assert torch.allclose(torch.linalg.det(poses[:, :3, :3]), torch.ones(101, dtype=torch.float64))


def test_files_are_read_as_they_were_written(tmp_path):
    keys = path(True, seconds=2.5, fps=24, size=(320, 200))
    keys.save(tmp_path / "path.json")
    again = read_path(tmp_path / "path.json")
    assert torch.equal(again.camera_to_world, keys.camera_to_world)
    assert torch.equal(again.fov, keys.fov)
    assert (again.seconds, again.fps, again.closed, again.size) == (2.5, 24, True, (320, 200))
    assert again.frames == 60


def test_cameras_see_the_same_world_in_any_scene():
    keys, point = path(), torch.tensor([[0.3, -0.2, 0.1]])
    pixels = []
    for transform in (SceneTransform(), SceneTransform(0.3, ((0, -1, 0), (1, 0, 0), (0, 0, 1)), (0.5, 0.4, 0.3))):
        cameras = keys.cameras(transform, 7)
        pixels.append(cameras.project(torch.tensor([3]), transform.points(point))[0])
    assert torch.allclose(*pixels, atol=1e-2)


def _spoilt(change) -> str:
    values = path().to_dict()
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is not JSON"),
        ("[1, 2]", "is no camera path"),
        ("[" * 100_000, "is not JSON"),
        (_spoilt(lambda v: v.pop("keyframes")), "is no whole camera path"),
        (_spoilt(lambda v: v.update(keyframes=v["keyframes"][:1])), "has 1 keyframes"),
        (_spoilt(lambda v: v["keyframes"][0].update(fov=9)), "fov of a keyframe is out of range"),
        (_spoilt(lambda v: v["keyframes"][0].update(fov="x")), "is no whole camera path"),
        (_spoilt(lambda v: v["keyframes"][0]["camera_to_world"][0].append(1)), "is no whole camera path"),
        (_spoilt(lambda v: v["keyframes"][0]["camera_to_world"][0].__setitem__(0, 7)), "is no rigid pose"),
        (_spoilt(lambda v: v["keyframes"][0]["camera_to_world"][0].__setitem__(3, float("nan"))), "is no rigid pose"),
        (_spoilt(lambda v: v.update(seconds=-1)), "seconds is -1"),
        (_spoilt(lambda v: v.update(fps=1e9)), "fps is"),
        (_spoilt(lambda v: v.update(size=[1e9, 4])), "size is"),
        (_spoilt(lambda v: v.update({MARK: 2})), "is no camera path"),
    ],
)
def test_what_is_no_path_is_told_in_one_line(tmp_path, text, rule):
    (tmp_path / "path.json").write_text(text)
    with pytest.raises(BadInput, match=rule) as error:
        read_path(tmp_path / "path.json")
    assert "\n" not in str(error.value)


def test_a_path_that_mirrors():
    poses = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)).expand(2, 4, 4)
    with pytest.raises(BadInput, match="mirrors"):
        CameraPath(poses, torch.full((2,), 0.8, dtype=torch.float64))


def test_render_makes_a_video_of_a_path(trained, tmp_path, command, refused):
    path(seconds=0.2, fps=20, size=(32, 24)).save(tmp_path / "path.json")
    options = ("render", trained[0], "--output", tmp_path / "out", "--path", tmp_path / "path.json", "--device", "cpu")
    code, figures, _ = command(*options, "--json")
    assert (code, figures["frames"]) == (0, 4)
    import av

    with av.open(str(tmp_path / "out" / "path.mp4")) as video:
        frames = list(video.decode(video=0))
        assert (len(frames), frames[0].width, frames[0].height, video.streams.video[0].average_rate) == (4, 32, 24, 20)
    refused(*options, "--what", "orbit", rule="--path and --what orbit are both given")
    refused(*options[:-3], tmp_path / "none.json", "--device", "cpu", rule="could not be read")
