"""`radfield render`: views, depth and videos, and what they show."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from radfield.apps.render import depth_picture
from radfield.apps.runs import open_run
from radfield.renderers.volume import View


def test_views(trained, tmp_path, command):
    code, figures, _ = command("render", trained[0], "--output", tmp_path / "out", "--json")
    assert code == 0 and figures["views"] == 2
    assert figures["files"] == [str(tmp_path / "out" / name) for name in ("000.png", "001.png")]
    ours, evaluated = (Image.open(folder / "000.png") for folder in (tmp_path / "out", trained[0] / "renders" / "val"))
    assert np.array_equal(np.asarray(ours), np.asarray(evaluated))


def test_depth_and_another_size(trained, tmp_path, command):
    options = ("--views", 1, "--split", "train", "--size", 20, "--depth")
    command("render", trained[0], "--output", tmp_path, *options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000.png", "000_depth.png"]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.size == (20, 20)


@pytest.mark.parametrize("what", ["orbit", "spiral"])
def test_videos(trained, tmp_path, command, what):
    options = ("--what", what, "--frames", 3, "--size", 25, "--depth", "--json")
    code, figures, _ = command("render", trained[0], "--output", tmp_path, *options)
    assert code == 0 and figures["frames"] == 3
    for name in (f"{what}.mp4", f"{what}_depth.mp4"):
        frames = iio.imread(tmp_path / name)
        assert frames.shape == (3, 26, 26, 3)  # even sides, for H.264
        assert frames[0].std() > 10


def test_the_orbit_sees_the_scene_from_all_sides(trained, tmp_path, command):
    command("render", trained[0], "--output", tmp_path, "--what", "orbit", "--frames", 4, "--size", 32)
    frames = iio.imread(tmp_path / "orbit.mp4").astype(int)
    for frame in frames:
        assert (abs(frame[4:28, 4:28] - 255).max(-1) > 30).mean() > 0.2  # the object stands in the middle
    assert abs(frames[0] - frames[2]).mean() > 3


def test_depth_is_the_distance_to_the_solids(trained):
    from radfield.data.synthetic import synthetic_scene

    _, model, scene = open_run(trained[0], None)
    view = model.render_view(scene.val.cameras, 0)
    truth = synthetic_scene("solids").surface(scene.val.cameras.image_rays(0), scene.transform).depth.view(48, 48)
    both = (view.opacity > 0.99) & truth.isfinite()
    assert both.float().mean() > 0.1
    assert (view.depth - truth)[both].abs().median() < 0.03


def test_a_depth_picture_is_brightest_where_nearest():
    depth = torch.tensor([[1.0, 2.0, 4.0, 0.0]])
    picture = depth_picture(View(torch.zeros(1, 4, 3), torch.tensor([[1.0, 1.0, 1.0, 0.0]]), depth))
    near, middle, far, nothing = picture[0, :, 0].tolist()
    assert near > middle > far > nothing == 0
    assert not depth_picture(View(torch.zeros(1, 4, 3), torch.zeros(1, 4), depth)).any()


def test_only_gaussians_are_traced(trained, tmp_path, refused):
    refused("render", trained[0], "--output", tmp_path, "--tracer", rule="one of Gaussians, of the method splat")
