"""The student of `radfield distill` that is compared with a teacher's field at samples: a model of the
method ngp. Those that learn from what a teacher shows are in views.py."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ... import distillation
from ...data.scene import Scene
from ...distillation import CLAMP, PVD, RENDERED_ONLY, WITHOUT_STAGES, Active, Distillation, Sampler
from ...distillation.alignment import aligned, take_occupancy
from ...distillation.fusion import fused, known_colors
from ...errors import BadInput
from ...fields.voxels import VoxelField
from ...metrics import psnr
from ...training import per_image
from .. import ngp, splat
from ..ngp import step as ngp_step
from ..ngp.training import FieldTraining, StepResult

__all__ = ["FIELDS", "TARGETS", "Active", "Student", "by_views", "fresh_student", "fused", "known_colors", "psnr_to"]
__all__ += ["sampler_of", "student_config"]

#: fields that `radfield distill --to` makes, and their encoding (encodings/registry.py); and all that it takes
FIELDS = {
    "mlp": "frequency",
    **{name: name for name in ("hash", "simplex", "probe", "vm", "cp", "dense", "sparse", "triplane")},
}
TARGETS = (*FIELDS, "splat")
STAGES = {"pvd": PVD, "none": WITHOUT_STAGES, "rendered": RENDERED_ONLY}
#: samples compared per step: a network as wide as the plain MLP's learns more from more, smaller steps; a step of
#: sparse voxels costs what the optimiser takes for the whole table
BATCH, BATCHES = 1 << 16, {"mlp": 1 << 13, "sparse": 1 << 17}


class Student(FieldTraining):
    """The state of a distillation: the student's model and optimiser, and the sampler of rays. field: what is compared
    with the teacher's. Raises `BadInput` where the teacher does not fit into the model's scene box."""

    shown, rate = ("samples_per_s",), "--learning-rate"

    def __init__(self, model: ngp.Model, teacher: ngp.Model, sampler: Sampler, seed: int):
        super().__init__(model, seed)
        self.sampler, self.field = sampler, aligned(teacher, model)
        take_occupancy(teacher, model)

    def compare(self, teacher: ngp.Model, stages: str, clamp: bool) -> None:
        """Says what `advance` compares it with. Raises `BadInput` as `Distillation` does."""
        options = {"batch_samples": self.model.config.batch_samples, "clamp": CLAMP if clamp else None}
        self.state = Distillation(teacher, self, STAGES[stages], self.sampler, **options)

    def make_ready(self) -> None:
        """Has the distillation go on from the step that was loaded."""
        self.state.step, self.state.rays = self.step, self.rays

    def advance(self, used: float) -> StepResult:
        """A step at `used`, the part of the budget that is used. Raises `FloatingPointError` where it fails."""
        result = distillation.step(self.state, used)
        self.step, self.rays = self.state.step, self.state.rays
        return StepResult(result.error, result.rays, result.marched, result.live)

    def prepare(self, step: int, progress: float) -> None:
        """Has the encoding grow, shrink and be regularised, as in training from photographs."""
        self.step = step
        ngp_step.refine(self, progress)

    def update(self, progress: float) -> int:
        """Adam's step."""
        self.model.field.grid.add_gradients()
        return self.optimizer.step(lr=ngp_step.learning_rate(self.model.config, progress))

    def own_tensors(self) -> dict[str, Tensor]:
        """The poses of the epoch, and what active learning keeps."""
        return {f"sampler.{k}": v for k, v in self.sampler.tensors().items()}


def by_views(teacher, to: str) -> bool:
    """Whether `teacher` and a student of the kind `to` are compared by what the teacher shows: where they have no
    density at points in common."""
    student = splat.Model.comparable if to == "splat" else VoxelField.comparable
    answers = getattr(getattr(teacher, "field", teacher), "comparable", splat.Model.comparable)
    return "density" not in answers or "density" not in student


def student_config(teacher, to: str, batch: int | None, rate: float | None) -> ngp.Config:
    """The options of a field of the kind `to`: the teacher's, but for the encoding; the defaults where the teacher is
    of another method. Without weight decay, which in Adam would outweigh the fading comparison of features. Raises
    `BadInput` for an unknown kind."""
    if to not in FIELDS:
        raise BadInput(f"--to is {to!r:.40}; the rule: one of {', '.join(TARGETS)}")
    base = teacher if isinstance(teacher, ngp.Config) else ngp.Config()
    changes = {"encoding": FIELDS[to], "saliency": False, "network_l2": 0.0, "per_image": per_image.Config()}
    changes["batch_samples"] = batch or BATCHES.get(to, BATCH)
    changes["learning_rate"] = rate or ngp.Config.learning_rate
    config = dataclasses.replace(base, **changes)
    ngp.check(config)
    return config


def fresh_student(teacher: ngp.Model, config: ngp.Config, seed: int) -> ngp.Model:
    """A student in the teacher's scene coordinates."""
    where = {"cascades": teacher.cascades, "transform": teacher.transform, "background": teacher.background}
    model = ngp.build(config, **where, seed=seed, device=teacher.device)
    model.render = teacher.render
    return model


def sampler_of(scene: Scene | None, teacher, poses: str, seed: int, active: Active) -> Sampler:
    """The sampler around the scene of a run, whose capture's cameras may be unknown (None)."""
    cameras = None if scene is None else scene.train.cameras
    return Sampler(cameras, teacher.cascades, kind=poses, seed=seed, active=active, device=teacher.device)


def psnr_to(teacher, student, sampler: Sampler, views: int = 4, size: int = 200) -> float:
    """PSNR of the student's pictures against the teacher's, the mean over drawn poses, `size` pixels along the longer
    side."""
    cameras = sampler.views(sampler.around.draw(views, torch.Generator().manual_seed(1)))
    cameras = cameras.scaled(min(size / int(cameras.size.max()), 1.0))
    values = [psnr(*(model.render_view(cameras, i).color for model in (student, teacher))) for i in range(views)]
    return sum(values) / views if all(map(math.isfinite, values)) else max(values)
