"""Instant-NGP class radiance fields (Mueller et al. 2022): any encoding of positions, small networks, occupancy grid.

`build` makes a model for a scene, `train_step` is one step of the loop in `train.py`, `save` and `load` keep it.
Letters: N rays, M samples.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from .. import backend
from ..camera_rays import camera_rays
from ..cameras import Cameras
from ..data.resident import draw_pixels, source_of
from ..data.scene import Images, Scene
from ..encodings import registry, saliency
from ..errors import BadInput
from ..fields import radiance
from ..fields.voxels import VoxelField
from ..geometry import SceneTransform
from ..losses import mse
from ..renderers import volume
from ..sampling import occupancy
from ..training import per_image
from ..training.adam import Adam
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.run_folder import RunFolder
from ..training.stages import Stages
from . import ngp_device

SHOWN = ("samples_per_s", "psnr")  # figures beside the progress bar
RATE = "--ngp.learning-rate"
CPU_ONLY = False
REGULARISE_INTERVAL = 16  # steps between two steps against the encoding's regulariser
BACKGROUNDS = {"white": 1.0, "black": 0.0}


@dataclass(frozen=True)
class Config:
    """The method's options."""

    encoding: Annotated[str, tyro.conf.arg(prefix_name=False)] = "hash"  # of positions: see encodings/registry.py
    saliency: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False  # a learned mask over the encoding (HollowNeRF)
    levels: int = 8  # levels of the encoding
    features: int = 4  # features per level: 1, 2, 4 or 8
    log2_size: int = 18  # log2 of the entries of a hashed level
    base_resolution: int = 16  # resolution of the coarsest level
    finest_resolution: int = 2048  # resolution of the finest level per unit of scene length
    precision: str = "bf16"  # "f32" computes in 32 bits throughout
    learning_rate: float = 3e-2  # of grid and networks at the start
    final_rate: float = 0.1  # the learning rate ends at this part of it
    network_l2: float = 1e-6  # weight decay of the networks
    batch_samples: int = 1 << 16  # samples trained per step; the number of rays adapts
    background: str = "random"  # behind training rays: random, white or black
    coarse_step: float = 16.0  # training steps along rays are this many times longer than render steps at the start
    fine_step: float = 2.0  # and this many times longer from about half of the budget on
    near: float = 0.0  # nothing nearer to a camera is seen or trained, in scene units
    occupancy_interval: int = 16  # steps between two updates of the occupancy grid
    uniform_cells: int = 1 << 19  # cells evaluated per update of the occupancy grid, taking turns over all cells
    occupied_cells: int = 1 << 16  # and at random among the occupied ones
    per_image: per_image.Config = field(default_factory=per_image.Config)  # corrections per image; all off by default


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


def background_color(name: str, device: torch.device) -> Tensor:
    """[3] of "white" or "black"."""
    return torch.full((3,), BACKGROUNDS[name], device=device)


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
    cells = occupancy.Config(cascades=cascades, **turns)
    return Model(
        config,
        radiance.build(field_config, cascades, generator).to(device),
        occupancy.OccupancyGrid(cells, device),
        volume.Config(cone=0.0 if cascades == 1 else 1 / 256, near=config.near),
        transform,
        background,
    )


@dataclass(frozen=True)
class StepResult:
    """Figures of a step, or of some: loss (mean squared error over rays and channels), numbers of rays and samples."""

    loss: float
    rays: int
    marched: int
    live: int
    steps: int = 1  # of which the counts are sums and the loss the mean; 0: a device has not told yet


