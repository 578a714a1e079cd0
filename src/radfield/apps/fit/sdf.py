"""The method `sdf`: a distance field fitted to a triangle mesh, signed or not, or to a cloud of points, not signed.
Options, model, and a step of its training.

Scene coordinates are the unit cube, in which the mesh's box with a margin is centred (`transform`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from ... import backend
from ...cameras import Cameras
from ...encodings import registry
from ...errors import BadInput
from ...fields import distance
from ...geometry import SceneTransform
from ...losses import mape
from ...renderers import sphere_tracing
from ...renderers.volume import View
from ...tracing.cloud import Cloud
from ...tracing.surface import Surface
from ...training.checkpoint import load_checkpoint
from ...training.run_folder import RunFolder
from ..run_files import load_tensors, restore, scene_from, typed_options
from . import level_sets
from .sdf_samples import MARGIN, SOFT, box, training_batch
from .training import FitTraining, StepResult, check_options, train_step

__all__ = ["Config", "Model", "StepResult", "Training", "build", "check", "config_from", "load", "train_step"]
#: sparse voxels drop what has no density, which distances are not
ENCODINGS = tuple(name for name in registry.ENCODINGS if name != "sparse")
UNSURE = 1.5  # of the space between two points of a cloud, a trained distance is off by on the surface
CELLS = 0.5  # of the finest level, along the space between two points of a cloud: smaller ones would learn its noise


@dataclass(frozen=True)
class Config:
    """The method's options."""

    encoding: Annotated[str, tyro.conf.arg(prefix_name=False)] = "hash"  # of positions: see encodings/registry.py
    levels: int = 12  # levels of the encoding
    features: int = 2  # features per level: 1, 2, 4 or 8
    log2_size: int = 18  # log2 of the entries of a hashed level
    base_resolution: int = 16  # resolution of the coarsest level
    finest_resolution: int = 1024  # resolution of the finest level across the scene
    precision: str = "f32"  # "bf16" rounds grid entries, features and products to 16 bits
    learning_rate: float = 1e-2  # of grid and network at the start
    final_rate: float = 0.02  # the learning rate ends at this part of it
    batch: int = 1 << 16  # samples trained per step


@dataclass
class Model:
    """A field that is trained or was. transform: the mesh's coordinates to the scene's. size: [3] float64, the sides of
    the mesh's box there, around the scene's middle; the field is trained in it and a margin, and asked nowhere else."""

    config: Config
    field: distance.DistanceField
    transform: SceneTransform
    size: Tensor
    background: str = "white"
    cascades: int = 1
    spacing: float | None = None  # of the points of a cloud, in the scene

    @property
    def device(self) -> torch.device:
        """Where the field is, and what is asked of it must be."""
        return self.field.network.weights.device

    @property
    def unsigned(self) -> bool:
        """Whether f is nowhere below 0."""
        return self.field.config.unsigned

    @property
    def hit(self) -> float:
        """What an unsigned f is below on the surface: of a cloud's it is not sure by more than a part of the space
        between points."""
        return max(sphere_tracing.HIT_UNSIGNED, UNSURE * (self.spacing or 0.0))

    @property
    def most_cells(self) -> int | None:
        """Of a mesh along the longest side of the box: as large as the space between two points of a cloud, which say
        nothing of what is smaller. None where it was fitted to a mesh."""
        low, high = self.box
        return None if self.spacing is None else max(8, int(float((high - low).max()) / self.spacing))

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """(low, high), [3] float64 each, of where the field is trained."""
        half = 0.5 * self.size + MARGIN * self.size.norm()
        return 0.5 - half, 0.5 + half

    def distance(self, x: Tensor) -> Tensor:
        """f [M] at scene positions x [M, 3], in scene units."""
        with torch.no_grad():
            return self.field.distance(x)

    @cached_property
    def space(self) -> sphere_tracing.FreeSpace:
        """Where rays need not ask, of the field as it is when this is first asked."""
        return sphere_tracing.FreeSpace.of(self.distance, self.device)

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
        """A shaded picture of a view of `cameras` (in scene coordinates) on `background` [3], by default white; on the
        model's device."""
        background = torch.ones(3, device=self.device) if background is None else background.to(self.device)
        shown = sphere_tracing.FieldDistance(self.field, hit=self.hit)
        return sphere_tracing.render_view(shown, self.space, self.box, cameras.to(self.device), view, background)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model."""
        return {f"field.{k}": v for k, v in self.field.state_dict().items()}


def check(config: Config) -> None:
    """Raises `BadInput` for options of the method that are out of range; those of the grid are checked where it is
    made."""
    rules = [
        ("batch", 1 << 8 <= config.batch <= 1 << 22, "from 2^8 to 2^22"),
    ]
    check_options(config, "sdf", ENCODINGS, rules)


def build(
    config: Config,
    *,
    transform: SceneTransform,
    size: Tensor,
    background: str = "white",
    cascades: int = 1,
    seed: int = 0,
    unsigned: bool = False,
    spacing: float | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """A fresh model on `device`, with the same parameters on any; transform, size: as the model has them; spacing: of
    the points of a cloud, in the scene. Raises `BadInput` on options out of range."""
    names = ("levels", "features", "log2_size", "base_resolution", "finest_resolution")
    sizes = {name: getattr(config, name) for name in names}
    if spacing is not None:
        finest = max(config.base_resolution, round(CELLS / spacing))
        sizes["finest_resolution"] = min(config.finest_resolution, finest)
    grid = registry.config_of(config.encoding, **sizes)
    options = distance.Config(grid=grid, precision=config.precision, unsigned=unsigned)
    field = distance.DistanceField(options, torch.Generator().manual_seed(seed)).to(device)
    return Model(config, field, transform, size, background, cascades, spacing)


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    if values.get("app") != "sdf":
        raise BadInput("config.json holds no options of the method sdf; the rule: a run that `radfield fit-sdf` made")
    config = typed_options(Config, values.get("sdf"))
    check(config)
    return config


def load(run: str | Path, device="cpu") -> Model:
    """The model of a run folder on `device` ("auto": a GPU where there is one), whatever it was fitted on. Raises
    `BadInput` for what is no whole run of `fit-sdf`, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    config, where = folder.read_config(), backend.device(device)[0]
    scene = {"size": _size_from(config), **scene_from(folder), **_kind_from(config)}
    model = build(config_from(config), **scene, device=where)
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    restore(model, tensors)
    load_tensors(folder, model.tensors(), tensors)
    model.field.grid.loaded()
    return model


