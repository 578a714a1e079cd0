"""3D Gaussian splatting (Kerbl et al. 2023): `build` makes a model, `train_step` is one step of the loop in `train.py`.

Each step renders one training view whole. The budget's progress sets resolution (a quarter, a half, then all), degree
of the colours' spherical harmonics, learning rate of the centres, and until when Gaussians are added. The options are
in `config.py`, a step in `step.py`, the state of training in `training.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ... import backend
from ...cameras import Cameras
from ...gaussians.scene import ROWS, GaussianScene, see
from ...gaussians.stored import stored_gaussians
from ...geometry import SceneTransform
from ...renderers.gaussian_camera import Camera, along_rays
from ...renderers.gaussian_color import rest_rows
from ...renderers.volume import View
from ...training.checkpoint import load_checkpoint
from ...training.run_folder import RunFolder
from ..run_files import BACKGROUNDS, scene_from
from . import gut
from .config import Config, check, config_from, report_background
from .step import train_step
from .tracing import TracedModel
from .training import StepResult, Training

__all__ = ["Config", "Model", "StepResult", "Training", "build", "check", "config_from", "load", "report_background"]
__all__ += ["train_step", "with_renderer"]

SHOWN = ("gaussians", "psnr")  # figures beside the progress bar
RATE = "--splat.mean-rate"
#: what --resume may be given anew: a rasterised scene goes on by tracing
CHANGED_ON_RESUME = ("renderer", "rays")


@dataclass
class Model:
    """A trained or trainable run. gaussians: in scene coordinates. transform: world to scene. background: "white" or
    "black", behind renders."""

    config: Config
    gaussians: GaussianScene
    cascades: int
    transform: SceneTransform
    background: str

    #: what it can be compared on with another teacher or student (distillation/comparing.py), and the channels of each
    comparable = {"rendered": 3}

    @property
    def device(self) -> torch.device:
        """Where the Gaussians are."""
        return self.gaussians.means.device

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
        """Renders a view of `cameras` (in scene coordinates) on the model's background, or on `background` [3], on the
        model's device."""
        if self.config.renderer == "trace":
            return TracedModel(self).render_view(cameras, view, background)
        if self.config.renderer in gut.BUFFERS:
            return gut.render_view(self, cameras, view, background)
        device = self.device
        background = torch.full((3,), BACKGROUNDS[self.background], device=device) if background is None else background
        cameras, background = cameras.to(device), background.to(device)
        camera = Camera.of(cameras, view, near=self.config.near)
        options = {"antialiased": self.config.antialiased, "max_alpha": self.config.max_alpha}
        with torch.no_grad():
            image = see(self.gaussians, camera, background, depth=True, **options).image
        depth = image.color[..., 3] / image.alpha.clamp_min(1e-6) * along_rays(cameras, view)
        return View(image.color[..., :3].contiguous(), image.alpha, depth)


def with_renderer(model: Model, renderer: str) -> Model | TracedModel:
    """`model` as another of `config.RENDERERS` draws it. Tracing makes its tree here, once for all views."""
    if renderer == "trace":
        return TracedModel(model)
    return replace(model, config=replace(model.config, renderer=renderer, rays=0))


def build(
    config: Config, *, cascades: int, transform: SceneTransform, background: str, seed: int = 0, device="cpu"
) -> Model:
    """A model without Gaussians yet, on `device`: the first step makes the first, `load` those of a checkpoint."""
    shapes = {name: (*rows, 0) for name, rows in ROWS.items()} | {"rest": (rest_rows(config.sh_degree), 0)}
    empty = GaussianScene(**{name: torch.zeros(shape, device=device) for name, shape in shapes.items()})
    return Model(config, empty, cascades, transform, background)


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a run folder, ready to render on `device` ("auto": a GPU where there is one). Raises `BadInput` for
    what is no whole run, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    model = build(config_from(folder.read_config()), **scene_from(folder), device=backend.device(device)[0])
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    model.gaussians = stored_gaussians(folder.checkpoint_path, tensors, model.config.sh_degree).to(model.device)
    return model
