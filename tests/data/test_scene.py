"""Images in one buffer, and splits by name."""

from pathlib import Path

import pytest
import torch

from radfield.cameras import Cameras
from radfield.data.scene import Images, Scene, Views
from radfield.errors import BadInput
from radfield.geometry import SceneTransform

SIZES = [(3, 2), (4, 5)]


def some_images(channels: int) -> Images:
    images = Images.allocate(SIZES, channels)
    images.pixels[:] = torch.arange(images.pixels.numel()).view(images.pixels.shape) % 256
    return images


@pytest.mark.parametrize("channels", [3, 4])
def test_images_lie_one_after_the_other(channels):
    images = some_images(channels)
    assert len(images) == 2 and images.channels == channels
    assert images.offset.tolist() == [0, 6, 26]
    assert [tuple(images[i].shape) for i in range(2)] == [(2, 3, channels), (5, 4, channels)]
    assert torch.equal(torch.cat([images[i].reshape(-1, channels) for i in range(2)]), images.pixels)
    assert torch.equal(images[-1], images[1])
    with pytest.raises(IndexError):
        images[2]


def test_composite_is_a_blend_with_straight_alpha():
    images = Images.allocate([(3, 1)], 4)
    images[0][0] = torch.tensor([[255, 0, 51, 255], [255, 0, 51, 0], [255, 0, 51, 51]])
    over = images.composited(0, (0.5, 1.0, 0.0))
    expected = [[1, 0, 0.2], [0.5, 1, 0], [0.6, 0.8, 0.04]]
    torch.testing.assert_close(over[0], torch.tensor(expected))


def test_images_without_alpha_ignore_the_background():
    images = some_images(3)
    torch.testing.assert_close(images.composited(1, torch.ones(3)), images[1].float() / 255)


def test_split_by_name():
    one = torch.ones(1, 2)
    cameras = Cameras(torch.eye(4)[None], one, one, one.long(), torch.zeros(1, 6))
    train = Views(cameras, None, ["a"])
    scene = Scene("s", train, None, train, SceneTransform(), 1, "black", False, Path("s"))
    assert scene.split("train") is train and scene.split("test") is train
    with pytest.raises(BadInput, match="s has no val views; it has train, test"):
        scene.split("val")
    with pytest.raises(BadInput, match="split 'trian' does not exist; it must be one of train, val, test"):
        scene.split("trian")
