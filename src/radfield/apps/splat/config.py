"""The options of 3D Gaussian splatting: their defaults, their rules, and how a run keeps them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from ...data.scene import Scene
from ...errors import BadInput
from ...gaussians import densify, mcmc
from ...training import per_image
from ..run_files import BACKGROUNDS, later, options_of_group, typed_options

_POSITIVE = ("mean_rate", "final_rate", "scale_rate", "quaternion_rate", "opacity_rate", "color_rate", "near")
_POSITIVE += ("exposure_rate", "camera_rate")
MOST_RAYS = 1 << 22
RENDERERS = ("raster", "trace", "3dgut", "3dgut-sorted")


@dataclass(frozen=True)
class Config:
    """The method's options."""

    # how views are drawn, in training and afterwards: by rasterising; by tracing rays, which is slower, takes any lens
    # as it is (the whole sphere, too) and has no blur of its own; or, on a CPU, by rasterising what rays meet (3DGUT),
    # in the order of the centres or sorted for each ray: any lens but the whole sphere, and no blur either
    renderer: Literal["raster", "trace", "3dgut", "3dgut-sorted"] = later("raster")
    # traced rays per step, of random pixels of all training views, compared without SSIM; 0: all pixels of one view
    rays: int = later(0)
    max_gaussians: int = 300_000  # never more
    memory_gb: float = later(0.0)  # of memory for training Gaussians, never more; 0: 0.4 of the machine's
    # where the first Gaussians are: at the capture's sparse points, on the surfaces that a short NeRF finds, or
    # anywhere; auto: at the points where there are at least 1000, else nerf
    initial: Literal["auto", "points", "nerf", "random"] = later("auto")
    initial_gaussians: int = 50_000  # how many to begin with; of sparse points as many as there are
    nerf_steps: int = later(200)  # steps of the short NeRF
    densification: Literal["default", "mcmc"] = later("default")  # how Gaussians are added and removed
    sh_degree: int = 3  # of the view-dependent colours, 0 to 4; rises in steps over the first part of the budget
    sh_rise: float = later(0.5)  # that part
    background: str = "random"  # behind training views: random, white or black
    coarse: float = 0.3  # until this part of the budget images are smaller: a quarter of the side, then half of it
    refine_until: float = 0.6  # until this part of the budget Gaussians are added and removed
    refine_interval: int = 100  # steps between two refinements
    reset_interval: int = 3000  # steps between two resets of all opacities while Gaussians are added (default alone)
    ssim_weight: float = 0.2  # of 1 - SSIM in the loss; the rest is of the absolute difference
    mean_rate: float = 1.6e-4  # learning rate of centres, in units of the scene's size
    final_rate: float = 0.01  # the centres' rate ends at this part of it
    scale_rate: float = 5e-3  # learning rate of log-scales
    quaternion_rate: float = 1e-3  # learning rate of rotations
    opacity_rate: float = 5e-2  # learning rate of opacities, before the sigmoid
    color_rate: float = 2.5e-3  # learning rate of colours; of what depends on the view a twentieth
    # weight of the loss by which Gaussians turn like their neighbours on a grid, once their number is fixed, so that a
    # .sog file of them is smaller, by about a twentieth at a cost of 0.2 to 0.4 dB with 1; 0: none
    self_organise: float = later(0.0)
    # learn a gain per image and channel, for photographs exposed automatically
    exposure: bool = later(False)
    exposure_rate: float = later(3e-3)  # learning rate of the exposures' logarithms
    cameras: bool = later(False)  # refine the poses of the training views
    camera_rate: float = later(1e-3)  # learning rate of their turns (radians) and shifts (scene units)
    antialiased: bool = False  # opacities follow the size on the image (Mip-Splatting)
    max_alpha: float = 0.99  # ceiling of a Gaussian's alpha
    near: float = 0.01  # nothing nearer to a camera is seen, in scene units
    densify: densify.Config = field(default_factory=densify.Config)  # of the default densification
    mcmc: mcmc.Config = field(default_factory=mcmc.Config)  # of the densification mcmc

    @property
    def per_image(self) -> per_image.Config:
        """The corrections per image."""
        rates = {"exposure_rate": self.exposure_rate, "camera_rate": self.camera_rate}
        return per_image.Config(exposure=self.exposure, cameras=self.cameras, **rates)


def report_background(config: Config, scene: Scene) -> str:
    """The background that renders and figures have: the trained one, or the scene's where that is random."""
    return scene.background if config.background == "random" else config.background


def check(config: Config) -> None:
    """Raises `BadInput` for options that are out of range."""
    traced, along_rays = config.renderer == "trace", config.renderer != "raster"
    but = f"False where --splat.renderer is {config.renderer}"
    rules = [
        ("renderer", config.renderer in RENDERERS, f"one of {', '.join(RENDERERS)}"),
        ("antialiased", not (along_rays and config.antialiased), f"{but}, which has no blur"),
        ("cameras", not (along_rays and config.cameras), but),
        ("rays", config.rays == 0 or (traced and 0 < config.rays <= MOST_RAYS), "0, or up to 2^22 by renderer trace"),
        ("max_gaussians", 1 <= config.max_gaussians <= 1 << 27, "from 1 to 2^27"),
        ("memory_gb", 0 <= config.memory_gb < math.inf, "positive, or 0 for 0.4 of the machine's"),
        ("initial", config.initial in ("auto", "points", "nerf", "random"), "auto, points, nerf or random"),
        ("initial_gaussians", config.initial_gaussians >= 1, "at least 1"),
        ("nerf_steps", config.nerf_steps >= 1, "at least 1"),
        ("densification", config.densification in ("default", "mcmc"), "default or mcmc"),
        ("sh_degree", 0 <= config.sh_degree <= 4, "from 0 to 4"),
        ("sh_rise", 0 <= config.sh_rise <= 1, "from 0 to 1"),
        ("background", config.background in ("random", *BACKGROUNDS), "random, white or black"),
        ("coarse", 0 <= config.coarse <= 1, "from 0 to 1"),
        ("refine_until", 0 <= config.refine_until <= 1, "from 0 to 1"),
        ("refine_interval", config.refine_interval >= 1, "at least 1"),
        ("reset_interval", config.reset_interval >= 1, "at least 1"),
        ("ssim_weight", 0 <= config.ssim_weight <= 1, "from 0 to 1"),
        ("self_organise", 0 <= config.self_organise < math.inf, "positive, or 0 for none"),
        ("max_alpha", 0 < config.max_alpha < 1, "above 0 and below 1"),
        *((name, 0 < getattr(config, name) < math.inf, "positive") for name in _POSITIVE),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise BadInput(f"--splat.{name.replace('_', '-')} is {getattr(config, name)}; the rule: {rule}")
    for group in ("densify", "mcmc"):
        for each in dataclasses.fields(getattr(config, group)):
            value = getattr(getattr(config, group), each.name)
            if not 0 < value < math.inf:
                raise BadInput(f"--splat.{group}.{each.name.replace('_', '-')} is {value}; the rule: positive")


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    options = values.get("splat")
    if values.get("app") != "splat" or not isinstance(options, dict):
        raise BadInput("config.json holds no options of the method splat; the rule: a run of that method")
    options = dict(options)
    kinds = {"densify": densify.Config, "mcmc": mcmc.Config}
    groups = {name: options_of_group(kind, options, name) for name, kind in kinds.items()}
    config = typed_options(Config, options, **groups)
    check(config)
    return config
