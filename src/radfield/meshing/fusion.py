"""Pictures with depth fused into one surface (Curless and Levoy 1996, "A volumetric method for building complex models
from range images"): of whatever can be rendered, fields and Gaussians alike.

For a point x and a view with its centre o, eta = depth(pixel of x) - |x - o| is how far x is before what is seen. Views
in which eta > -TRUNCATION answer min(1, eta / TRUNCATION); a pixel that sees nothing answers 1: all of its
ray is free. The value of x is the mean of the answers, and not a number where no view answers; the surface is where it
is 0. Nothing is kept of the volume: marching cubes asks for the points it needs. Pixels on an edge, where depth jumps
and a mean of near and far is no place at all, answer nothing. Letters: V views, M points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras
from ..geometry import cascade_box
from ..renderers.volume import View
from ..sampling.occupancy_reference import finest_cascade
from .level_set import near_cells
from .marching_cubes import Lattice, marching_cubes
from .mesh import Mesh

TRUNCATION = 4  # cells of the lattice
OPAQUE = 0.5  # pixels with less opacity see nothing
JUMP = 0.05  # of the depth, between pixels beside one another, is an edge
CELLS = 128  # along a cube, of the cells that say where to look
_PER_CALL = 1 << 18


@dataclass(frozen=True)
class DepthViews:
    """What V cameras (in scene coordinates) see. depth: each [H, W] along the rays, inf where nothing is, NaN where
    that is not known; color: each [H, W, 3] sRGB."""

    cameras: Cameras
    depth: list[Tensor]
    color: list[Tensor]

    @staticmethod
    def of(cameras: Cameras, render: Callable[[Cameras, int], View], progress=None) -> DepthViews:
        """Renders the views; progress: called with views done and views in all."""
        depth, color = [], []
        for i in range(len(cameras)):
            view = render(cameras, i)
            depth.append(clear_depth(view.depth, view.opacity)), color.append(view.color.clamp(0, 1))
            if progress:
                progress(i + 1, len(cameras))
        return DepthViews(cameras, depth, color)

    def answers(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(eta [M]: inf where the pixel sees nothing, NaN where view i says nothing; pixel [M]: its number; direction
        [M, 3] of the ray) at scene positions x [M, 3]."""
        view = torch.full((len(x),), i)
        pixel, z = self.cameras.project(view, x)
        height, width = self.depth[i].shape
        inside = ((pixel >= 0) & (pixel < pixel.new_tensor([width, height]))).all(-1)
        if self.cameras.model_of(i) == "perspective":
            inside &= z > 0
        column, row = pixel.nan_to_num(0.0).long().unbind(-1)
        number = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        towards = x - self.cameras.camera_to_world[i, :3, 3]
        distance = towards.norm(dim=-1)
        eta = torch.where(inside, self.depth[i].view(-1)[number] - distance, torch.nan)
        return eta, number, towards / distance.clamp_min(1e-9)[:, None]

    def value(self, x: Tensor, truncation: float) -> Tensor:
        """[M] the mean of the views' answers, in [-1, 1]; NaN where there is none."""
        total, count = torch.zeros(len(x)), torch.zeros(len(x))
        for i in range(len(self.cameras)):
            eta = self.answers(i, x)[0]
            known = eta > -truncation  # false for NaN
            total += torch.where(known, (eta / truncation).clamp_max(1.0), 0.0)
            count += known
        return torch.where(count > 0, total / count, torch.nan)

    def color_of(self, x: Tensor, normals: Tensor, truncation: float) -> Tensor:
        """[M, 3] sRGB at surface points x with unit normals, both [M, 3]: the mean over the views that see them, those
        that face them counting most; the mean of all pixels where there is none."""
        total, count = torch.zeros(len(x), 3), torch.full((len(x), 1), 1e-9)
        for i in range(len(self.cameras)):
            eta, number, direction = self.answers(i, x)
            facing = -(direction * normals).sum(-1)
            weight = torch.where(eta.abs() < truncation, facing.clamp_min(0.02) ** 2, 0.0)[:, None]
            total += weight * self.color[i].reshape(-1, 3)[number]
            count += weight
        everywhere = torch.stack([color.mean((0, 1)) for color in self.color]).mean(0)
        return torch.where(count > 1e-6, total / count, everywhere)

    def points(self) -> Tensor:
        """[M, 3] where the pixels' rays end."""
        found = []
        for i, depth in enumerate(self.depth):
            depth, rays = depth.view(-1), self.cameras.image_rays(i)
            found.append(rays.at(torch.where(depth.isfinite(), depth, 0.0))[depth.isfinite()])
        return torch.cat(found)


def clear_depth(depth: Tensor, opacity: Tensor) -> Tensor:
    """[H, W] depth as `DepthViews` has it, of a rendered depth and opacity."""
    depth = torch.where(opacity > OPAQUE, depth, torch.inf)
    around = depth.nan_to_num(posinf=1e9)[None, None]
    largest = torch.nn.functional.max_pool2d(around, 3, 1, 1)[0, 0]
    least = -torch.nn.functional.max_pool2d(-around, 3, 1, 1)[0, 0]
    # what sees nothing stays free up to the outline: only pixels with a depth can have a wrong one
    return torch.where((largest - least > JUMP * least) & depth.isfinite(), torch.nan, depth)


def fuse(views: DepthViews, cascades: int, resolution: int, progress=None) -> tuple[Mesh, float]:
    """(the surface in the outermost of `cascades` cubes, the truncation); `resolution` cells along the longest side of
    the box of what is seen there. It may have no triangles."""
    points = views.points()
    low, high = cascade_box(cascades - 1)
    points = points[((points >= low) & (points <= high)).all(-1)]
    if not len(points):
        return Mesh(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.int64)), 0.0
    cells = _cells(points, cascades)
    size = points.amax(0) - points.amin(0)
    margin = (TRUNCATION / resolution * size.max()).clamp_min(1e-6)
    lattice = Lattice.of(points.amin(0) - margin, points.amax(0) + margin, resolution)
    truncation = TRUNCATION * lattice.spacing

    def value(x: Tensor) -> Tensor:
        return torch.cat([views.value(part, truncation) for part in x.split(_PER_CALL)]) if len(x) else x.new_empty(0)

    mesh = marching_cubes(value, lattice, lambda c, r: near_cells(cells, c, r + truncation), progress)
    known = mesh.vertices.isfinite().all(-1)[mesh.triangles].all(-1)
    return mesh.select(known), truncation


def _cells(points: Tensor, cascades: int) -> Tensor:
    """[K, CELLS, CELLS, CELLS] bool: which have a point, each in its finest cube."""
    cells = torch.zeros(cascades, CELLS, CELLS, CELLS, dtype=torch.bool)
    cascade = finest_cascade(points, cascades)
    place = ((points - 0.5) * torch.exp2(-cascade.float())[:, None] + 0.5) * CELLS
    cells[(cascade, *place.long().clamp(0, CELLS - 1).T)] = True
    return cells