def scene_of(surface: Surface | Cloud) -> SceneTransform:
    """The similarity that brings the mesh's box with its margin into the unit cube's middle."""
    low, high = box(surface)
    scale = 1 / float((high - low).max())
    return SceneTransform(scale, offset=tuple((0.5 - scale * 0.5 * (low + high)).tolist()))


def _size_from(config: dict) -> Tensor:
    """[3] the sides of the mesh's box in the scene, of a run's config.json."""
    size = config.get("scene", {}).get("size") if isinstance(config.get("scene"), dict) else None
    right = isinstance(size, list) and len(size) == 3 and all(type(s) in (int, float) and 0 <= s <= 1 for s in size)
    if not right or max(size) <= 0:
        raise BadInput(f"config.json: size is {size!r:.80}; the rule: three numbers from 0 to 1, one above 0")
    return torch.tensor(size, dtype=torch.float64)


def kind_of(surface: Surface | Cloud, unsigned: bool) -> dict:
    """What `build` and config.json have of an unsigned field and of a cloud's points; nothing of a signed field."""
    if not unsigned:
        return {}
    return {"unsigned": True} | ({"spacing": surface.spacing} if isinstance(surface, Cloud) else {})


def _kind_from(config: dict) -> dict:
    """The same of a run's config.json, checked."""
    unsigned, spacing = config["scene"].get("unsigned", False), config["scene"].get("spacing")
    if type(unsigned) is not bool:
        raise BadInput(f"config.json: unsigned is {unsigned!r:.80}; the rule: true or false")
    if spacing is not None and not (type(spacing) is float and 1e-9 < spacing < 1):
        raise BadInput(f"config.json: spacing is {spacing!r:.80}; the rule: between 0 and 1")
    return {"unsigned": unsigned, "spacing": spacing}


def size_of(surface: Surface | Cloud) -> Tensor:
    """[3] float64, the sides of a surface's box."""
    low, high = surface.bounds
    return high - low


class Training(FitTraining):
    """The state of training besides the model. surface: in scene coordinates."""

    def __init__(self, model: Model, surface: Surface | Cloud, seed: int):
        super().__init__(model, seed, model.config.batch)
        self.surface = surface

    def box(self) -> Tensor:
        """[2, 3]: the surface's."""
        return torch.stack(self.surface.bounds).float().to(self.model.device)

    def obstacle(self) -> str | None:
        """The tree of moved queries is made on the CPU, and which queries count is known there alone."""
        return "a cloud of points" if isinstance(self.surface, Cloud) else None

    def forward(self, progress: float, seed: Tensor | None) -> tuple[Tensor, Callable[[], None]]:
        """As the base has it, of points on the surface and around it, drawn by `seed`."""
        field, batch, source, unsigned = self.model.field, self.batch, self.source(seed), self.model.unsigned
        if isinstance(self.surface, Cloud):
            with self.stage("forward", seed):
                loss = level_sets.loss(field, self.surface, batch, progress, source)
            return loss.detach(), loss.backward
        with self.stage("samples", seed):
            x, wanted = training_batch(self.surface, batch, source, unsigned)
        with self.stage("forward", seed):
            loss = mape(field.value(x), wanted, SOFT) if unsigned else mape(field.value(x), wanted)
        return loss.detach(), loss.backward
