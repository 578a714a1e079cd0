"""Options of the method `ngp`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
import tyro
from torch import Tensor

from ...data.scene import Scene
from ...encodings import registry
from ...errors import BadInput
from ...training import per_image
from ..run_files import BACKGROUNDS, later, options_of_group, typed_options


@dataclass(frozen=True)
class Config:
    """The method's options."""

    encoding: Annotated[str, tyro.conf.arg(prefix_name=False)] = later("hash")  # of positions: encodings/registry.py
    saliency: Annotated[bool, tyro.conf.arg(prefix_name=False)] = later(False)  # a learned mask over the encoding
    levels: int = 8  # levels of the encoding
    features: int = 4  # features per level: 1, 2, 4 or 8
    log2_size: int = 18  # log2 of the entries of a hashed level
    base_resolution: int = 16  # resolution of the coarsest level
    finest_resolution: int = 2048  # resolution of the finest level per unit of scene length
    precision: str = "bf16"  # "f32" computes in 32 bits throughout; "f16", on a GPU alone, has 3 bits more than "bf16"
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


def background_color(name: str, device: torch.device) -> Tensor:
    """[3] of "white" or "black"."""
    return torch.full((3,), BACKGROUNDS[name], device=device)


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
        ("precision", config.precision in ("f32", "bf16", "f16"), "f32, bf16 or f16"),
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
    options = dict(options)
    config = typed_options(Config, options, per_image=options_of_group(per_image.Config, options, "per_image"))
    check(config)
    return config
