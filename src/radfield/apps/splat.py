"""3D Gaussian splatting (Kerbl et al. 2023): `build` makes a model, `train_step` is one step of the loop in `train.py`.

Each step renders one training view whole. The budget's progress sets resolution (a quarter, a half, then all), degree
of the colours' spherical harmonics, learning rate of the centres, and until when Gaussians are added.
Letter: G Gaussians.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras
from ..data.scene import Scene
from ..errors import BadInput, warn
from ..gaussians import densify, initial
from ..gaussians.optimizer import GaussianAdam
from ..gaussians.scene import ROWS, GaussianScene, see
from ..geometry import SceneTransform
from ..image_loss import image_loss
from ..renderers.gaussian_camera import Camera, along_rays
from ..renderers.gaussian_color import rest_rows
from ..renderers.volume import View
from ..sampling.random import stream
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.run_folder import RunFolder
from ..training.stages import Stages
from .ngp import BACKGROUNDS

_ORDER, _BACKGROUND, _REFINE = 1, 2, 3  # purposes of random numbers
SHOWN = ("gaussians", "psnr")  # figures beside the progress bar
RATE = "--splat.mean-rate"
CPU_ONLY = True  # no CUDA kernels in this version


@dataclass(frozen=True)
class Config:
    """The method's options."""

    max_gaussians: int = 300_000  # never more; about 1.2 kB of memory each in training
    initial_gaussians: int = 50_000  # to begin with: from the sparse points of the capture, or else at random
    sh_degree: int = 3  # of the view-dependent colours, 0 to 4; rises in steps over the first half of the budget
    background: str = "random"  # behind training views: random, white or black
    coarse: float = 0.3  # until this part of the budget images are smaller: a quarter of the side, then half of it
    refine_until: float = 0.6  # until this part of the budget Gaussians are added and removed
    refine_interval: int = 100  # steps between two refinements
    reset_interval: int = 3000  # steps between two resets of all opacities while Gaussians are added
    ssim_weight: float = 0.2  # of 1 - SSIM in the loss; the rest is of the absolute difference
    mean_rate: float = 1.6e-4  # learning rate of centres, in units of the scene's size
    final_rate: float = 0.01  # the centres' rate ends at this part of it
    scale_rate: float = 5e-3  # learning rate of log-scales
    quaternion_rate: float = 1e-3  # learning rate of rotations
    opacity_rate: float = 5e-2  # learning rate of opacities, before the sigmoid
    color_rate: float = 2.5e-3  # learning rate of colours; of what depends on the view a twentieth
    antialiased: bool = False  # opacities follow the size on the image (Mip-Splatting)
    max_alpha: float = 0.99  # ceiling of a Gaussian's alpha
    near: float = 0.01  # nothing nearer to a camera is seen, in scene units
    densify: densify.Config = field(default_factory=densify.Config)  # when a Gaussian is doubled or removed


@dataclass
class Model:
    """A trained or trainable run. gaussians: in scene coordinates. transform: world to scene. background: "white" or
    "black", behind renders."""

    config: Config
    gaussians: GaussianScene
    cascades: int
    transform: SceneTransform
    background: str

    @property
    def device(self) -> torch.device:
        """Where the Gaussians are: the CPU."""
        return self.gaussians.means.device

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
        """Renders a view of `cameras` (in scene coordinates) on the model's background, or on `background` [3]."""
        background = torch.full((3,), BACKGROUNDS[self.background]) if background is None else background
        camera = Camera.of(cameras, view, near=self.config.near)
        options = {"antialiased": self.config.antialiased, "max_alpha": self.config.max_alpha}
        with torch.no_grad():
            image = see(self.gaussians, camera, background, depth=True, **options).image
        depth = image.color[..., 3] * along_rays(cameras, view)
        return View(image.color[..., :3].contiguous(), image.alpha, depth)


def build(
    config: Config, *, cascades: int, transform: SceneTransform, background: str, seed: int = 0, device="cpu"
) -> Model:
    """A model without Gaussians yet: `Training` makes the first, `load` those of a checkpoint. device: the CPU."""
    shapes = {name: (*rows, 0) for name, rows in ROWS.items()} | {"rest": (rest_rows(config.sh_degree), 0)}
    empty = GaussianScene(**{name: torch.zeros(shape) for name, shape in shapes.items()})
    return Model(config, empty, cascades, transform, background)


