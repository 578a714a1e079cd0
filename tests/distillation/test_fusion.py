"""Geometry of one teacher, colours of another."""

import dataclasses

import pytest
import torch
from distillation.conftest import ball

from radfield.distillation import PVD, Sampler, distill
from radfield.distillation.fusion import fused, known_colors
from radfield.errors import BadInput
from radfield.geometry import SceneTransform
from radfield.renderers import fused as one_pass


@pytest.fixture(scope="module")
def painter():
    """Another fit of the ball, whose colours are the complement's."""
    model = ball(steps=30, seed=5)
    with torch.no_grad():
        model.field.color_network.weights.neg_()
    return model


def asked(count=500):
    x = torch.rand(count, 3)
    return x, torch.nn.functional.normalize(torch.randn(count, 3), dim=1)


def test_geometry_of_the_one_and_colours_of_the_other(teacher, painter):
    both, (x, d) = fused(teacher, painter), asked()
    assert torch.equal(both.density(x), teacher.density(x)) and not torch.equal(both.density(x), painter.density(x))
    torch.testing.assert_close(both.color(x, d), painter.color(x, d))
    logit = both.field.geometry(x, both.field.encode(x))[0]
    torch.testing.assert_close(logit, teacher.field.geometry(x)[0].detach())
    assert both.field.comparable.keys() == {"density", "color", "rendered"} and both.grid is teacher.grid


def test_a_field_fused_with_itself_is_itself(teacher, sampler, monkeypatch):
    monkeypatch.setattr(one_pass, "applies", lambda *_: False)  # takes the teacher alone, where rays end a bit sooner
    both, (x, d) = fused(teacher, teacher), asked()
    assert torch.equal(both.density(x), teacher.density(x)) and torch.equal(both.color(x, d), teacher.color(x, d))
    cameras = sampler.views(sampler.around.draw(1, torch.Generator().manual_seed(0))).scaled(0.04)
    views = [vars(model.render_view(cameras, 0)).values() for model in (both, teacher)]
    for ours, theirs in zip(*views, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_colours_are_taken_from_the_same_place_of_the_world(teacher, painter):
    """The painter's scene coordinates are twice the world's, beside the teacher's."""
    moved = dataclasses.replace(painter, transform=SceneTransform(2.0, offset=(0.25, 0.0, -0.125)))
    both, (x, d) = fused(teacher, moved), asked()
    x = 0.3 * x
    torch.testing.assert_close(both.color(x, d), painter.color(2 * x + torch.tensor([0.25, 0.0, -0.125]), d))
    assert torch.equal(both.density(x), teacher.density(x))


def test_how_much_of_the_colours_is_known(teacher, painter, sampler):
    assert known_colors(teacher, painter, sampler) == 1
    elsewhere = dataclasses.replace(painter, transform=SceneTransform(offset=(0.3, 0.0, 0.0)))
    assert 0.05 < known_colors(teacher, elsewhere, sampler) < 0.7
    away = dataclasses.replace(painter, transform=SceneTransform(offset=(5.0, 0.0, 0.0)))
    assert known_colors(teacher, away, sampler) == 0


def test_a_student_of_both(teacher, painter, student_of):
    both = fused(teacher, painter)
    student, sampler = student_of(both), Sampler(None, 1, seed=3)
    distill(both, student, PVD, sampler, used=lambda state: state.step / 80, batch_samples=2048)
    x = 0.5 + 0.25 * torch.nn.functional.normalize(torch.randn(2000, 3), dim=1)
    d = torch.nn.functional.normalize(0.5 - x, dim=1)
    ours = student.model.color(x, d)
    to_painter, to_shape = ((ours - model.color(x, d)).square().mean() for model in (painter, teacher))
    assert to_painter < 0.2 * to_shape
    logit, wanted = (model.field.geometry(x)[0].detach().clamp(-2, 7) for model in (student.model, teacher))
    assert (logit - wanted).abs().mean() < 1.0


def test_gaussians_have_no_colour_at_points(teacher):
    class Gaussians:
        comparable = {"rendered": 3}

    with pytest.raises(BadInput, match="two radiance fields"):
        fused(teacher, Gaussians())
