"""The method `volume`: a field fitted to a dense volume of densities (and albedos). Options, model, a step of training.

Half of a step's points are uniform in the volume's box, half lie in voxels with density; what is fitted there is the
trilinear interpolation of the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from ... import backend
from ...data.volume_files import Volume
from ...encodings import registry
from ...errors import BadInput
from ...fields.values import Config as FieldConfig
from ...fields.values import ValueField
from ...renderers.media import FieldMedium
from ...sampling.random import Source, uniform, whole_numbers
from ...training.checkpoint import load_checkpoint
from ...training.run_folder import RunFolder
from ..run_files import load_tensors, restore, typed_options
from .training import FitTraining, StepResult, check_options, squared_error, train_step

__all__ = ["Config", "Lookup", "Model", "StepResult", "Training", "build", "check", "config_from", "load", "train_step"]

ENCODINGS = tuple(name for name in registry.ENCODINGS if name != "sparse")
LARGEST_SIDE = 1 << 14


@dataclass(frozen=True)
class Config:
    """The method's options."""

    encoding: Annotated[str, tyro.conf.arg(prefix_name=False)] = "hash"  # of positions: see encodings/registry.py
    levels: int = 12  # levels of the encoding
    features: int = 2  # features per level: 1, 2, 4 or 8
    log2_size: int = 19  # log2 of the entries of a hashed level
    base_resolution: int = 16  # resolution of the coarsest level
    finest_resolution: int = 0  # resolution of the finest level along the longest side; 0: that of the voxels
    precision: str = "bf16"  # "bf16" rounds grid entries, features and products to 16 bits
    learning_rate: float = 1e-2  # of grid and network at the start
    final_rate: float = 0.03  # the learning rate ends at this part of it
    batch: int = 1 << 17  # points per step


@dataclass
class Model:
    """A field that is trained or was. size: (W, H, D) of the volume it was fitted to; peak: what 1 of the field's
    density stands for, per voxel; channels: 1, or 4 with albedos."""

    config: Config
    field: ValueField
    size: tuple[int, int, int]
    peak: float

    @property
    def device(self) -> torch.device:
        """Where the field is, and what is asked of it must be."""
        return self.field.network.weights.device

    @property
    def box(self) -> Tensor:
        """[2, 3]: the volume's place in the scene, on the model's device."""
        sides = torch.tensor(self.size, dtype=torch.float32, device=self.device)
        return torch.stack([torch.zeros_like(sides), sides / sides.max()])

    def medium(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(density [M] in parts of the peak, from 0 to 1; albedo [M, 3] or [1, 3]) at scene points [M, 3]."""
        return FieldMedium(self.field)(x)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model."""
        return {f"field.{k}": v for k, v in self.field.state_dict().items()}


def check(config: Config) -> None:
    """Raises `BadInput` for options of the method that are out of range; those of the grid are checked where it is
    made."""
    rules = [
        ("finest_resolution", 0 <= config.finest_resolution <= 1 << 20, "from 1 to 2^20, or 0"),
        ("batch", 1 << 8 <= config.batch <= 1 << 22, "from 2^8 to 2^22"),
    ]
    check_options(config, "volume", ENCODINGS, rules)


def build(
    config: Config,
    *,
    size: tuple[int, int, int],
    channels: int,
    peak: float,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Model:
    """A fresh model on `device`, with the same parameters on any; size, peak: as the model has them. Raises `BadInput`
    on options out of range."""
    sizes = {name: getattr(config, name) for name in ("levels", "features", "log2_size", "base_resolution")}
    finest = config.finest_resolution or max(*size, config.base_resolution)
    grid = registry.config_of(config.encoding, **sizes, finest_resolution=finest)
    options = FieldConfig(grid=grid, channels=channels, precision=config.precision)
    field = ValueField(3, options, torch.Generator().manual_seed(seed)).to(device)
    return Model(config, field, size, peak)


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    if values.get("app") != "volume":
        raise BadInput("config.json holds no options of the method volume; the rule: a run of `radfield fit-volume`")
    config = typed_options(Config, values.get("volume"))
    check(config)
    return config


def scene_of(volume: Volume) -> dict:
    """What a run keeps of the volume, and `build` needs to know of it."""
    channels = 1 if volume.albedo is None else 4
    return {"size": list(volume.size), "channels": channels, "peak": float(volume.density.max()) or 1.0}


def load(run: str | Path, device="cpu") -> Model:
    """The model of a run folder on `device` ("auto": a GPU where there is one), whatever it was fitted on. Raises
    `BadInput` for what is no whole run of `fit-volume`, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    config, where = folder.read_config(), backend.device(device)[0]
    scene = config.get("scene") if isinstance(config.get("scene"), dict) else {}
    size, channels, peak = (scene.get(name) for name in ("size", "channels", "peak"))
    right = isinstance(size, list) and len(size) == 3 and all(type(s) is int and 1 <= s <= LARGEST_SIDE for s in size)
    if not right or channels not in (1, 4) or type(peak) not in (int, float) or not 0 < peak < math.inf:
        raise BadInput(f"{folder.config_path}: scene is {scene!r:.80}; the rule: size, channels, peak")
    given = {"size": tuple(size), "channels": channels, "peak": float(peak)}
    model = build(config_from(config), **given, device=where)
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    restore(model, tensors)
    load_tensors(folder, model.tensors(), tensors)
    model.field.grid.loaded()
    return model


class Lookup:
    """A volume as what is fitted and what is compared with, on `device`: trilinear between the voxels' centres."""

    def __init__(self, volume: Volume, peak: float, device: torch.device | str = "cpu"):
        channels = volume.channels().clone().to(device)
        channels[..., 0] /= peak
        self.grid = channels.permute(3, 0, 1, 2)[None]
        self.box = volume.box.to(device)
        self.full = (channels[..., 0] > 0).flatten().nonzero()[:, 0]
        self.size = volume.size

    def values(self, x: Tensor) -> Tensor:
        """[M, C] at scene points x [M, 3]."""
        at = 2 * x / self.box[1] - 1
        found = torch.nn.functional.grid_sample(
            self.grid, at[None, None, None], padding_mode="border", align_corners=False
        )
        return found[0, :, 0, 0].T

    def medium(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Model.medium`."""
        found = self.values(x)
        return found[:, 0], x.new_ones(1, 3) if found.shape[1] == 1 else found[:, 1:]

    def draw(self, count: int, source: Source) -> Tensor:
        """Points [M, 3]: half uniform in the box, half in voxels that have density."""
        x = uniform(source, count, 3) * self.box[1]
        if len(self.full):
            half = count // 2
            voxel = self.full[whole_numbers(source, len(self.full), half)]
            width, height, _ = self.size
            place = torch.stack([voxel % width, voxel // width % height, voxel // (width * height)], 1)
            x[:half] = (place + uniform(source, half, 3)) / max(self.size)
        return x


class Training(FitTraining):
    """The state of training besides the model, which is where `lookup` is."""

    def __init__(self, model: Model, lookup: Lookup, seed: int):
        super().__init__(model, seed, model.config.batch)
        self.lookup = lookup

    def box(self) -> Tensor:
        """[2, 3]: the volume's."""
        return self.lookup.box

    def forward(self, progress: float, seed: Tensor | None) -> tuple[Tensor, Callable[[], None]]:
        """As the base has it, of points drawn by `seed`."""
        with self.stage("points", seed):
            x = self.lookup.draw(self.model.config.batch, self.source(seed))
            wanted = self.lookup.values(x)
        with self.stage("forward", seed):
            return squared_error(self.model.field.values(x), wanted)
