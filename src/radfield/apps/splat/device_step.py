"""The training step of `splat` on a device, without the host waiting within a step (training/device_steps.py): views
are rasterised with room for a fixed number of entries of tiles.

What a step is captured for is a `Kind`: the size of images, the degree of the colours, whether gradients are counted
for density control, and the lens, so that views with one lens share one graph. All are captured anew after a
refinement. A step whose view has more entries than there is room for draws nothing, and moves nothing; where the host
reads that, it makes more room.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from ... import backend
from ...data.scene import Images
from ...data.target import target_image
from ...data.view_reader import ViewReader
from ...errors import warn
from ...gaussians.scene import GaussianScene, Seen, see
from ...image_loss import image_loss
from ...renderers.gaussian_camera import Camera
from ...renderers.gaussian_tiles import EntryBudget
from ...training import device_steps
from ...training.graph import Replayed
from . import gut
from . import step as on_cpu

MOST_LENSES = 8  # of a capture's views: so many graphs a size of images
ROOM = 3.0  # times the entries of the first view, or of the one with the most, there is room for
_BACKGROUND, _OWN = slice(0, 3), 3  # places in a row of numbers


def obstacle(training) -> str | None:
    """Why the training's steps have to wait for the device; None where they need not."""
    config = training.model.config
    if not isinstance(training.views, ViewReader):
        return "views that are rendered when they are asked for"
    images = training.views.images
    if config.renderer == "trace":
        return "ray tracing"
    if config.densification != "default":
        return f"densification {config.densification!r}"
    if config.cameras or config.exposure:
        return "corrections per image"
    if config.self_organise:
        return "self-organising Gaussians"
    if not isinstance(images, Images):
        return "images are read from disk during training"
    if images.spans is not None:
        return "ignored pixels"
    cameras = [training.camera(view, 1) for view in range(len(training.scene.train))]
    if any(camera.by_sigma_points for camera in cameras):
        return "lenses with distortion"
    if len({_lens(camera) for camera in cameras}) > MOST_LENSES:
        return f"views with more than {MOST_LENSES} lenses"
    return None


def steps_of(training) -> DeviceSteps | None:
    """The device's steps of a training, or None, announced once, where each step has to wait."""
    if not backend.on_cuda(training.model.gaussians.means):
        return None
    if reason := obstacle(training):
        warn(f"no CUDA graph of the training step ({reason}): the host waits for the device within each step")
        return None
    return DeviceSteps(training)


def _lens(camera: Camera) -> tuple:
    return (*camera.focal, *camera.center, camera.width, camera.height)


class Kind(NamedTuple):
    """What a step is captured for. camera: of its lens; full: (H, W) of the photographs."""

    lens: tuple
    degree: int
    counted: bool
    full: tuple[int, int]


