"""What a teacher shows, as photographs."""

import pytest
import torch

from radfield.apps.distill.training import by_views
from radfield.distillation.rendered import ViewsOnDemand, check_not_empty, drawn, pictured, rendered, scene_of
from radfield.errors import BadInput


def test_views_on_any_background_are_the_teachers(teacher, sampler):
    cameras = drawn(sampler, 3, 24)
    images = rendered(teacher, cameras)
    assert images.channels == 4 and int(cameras.size.max()) == 24
    for color in ([1.0, 1.0, 1.0], [0.2, 0.7, 0.0]):
        background = torch.tensor(color)
        for i in range(3):
            seen = teacher.render_view(cameras, i, background).color
            torch.testing.assert_close(images.composited(i, background), seen, rtol=0, atol=1.6 / 255)


def test_poses_follow_from_the_seed(sampler):
    first, again = drawn(sampler, 5), drawn(sampler, 5)
    assert torch.equal(first.camera_to_world, again.camera_to_world)
    sampler.seed += 1
    assert not torch.equal(first.camera_to_world, drawn(sampler, 5).camera_to_world)


def test_views_on_demand_are_rendered_once_and_in_the_size_asked_for(teacher, sampler):
    cameras = drawn(sampler, 2, 24)
    views = ViewsOnDemand(teacher, {1: cameras, 2: cameras.scaled(0.5)}, torch.device("cpu"))
    views.level = 1
    whole, mask = views(1, 0)
    assert mask is None and torch.equal(whole, pictured(teacher, cameras, 1)) and views(1, 0)[0] is whole
    views.level = 2
    assert views(1, 0)[0].shape == (whole.shape[0] // 2, whole.shape[1] // 2, 4)


def test_a_scene_of_views(teacher, sampler):
    cameras = drawn(sampler, 2, 16)
    scene = scene_of(teacher, cameras, rendered(teacher, cameras))
    assert scene.has_alpha and scene.val is None and scene.transform == teacher.transform and len(scene.train) == 2


def test_an_empty_teacher_is_refused(teacher, sampler):
    class Nothing:
        device = torch.device("cpu")

        def render_view(self, cameras, view, background):
            seen = teacher.render_view(cameras, view, background)
            return type(seen)(0 * seen.color, 0 * seen.opacity, seen.depth)

    check_not_empty(teacher, drawn(sampler, 2, 16))
    with pytest.raises(BadInput, match="the teacher is empty"):
        check_not_empty(Nothing(), drawn(sampler, 2, 16))


def test_what_two_have_in_common_decides(teacher):
    class Gaussians:
        comparable = {"rendered": 3}

    assert by_views(teacher, "splat") and by_views(Gaussians(), "hash") and by_views(Gaussians(), "splat")
    assert not by_views(teacher, "vm")
