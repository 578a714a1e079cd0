"""What the methods share that fit a field to known values (sdf.py, picture.py, volume.py): the state of their training,
a step of it, and the rules of the options that all of them have."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import backend
from ...encodings import registry
from ...errors import BadInput
from ...sampling.random import Counted, Source, stream
from ...training.adam import Adam
from ...training.checkpoint import counts_in, load_checkpoint, save_checkpoint
from ...training.run_folder import RunFolder
from ...training.stages import Stages
from ..run_files import load_tensors, restore


def check_options(config, method: str, encodings: tuple[str, ...], rules: list[tuple[str, bool, str]]) -> None:
    """Raises `BadInput` for options of a method (--METHOD.NAME) that are out of range: those that all have, and the
    method's own `rules` (name, whether its rule holds, the rule)."""
    if config.encoding not in encodings:
        raise BadInput(f"--encoding is {config.encoding!r}; the rule: one of {', '.join(encodings)}")
    common = [
        ("levels", 1 <= config.levels <= 32, "from 1 to 32"),
        ("precision", config.precision in ("f32", "bf16"), "f32 or bf16"),
        ("learning_rate", 0 < config.learning_rate < math.inf, "positive"),
        ("final_rate", 0 < config.final_rate < math.inf, "positive"),
    ]
    for name, holds, rule in common + rules:
        if not holds:
            raise BadInput(f"--{method}.{name.replace('_', '-')} is {getattr(config, name)}; the rule: {rule}")


@dataclass(frozen=True)
class StepResult:
    """The loss of a step, or its mean over some. steps: how many; 0: a device has not told yet."""

    loss: float
    steps: int = 1