class DeviceSteps(device_steps.DeviceSteps):
    """The steps of `training` (training/device_steps.py)."""

    means, counts = ("loss", "squared_error"), ("entries",)

    def __init__(self, training):
        super().__init__(training, _OWN, len(training.adam.m))
        images = training.views.images
        self.offset, self.size = images.offset.tolist(), images.size.tolist()
        self.pose = torch.zeros(4, 4, device=self.device)
        self.photographs: dict[tuple[int, int], Tensor] = {}  # what is compared with stands here, by its size
        self.graphs: dict[Kind, Replayed] = {}
        self.directions: dict[tuple, Tensor] = {}  # of 3DGUT's rays in the camera's axes, by the lens
        self.gaussians, self.budget = None, None

    def step(self, progress: float) -> dict | None:
        """`launch` of the next view at this part of the budget."""
        training, config = self.training, self.training.model.config
        view, level = on_cpu.view_of(training, training.step), on_cpu.image_level(config, progress)
        camera, (width, height) = training.camera(view, level), self.size[view]
        if config.renderer in gut.BUFFERS and _lens(camera) not in self.directions:
            self.directions[_lens(camera)] = gut.local_directions(training.cameras[level], view).to(self.device)
        if self.gaussians is not training.model.gaussians:
            self._make(camera)
        counted = progress < config.refine_until
        kind = Kind(_lens(camera), on_cpu.sh_degree(config, progress), counted, (height, width))
        if any(known[1:3] != kind[1:3] for known in self.graphs):  # what is over does not come again
            self.graphs = {}
        if kind not in self.graphs:
            self.graphs[kind] = Replayed(functools.partial(self.work, kind, camera), self.device)
        pixels = training.views.images.pixels[self.offset[view] : self.offset[view] + height * width]
        if kind.full not in self.photographs:
            self.photographs[kind.full] = pixels.new_zeros(height, width, pixels.shape[1])
        self.photographs[kind.full].copy_(pixels.view(height, width, -1))
        self.pose.copy_(camera.world_to_camera)
        training.adam.steps += 1
        rates = training.adam.rates(on_cpu.rates_at(training, progress))
        return self.launch(self.graphs[kind], on_cpu.background_of(training), rates)

    def work(self, kind: Kind, camera: Camera) -> None:
        """The view as it is seen, the loss, its gradients, and what density control counts."""
        training, config = self.training, self.training.model.config
        leaves = on_cpu.leaves_of(self.gaussians, kind.degree)
        background = self.now[_BACKGROUND].float()
        camera = dataclasses.replace(camera, world_to_camera=self.pose)
        target, _ = target_image(self.photographs[kind.full], background, (camera.height, camera.width))
        seen = self._see(leaves, camera, background)
        image = seen.image.color
        loss = image_loss(image, target, config.ssim_weight)
        loss.backward()
        grads = {name: leaf.grad for name, leaf in leaves.tensors().items()}
        schedule = self.schedule([loss, grads["means"], grads["opacity_logits"]])
        if kind.counted:
            self._count(seen, grads["means"], camera)
        training.adam.step_scheduled(self.gaussians, grads, schedule)
        squared = (image.detach()[:: on_cpu.ROWS] - target[:: on_cpu.ROWS]).square().mean()
        self.record([loss.view(1), squared.view(1), self.budget.total])

    def _see(self, gaussians: GaussianScene, camera: Camera, background: Tensor) -> Seen:
        config = self.training.model.config
        if config.renderer in gut.BUFFERS:
            local = self.directions[_lens(camera)]
            return gut.see_from_pose(gaussians, camera, local, background, config, self.budget)
        options = {"antialiased": config.antialiased, "max_alpha": config.max_alpha, "budget": self.budget}
        seen = see(gaussians, camera, background, **options)
        if seen.projected.mean2d.requires_grad:
            seen.projected.mean2d.retain_grad()
        return seen

    def _count(self, seen: Seen, grad_means: Tensor, camera: Camera) -> None:
        """For density control."""
        statistics = self.training.statistics
        if seen.projected is None:
            moved = torch.where(self.alive > 0, grad_means, 0.0)
            return statistics.add_traced(moved, self.gaussians.means, camera.position[None])
        moved = torch.where(self.alive > 0, seen.projected.mean2d.grad, 0.0)
        statistics.add(moved, seen.projected.radius * self.drawn(), camera.width, camera.height)

    def drawn(self) -> Tensor:
        """[1] bool: whether there was room for the view."""
        return self.budget.total <= self.budget.most

    def _make(self, camera: Camera) -> None:
        """Room for the entries of the Gaussians that there are now, as `camera` sees them and as the memory cap has
        seen, and nothing captured. The host waits."""
        self.gaussians, self.graphs = self.training.model.gaussians, {}
        self.budget = EntryBudget(1, self.device)
        with torch.no_grad():
            self._see(self.gaussians, camera, torch.zeros(3, device=self.device))
        most = max(int(self.budget.total), 1)
        self.budget = EntryBudget(_rounded(ROOM * most), self.device)

    def took_back(self, steps: int) -> None:
        """Of the Gaussians' optimiser."""
        self.training.adam.steps -= steps

    def told(self, figures: list[list[float]]) -> None:
        """Makes more room where a view had more entries than there was; has the memory cap take note."""
        training, entries = self.training, [row[-1] for row in figures]
        lost = sum(count > self.budget.capacity for count in entries)
        width, height = (max(sides) for sides in zip(*self.size, strict=True))
        if lost:
            warn("some steps moved nothing: their views had more entries of tiles than there was room for")
        training.cap.check_entries(len(self.gaussians), max(entries), width, height)
        if max(entries) > self.budget.capacity / 1.5:
            self.budget, self.graphs = EntryBudget(_rounded(ROOM * max(entries)), self.device), {}


def _rounded(entries: float) -> int:
    return min((int(entries) // 4096 + 1) * 4096, (1 << 31) - 1)