class Training:
    """The state of training besides the model: optimiser, buffers, and how many rays fill a batch.
    All is on the model's device.

    memory: bytes that the images may take where the scene's are on disk."""

    def __init__(self, model: Model, scene: Scene, seed: int, memory: int | None = None):
        self.model, self.seed, self.step, self.rays = model, seed, 0, 1024
        self.seconds, self.samples = 0.0, 0  # trained so far
        self._recent: list[tuple[float, StepResult]] = []
        self.images = source_of(scene.train.images, seed=seed, memory=memory, device=model.device)
        self.buffers = volume.TrainingBuffers(8 * model.config.batch_samples)
        self.stages = Stages()
        self.optimizer = Adam([*grid_groups(model.config, model.field), *network_groups(model.config, model.field)])
        model.grid.mark_invisible(scene.train.cameras)
        self.per_image = per_image.PerImage(model.config.per_image, scene.train.cameras.to(model.device))
        self._device: ngp_device.DeviceSteps | None = None
        self._asked = False

    def make_ready(self) -> None:
        """Reads the images that the next step draws from, so that reading them is no part of its time."""
        if not isinstance(self.images, Images):
            self.images.at(self.step)

    def device_steps(self) -> ngp_device.DeviceSteps | None:
        """What takes the steps on a device; None on the CPU, and where each step has to wait."""
        if not self._asked:
            self._asked = True
            self._device = ngp_device.steps_of(self) if backend.on_cuda(self.model.grid.values) else None
        return self._device

    def settle(self) -> None:
        """Waits for the steps that a device has not told of yet, and counts them."""
        if self._device is not None and (figures := self._device.read()):
            self.count(StepResult(**figures), 0.0)

    def take_parameters(self) -> None:
        """Has the optimiser take the encoding's parameters, after these were replaced; their moments start at 0."""
        kept = self.optimizer.groups[len(self.optimizer.groups) - len(self.model.field.networks) :]
        self.optimizer.groups = Adam(grid_groups(self.model.config, self.model.field)).groups + kept

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps to continue from."""
        ours = {f"adam.{k}": v for k, v in self.optimizer.state_dict().items()}
        return self.model.tensors() | ours | {f"per_image.{k}": v for k, v in self.per_image.tensors().items()}

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
        self.per_image.loaded({k[10:]: v for k, v in ours.items() if k.startswith("per_image.")})
        self.model.field.grid.loaded()
        self.model.grid.refresh()
        self._asked, self._device = False, None
        try:
            self.step, self.rays, self.samples = (int(metadata[k]) for k in ("step", "rays", "samples"))
            self.seconds = float(metadata["seconds"])
        except (KeyError, ValueError) as error:
            raise BadInput(f"{folder.checkpoint_path}: its counts are missing or no numbers: {error}") from None

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
        }
        folder.append_metrics(step=self.step, **figures)
        return figures

    def figures(self) -> dict:
        """Figures of the whole training."""
        total = sum(self.stages.seconds.values()) or 1.0
        return {
            "samples_per_s": self.samples / max(self.seconds, 1e-9),
            "occupancy_share": self.stages.seconds["occupancy"] / total,
            "parameters": sum(p.numel() for p in self.model.field.parameters()),
        }


def adam_group(parameter, owner, **options) -> dict:
    """A parameter whose gradient its module `owner` adds into one kept buffer."""
    owner.grad_into = torch.zeros_like(parameter)
    return {"parameter": parameter.data, "grad": owner.grad_into, **options}


def grid_groups(config: Config, field: radiance.RadianceField) -> list[dict]:
    """The parameters of the encoding, at its own learning rate."""
    rate = registry.ENCODINGS[config.encoding].rate
    return [{**group, "scale": rate * group.get("scale", 1.0)} for group in field.grid.adam_groups()]


def network_groups(config: Config, field) -> list[dict]:
    """The parameters of the networks, at the learning rate that goes with the encoding."""
    options = {"l2": config.network_l2, "scale": registry.ENCODINGS[config.encoding].networks}
    return [adam_group(network.weights, network, **options) for network in field.networks]


def refine(training: Training, progress: float) -> None:
    """Has the encoding grow, shrink and be regularised as it states."""
    model = training.model
    if model.field.grid.refine(progress, lambda: grid_box(model)):
        training.take_parameters()
    if training.step % REGULARISE_INTERVAL == 0:
        rate = learning_rate(model.config, progress) * registry.ENCODINGS[model.config.encoding].rate
        model.field.grid.regularise(REGULARISE_INTERVAL * rate)


def grid_box(model: Model) -> Tensor:
    """[2, 3]: the occupied part of the cube that the encoding spans, in [0, 1]."""
    return model.field.grid_positions(model.grid.occupied_box())


def train_step(training: Training, progress: float) -> StepResult:
    """One step; `progress` in [0, 1] is the part of the budget used, which sets the learning rate.

    Raises `FloatingPointError`, with the model as before the step, when the loss is not finite. On a device that is
    found out at a later step (`ngp_device`), and the figures are those of the steps in between.
    """
    if (device := training.device_steps()) is not None:
        return _device_step(training, device, progress)
    model, config, stages, images = training.model, training.model.config, training.stages, training.per_image
    with stages("encoding"):
        refine(training, progress)
    with stages("pixels"):
        color = None if config.background == "random" else background_color(config.background, model.device)
        n = training.rays
        pixels = draw_pixels(training.images, n, seed=training.seed, step=training.step, background=color)
        rays = camera_rays(images.cameras, pixels.view, pixels.pixel, check=False)
    with stages("forward"):
        sampling = _sampling(model, progress)
        given = model.field, model.grid, rays, pixels.background, sampling, training.step, training.buffers
        render = volume.render_training(*given, latent=images.latent(pixels.view), traced=images.traces)
        n = render.rays
        color = images.exposed(render.color, render.left, pixels.background[:n], pixels.view[:n])
        loss = mse(color, pixels.color[:n])
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {training.step} is {value}")
    with stages("backward"):
        loss.backward()
    with stages("optimiser"):
        # a bad gradient anywhere shows in the networks' too, since every gradient passes through them
        for network in model.field.networks:
            if not network.grad_into.isfinite().all():
                raise FloatingPointError(f"a gradient of step {training.step} is not finite")
        model.field.grid.add_gradients()
        bad = training.optimizer.step(lr=learning_rate(config, progress))
        if bad and not model.field.networks:
            raise FloatingPointError(f"{bad} gradients of step {training.step} are not finite")
        images.finish(render, rays, pixels.view, pixels.pixel, progress)
    training.step += 1
    _update_grid(training)
    training.rays = _next_rays(training.rays, render.live, config.batch_samples)
    return StepResult(value, render.rays, render.marched, render.live)


def _device_step(training: Training, device: ngp_device.DeviceSteps, progress: float) -> StepResult:
    model = training.model
    with training.stages("step"):
        figures = device.step(_sampling(model, progress), learning_rate(model.config, progress))
    _update_grid(training)
    return StepResult(**figures) if figures else StepResult(0.0, 0, 0, 0, steps=0)


def _update_grid(training: Training) -> None:
    with training.stages("occupancy"):
        if training.step % training.model.config.occupancy_interval == 0:
            training.model.grid.update(training.model.density, seed=training.seed)


def learning_rate(config: Config, progress: float) -> float:
    """It falls geometrically, to `final_rate` of itself."""
    return config.learning_rate * config.final_rate**progress


def _sampling(model: Model, progress: float) -> volume.Config:
    """The steps along training rays."""
    scale = step_scale(model.config, progress)
    return dataclasses.replace(model.render, step=model.render.step * scale, cone=model.render.cone * scale)


def step_scale(config: Config, progress: float) -> float:
    """How much longer than a renderer's steps are those of training: `coarse_step` at first, falling geometrically, so
    that it would reach 1 at half the budget, but not below `fine_step`. A field that is still blurred needs no fine
    steps, and the time goes into more rays."""
    return max(config.coarse_step ** (1 - 2 * progress), config.fine_step)


def _next_rays(rays: int, live: int, wanted: int) -> int:
    """Rays that would have filled the batch, in multiples of 64; at most doubled at a time."""
    scale = min(max(wanted / max(live, 1), 0.5), 2.0)
    return min(max(int(rays * scale) // 64 * 64, 256), 1 << 17)


def report_background(config: Config, scene: Scene) -> str:
    """The background that renders and figures have: the trained one, or the scene's where that is random."""
    return scene.background if config.background == "random" else config.background


