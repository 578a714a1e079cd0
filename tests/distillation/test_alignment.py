"""Teacher and student in different scene boxes."""

import dataclasses
import math

import pytest
import torch
from distillation.conftest import SMALL

from radfield.apps import ngp
from radfield.apps.distill.training import Student
from radfield.distillation import WITHOUT_STAGES, Distillation, step
from radfield.distillation.alignment import Moved, aligned, between, take_occupancy
from radfield.errors import BadInput
from radfield.geometry import SceneTransform

QUARTER = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
ONE, OTHER = SceneTransform(2.0, offset=(0.5, 0.0, 0.1)), SceneTransform(0.5, QUARTER, (0.5, 0.4, 0.3))


def test_the_way_between_two_scenes_leads_through_the_world():
    world = torch.rand(20, 3, dtype=torch.float64)
    place = between(ONE, OTHER)
    assert torch.allclose(place.points(ONE.points(world)), OTHER.points(world))
    assert torch.allclose(place.directions(ONE.directions(world)), OTHER.directions(world))


def test_optical_depth_does_not_depend_on_the_box(teacher):
    place = between(ONE, OTHER)
    moved = Moved(teacher.field, place)
    x, d = torch.rand(50, 3), torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    ours, features = moved.geometry(x)
    y = place.points(x)
    assert torch.allclose(ours.exp() / place.scale, teacher.field.density(y), rtol=1e-4)
    colors = moved.color_logits(features, d).sigmoid()
    assert torch.allclose(colors, teacher.field.color(y, place.directions(d).contiguous()), atol=1e-6)


def student_at(transform, cascades):
    where = {"transform": transform, "cascades": cascades, "background": "white"}
    return ngp.build(dataclasses.replace(SMALL, network_l2=0.0), **where, seed=2)


def test_a_student_in_a_wider_box_learns_in_it(teacher, sampler):
    model = student_at(SceneTransform(0.5, offset=(0.25, 0.25, 0.25)), 2)
    student = Student(model, teacher, sampler, 0)
    assert isinstance(student.field, Moved) and "features" not in student.field.comparable
    state = Distillation(teacher, student, WITHOUT_STAGES, sampler, batch_samples=2048)
    losses = [step(state, 0.5).error for _ in range(20)]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    box = model.grid.occupied_box()  # the ball of radius about 0.35 at half the size
    assert torch.allclose(box.mean(0), torch.tensor(0.5), atol=0.02)
    assert 0.3 < float((box[1] - box[0]).max()) < 0.45


def test_a_teacher_that_does_not_fit_is_refused(teacher):
    with pytest.raises(BadInput, match="in the student's scene; the rule: within its outermost cube, 0 to 1"):
        aligned(teacher, student_at(SceneTransform(3.0), 1))


def test_in_the_same_box_nothing_is_moved(teacher):
    same = student_at(teacher.transform, 1)
    assert aligned(teacher, same) is same.field
    take_occupancy(teacher, same)
    assert torch.equal(same.grid.values, teacher.grid.values) and math.isfinite(float(same.grid.threshold))
