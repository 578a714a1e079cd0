"""Fusion: a teacher of two, the geometry of one field and the colours of another, asked at the same points.

    sigma(x) = sigma_1(x),   rgb(x, d) = rgb_2(y(x), R d),   y = a R x + b between their scene boxes (alignment.py)

Letter: M samples.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import BadInput
from ..sampling import occupancy_reference
from .alignment import Moved, between
from .rendered import drawn


class Fused(torch.nn.Module):
    """What a renderer asks of a field: the geometry of `shape`, the colours of `paint`, in the coordinates of `shape`.
    Its features are the positions, since colours are asked for where samples are."""

    networks = ()
    comparable = {"density": 1, "color": 3, "rendered": 3}

    def __init__(self, shape: torch.nn.Module, paint: torch.nn.Module):
        super().__init__()
        self.shape, self.paint, self.cascades = shape, paint, shape.cascades

    def density(self, x: Tensor) -> Tensor:
        """sigma [M] at x [M, 3]."""
        return self.shape.density(x)

    def color(self, x: Tensor, d: Tensor) -> Tensor:
        """rgb [M, 3] in [0, 1] at x [M, 3] along unit directions d [M, 3]."""
        return self.color_logits(x, d).sigmoid()

    def encode(self, x: Tensor) -> Tensor:
        """That of `shape`."""
        return self.shape.encode(x)

    def geometry(self, x: Tensor, encoded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The density's logit [M] of `shape`, and x."""
        return self.shape.geometry(x, encoded)[0], x

    def color_logits(self, features: Tensor, d: Tensor) -> Tensor:
        """Logits [M, 3] of the colour of `paint` at positions `features` [M, 3]."""
        return self.paint.color_logits(self.paint.geometry(features)[1], d)


def fused(shape, paint):
    """The model `shape` with the colours of the model `paint`. Raises `BadInput` where one of them has no density or no
    colour at points."""
    for model in (shape, paint):
        if not {"density", "color"} <= getattr(getattr(model, "field", None), "comparable", {}).keys():
            raise BadInput("geometry and colour are of runs one of which has no field; the rule: two radiance fields")
    same = shape.transform == paint.transform and shape.cascades == paint.cascades
    moved = paint.field if same else Moved(paint.field, between(shape.transform, paint.transform))
    return dataclasses.replace(shape, field=Fused(shape.field, moved))


def known_colors(shape, paint, sampler) -> float:
    """The part of what is seen of the model `shape` that lies where the model `paint` is not empty, or next to it:
    elsewhere its colours are guesses. 1 where nothing is seen."""
    place, known, count = between(shape.transform, paint.transform), 0, 0
    cameras = drawn(sampler, 4, 48)
    for i in range(len(cameras)):
        view = shape.render_view(cameras, i).cpu()
        rays, hit = cameras.image_rays(i), view.opacity.reshape(-1) > 0.5
        x = place.points((rays.origins + view.depth.reshape(-1, 1) * rays.directions)[hit])
        known, count = known + int(_occupied_near(paint.grid, x).sum()), count + len(x)
    return known / count if count else 1.0


def _occupied_near(grid, x: Tensor) -> Tensor:
    """[M] bool: whether a cell within one of that of x [M, 3], in its finest cascade, is occupied."""
    n, cascades = grid.config.resolution, grid.config.cascades
    bits = occupancy_reference.unpack(grid.bitfield.cpu())
    inside = (x - 0.5).abs().amax(1) < 0.5 * 2 ** (cascades - 1)
    found, x = torch.zeros(len(x), dtype=torch.bool), x[inside]
    cascade = occupancy_reference.finest_cascade(x, cascades)
    side = (2.0**cascade / n)[:, None]
    for step in torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3):
        cell = occupancy_reference.cell_of(x + step * side, cascade, n)
        found[inside] |= bits[cell.long()]
    return found
