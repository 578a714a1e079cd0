"""The model of the method `ngp`: what is trained, rendered and saved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ... import backend
from ...cameras import Cameras
from ...encodings import registry, saliency
from ...errors import BadInput
from ...fields import radiance
from ...fields.voxels import VoxelField
from ...geometry import SceneTransform
from ...renderers import volume
from ...sampling import occupancy
from ..run_files import BACKGROUNDS
from .config import Config, background_color


@dataclass
class Model:
    """A trained or trainable run: what answers queries and renders.

    field: the radiance field in scene coordinates. grid: where it is not empty. transform: world to scene.
    background: "white" or "black", behind renders.
    """

    config: Config
    field: radiance.RadianceField | VoxelField
    grid: occupancy.OccupancyGrid
    render: volume.Config
    transform: SceneTransform
    background: str

    @property
    def cascades(self) -> int:
        """How many nested cubes hold the scene."""
        return self.field.cascades

    @property
    def device(self) -> torch.device:
        """Where field and grid are, and what is asked of them must be."""
        return self.grid.values.device

    def density(self, x: Tensor) -> Tensor:
        """sigma [M] at scene positions x [M, 3]."""
        with torch.no_grad():
            return self.field.density(x)

    def color(self, x: Tensor, d: Tensor) -> Tensor:
        """rgb [M, 3], sRGB in [0, 1], at scene positions x [M, 3] along unit directions d [M, 3]."""
        with torch.no_grad():
            return self.field.color(x, d)

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> volume.View:
        """Renders a view of `cameras` (in scene coordinates) on the model's background, or on `background` [3],
        on the model's device."""
        background = background_color(self.background, self.device) if background is None else background
        cameras, background = cameras.to(self.device), background.to(self.device)
        return volume.render_view(self.field, self.grid, cameras, view, background, self.render)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model."""
        named = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        return named | {f"grid.{k}": v for k, v in self.grid.state_dict().items()}


def build(
    config: Config,
    *,
    cascades: int,
    transform: SceneTransform,
    background: str,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Model:
    """A fresh model on `device`, with the same parameters on any. Raises `BadInput` on options out of range."""
    if config.background not in ("random", *BACKGROUNDS):
        raise BadInput(f"background is {config.background!r}; the rule: random, white or black")
    generator = torch.Generator().manual_seed(seed)
    finest = config.finest_resolution * 2 ** (cascades - 1)
    sizes = {name: getattr(config, name) for name in ("levels", "features", "log2_size", "base_resolution")}
    grid = registry.config_of(config.encoding, **sizes, finest_resolution=finest)
    if config.saliency:
        grid = saliency.Config(grid)
    field_config = radiance.Config(grid=grid, precision=config.precision, appearance=config.per_image.appearance)
    turns = {"uniform_cells": config.uniform_cells, "occupied_cells": config.occupied_cells}
    cells = occupancy.OccupancyGrid(occupancy.Config(cascades=cascades, **turns), device)
    if config.precision == "f16" and not backend.on_cuda(cells.values):
        raise BadInput("--ngp.precision is f16; the rule: f32 or bf16 on a CPU, whose kernels have no fp16")
    return Model(
        config,
        radiance.build(field_config, cascades, generator).to(device),
        cells,
        volume.Config(cone=0.0 if cascades == 1 else 1 / 256, near=config.near),
        transform,
        background,
    )
