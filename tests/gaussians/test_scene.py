"""The Gaussian scene: moving it moves what a camera sees; its shapes are checked."""

import dataclasses
import math

import pytest
import torch
from gaussians.test_ply import random_scene

from radfield.errors import BadInput
from radfield.gaussians.scene import GaussianScene, covariances, see
from radfield.geometry import SceneTransform
from radfield.renderers.gaussian_projection import Camera

AXIS_TURN = ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))


def small_scene(count=60, degree=4):
    scene = random_scene(count, degree)
    return dataclasses.replace(scene, log_scales=scene.log_scales * 0.3 - 2, rest=scene.rest * 0.2)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_a_moved_scene_looks_the_same_to_a_moved_camera(scale):
    scene = small_scene()
    transform = SceneTransform(scale, AXIS_TURN, (0.5, -1.0, 2.0))
    pose = torch.eye(4)
    pose[2, 3] = 4
    camera = Camera(pose, (60.0, 60.0), (32.0, 24.0), 64, 48)
    moved_pose = torch.linalg.inv(transform.poses(torch.linalg.inv(pose)))
    moved = dataclasses.replace(camera, world_to_camera=moved_pose, near=camera.near * scale)
    ours = see(scene, camera).image
    theirs = see(scene.transformed(transform), moved).image
    torch.testing.assert_close(ours.color, theirs.color, rtol=0, atol=1e-4)
    assert ours.alpha.max() > 0.5


def test_there_and_back():
    scene = small_scene()
    transform = SceneTransform(2.0, AXIS_TURN, (0.5, -1.0, 2.0))
    back = scene.transformed(transform).transformed(transform.inverse())
    torch.testing.assert_close(back.means, scene.means, rtol=0, atol=1e-5)
    torch.testing.assert_close(back.rest, scene.rest, rtol=0, atol=1e-5)
    torch.testing.assert_close(covariances(back), covariances(scene), rtol=1e-4, atol=1e-5)


def test_depth_of_an_opaque_one():
    scene = small_scene(1, 0)
    scene.means[:, 0] = torch.tensor([0.0, 0, 3])
    scene.log_scales[:], scene.opacity_logits[:] = 0.0, 20.0
    image = see(scene, Camera(torch.eye(4), (50.0, 50.0), (8.0, 8.0), 16, 16), depth=True).image
    torch.testing.assert_close(image.color[..., 3] / image.alpha, torch.full((16, 16), 3.0))


def test_shapes_are_checked():
    values = random_scene(5).tensors()
    with pytest.raises(BadInput, match="rest has shape"):
        GaussianScene(**{**values, "rest": torch.zeros(44, 5)})
    with pytest.raises(BadInput, match="means has shape"):
        GaussianScene(**{**values, "means": torch.zeros(5, 3)})


def test_unsound_ones_are_found():
    scene = random_scene(4)
    scene.base[0, 1] = math.nan
    scene.quaternions[:, 2] = 0
    assert scene.unsound().tolist() == [False, True, True, False]
