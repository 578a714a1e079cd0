"""A teacher of one ball, small enough to distil in a second, and students of it."""

import dataclasses

import pytest
import torch

from radfield.apps import ngp
from radfield.apps.distill.training import Student, fresh_student
from radfield.apps.ngp.training import FieldTraining
from radfield.distillation import Sampler
from radfield.geometry import SceneTransform

SMALL = ngp.Config(
    levels=4, features=2, log2_size=12, base_resolution=8, finest_resolution=64, precision="f32", batch_samples=4096
)
BACKGROUND = {"background": "white", "cascades": 1, "transform": SceneTransform()}


def inside(x, radius=0.3):
    """The logarithm of the ball's density at x [M, 3]: 4 within, -4 outside."""
    return 40 * (radius - (x - 0.5).norm(dim=1)).clamp(-0.1, 0.1)


def color(x):
    """Its colour, by position."""
    return 0.5 + 0.5 * torch.sin(6 * x)


def ball(config=SMALL, steps=120, seed=0):
    """A model fitted to the ball point by point, its occupancy grid that of the ball."""
    model = ngp.build(config, **BACKGROUND, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = FieldTraining(model, seed).optimizer
    for _ in range(steps):
        x = torch.rand(4096, 3, generator=generator)
        d = torch.nn.functional.normalize(torch.randn(4096, 3, generator=generator), dim=1)
        logit, features = model.field.geometry(x)
        seen = model.field.color_logits(features, d).sigmoid()
        ((logit - inside(x)).square().mean() + (seen - color(x)).square().mean()).backward()
        optimizer.step(1e-2)
    model.field.grid.loaded()
    cells = model.grid.config.cells
    model.grid.update(lambda x: inside(x).exp(), uniform=cells, occupied=0)
    return model


@pytest.fixture(scope="session")
def teacher():
    return ball()


@pytest.fixture
def sampler():
    """Around the ball, without a capture."""
    return Sampler(None, 1, seed=3)


@pytest.fixture
def student_of(sampler):
    """Makes a student of an encoding for a teacher."""

    def make(teacher, encoding="hash", **changes):
        config = dataclasses.replace(teacher.config, encoding=encoding, network_l2=0.0, **changes)
        return Student(fresh_student(teacher, config, seed=1), teacher, sampler, 1)

    return make
