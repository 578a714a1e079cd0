"""The state of training Gaussians besides the model: what a step reads and leaves, what a checkpoint keeps of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

from ...data.scene import Scene
from ...data.view_reader import ViewReader
from ...gaussians import densify
from ...gaussians.memory_cap import MemoryCap
from ...gaussians.optimizer import GaussianAdam
from ...gaussians.stored import stored, stored_gaussians
from ...renderers.gaussian_camera import Camera
from ...training.checkpoint import counts_in, load_checkpoint, save_checkpoint
from ...training.per_image import PerImage
from ...training.run_folder import RunFolder
from ...training.stages import Stages
from ..runs import free_memory
from . import initial as splat_initial
from . import random_rays
from .tracing import TrainingTree

LEVELS = (1, 2, 4)  # by how much images are smaller


@dataclass(frozen=True)
class StepResult:
    """Figures of one step, or means of some: the loss, and the mean squared error of the view (of every fourth row)."""

    loss: float
    squared_error: float
    steps: int = 1  # 0: a device has not told yet


class Training:
    """The state of training besides the model. The first Gaussians are made by the first step, whose time counts.
    `memory`: see ngp.Training; views are read from disk as they come."""

    def __init__(self, model, scene: Scene, seed: int, memory: int | None = None):
        self.model, self.scene, self.seed, self.memory = model, scene, seed, memory
        self.step, self.seconds, self.resets = 0, 0.0, 0
        self.organised = 0  # how often the Gaussians have been sorted onto their grid
        self.stages, self._recent = Stages(), []
        config, cameras = model.config, scene.train.cameras
        self.cameras = {level: cameras if level == 1 else cameras.scaled(1 / level) for level in LEVELS}
        for view in range(0 if config.renderer == "trace" else len(cameras)):
            Camera.of(cameras, view)  # refuses lenses that cannot be used before anything is written
        self.tree = TrainingTree()
        self._seen: dict[tuple[int, int], Camera] = {}
        self.device = model.device
        self.views = ViewReader(scene.train.images, self.device)
        self.per_image = PerImage(config.per_image, cameras.to(self.device), mode="skip")  # a step is of one view
        centers = cameras.camera_to_world[:, :3, 3]
        self.size = 1.1 * float((centers - centers.mean(0)).norm(dim=1).max().clamp_min(1e-3))
        free = free_memory(self.device) if self.device.type == "cuda" else None
        self.cap = MemoryCap(config.memory_gb, config.sh_degree, int(cameras.size.prod(1).max()), free)
        splat_initial.source(config, scene)  # refuses points where there are none
        random_rays.check_images(config, scene)
        self.adam = GaussianAdam(model.gaussians)
        self.statistics = densify.Statistics(len(model.gaussians), self.device)
        self._device, self._asked = None, False

    def device_steps(self):
        """What takes the steps on a device (device_step.py); None on the CPU, and where each step has to wait."""
        from . import device_step  # which takes up where step.py ends, and that starts from here

        if not self._asked:
            self._asked, self._device = True, device_step.steps_of(self)
        return self._device

    @functools.cached_property
    def ray_sampler(self) -> random_rays.RaySampler:
        """What random rays (`--splat.rays`) are drawn from."""
        return random_rays.RaySampler(self.model.config, self.views.images, self.cameras[1], self.device)

    def result(self, figures: dict) -> StepResult:
        """Of what a device told."""
        return StepResult(figures["loss"], figures["squared_error"], figures["steps"])

    def settle(self) -> None:
        """Waits for the steps that a device has not told of yet, and counts them."""
        if self._device is not None and (figures := self._device.read()):
            self.count(self.result(figures), 0.0)

    def make_ready(self) -> None:
        """Nothing has to be read before the first step: views come one by one."""

    def begin(self) -> None:
        """Makes the first Gaussians."""
        config = self.model.config
        most = self.cap.most(config.max_gaussians)
        made = splat_initial.make(config, self.scene, self.seed, most, self.memory, self.device)
        self.model.gaussians = made.to(self.device)
        self.adam = GaussianAdam(self.model.gaussians)
        self.statistics = densify.Statistics(len(self.model.gaussians), self.device)

    def camera(self, view: int, level: int) -> Camera:
        """The camera of a training view, as corrected so far, on images that are `level` times smaller."""
        if (view, level) not in self._seen:
            camera = Camera.of(self.cameras[level], view, near=self.model.config.near)
            self._seen[view, level] = camera.to(self.device)
        camera, refinement = self._seen[view, level], self.per_image.refinement
        if refinement is None:
            return camera
        return dataclasses.replace(camera, world_to_camera=refinement.world_to_camera(view))

    def save(self, folder: RunFolder) -> None:
        """Writes the checkpoint: the model, and what training needs to continue bit for bit."""
        self.settle()
        counts = {"step": self.step, "seconds": self.seconds, "resets": self.resets, "adam_steps": self.adam.steps}
        counts |= {"organised": self.organised, "entries": self.cap.entries, "peak": self.cap.peak}
        tensors = {f"gaussians.{k}": v for k, v in self.model.gaussians.tensors().items()}
        tensors |= {f"adam.{k}": v for k, v in self.adam.tensors().items()}
        tensors |= {f"per_image.{k}": v for k, v in self.per_image.tensors().items()}
        tensors |= {"statistics.gradient": self.statistics.gradient, "statistics.views": self.statistics.views}
        save_checkpoint(folder.checkpoint_path, tensors, {k: repr(v) for k, v in counts.items()})

    def load(self, folder: RunFolder) -> None:
        """Continues from the checkpoint of `folder`; from its Gaussians alone where that of an imported file has
        nothing else. Raises `BadInput` where it does not fit."""
        self._device, self._asked = None, False
        path = folder.checkpoint_path
        tensors, metadata = load_checkpoint(path)
        gaussians = stored_gaussians(path, tensors, self.model.config.sh_degree)
        self.model.gaussians = gaussians.to(self.device)
        if "step" not in metadata and not any(name.startswith("adam.") for name in tensors):
            self.adam = GaussianAdam(self.model.gaussians)
            self.statistics = densify.Statistics(len(gaussians), self.device)
            return
        moments = {k: x for kind in "mv" for n, x in gaussians.tensors().items() for k in [f"{kind}.{n}"]}
        found = {k: stored(path, tensors, f"adam.{k}", like.shape).to(self.device) for k, like in moments.items()}
        self.statistics = densify.Statistics(len(gaussians), self.device)
        for name in ("gradient", "views"):
            sums = stored(path, tensors, f"statistics.{name}", (len(gaussians),))
            setattr(self.statistics, name, sums.to(self.device))
        ours = self.per_image.tensors()
        for name, value in ours.items():
            value.copy_(stored(path, tensors, f"per_image.{name}", value.shape, value.dtype))
        self.per_image.loaded(ours)
        metadata = {"organised": "0", **metadata}  # runs from before there was a grid have none
        kinds = {
            "organised": int,
            "step": int,
            "resets": int,
            "seconds": float,
            "entries": float,
            "peak": int,
            "adam_steps": int,
        }
        counts = counts_in(path, metadata, **kinds)
        self.organised, self.step, self.resets, self.seconds, self.cap.entries, self.cap.peak, adam_steps = counts
        self.adam.load(found, adam_steps)

    def count(self, result: StepResult, seconds: float) -> None:
        """Adds a step to the figures."""
        self.seconds += seconds
        self._recent.append((seconds, result))

    def log(self, folder: RunFolder) -> dict:
        """Appends the figures since the last call to metrics.jsonl, and returns them."""
        self.settle()
        recent, self._recent = self._recent, []
        steps = max(sum(r.steps for _, r in recent), 1)
        error = sum(r.squared_error * r.steps for _, r in recent) / steps
        figures = {
            "seconds": round(self.seconds, 4),
            "loss": sum(r.loss * r.steps for _, r in recent) / steps,
            "psnr": -10 * math.log10(max(error, 1e-10)),
            "seconds_per_step": sum(s for s, _ in recent) / steps,
            "gaussians": len(self.model.gaussians),
        }
        folder.append_metrics(step=self.step, **figures)
        return figures

    def figures(self) -> dict:
        """Figures of the whole training. state_mb: of parameters and moments; memory_mb: of what the step with the most
        took, by count (gaussians/memory_cap.py)."""
        gaussians = self.model.gaussians
        per_gaussian = sum(v.numel() // max(len(gaussians), 1) for v in gaussians.tensors().values())
        return {
            "gaussians": len(gaussians),
            "parameters": per_gaussian * len(gaussians),
            "state_mb": 3 * 4 * per_gaussian * len(gaussians) / 1e6,
            "memory_mb": self.cap.peak / 1e6,
            "seconds_per_step": self.seconds / max(self.step, 1),
        }
