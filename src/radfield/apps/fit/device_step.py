"""The training step of `fit-sdf`, `fit-image` and `fit-volume` on a device, without the host waiting within a step
(training/device_steps.py): as many points at every step, drawn there by the step's seed."""

from __future__ import annotations

from ... import backend
from ...errors import warn
from ...sampling.random import stream
from ...training import device_steps
from ...training.graph import Replayed
from .training import FitTraining, learning_rate


def obstacle(training: FitTraining) -> str | None:
    """Why the training's steps have to wait for the device; None where they need not."""
    if backend.by_tinycudann():
        return "backend 'tcnn'"
    if not training.model.field.grid.takes_count:  # others may read numbers, or do what the budget's progress says
        return f"encoding {training.model.config.encoding!r}"
    return training.obstacle()


def steps_of(training: FitTraining) -> DeviceSteps | None:
    """The device's steps of a training, or None, announced once, where each step has to wait."""
    if reason := obstacle(training):
        warn(f"no CUDA graph of the training step ({reason}): the host waits for the device within each step")
        return None
    return DeviceSteps(training)


class DeviceSteps(device_steps.DeviceSteps):
    """The steps of `training`; a row of numbers has the seed of the step's random numbers."""

    def __init__(self, training: FitTraining):
        super().__init__(training, 1, len(training.optimizer.groups))
        self.replayed = Replayed(self.work, self.device)

    def step(self, progress: float) -> dict | None:
        """`launch` at this part of the budget."""
        training = self.training
        training.optimizer.steps += 1
        rates = training.optimizer.rates(learning_rate(training.model.config, progress))
        return self.launch(self.replayed, (stream(training.seed, training.step),), rates)

    def work(self) -> None:
        """Points, what is wanted there, the loss, its gradients and the optimiser's step."""
        training = self.training
        loss, backward = training.forward(0.0, self.now[:1])
        backward()
        training.model.field.grid.add_gradients()
        training.optimizer.step_scheduled(self.schedule([loss]))
        self.record([loss.view(1)])

    def took_back(self, steps: int) -> None:
        """Of the optimiser."""
        self.training.optimizer.steps -= steps
