"""The model of the method `neus2`: what is trained, rendered and saved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...cameras import Cameras
from ...encodings import hash_grid, registry
from ...errors import BadInput
from ...fields import neural_surface, radiance, surface_passes
from ...fields.neural_surface import NeuralSurface
from ...geometry import SceneTransform
from ...renderers import surface_volume, volume
from ...sampling import occupancy, occupancy_reference
from ..run_files import BACKGROUNDS
from .config import Config

VANISHED = (
    "the surface vanished: no ray meets it. What to try: a larger --neus2.radius (is the object larger than the first "
    "sphere?), a smaller --neus2.learning-rate; and look at the capture with `radfield data inspect`: the object must "
    "be inside the unit cube"
)
POINTS_PER_CALL = 1 << 17
#: a cell counts as near as its middle is, less this: half of a cell's diagonal, in cells
_REACH = 0.5 * math.sqrt(3)
_UNSEEN = 0.9  # the unknown part of the cells around where a surface ends
_STEEP = 11.0  # cells, over which that part falls by 1 there


@dataclass
class Model:
    """A trained or trainable run.

    field: the surface, in the unit cube of scene coordinates. outside: a radiance field of what is around it, or None.
    grid: where there is something. transform: world to scene. background: "white" or "black", behind renders.
    """

    config: Config
    field: NeuralSurface
    outside: radiance.RadianceField | None
    grid: occupancy.OccupancyGrid
    render: volume.Config
    transform: SceneTransform
    background: str

    empty = VANISHED  # what to say where a mesh has no triangles
    photographed = True  # what no camera sees of its surface is a guess

    @property
    def device(self) -> torch.device:
        """Where fields and grid are, and what is asked of them must be."""
        return self.grid.values.device

    @property
    def cascades(self) -> int:
        """How many nested cubes hold the scene."""
        return self.grid.config.cascades

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """(low, high), [3] float64 each, of where the surface may be."""
        return torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)

    @torch.no_grad()
    def distance(self, x: Tensor) -> Tensor:
        """f [M], negative inside, at x [M, 3] in the unit cube, in scene units. The surface ends, and is closed, a cell
        before the cube's faces, and where nothing is known: no camera looks there, or masks say that it is empty. Then
        some cells is the most that f is below 0."""
        if not len(x):
            return x.new_empty(0)
        f = torch.cat([surface_passes.distance(self.field, part) for part in x.split(POINTS_PER_CALL)])
        side = 1 / self.grid.config.resolution
        f = f.maximum((x - 0.5).abs().amax(1) - (0.5 - side))
        return f if self._unseen is None else f.maximum(_at(self._unseen, x) * side)

    @cached_property
    def _unseen(self) -> Tensor | None:
        """[G, G, G], at the middles of the unit cube's cells: nearly the distance, in cells, from where the surface
        ends, positive where it is not. That is `_UNSEEN` of the way into what is unknown, averaged over the cells
        around, so that it is smooth and no thin part is cut off. None where all is known."""
        side = self.grid.config.resolution
        cells = (self.grid.values[: side**3] == occupancy.UNSEEN).nonzero()[:, 0]
        if not len(cells):
            return None
        _, place = occupancy_reference.coordinates_of(cells, side)
        unseen = torch.zeros(side, side, side, device=self.device)
        unseen[tuple(place.long().T)] = 1.0
        return (_averaged(_averaged(unseen)) - _UNSEEN) * _STEEP

    @torch.no_grad()
    def normals(self, x: Tensor) -> Tensor:
        """[M, 3]: the gradient of f, of length 1, at x [M, 3] in the unit cube."""
        parts = [surface_passes.geometry(self.field, part).normal.T for part in x.split(POINTS_PER_CALL)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1) if parts else x.new_empty(0, 3)

    @torch.no_grad()
    def color(self, x: Tensor, d: Tensor) -> Tensor:
        """rgb [M, 3], sRGB in [0, 1], at x [M, 3] in the unit cube, seen along unit directions d [M, 3]."""
        return surface_passes.forward(self.field, x, d).logits.T.sigmoid()

    @torch.no_grad()
    def density(self, x: Tensor) -> Tensor:
        """[M] at scene positions: of the surface the logistic density s Phi (1 - Phi) (NeuS2, sec. 3.4) at the nearest
        point that a cell of the occupancy grid around x has, so that no thin part falls between the points asked."""
        reach = _REACH / self.grid.config.resolution
        if self.outside is None:
            return self._logistic(x, reach)
        inside = ((x >= 0) & (x <= 1)).all(1)
        sigma = x.new_empty(len(x))
        sigma[inside] = self._logistic(x[inside], reach)
        sigma[~inside] = self.outside.density(x[~inside].contiguous())
        return sigma

    def _logistic(self, x: Tensor, reach: float) -> Tensor:
        s = self.field.sharpness
        near = (surface_passes.distance(self.field, x).abs() - reach).clamp_min(0) * s
        phi = near.neg().sigmoid()
        return s * phi * (1 - phi)

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> volume.View:
        """Renders a view of `cameras` (in scene coordinates) on the model's background, or on `background` [3], on the
        model's device."""
        white = torch.full((3,), BACKGROUNDS[self.background], device=self.device)
        background = white if background is None else background.to(self.device)
        given = self.field, self.outside, self.grid, cameras.to(self.device), view, background
        return surface_volume.render_view(*given, self.render)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model."""
        named = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        if self.outside is not None:
            named |= {f"outside.{k}": v for k, v in self.outside.state_dict().items()}
        return named | {f"grid.{k}": v for k, v in self.grid.state_dict().items()}


def build(
    config: Config, *, cascades: int, transform: SceneTransform, background: str, seed: int = 0, device="cpu"
) -> Model:
    """A fresh model on `device`, with the same parameters on any. Raises `BadInput` on options out of range."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ("levels", "features", "log2_size", "base_resolution", "finest_resolution")
    grid = registry.config_of(config.encoding, **{name: getattr(config, name) for name in sizes})
    options = {"radius": config.radius, "precision": config.precision, "color_grid": _color_grid(config)}
    surface = NeuralSurface(neural_surface.Config(grid=grid, **options), generator).to(device)
    outside = _outside(config, cascades, generator).to(device) if with_outside(config, cascades) else None
    cells = {"uniform_cells": config.uniform_cells, "occupied_cells": config.occupied_cells}
    # what a cell holds follows from one question, nearly: an old answer is soon forgotten
    grid = occupancy.OccupancyGrid(occupancy.Config(cascades=cascades, decay=0.3, threshold=0.002, **cells), device)
    render = volume.Config(cone=0.0 if cascades == 1 else 1 / 256, near=config.near)
    return Model(config, surface, outside, grid, render, transform, background)