class FitTraining:
    """The state of training besides the model, which has `config`, `field` (`grid`, `network`), `device` and
    `tensors()`. batch: points per step. All is on the model's device."""

    def __init__(self, model, seed: int, batch: int):
        self.model, self.seed, self.batch = model, seed, batch
        self.step, self.seconds = 0, 0.0
        self.stages = Stages()
        self._recent: list[tuple[StepResult, float]] = []  # (result, seconds) since the last line of metrics.jsonl
        self._device, self._asked = None, False
        model.field.network.grad_into = torch.zeros_like(model.field.network.weights)
        self.optimizer = Adam([])
        self.take_parameters()

    def forward(self, progress: float, seed: Tensor | None) -> tuple[Tensor, Callable[[], None]]:
        """(the loss [] of the next step at `progress` in [0, 1] of the budget, what adds its gradients). seed: of the
        step's random numbers, [1] float64 on the device where only that knows it; what is done then may be captured as
        a CUDA graph, so that it is the same for every `progress`."""
        raise NotImplementedError

    def box(self) -> Tensor:
        """[2, 3] the part of the scene that is not empty."""
        raise NotImplementedError

    def obstacle(self) -> str | None:
        """Why a step has to wait for the device for what is fitted here; None where it need not."""
        return None

    def stage(self, name: str, seed: Tensor | None) -> contextlib.AbstractContextManager:
        """A stage of `forward`, timed where it is not a part of a device's step, which is one stage."""
        return self.stages(name) if seed is None else contextlib.nullcontext()

    def source(self, seed: Tensor | None) -> Source:
        """The random numbers of the next step, drawn where the model is; seed: as in `forward`."""
        if seed is not None:
            return Counted(seed.long())
        number = stream(self.seed, self.step)
        if not backend.on_cuda(self.model.field.network.weights):
            return torch.Generator().manual_seed(number)
        return Counted(torch.tensor([number], device=self.model.device))

    def device_steps(self):
        """What takes the steps on a device (device_step.py); None on the CPU, and where each step has to wait."""
        from . import device_step  # which needs this module's names

        if not self._asked:
            self._asked = True
            on_cuda = backend.on_cuda(self.model.field.network.weights)
            self._device = device_step.steps_of(self) if on_cuda else None
        return self._device

    def settle(self) -> None:
        """Waits for the steps that a device has not told of yet, and counts them."""
        if self._device is not None and (figures := self._device.read()):
            self.count(StepResult(**figures), 0.0)

    def take_parameters(self) -> None:
        """Has the optimiser take the field's parameters; their moments start at 0."""
        entry, network = registry.ENCODINGS[self.model.config.encoding], self.model.field.network
        groups = [{**g, "scale": entry.rate * g.get("scale", 1.0)} for g in self.model.field.grid.adam_groups()]
        groups.append({"parameter": network.weights.data, "grad": network.grad_into, "scale": entry.networks})
        self.optimizer.groups = Adam(groups).groups
        if self._device is not None:  # a device starts anew
            self._device, self._asked = None, False

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps to continue from."""
        return self.model.tensors() | {f"adam.{k}": v for k, v in self.optimizer.state_dict().items()}

    def save(self, folder: RunFolder) -> None:
        """Writes the checkpoint: the model, and what training needs to continue bit for bit."""
        self.settle()
        counts = {"step": repr(self.step), "seconds": repr(self.seconds)}
        save_checkpoint(folder.checkpoint_path, self.tensors(), counts)

    def load(self, folder: RunFolder) -> None:
        """Continues from the checkpoint of `folder`. Raises `BadInput` where it does not fit."""
        tensors, metadata = load_checkpoint(folder.checkpoint_path)
        restore(self.model, tensors)
        self.take_parameters()
        ours = self.tensors()
        load_tensors(folder, ours, tensors)
        self.optimizer.steps = int(ours["adam.steps"])
        self.model.field.grid.loaded()
        self.step, self.seconds = counts_in(folder.checkpoint_path, metadata, step=int, seconds=float)

    def count(self, result: StepResult, seconds: float) -> None:
        """Adds a step to the figures."""
        self.seconds += seconds
        self._recent.append((result, seconds))

    def log(self, folder: RunFolder) -> dict:
        """Appends the figures since the last call to metrics.jsonl, and returns them."""
        self.settle()
        recent, self._recent = self._recent, []
        steps = sum(result.steps for result, _ in recent)
        loss = sum(result.loss * result.steps for result, _ in recent) / max(steps, 1)
        rate = steps * self.batch / max(sum(seconds for _, seconds in recent), 1e-9)
        figures = {"seconds": round(self.seconds, 4), "loss": loss, "samples_per_s": rate, **self.shown(loss)}
        folder.append_metrics(step=self.step, **figures)
        return figures

    def shown(self, loss: float) -> dict:
        """Figures that follow from the loss."""
        return {}


def train_step(training: FitTraining, progress: float) -> StepResult:
    """One step, at `progress` in [0, 1] of the budget. Raises `FloatingPointError`, with the model as before the step,
    where the loss is not finite; on a device that is found out at a later step (training/device_steps.py), and the
    figures are those of the steps in between."""
    field, stages = training.model.field, training.stages
    with stages("encoding"):
        if field.grid.refine(progress, training.box):
            training.take_parameters()
    if (device := training.device_steps()) is not None:
        with stages("step"):
            figures = device.step(progress)
        return StepResult(**figures) if figures else StepResult(0.0, steps=0)
    loss, backward = training.forward(progress, None)
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {training.step} is {value}")
    with stages("backward"):
        backward()
    with stages("optimiser"):
        field.grid.add_gradients()
        training.optimizer.step(lr=learning_rate(training.model.config, progress))
    training.step += 1
    return StepResult(value)


def learning_rate(config, progress: float) -> float:
    """At `progress` in [0, 1] of the budget."""
    return config.learning_rate * config.final_rate**progress


def squared_error(found: Tensor, wanted: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """(the mean squared error [] of [M, C], what adds its gradients). By hand: autograd would pass over [M, C] six
    times, in one thread."""
    difference = found.detach() - wanted
    value = torch.linalg.vector_norm(difference).double().square() / difference.numel()
    return value, lambda: found.backward(difference.mul_(2 / difference.numel()))
