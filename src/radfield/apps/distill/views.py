"""Students of `radfield distill` that learn from what a teacher shows (distillation/rendered.py), as from photographs:
Gaussians, which answer nothing at a point, and fields whose teacher is Gaussians."""

from __future__ import annotations

import time

import torch

from ...cameras import Cameras
from ...data.scene import Images
from ...distillation import Sampler
from ...distillation.rendered import ViewsOnDemand, check_not_empty, drawn, rendered, scene_of
from ...errors import BadInput
from ...gaussians import densify, initial
from ...gaussians.occupied import take_occupancy
from ...gaussians.optimizer import GaussianAdam
from ...training.progress import Progress
from .. import ngp, splat
from ..splat import initial as splat_initial
from ..splat.step import image_level


class _Shown:
    """What both students have: `advance` is a step of their method, with the part of the budget that is used."""

    method: object
    sampler: Sampler

    def advance(self, used: float):
        """One step."""
        return self.method.train_step(self, used)


class Gaussians(_Shown, splat.Training):
    """Gaussians that begin where the teacher's rays end, and are compared with its views, rendered when they are first
    asked for. Raises `BadInput` where the teacher is empty."""

    method, shown, rate = splat, splat.SHOWN, splat.RATE

    def __init__(self, model: splat.Model, teacher, sampler: Sampler, seed: int, cameras: Cameras):
        check_not_empty(teacher, cameras)
        self.teacher, self.sampler = teacher, sampler
        super().__init__(model, scene_of(teacher, cameras, Images.allocate([], 4)), seed)
        self.views = ViewsOnDemand(teacher, self.cameras, self.device)

    def begin(self) -> None:
        """Makes the first Gaussians."""
        config = self.model.config
        count = min(config.initial_gaussians, self.cap.most(config.max_gaussians))
        position, color = splat_initial.ends_in(self.teacher, self.scene.train.cameras, count, self.seed)
        if len(position) < 4:
            raise BadInput("the teacher has no surface: hardly a ray loses half of its light; the rule: a trained run")
        self.model.gaussians = initial.on_surfaces(position, color, config.sh_degree).to(self.device)
        self.adam = GaussianAdam(self.model.gaussians)
        self.statistics = densify.Statistics(len(self.model.gaussians), self.device)

    def advance(self, used: float):
        """One step, whose view is rendered in the size that the schedule asks for."""
        self.views.level = image_level(self.model.config, used)
        return super().advance(used)


class Field(_Shown, ngp.Training):
    """A field that is compared with rays of the teacher's views, all rendered first, which counts as part of the
    distillation. Where a teacher's Gaussians are not, it stays empty; of other teachers its views alone tell. Raises
    `BadInput` where the teacher is empty."""

    method, shown, rate = ngp, ("samples_per_s",), "--learning-rate"

    def __init__(self, model: ngp.Model, teacher, sampler: Sampler, seed: int, cameras: Cameras):
        check_not_empty(teacher, cameras)
        self.teacher, self.sampler = teacher, sampler
        began = time.perf_counter()
        with Progress("render the teacher's views", steps=len(cameras)) as progress:
            images = rendered(teacher, cameras, progress.update)
        super().__init__(model, scene_of(teacher, cameras, images), seed)
        self.seconds = time.perf_counter() - began
        if hasattr(teacher, "gaussians"):
            take_occupancy(model.grid, teacher.gaussians)


def student_of(teacher, config, sampler: Sampler, seed: int, *, views: int, size: int) -> Gaussians | Field:
    """A fresh student of the method that `config` is of, in the teacher's scene coordinates."""
    where = {"cascades": teacher.cascades, "transform": teacher.transform, "background": teacher.background}
    kind, method = (Gaussians, splat) if isinstance(config, splat.Config) else (Field, ngp)
    model = method.build(config, **where, seed=seed, device=teacher.device)
    with torch.no_grad():
        cameras = drawn(sampler, views, size)
    return kind(model, teacher, sampler, seed, cameras)
