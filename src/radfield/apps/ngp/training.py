"""The state of a training of the method `ngp`, besides the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import backend
from ...data.resident import source_of
from ...data.scene import Images, Scene
from ...encodings import registry
from ...fields import radiance
from ...renderers import volume
from ...training import per_image
from ...training.adam import Adam
from ...training.checkpoint import counts_in, load_checkpoint, save_checkpoint
from ...training.device_steps import DeviceSteps
from ...training.run_folder import RunFolder
from ...training.stages import Stages
from ..run_files import load_tensors, restore
from . import device_step
from .config import Config
from .model import Model


@dataclass(frozen=True)
class StepResult:
    """Figures of a step, or of some: loss (mean squared error over rays and channels), numbers of rays and samples."""

    loss: float
    rays: int
    marched: int
    live: int
    steps: int = 1  # of which the counts are sums and the loss the mean; 0: a device has not told yet


class FieldTraining:
    """What the training of a model's field keeps, whatever it learns from: optimiser, counts and figures. All is on the
    model's device. `result` is the type of a step's figures."""

    result = StepResult

    def __init__(self, model: Model, seed: int):
        self.model, self.seed, self.step, self.rays = model, seed, 0, 1024
        self.seconds, self.samples = 0.0, 0  # trained so far
        self._recent: list[tuple[float, StepResult]] = []
        self.stages = Stages()
        self.optimizer = Adam([*grid_groups(model.config, model.field), *network_groups(model.config, model.field)])
        self._device: DeviceSteps | None = None
        self._asked = False

    def steps_of_device(self) -> DeviceSteps | None:
        """The method's steps on a device, made; None where it has none, or each has to wait."""
        return None

    def device_steps(self) -> DeviceSteps | None:
        """What takes the steps on a device; None on the CPU, and where each step has to wait."""
        if not self._asked:
            self._asked = True
            self._device = self.steps_of_device() if backend.on_cuda(self.model.grid.values) else None
        return self._device

    def settle(self) -> None:
        """Waits for the steps that a device has not told of yet, and counts them."""
        if self._device is not None and (figures := self._device.read()):
            self.count(self.result(**figures), 0.0)

    def own_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides model and optimiser."""
        return {}

    def loaded(self, ours: dict[str, Tensor]) -> None:
        """Follows after a checkpoint was read into the tensors `ours`."""

    def take_parameters(self) -> None:
        """Has the optimiser take the encoding's parameters, after these were replaced; their moments start at 0."""
        kept = self.optimizer.groups[len(self.optimizer.groups) - len(self.model.field.networks) :]
        self.optimizer.groups = Adam(grid_groups(self.model.config, self.model.field)).groups + kept

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps to continue from."""
        ours = {f"adam.{k}": v for k, v in self.optimizer.state_dict().items()}
        return self.model.tensors() | ours | self.own_tensors()

    def save(self, folder: RunFolder) -> None:
        """Writes the checkpoint: the model, and what training needs to continue bit for bit."""
        self.settle()
        counts = {"step": self.step, "rays": self.rays, "seconds": self.seconds, "samples": self.samples}
        save_checkpoint(folder.checkpoint_path, self.tensors(), {k: repr(v) for k, v in counts.items()})

    def load(self, folder: RunFolder) -> None:
        """Continues from the checkpoint of `folder`. Raises `BadInput` where it does not fit."""
        tensors, metadata = load_checkpoint(folder.checkpoint_path)
        restore(self.model, tensors)
        self.take_parameters()
        ours = self.tensors()
        load_tensors(folder, ours, tensors)
        self.optimizer.steps = int(ours["adam.steps"])
        self.model.field.grid.loaded()
        self.model.grid.refresh()
        self._asked, self._device = False, None  # a device starts anew
        self.loaded(ours)
        kinds = {"step": int, "rays": int, "samples": int, "seconds": float}
        self.step, self.rays, self.samples, self.seconds = counts_in(folder.checkpoint_path, metadata, **kinds)

    def count(self, result: StepResult, seconds: float) -> None:
        """Adds a step to the figures."""
        self.seconds += seconds
        self.samples += result.live
        self._recent.append((seconds, result))

    def log(self, folder: RunFolder) -> dict:
        """Appends the figures since the last call to metrics.jsonl, and returns them."""
        self.settle()
        recent, self._recent = self._recent, []
        seconds = sum(s for s, _ in recent)
        results = [r for _, r in recent]
        loss = sum(r.loss * r.steps for r in results) / max(sum(r.steps for r in results), 1)
        figures = {
            "seconds": round(self.seconds, 4),
            "loss": loss,
            "psnr": -10 * math.log10(max(loss, 1e-10)),
            "samples_per_s": sum(r.live for r in results) / seconds,
            "marched_per_s": sum(r.marched for r in results) / seconds,
            "rays_per_s": sum(r.rays for r in results) / seconds,
            "occupied": self.model.grid.occupied_fraction(),
            **self.more_figures(results),
        }
        folder.append_metrics(step=self.step, **figures)
        return figures

    def more_figures(self, results: list) -> dict:
        """What a method adds to the figures of some steps."""
        return {}

    def figures(self) -> dict:
        """Figures of the whole training."""
        total = sum(self.stages.seconds.values()) or 1.0
        return {
            "samples_per_s": self.samples / max(self.seconds, 1e-9),
            "occupancy_share": self.stages.seconds["occupancy"] / total,
            "parameters": sum(p.numel() for p in self.model.field.parameters()),
        }


class Training(FieldTraining):
    """The state of training from photographs besides the model: optimiser, buffers, and how many rays fill a batch.

    memory: bytes that the images may take where the scene's are on disk."""

    def __init__(self, model: Model, scene: Scene, seed: int, memory: int | None = None):
        super().__init__(model, seed)
        self.images = source_of(scene.train.images, seed=seed, memory=memory, device=model.device)
        self.buffers = volume.TrainingBuffers(8 * model.config.batch_samples)
        model.grid.mark_invisible(scene.train.cameras)
        self.per_image = per_image.PerImage(model.config.per_image, scene.train.cameras.to(model.device))

    def make_ready(self) -> None:
        """Reads the images that the next step draws from, so that reading them is no part of its time."""
        if not isinstance(self.images, Images):
            self.images.at(self.step)

    def steps_of_device(self) -> DeviceSteps | None:
        """Those of device_step.py."""
        return device_step.steps_of(self)

    def own_tensors(self) -> dict[str, Tensor]:
        """The corrections per image."""
        return {f"per_image.{k}": v for k, v in self.per_image.tensors().items()}

    def loaded(self, ours: dict[str, Tensor]) -> None:
        """Has the corrections follow what was read."""
        self.per_image.loaded({k[10:]: v for k, v in ours.items() if k.startswith("per_image.")})


def grid_groups(config: Config, field: radiance.RadianceField) -> list[dict]:
    """The parameters of the encoding, at its own learning rate."""
    rate = registry.ENCODINGS[config.encoding].rate
    return [{**group, "scale": rate * group.get("scale", 1.0)} for group in field.grid.adam_groups()]


def network_groups(config: Config, field) -> list[dict]:
    """The parameters of the networks, at the learning rate that goes with the encoding."""
    options = {"l2": config.network_l2, "scale": registry.ENCODINGS[config.encoding].networks}
    return [adam_group(network.weights, network, **options) for network in field.networks]


def adam_group(parameter, owner, **options) -> dict:
    """A parameter whose gradient its module `owner` adds into one kept buffer."""
    owner.grad_into = torch.zeros_like(parameter)
    return {"parameter": parameter.data, "grad": owner.grad_into, **options}