def check(config: Config) -> None:
    """Raises `BadInput` for options of the method that are out of range; those of the grid and the networks are checked
    where these are made."""
    rules = [
        ("encoding", config.encoding in registry.ENCODINGS, "one of " + ", ".join(registry.ENCODINGS)),
        ("levels", 1 <= config.levels <= 32, "from 1 to 32"),
        ("base_resolution", config.base_resolution >= 1, "at least 1"),
        ("finest_resolution", config.finest_resolution >= config.base_resolution, "at least base-resolution"),
        ("precision", config.precision in ("f32", "bf16"), "f32 or bf16"),
        ("learning_rate", 0 < config.learning_rate < math.inf, "positive"),
        ("final_rate", 0 < config.final_rate < math.inf, "positive"),
        ("network_l2", 0 <= config.network_l2 < math.inf, "not negative"),
        ("batch_samples", 1 << 8 <= config.batch_samples <= 1 << 24, "from 2^8 to 2^24"),
        ("background", config.background in ("random", *BACKGROUNDS), "random, white or black"),
        ("coarse_step", 1 <= config.coarse_step <= 64, "from 1 to 64"),
        ("fine_step", 1 <= config.fine_step <= 64, "from 1 to 64"),
        ("near", 0 <= config.near < math.inf, "not negative"),
        ("occupancy_interval", config.occupancy_interval >= 1, "at least 1"),
        ("uniform_cells", config.uniform_cells >= 0, "not negative"),
        ("occupied_cells", config.occupied_cells >= 0, "not negative"),
    ]
    for name, holds, rule in rules:
        if not holds:
            if name == "encoding":
                raise BadInput(f"--encoding is {config.encoding!r}; the rule: {rule}")
            raise BadInput(f"--ngp.{name.replace('_', '-')} is {getattr(config, name)}; the rule: {rule}")
    per_image.check(config.per_image, "--ngp.per-image.")


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    options = values.get("ngp")
    if values.get("app") != "ngp" or not isinstance(options, dict):
        raise BadInput("config.json holds no options of the method ngp; the rule: a run that `radfield train` made")
    # runs from before there were corrections per image, or a choice of encodings
    options = {"per_image": {}, "encoding": "hash", "saliency": False, **options}
    corrections = typed_options(per_image.Config, options.pop("per_image"), partial=True)
    config = typed_options(Config, options, per_image=corrections)
    check(config)
    return config


