"""The method `picture`: a field fitted to one picture. Options, model, and a step of its training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from ...data.picture_files import Picture
from ...data.picture_pixels import draw_pixels, lattice_of
from ...encodings import registry
from ...errors import BadInput
from ...fields.values import Config as FieldConfig
from ...fields.values import ValueField
from ...renderers.picture_frame import picture_frame
from ...sampling.random import stream
from ...training.checkpoint import load_checkpoint
from ...training.run_folder import RunFolder
from ..run_files import load_tensors, restore, typed_options
from .training import FitTraining, check_options

#: what is made for three dimensions alone
ENCODINGS = tuple(name for name in registry.ENCODINGS if name not in ("sparse", "triplane", "vm", "cp"))
KINDS = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
LARGEST_SIDE = 1 << 20
_ROWS = 256  # of a picture on the disk, that a step reads


@dataclass(frozen=True)
class Config:
    """The method's options."""

    encoding: Annotated[str, tyro.conf.arg(prefix_name=False)] = "hash"  # of positions: see encodings/registry.py
    levels: int = 16  # levels of the encoding
    features: int = 2  # features per level: 1, 2, 4 or 8
    log2_size: int = 19  # log2 of the entries of a hashed level
    base_resolution: int = 16  # resolution of the coarsest level
    finest_resolution: int = 0  # resolution of the finest level along the longer side; 0: half the pixels
    precision: str = "bf16"  # "bf16" rounds grid entries, features and products to 16 bits
    learning_rate: float = 1e-2  # of grid and network at the start
    final_rate: float = 0.03  # the learning rate ends at this part of it
    batch: int = 0  # pixels per step; 0: a 64th of the picture, from 2^14 to 2^17


