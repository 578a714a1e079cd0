"""Options of the method `neus2`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...data.scene import Scene
from ...errors import BadInput
from ...fields.neural_surface import ENCODINGS
from ..run_files import BACKGROUNDS, later, typed_options


@dataclass(frozen=True)
class Config:
    """The method's options."""

    encoding: str = "hash"  # of positions: hash, simplex, permutohedral or tiled
    levels: int = 8  # levels of the encoding
    features: int = 4  # features per level: 1, 2, 4 or 8
    log2_size: int = 18  # log2 of the entries of a hashed level
    base_resolution: int = 16  # resolution of the coarsest level
    finest_resolution: int = 1024  # resolution of the finest level across the scene
    # levels of a hash grid that the colour has for itself, with features and entries as the other's; 0: none. What
    # the surface shows then need not pass through what its shape is made of
    color_levels: int = later(5, before=0)
    color_base_resolution: int = later(64)  # resolution of its coarsest level
    color_finest_resolution: int = later(1024)  # resolution of its finest level
    color_rate: float = later(3.0, before=1.0)  # learning rate of that grid, in parts of learning-rate
    radius: float = 0.2  # of the sphere that training starts from, in parts of the scene's side
    precision: str = "bf16"  # "f32" computes in 32 bits throughout
    learning_rate: float = 1e-2  # of grid, networks and sharpness at the start
    final_rate: float = 0.1  # the learning rate ends at this part of it
    network_l2: float = 1e-6  # weight decay of the networks
    batch_samples: int = 1 << 16  # samples trained per step; the number of rays adapts
    background: str = "random"  # behind training rays: random, white or black
    outside: str = "auto"  # what is behind and around the object: auto: a radiance field without masks; field or none
    eikonal: float = 0.0003  # weight of (|gradient| - 1)^2, per sample
    mask: float = 0.0  # weight of the cross-entropy of opacity and mask, where images have alpha
    anneal: float = 0.0  # part of the budget in which the cosine is annealed (NeuS); 0: not at all, as NeuS2
    sharpen: float = 0.1  # part of the budget in which the sharpness stays low enough for parts still to be found
    cells_per_pixel: float = later(1.0, before=1e6)  # levels finer than this, where the object is, are not trained
    first_levels: float = 0.4  # part of the levels that are trained at first
    all_levels: float = 0.1  # part of the budget after which all are
    # at 0.9 of the budget the sharpness is at least this, in pixels of the photographs per scene unit; 0: as learned
    final_sharpness: float = 1.0
    step_width: float = 2.0  # length of training steps along rays, in 1 / sharpness; never shorter than render steps
    coarse_step: float = 12.0  # and at most so many times longer than these
    least_weight: float = 5e-3  # samples that are less of their ray's colour are not trained
    neighbours: float = 0.1  # so many samples, in parts of the batch, are compared with a point next to them
    curvature: float = 0.0005  # weight of the difference of the normals there, once the surface is found
    around: float = 0.05  # so many points of all space, in parts of the batch, are held to |gradient| = 1
    visual_hull: bool = later(True, before=False)  # leave out for ever what masks say is empty
    area: float = later(0.001, before=0.0)  # weight of the surface's area, which decides where no photograph looks
    near: float = 0.0  # nothing nearer to a camera is seen or trained, in scene units
    occupancy_interval: int = 16  # steps between two updates of the occupancy grid
    uniform_cells: int = 1 << 17  # cells evaluated per update of the occupancy grid, taking turns over all cells
    occupied_cells: int = 1 << 15  # and at random among the occupied ones


def report_background(config: Config, scene: Scene) -> str:
    """The background that renders and figures have: the trained one, or the scene's where that is random."""
    return scene.background if config.background == "random" else config.background


def check(config: Config) -> None:
    """Raises `BadInput` for options of the method that are out of range."""
    if config.encoding not in ENCODINGS:
        raise BadInput(
            f"--neus2.encoding is {config.encoding!r}; the rule: one with second derivatives, which normals need: "
            f"{', '.join(ENCODINGS)}"
        )
    rules = [
        ("levels", 1 <= config.levels <= 32, "from 1 to 32"),
        ("base_resolution", config.base_resolution >= 1, "at least 1"),
        ("finest_resolution", config.finest_resolution >= config.base_resolution, "at least base-resolution"),
        ("radius", 0.01 <= config.radius <= 0.5, "from 0.01 to 0.5"),
        ("precision", config.precision in ("f32", "bf16"), "f32 or bf16"),
        ("learning_rate", 0 < config.learning_rate < math.inf, "positive"),
        ("final_rate", 0 < config.final_rate < math.inf, "positive"),
        ("network_l2", 0 <= config.network_l2 < math.inf, "not negative"),
        ("batch_samples", 1 << 8 <= config.batch_samples <= 1 << 22, "from 2^8 to 2^22"),
        ("background", config.background in ("random", *BACKGROUNDS), "random, white or black"),
        ("outside", config.outside in ("auto", "field", "none"), "auto, field or none"),
        ("eikonal", 0 <= config.eikonal < math.inf, "not negative"),
        ("mask", 0 <= config.mask < math.inf, "not negative"),
        ("anneal", 0 <= config.anneal <= 1, "from 0 to 1"),
        ("sharpen", 0 <= config.sharpen <= 1, "from 0 to 1"),
        ("first_levels", 0 < config.first_levels <= 1, "above 0, at most 1"),
        ("all_levels", 0 <= config.all_levels <= 1, "from 0 to 1"),
        ("final_sharpness", 0 <= config.final_sharpness <= 100, "from 0 to 100"),
        ("cells_per_pixel", 0 < config.cells_per_pixel < math.inf, "positive"),
        ("step_width", 0 < config.step_width < math.inf, "positive"),
        ("coarse_step", 1 <= config.coarse_step <= 64, "from 1 to 64"),
        ("least_weight", 0 <= config.least_weight < 0.1, "from 0 to less than 0.1"),
        ("neighbours", 0 <= config.neighbours <= 1, "from 0 to 1"),
        ("curvature", 0 <= config.curvature < math.inf, "not negative"),
        ("around", 0 <= config.around <= 1, "from 0 to 1"),
        ("area", 0 <= config.area < math.inf, "not negative"),
        ("color_levels", 0 <= config.color_levels <= 32, "from 0 to 32"),
        ("color_base_resolution", config.color_base_resolution >= 1, "at least 1"),
        (
            "color_finest_resolution",
            config.color_finest_resolution >= config.color_base_resolution,
            "at least color-base-resolution",
        ),
        ("color_rate", 0 < config.color_rate < math.inf, "positive"),
        ("near", 0 <= config.near < math.inf, "not negative"),
        ("occupancy_interval", config.occupancy_interval >= 1, "at least 1"),
        ("uniform_cells", config.uniform_cells >= 0, "not negative"),
        ("occupied_cells", config.occupied_cells >= 0, "not negative"),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise BadInput(f"--neus2.{name.replace('_', '-')} is {getattr(config, name)}; the rule: {rule}")


def config_from(values: dict) -> Config:
    """The method's options in a run's config.json. Raises `BadInput` where they are none."""
    if values.get("app") != "neus2":
        raise BadInput("config.json holds no options of the method neus2; the rule: a run that `radfield train` made")
    config = typed_options(Config, values.get("neus2"))
    check(config)
    return config
