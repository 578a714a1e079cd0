"""What the methods share that fit a field to known values (sdf.py, picture.py, volume.py): the state of their training,
and the rules of the options that all of them have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...encodings import registry
from ...errors import BadInput
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


class FitTraining:
    """The state of training besides the model, which has `config`, `field` (`grid`, `network`) and `tensors()`. batch:
    points per step."""

    def __init__(self, model, seed: int, batch: int):
        self.model, self.seed, self.batch = model, seed, batch
        self.step, self.seconds = 0, 0.0
        self.stages = Stages()
        self._recent: list[tuple[float, float]] = []  # (loss, seconds) since the last line of metrics.jsonl
        model.field.network.grad_into = torch.zeros_like(model.field.network.weights)
        self.optimizer = Adam([])
        self.take_parameters()

    def take_parameters(self) -> None:
        """Has the optimiser take the field's parameters; their moments start at 0."""
        entry, network = registry.ENCODINGS[self.model.config.encoding], self.model.field.network
        groups = [{**g, "scale": entry.rate * g.get("scale", 1.0)} for g in self.model.field.grid.adam_groups()]
        groups.append({"parameter": network.weights.data, "grad": network.grad_into, "scale": entry.networks})
        self.optimizer.groups = Adam(groups).groups

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps to continue from."""
        return self.model.tensors() | {f"adam.{k}": v for k, v in self.optimizer.state_dict().items()}

    def save(self, folder: RunFolder) -> None:
        """Writes the checkpoint: the model, and what training needs to continue bit for bit."""
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

    def count(self, loss: float, seconds: float) -> None:
        """Adds a step to the figures."""
        self.seconds += seconds
        self._recent.append((loss, seconds))

    def log(self, folder: RunFolder) -> dict:
        """Appends the figures since the last call to metrics.jsonl, and returns them."""
        recent, self._recent = self._recent, []
        loss = sum(loss for loss, _ in recent) / max(len(recent), 1)
        rate = len(recent) * self.batch / max(sum(seconds for _, seconds in recent), 1e-9)
        figures = {"seconds": round(self.seconds, 4), "loss": loss, "samples_per_s": rate, **self.shown(loss)}
        folder.append_metrics(step=self.step, **figures)
        return figures

    def shown(self, loss: float) -> dict:
        """Figures that follow from the loss."""
        return {}