@dataclass
class Model:
    """A field that is trained or was. size: (W, H) of the picture it was fitted to; kind: of its values; peak: what 1
    of the field stands for."""

    config: Config
    field: ValueField
    size: tuple[int, int]
    kind: str
    peak: float

    @property
    def color_space(self) -> str:
        return "linear" if self.kind == "float32" else "sRGB"

    def pixels(self, size: tuple[int, int], part: tuple[int, int, int, int]) -> Tensor:
        """[h, w, C] float32 in parts of the peak: the pixels (x, y, w, h) of the picture at `size` (W, H)."""
        return self._frame(size, part, torch.float32, 1.0)

    def stored(self, size: tuple[int, int], part: tuple[int, int, int, int]) -> np.ndarray:
        """The same as those of a file of the picture's kind."""
        return self._frame(size, part, KINDS[self.kind], self.peak).numpy()

    def _frame(self, size, part, dtype: torch.dtype, peak: float) -> Tensor:
        x, y, width, height = part
        scale = torch.tensor([self.size[0] / size[0], self.size[1] / size[1]], dtype=torch.float64) / max(self.size)
        across = ((torch.arange(x, x + width) + 0.5) * scale[0]).float()
        down = ((torch.arange(y, y + height) + 0.5) * scale[1]).float()
        return picture_frame(self.field.grid, self.field.network, across, down, dtype, peak)

    def check_fits(self, picture: Picture) -> None:
        """Raises `BadInput` where the picture is of another form than the one that this was fitted to."""
        given, ours = (picture.size, picture.kind, picture.channels), (self.size, self.kind, self.field.config.channels)
        if given != ours:
            form = "{0[0]} x {0[1]} {1} with {2} channels".format
            raise BadInput(f"the picture is {form(*given)}; the rule: {form(*ours)}, as the one that was fitted")

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model."""
        return {f"field.{k}": v for k, v in self.field.state_dict().items()}


def check(config: Config) -> None:
    """Raises `BadInput` for options of the method that are out of range; those of the grid are checked where it is
    made."""
    rules = [
        ("finest_resolution", 0 <= config.finest_resolution <= 1 << 20, "from 1 to 2^20, or 0"),
        ("batch", config.batch == 0 or 1 << 8 <= config.batch <= 1 << 24, "from 2^8 to 2^24, or 0"),
    ]
    check_options(config, "picture", ENCODINGS, rules)


def build(config: Config, *, size: tuple[int, int], channels: int, kind: str, peak: float, seed: int = 0) -> Model:
    """A fresh model; size, kind, peak: as the model has them. Raises `BadInput` on options out of range."""
    sizes = {name: getattr(config, name) for name in ("levels", "features", "log2_size", "base_resolution")}
    finest = config.finest_resolution or max(max(size) // 2, config.base_resolution)
    grid = registry.config_of(config.encoding, **sizes, finest_resolution=finest)
    field = ValueField(
        2,
        FieldConfig(grid=grid, channels=channels, precision=config.precision),
        torch.Generator().manual_seed(seed),
    )
    return Model(config, field, size, kind, peak)


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    if values.get("app") != "picture":
        raise BadInput("config.json holds no options of the method picture; the rule: a run of `radfield fit-image`")
    config = typed_options(Config, values.get("picture"))
    check(config)
    return config


def scene_of(picture: Picture) -> dict:
    """What a run keeps of the picture, and `build` needs to know of it."""
    return {"size": list(picture.size), "channels": picture.channels, "kind": picture.kind, "peak": picture.peak()}


def scene_from(path: Path, scene) -> dict:
    """`scene_of` of a picture, from what the file `path` keeps. Raises `BadInput` where that is not it."""
    scene = scene if isinstance(scene, dict) else {}
    size, channels, kind, peak = (scene.get(name) for name in ("size", "channels", "kind", "peak"))
    rules = [
        isinstance(size, list) and len(size) == 2 and all(type(s) is int and 1 <= s <= LARGEST_SIDE for s in size),
        type(channels) is int and 1 <= channels <= 4,
        kind in KINDS,
        type(peak) in (int, float) and 0 < peak < math.inf,
    ]
    if not all(rules):
        raise BadInput(f"{path}: the picture is {scene!r:.80}; the rule: size, channels, kind, peak")
    return {"size": tuple(size), "channels": channels, "kind": kind, "peak": float(peak)}


def load(run: str | Path, device="cpu") -> Model:
    """The model of a run folder; it computes on the CPU. Raises `BadInput` for what is no whole run of `fit-image`."""
    if str(device) not in ("cpu", "auto"):
        raise BadInput(f"device is {str(device)!r}; the rule: auto or cpu for a picture")
    folder = RunFolder.open(run)
    config = folder.read_config()
    model = build(config_from(config), **scene_from(folder.config_path, config.get("scene")))
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    restore(model, tensors)
    load_tensors(folder, model.tensors(), tensors)
    model.field.grid.loaded()
    return model


class Training(FitTraining):
    """The state of training besides the model. Raises `BadInput` where the picture is not the model's."""

    def __init__(self, model: Model, picture: Picture, seed: int):
        model.check_fits(picture)
        super().__init__(model, seed, model.config.batch or min(max(math.prod(model.size) // 64, 1 << 14), 1 << 17))
        self.picture, self.values = picture, torch.from_numpy(picture.values)

    def shown(self, loss: float) -> dict:
        """PSNR of the pixels trained on."""
        return {"psnr": -10 * math.log10(max(loss, 1e-12))}


def draw(training: Training) -> tuple[Tensor, Tensor]:
    """The step's pixels: positions [M, 2], and values [M, C] in parts of the peak; of a picture on the disk from a few
    of its rows."""
    rows = _ROWS if isinstance(training.picture.values, np.memmap) else None
    lattice = lattice_of(training.picture.size, training.batch, rows)
    seed, scale = stream(training.seed, training.step), 1 / training.model.peak
    return draw_pixels(training.values, lattice, seed, scale, whole_rows=rows is not None)


def train_step(training: Training, progress: float) -> float:
    """One step, at `progress` in [0, 1] of the budget; returns the mean squared error. Raises `FloatingPointError`,
    with the model as before the step, where that is not finite."""
    model, field, stages = training.model, training.model.field, training.stages
    with stages("pixels"):
        x, wanted = draw(training)
    with stages("forward"):
        found = field.values(x)
        # The gradient of the mean squared error by hand: autograd would pass over [M, C] six times, in one thread.
        difference = found.detach() - wanted
        value = torch.linalg.vector_norm(difference).item() ** 2 / difference.numel()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {training.step} is {value}")
    with stages("backward"):
        found.backward(difference.mul_(2 / difference.numel()))
    with stages("optimiser"):
        field.grid.add_gradients()
        training.optimizer.step(lr=model.config.learning_rate * model.config.final_rate**progress)
    training.step += 1
    return value