def _color_grid(config: Config) -> hash_grid.Config | None:
    if not config.color_levels:
        return None
    sizes = {"levels": config.color_levels, "features": config.features, "log2_size": config.log2_size}
    ends = {"base_resolution": config.color_base_resolution, "finest_resolution": config.color_finest_resolution}
    return registry.config_of("hash", **sizes, **ends)


def _averaged(values: Tensor) -> Tensor:
    """The mean of values [G, G, G] over 5^3 cells; those at the ends stand for what is beyond them."""
    padded = torch.nn.functional.pad(values[None, None], (2,) * 6, mode="replicate")
    return torch.nn.functional.avg_pool3d(padded, 5, stride=1)[0, 0]


def _at(values: Tensor, x: Tensor) -> Tensor:
    """[M]: values [G, G, G] at the middles of cells, x first, interpolated at x [M, 3] in the unit cube."""
    grid = (2 * x.flip(1) - 1)[None, None, None]  # grid_sample has the last axis first
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}
    return torch.nn.functional.grid_sample(values[None, None], grid.to(values.dtype), **options)[0, 0, 0, 0]


def with_outside(config: Config, cascades: int) -> bool:
    """Whether there is a field around the unit cube: where the scene has room for one."""
    if config.outside == "field" and cascades == 1:
        raise BadInput(
            "--neus2.outside is field; the rule: none or auto where all of the scene is in the unit cube, as with masks"
        )
    return cascades > 1 and config.outside != "none"


def _outside(config: Config, cascades: int, generator: torch.Generator) -> radiance.RadianceField:
    finest = 512 * 2 ** (cascades - 1)
    growth = (finest / 16) ** (1 / 7)
    grid = hash_grid.Config(levels=8, features=4, log2_size=16, base_resolution=16, growth=growth)
    return radiance.RadianceField(radiance.Config(grid=grid, precision=config.precision), cascades, generator)
