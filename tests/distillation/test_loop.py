"""The loop over two fields."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from distillation.conftest import BACKGROUND, SMALL

from radfield.apps import ngp
from radfield.apps.distill.training import psnr_to
from radfield.distillation import PVD, RENDERED_ONLY, WITHOUT_STAGES, Active, Distillation, Sampler, distill, step
from radfield.distillation.stages import Stage
from radfield.encodings import registry
from radfield.encodings.resizing import Schedule
from radfield.errors import BadInput

GAIN = 4.0  # dB towards the teacher's pictures, at least, in 60 small steps


def copied(teacher, student):
    student.model.field.load_state_dict(teacher.field.state_dict())
    student.model.field.grid.loaded()
    return student


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("points", [False, True])
def test_the_teacher_itself_has_nothing_to_learn(teacher, student_of, progress, points):
    student = copied(teacher, student_of(teacher))
    before = [p.clone() for p in student.field.parameters()]
    sampler = Sampler(None, 1, active=Active(points=points))
    state = Distillation(teacher, student, PVD, sampler, batch_samples=4096)
    result = step(state, progress)
    assert result.loss == 0 and result.live > 100
    assert math.isnan(result.error) if progress < 1 / 6 else result.error == 0
    assert all(torch.equal(a, b) for a, b in zip(before, student.field.parameters(), strict=True))


STUDENTS = {
    "vm": {"resolution": 32, "components": 8, "schedule": Schedule()},
    "frequency": {"width": 64, "hidden_layers": 4, "rate": 0.1},
    "sparse": {"resolution": 32, "schedule": Schedule()},
}


@pytest.mark.parametrize("encoding", STUDENTS)
def test_a_student_comes_close_to_its_teacher(teacher, student_of, sampler, encoding, monkeypatch):
    entry = registry.ENCODINGS[encoding]
    monkeypatch.setitem(registry.ENCODINGS, encoding, dataclasses.replace(entry, options=STUDENTS[encoding]))
    student = student_of(teacher, encoding)
    fresh = psnr_to(teacher, student.model, sampler, views=2, size=40)
    distill(teacher, student, PVD, sampler, used=lambda state: state.step / 60, batch_samples=4096)
    assert psnr_to(teacher, student.model, sampler, views=2, size=40) > fresh + GAIN


def test_samples_are_where_the_teacher_is(teacher, student_of, sampler):
    seen = []
    student = student_of(teacher)
    answers = student.field.geometry
    student.field.geometry = lambda x, encoded=None: (seen.append(x), answers(x, encoded))[1]
    step(Distillation(teacher, student, PVD, sampler, batch_samples=4096), 0.5)
    x = torch.cat(seen)
    assert len(x) and ((x - 0.5).norm(dim=1) < 0.45).all()


def test_the_teacher_is_only_asked(teacher, student_of, sampler):
    before = {k: v.clone() for k, v in teacher.tensors().items()}
    distill(teacher, student_of(teacher), WITHOUT_STAGES, sampler, used=lambda s: s.step / 3, batch_samples=2048)
    assert all(torch.equal(v, before[k]) for k, v in teacher.tensors().items())
    assert all(p.grad is None for p in teacher.field.parameters())


def test_stages_say_what_is_asked(teacher, student_of, sampler):
    student = student_of(teacher)
    asked = []
    student.field.color_logits = lambda *a, ask=student.field.color_logits: (asked.append(1), ask(*a))[1]
    state = Distillation(teacher, student, PVD, sampler, batch_samples=2048)
    step(state, 0.0)
    assert not asked  # the first stage returns before the second block
    step(state, 0.1)
    assert asked


def test_rendered_colours_alone_leave_features_free(teacher, student_of, sampler):
    state = Distillation(teacher, student_of(teacher), RENDERED_ONLY, sampler, batch_samples=2048)
    result = step(state, 0.0)
    # the loss is the norm over rays and channels, the error their mean square
    assert result.loss == pytest.approx(math.sqrt(result.error * 3 * result.rays), rel=1e-4)


def test_an_empty_teacher_is_refused(student_of, sampler):
    empty = ngp.build(SMALL, **BACKGROUND)
    empty.grid.values.fill_(0)
    empty.grid.refresh()
    with pytest.raises(BadInput, match="the teacher is empty"):
        Distillation(empty, student_of(empty), PVD, sampler)


def test_fields_with_nothing_in_common_are_refused(teacher, student_of, sampler):
    student = student_of(teacher, "sparse")
    features = (Stage(1.0, {"features": 1.0}),)
    with pytest.raises(BadInput, match="have density, color, rendered in common"):
        Distillation(teacher, student, features, sampler)
    assert Distillation(teacher, student, PVD, sampler).stages[0].weights.keys() == {"density", "color"}


def test_a_loss_that_is_not_finite_ends_it(teacher, student_of, sampler):
    student = student_of(teacher)
    state = Distillation(teacher, student, WITHOUT_STAGES, sampler, batch_samples=2048)
    with torch.no_grad():
        student.field.density_network.weights.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="step 0"):
        step(state, 0.0)


def test_a_learner_of_any_kind_will_do(teacher, student_of, sampler):
    """The loop asks for `field`, `prepare` and `update`, and for nothing else."""
    student = student_of(teacher)
    bare = SimpleNamespace(field=student.field, prepare=student.prepare, update=student.update)
    assert distill(teacher, bare, PVD, sampler, used=lambda s: s.step / 2, batch_samples=2048).step == 2
