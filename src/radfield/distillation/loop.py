"""The loop of a distillation: a teacher's field and a student's, asked at the same samples, no architecture known.

    state = distill(teacher, student, PVD, sampler, used=lambda state: state.step / 1000)

The teacher's occupancy grid says where samples are; they end where the teacher's light does. It is only asked.
Letters: N rays, M samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..errors import BadInput
from ..renderers import volume
from ..sampling.occupancy import OccupancyGrid
from ..sampling.random import stream
from .active import hard_points
from .comparing import CLAMP, answers, differences, in_common
from .sampler import Sampler
from .stages import Stage, for_names, stage_at

#: steps along rays, in those of a renderer, at the start and from 3/8 of the budget on: longer ones spread the same
#: number of samples over more rays, and both fields are rendered with the same
COARSE, FINE = 16.0, 2.0
LEAST_OPACITY = 0.01  # of any ray of a teacher that is not empty


class Teacher(Protocol):
    """What is asked: a field, where it is not empty, and how it is rendered (`ngp.Model` is one)."""

    field: torch.nn.Module
    grid: OccupancyGrid
    render: volume.Config


class Student(Protocol):
    """What learns: `prepare` comes before each step (an encoding may grow), `update` after its backward pass; it
    returns the number of gradients that were not finite, whose parameters stay as they were."""

    field: torch.nn.Module

    def prepare(self, step: int, progress: float) -> None: ...
    def update(self, progress: float) -> int: ...


@dataclass(frozen=True)
class StepResult:
    """Figures of a step. error: mean squared error of the rays' colours, NaN in stages that do not compare them."""

    loss: float
    error: float
    rays: int
    marched: int
    live: int


@dataclass
class Distillation:
    """The state of a distillation besides the student's. rays: of the next step, so that about `batch_samples` samples
    are compared. clamp: of log densities, None for none. Raises `BadInput` where the teacher is empty, or the two have
    nothing in common that the stages compare."""

    teacher: Teacher
    student: Student
    stages: tuple[Stage, ...]
    sampler: Sampler
    batch_samples: int = 1 << 16
    clamp: tuple[float, float] | None = CLAMP
    step: int = 0
    rays: int = 1024
    buffers: volume.TrainingBuffers = field(init=False, repr=False)

    def __post_init__(self):
        self.stages = for_names(self.stages, in_common(self.teacher.field, self.student.field))
        self.buffers = volume.TrainingBuffers(8 * self.batch_samples)
        check_not_empty(self)


def distill(
    teacher: Teacher,
    student: Student,
    stages: tuple[Stage, ...],
    sampler: Sampler,
    *,
    used: Callable[[Distillation], float],
    each: Callable[[Distillation, StepResult], None] = lambda state, result: None,
    **options,
) -> Distillation:
    """Steps until `used` says that the whole budget, 1, is used; `each` is called after every step. options and errors:
    those of `Distillation` and `step`."""
    state = Distillation(teacher, student, stages, sampler, **options)
    while (progress := used(state)) < 1:
        each(state, step(state, progress))
    return state


def step(state: Distillation, progress: float) -> StepResult:
    """One step: the same samples, both fields' answers, the stage's loss, the student's update. Raises
    `FloatingPointError` where loss or gradients are not finite."""
    stage, active = stage_at(state.stages, progress), state.sampler.active
    weights = stage.at(state.step)
    names, sees = list(weights), active.points
    state.student.prepare(state.step, progress)
    batch, samples = _samples(state, progress)
    with torch.no_grad():
        wanted = answers(state.teacher.field, samples, names, batch.background, rendered=sees, encoded=samples.encoded)
    given = answers(state.student.field, samples, names, batch.background, rendered=sees)
    rows = None
    if sees:
        rows = hard_points(samples.weights(wanted.seen), samples.weights(given.seen).detach())
    parts = differences(wanted.values, given.values, names, clamp=state.clamp, rows=rows)
    loss = sum(weights[name] * part for name, part in parts.items())
    if not math.isfinite(value := loss.item()):
        raise FloatingPointError(f"the loss of step {state.step} is {value}")
    loss.backward()
    if bad := state.student.update(progress):
        raise FloatingPointError(f"{bad} gradients of step {state.step} are not finite")
    error = math.nan
    if "rendered" in names:
        errors = (wanted.values["rendered"] - given.values["rendered"].detach()).square().mean(1)
        state.sampler.learn(batch, errors)
        error = errors.mean().item()
    state.step += 1
    state.rays = _next_rays(state.rays, len(samples.x), state.batch_samples)
    return StepResult(value, error, samples.rays, samples.marched, len(samples.x))


def _samples(state: Distillation, progress: float):
    """The step's rays, and the samples along them that the teacher's light reaches."""
    scale = max(COARSE ** (1 - 2 * progress), FINE)
    render = state.teacher.render
    sampling = dataclasses.replace(render, step=scale * render.step, cone=scale * render.cone)
    batch = state.sampler.draw(state.step, state.rays)
    teacher, seed = state.teacher, stream(state.sampler.seed, 22, state.step)
    samples = volume.live_samples(teacher.field, teacher.grid, batch.rays, sampling, seed, state.buffers)
    return batch, samples


@torch.no_grad()
def check_not_empty(state: Distillation) -> None:
    """Raises `BadInput` where rays around the scene meet nothing of the teacher."""
    cameras = state.sampler.views(state.sampler.around.draw(8, torch.Generator().manual_seed(0)))
    cameras = cameras.scaled(32 / int(cameras.size.max()))
    background, teacher = torch.zeros(3, device=cameras.focal.device), state.teacher
    for i in range(len(cameras)):
        view = volume.render_view(teacher.field, teacher.grid, cameras, i, background, teacher.render)
        if view.opacity.max() >= LEAST_OPACITY:
            return
    raise BadInput("the teacher is empty: no ray meets anything; the rule: a trained field, and poses that see it")


def _next_rays(rays: int, live: int, wanted: int) -> int:
    """Rays that would have filled the batch, in multiples of 64; at most doubled at a time."""
    scale = min(max(wanted / max(live, 1), 0.5), 2.0)
    return min(max(int(rays * scale) // 64 * 64, 256), 1 << 16)