@dataclass(frozen=True)
class StepResult:
    """Figures of one step: the loss, and the mean squared error of the view."""

    loss: float
    squared_error: float


class Training:
    """The state of training besides the model. `memory`: see ngp.Training; views are read from disk as they come."""

    def __init__(self, model: Model, scene: Scene, seed: int, memory: int | None = None):
        self.model, self.scene, self.seed = model, scene, seed
        self.step, self.seconds, self.resets = 0, 0.0, 0
        self.stages, self._recent = Stages(), []
        config, cameras = model.config, scene.train.cameras
        self.cameras = {level: cameras if level == 1 else cameras.scaled(1 / level) for level in (1, 2, 4)}
        for view in range(len(cameras)):
            Camera.of(cameras, view)  # refuses lenses that cannot be used before anything is written
        centers = cameras.camera_to_world[:, :3, 3]
        self.size = 1.1 * float((centers - centers.mean(0)).norm(dim=1).max().clamp_min(1e-3))
        generator = torch.Generator().manual_seed(seed)
        count = min(config.initial_gaussians, config.max_gaussians)
        if scene.points is not None and len(scene.points.position):
            model.gaussians = initial.from_points(scene.points, config.max_gaussians, config.sh_degree, generator)
        else:
            model.gaussians = initial.at_random(count, scene.cascades, config.sh_degree, generator)
        self.adam = GaussianAdam(model.gaussians)
        self.statistics = densify.Statistics(len(model.gaussians))

    def save(self, folder: RunFolder) -> None:
        """Writes the checkpoint: the model, and what training needs to continue bit for bit."""
        counts = {"step": self.step, "seconds": self.seconds, "resets": self.resets, "adam_steps": self.adam.steps}
        tensors = {f"gaussians.{k}": v for k, v in self.model.gaussians.tensors().items()}
        tensors |= {f"adam.{k}": v for k, v in self.adam.tensors().items()}
        tensors |= {"statistics.gradient": self.statistics.gradient, "statistics.views": self.statistics.views}
        save_checkpoint(folder.checkpoint_path, tensors, {k: repr(v) for k, v in counts.items()})

    def load(self, folder: RunFolder) -> None:
        """Continues from the checkpoint of `folder`. Raises `BadInput` where it does not fit."""
        path = folder.checkpoint_path
        tensors, metadata = load_checkpoint(path)
        self.model.gaussians = gaussians = _gaussians(path, tensors, self.model.config)
        moments = {k: x for kind in "mv" for n, x in gaussians.tensors().items() for k in [f"{kind}.{n}"]}
        found = {k: _tensor(path, tensors, f"adam.{k}", like.shape) for k, like in moments.items()}
        self.statistics = densify.Statistics(len(gaussians))
        for name in ("gradient", "views"):
            setattr(self.statistics, name, _tensor(path, tensors, f"statistics.{name}", (len(gaussians),)))
        try:
            self.adam.load(found, int(metadata["adam_steps"]))
            self.step, self.resets = int(metadata["step"]), int(metadata["resets"])
            self.seconds = float(metadata["seconds"])
        except (KeyError, ValueError) as error:
            raise BadInput(f"{path}: its counts are missing or no numbers: {error}") from None

    def count(self, result: StepResult, seconds: float) -> None:
        """Adds a step to the figures."""
        self.seconds += seconds
        self._recent.append((seconds, result))

    def log(self, folder: RunFolder) -> dict:
        """Appends the figures since the last call to metrics.jsonl, and returns them."""
        recent, self._recent = self._recent, []
        error = sum(r.squared_error for _, r in recent) / len(recent)
        figures = {
            "seconds": round(self.seconds, 4),
            "loss": sum(r.loss for _, r in recent) / len(recent),
            "psnr": -10 * math.log10(max(error, 1e-10)),
            "seconds_per_step": sum(s for s, _ in recent) / len(recent),
            "gaussians": len(self.model.gaussians),
        }
        folder.append_metrics(step=self.step, **figures)
        return figures

    def figures(self) -> dict:
        """Figures of the whole training."""
        gaussians = self.model.gaussians
        per_gaussian = sum(v.numel() // max(len(gaussians), 1) for v in gaussians.tensors().values())
        return {
            "gaussians": len(gaussians),
            "parameters": per_gaussian * len(gaussians),
            "state_mb": 3 * 4 * per_gaussian * len(gaussians) / 1e6,  # parameters and two moments
            "seconds_per_step": self.seconds / max(self.step, 1),
        }


def train_step(training: Training, progress: float) -> StepResult:
    """One step; `progress` in [0, 1] is the part of the budget used.

    Raises `FloatingPointError`, with the model as before the step, when the loss or a gradient is not finite.
    """
    config, stages = training.model.config, training.stages
    with stages("pixels"):
        view, level = _next_view(training), image_level(config, progress)
        background = _background(training)
        camera = Camera.of(training.cameras[level], view, near=config.near)
        target = _target(training, view, background, (camera.height, camera.width))
    with stages("forward"):
        leaves = _leaves(training.model.gaussians, sh_degree(config, progress))
        options = {"antialiased": config.antialiased, "max_alpha": config.max_alpha}
        seen = see(leaves, camera, background, **options)
        seen.projected.mean2d.retain_grad()
        image = seen.image.color
        kept = training.scene.train.images.kept(view) if level == 1 else None
        if kept is not None:  # ignored pixels count as right
            target = torch.where(kept[..., None], target, image.detach())
        loss = image_loss(image, target, config.ssim_weight)
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {training.step} is {value}")
    with stages("backward"):
        loss.backward()
    with stages("optimiser"):
        grads = {name: leaf.grad for name, leaf in leaves.tensors().items()}
        if not all(bool(grad.isfinite().all()) for grad in (grads["means"], grads["opacity_logits"])):
            raise FloatingPointError(f"a gradient of step {training.step} is not finite")
        training.statistics.add(seen.projected.mean2d.grad, seen.projected.radius, camera.width, camera.height)
        training.adam.step(training.model.gaussians, grads, _rates(training, progress))
        squared = float((image.detach() - target).square_().mean())
    training.step += 1
    with stages("refine"):
        if progress < config.refine_until:
            _refine(training)
    return StepResult(value, squared)


def image_level(config: Config, progress: float) -> int:
    """By how much images are smaller than they are: 4, 2, 1."""
    return 4 if progress < config.coarse / 3 else 2 if progress < config.coarse else 1


def sh_degree(config: Config, progress: float) -> int:
    """The degree of the colours: a step more with each part of the first half of the budget."""
    return min(int(2 * progress * (config.sh_degree + 1)), config.sh_degree)


def _next_view(training: Training) -> int:
    """Every view once per round, in a new random order each time."""
    views = len(training.scene.train)
    seed = stream(training.seed, _ORDER, training.step // views)
    return int(torch.randperm(views, generator=torch.Generator().manual_seed(seed))[training.step % views])


def _background(training: Training) -> Tensor:
    """[3]. Images without alpha have a background of their own: behind them is black, or what is asked for."""
    name, scene = training.model.config.background, training.scene
    if name == "random" and scene.has_alpha:
        seed = stream(training.seed, _BACKGROUND, training.step)
        return torch.rand(3, generator=torch.Generator().manual_seed(seed))
    return torch.full((3,), BACKGROUNDS[scene.background if name == "random" else name])


def _target(training: Training, view: int, background: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W, 3], the photograph on the background, averaged down to `size`."""
    image = training.scene.train.images.composited(view, background)
    if image.shape[:2] == size:
        return image
    planes = image.permute(2, 0, 1)[None]
    return torch.nn.functional.adaptive_avg_pool2d(planes, size)[0].permute(1, 2, 0).contiguous()


def _leaves(gaussians: GaussianScene, degree: int) -> GaussianScene:
    """The parameters as leaves of this step's graph; of the colours those up to `degree`."""
    active = dataclasses.replace(gaussians, rest=gaussians.rest[: rest_rows(degree)])
    return active.map(lambda value: value.detach().requires_grad_())


def _rates(training: Training, progress: float) -> dict[str, float]:
    config = training.model.config
    return {
        "means": config.mean_rate * training.size * config.final_rate**progress,
        "quaternions": config.quaternion_rate,
        "log_scales": config.scale_rate,
        "opacity_logits": config.opacity_rate,
        "base": config.color_rate,
        "rest": config.color_rate / 20,
    }


def _refine(training: Training) -> None:
    """Adds and removes Gaussians where it is time for that, and resets their opacities."""
    config, model, step = training.model.config, training.model, training.step
    if step % config.refine_interval == 0 and step >= 5 * config.refine_interval:
        generator = torch.Generator().manual_seed(stream(training.seed, _REFINE, step))
        limits = {"most": config.max_gaussians, "size": training.size, "prune_large": training.resets > 0}
        state = model.gaussians, training.adam, training.statistics, config.densify
        model.gaussians = densify.refine(*state, **limits, generator=generator)
        training.statistics = densify.Statistics(len(model.gaussians))
        if len(model.gaussians) == config.max_gaussians:
            warn(f"the Gaussians have reached --splat.max-gaussians {config.max_gaussians}: no more are added")
    if step % config.reset_interval == 0:
        training.resets += 1
        densify.reset_opacity(model.gaussians, training.adam, config.densify)


def report_background(config: Config, scene: Scene) -> str:
    """The background that renders and figures have: the trained one, or the scene's where that is random."""
    return scene.background if config.background == "random" else config.background


def check(config: Config) -> None:
    """Raises `BadInput` for options that are out of range."""
    rates = ("mean_rate", "final_rate", "scale_rate", "quaternion_rate", "opacity_rate", "color_rate", "near")
    rules = [
        ("max_gaussians", 1 <= config.max_gaussians <= 1 << 27, "from 1 to 2^27"),
        ("initial_gaussians", config.initial_gaussians >= 1, "at least 1"),
        ("sh_degree", 0 <= config.sh_degree <= 4, "from 0 to 4"),
        ("background", config.background in ("random", *BACKGROUNDS), "random, white or black"),
        ("coarse", 0 <= config.coarse <= 1, "from 0 to 1"),
        ("refine_until", 0 <= config.refine_until <= 1, "from 0 to 1"),
        ("refine_interval", config.refine_interval >= 1, "at least 1"),
        ("reset_interval", config.reset_interval >= 1, "at least 1"),
        ("ssim_weight", 0 <= config.ssim_weight <= 1, "from 0 to 1"),
        ("max_alpha", 0 < config.max_alpha < 1, "above 0 and below 1"),
        *((name, 0 < getattr(config, name) < math.inf, "positive") for name in rates),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise BadInput(f"--splat.{name.replace('_', '-')} is {getattr(config, name)}; the rule: {rule}")
    for each in dataclasses.fields(config.densify):
        value = getattr(config.densify, each.name)
        if not 0 < value < math.inf:
            raise BadInput(f"--splat.densify.{each.name.replace('_', '-')} is {value}; the rule: positive")


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    from .ngp import typed_options

    options = values.get("splat")
    if values.get("app") != "splat" or not isinstance(options, dict):
        raise BadInput("config.json holds no options of the method splat; the rule: a run of that method")
    options = dict(options)
    growth = typed_options(densify.Config, options.pop("densify", None))
    config = typed_options(Config, options, densify=growth)
    check(config)
    return config


def load(run: str | Path) -> Model:
    """The model of a run folder, ready to render. Raises `BadInput` for what is no whole run."""
    from .ngp import scene_from

    folder = RunFolder.open(run)
    model = build(config_from(folder.read_config()), **scene_from(folder))
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    model.gaussians = _gaussians(folder.checkpoint_path, tensors, model.config)
    return model


def _gaussians(path: Path, tensors: dict[str, Tensor], config: Config) -> GaussianScene:
    logits = tensors.get("gaussians.opacity_logits")
    count = logits.shape[0] if logits is not None and logits.ndim == 1 else 0
    shapes = {name: (*rows, count) for name, rows in ROWS.items()} | {"rest": (rest_rows(config.sh_degree), count)}
    return GaussianScene(**{k: _tensor(path, tensors, f"gaussians.{k}", shape) for k, shape in shapes.items()})


def _tensor(path: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    value = tensors.get(name)
    if value is None or value.shape != tuple(shape) or value.dtype != torch.float32:
        what = "is missing" if value is None else f"is {value.dtype} {list(value.shape)}"
        raise BadInput(f"{path}: {name} {what}; the rule: torch.float32 {list(shape)}")
    return value
