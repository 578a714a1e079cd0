"""The method `picture`: a field fitted to one picture. Options, model, and a step of its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from ... import backend
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
from ..runs import free_memory
from .training import FitTraining, StepResult, check_options, squared_error, train_step

__all__ = ["Config", "Model", "StepResult", "Training", "build", "check", "config_from", "load", "train_step"]

#: what is made for three dimensions alone
ENCODINGS = tuple(name for name in registry.ENCODINGS if name not in ("sparse", "triplane", "vm", "cp"))
KINDS = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
LARGEST_SIDE = 1 << 20
_ROWS = 256  # of a picture on the disk, that a step reads
_OF_GPU = 0.4  # of a GPU's free memory, a picture may take


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
    def device(self) -> torch.device:
        """Where the field is."""
        return self.field.network.weights.device

    @property
    def color_space(self) -> str:
        return "linear" if self.kind == "float32" else "sRGB"

    def pixels(self, size: tuple[int, int], part: tuple[int, int, int, int]) -> Tensor:
        """[h, w, C] float32 in parts of the peak, on the model's device: the pixels (x, y, w, h) of the picture at
        `size` (W, H)."""
        return self._frame(size, part, torch.float32, 1.0)

    def stored(self, size: tuple[int, int], part: tuple[int, int, int, int]) -> np.ndarray:
        """The same as those of a file of the picture's kind."""
        return self._frame(size, part, KINDS[self.kind], self.peak).cpu().numpy()

    def _frame(self, size, part, dtype: torch.dtype, peak: float) -> Tensor:
        x, y, width, height = part
        scale = torch.tensor([self.size[0] / size[0], self.size[1] / size[1]], dtype=torch.float64) / max(self.size)
        across = ((torch.arange(x, x + width) + 0.5) * scale[0]).float().to(self.device)
        down = ((torch.arange(y, y + height) + 0.5) * scale[1]).float().to(self.device)
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


def build(
    config: Config,
    *,
    size: tuple[int, int],
    channels: int,
    kind: str,
    peak: float,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Model:
    """A fresh model on `device`, with the same parameters on any; size, kind, peak: as the model has them. Raises
    `BadInput` on options out of range."""
    sizes = {name: getattr(config, name) for name in ("levels", "features", "log2_size", "base_resolution")}
    finest = config.finest_resolution or max(max(size) // 2, config.base_resolution)
    grid = registry.config_of(config.encoding, **sizes, finest_resolution=finest)
    field = ValueField(
        2,
        FieldConfig(grid=grid, channels=channels, precision=config.precision),
        torch.Generator().manual_seed(seed),
    )
    return Model(config, field.to(device), size, kind, peak)


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
    """The model of a run folder on `device` ("auto": a GPU where there is one), whatever it was fitted on. Raises
    `BadInput` for what is no whole run of `fit-image`, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    config, where = folder.read_config(), backend.device(device)[0]
    model = build(config_from(config), **scene_from(folder.config_path, config.get("scene")), device=where)
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
        if not self.on_disk and _fits(self.values, model.device):
            self.values = self.values.to(model.device)

    @property
    def on_disk(self) -> bool:
        """Whether the picture is read row by row."""
        return isinstance(self.picture.values, np.memmap)

    def box(self) -> Tensor:
        """[2, 2]: all of the picture, as it lies in the unit square."""
        sides = torch.tensor(self.picture.size, device=self.model.device) / max(self.picture.size)
        return torch.stack([torch.zeros_like(sides), sides])

    def obstacle(self) -> str | None:
        """Pixels are drawn where the picture is."""
        if self.on_disk:
            return "the picture is read from disk"
        return None if self.values.device == self.model.device else "the picture does not fit into the GPU's memory"

    def forward(self, progress: float, seed: Tensor | None) -> tuple[Tensor, Callable[[], None]]:
        """As the base has it, of pixels drawn by `seed`."""
        with self.stage("pixels", seed):
            x, wanted = draw(self, seed)
        with self.stage("forward", seed):
            return squared_error(self.model.field.values(x), wanted)

    def shown(self, loss: float) -> dict:
        """PSNR of the pixels trained on."""
        return {"psnr": -10 * math.log10(max(loss, 1e-12))}


def _fits(values: Tensor, device: torch.device) -> bool:
    return device.type != "cuda" or values.nbytes <= _OF_GPU * free_memory(device)


def draw(training: Training, schedule: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The step's pixels: positions [M, 2], and values [M, C] in parts of the peak, where the model is; of a picture on
    the disk from a few of its rows. schedule: [1] float64, the step's seed where only a device knows it."""
    rows = _ROWS if training.on_disk else None
    lattice = lattice_of(training.picture.size, training.batch, rows)
    seed, scale = stream(training.seed, training.step), 1 / training.model.peak
    drawn = draw_pixels(training.values, lattice, seed, scale, whole_rows=rows is not None, schedule=schedule)
    return tuple(each.to(training.model.device) for each in drawn)