def typed_options(kind: type, options, *, partial: bool = False, **given):
    """The dataclass `kind` of a dict of its fields, those in `given` excepted; `partial`: some may be missing."""
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in given}
    if not isinstance(options, dict) or not (set(options) <= set(fields) if partial else set(options) == set(fields)):
        raise BadInput("config.json holds no options of its method; the rule: a run that `radfield train` made")
    for name, value in options.items():
        default = fields[name].default
        if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
            raise BadInput(f"config.json: {name} is {value!r}; the rule: a {type(default).__name__}")
    return kind(**options, **given)


def scene_from(folder: RunFolder) -> dict:
    """What `build` needs to know of a run's scene: cascades, transform and background. Raises `BadInput` where
    config.json does not have it."""
    scene = folder.read_config().get("scene")
    if (
        not isinstance(scene, dict)
        or scene.get("background") not in BACKGROUNDS
        or scene.get("cascades") not in range(1, 9)
    ):
        raise BadInput(f"{folder.config_path}: scene is {scene!r:.80}; the rule: transform, cascades and background")
    transform = SceneTransform.from_dict(scene.get("transform"))
    return {"cascades": scene["cascades"], "transform": transform, "background": scene["background"]}


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a run folder, ready to render and to answer queries on `device` ("auto": a GPU where there is one),
    whatever it was trained on. Raises `BadInput` for what is no whole run, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    model = build(config_from(folder.read_config()), **scene_from(folder), device=backend.device(device)[0])
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    restore(model, tensors)
    load_tensors(folder, model.tensors(), tensors)
    model.field.grid.loaded()
    model.grid.refresh()
    return model


def restore(model: Model, tensors: dict[str, Tensor]) -> None:
    """Makes the encoding's parameters as large as those of a checkpoint."""
    prefix = "field.grid."
    model.field.grid.restore({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})


def load_tensors(folder: RunFolder, ours: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Copies a checkpoint's tensors into those at hand. Raises `BadInput` where one is missing or of another shape."""
    for name, tensor in ours.items():
        value = found.get(name)
        if value is None or value.shape != tensor.shape or value.dtype != tensor.dtype:
            what = "is missing" if value is None else f"is {value.dtype} {list(value.shape)}"
            raise BadInput(f"{folder.checkpoint_path}: {name} {what}; the rule: {tensor.dtype} {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(found[name])
