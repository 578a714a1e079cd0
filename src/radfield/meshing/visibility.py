"""The part of a mesh that cameras see.

Where no photograph looks, inside of walls and behind them, a radiance field has any density at all, and a level of it
is full of surfaces that mean nothing. What counts is what rays of the cameras meet first. Letters: T triangles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras
from ..rays import Rays
from ..tracing.bvh import Bvh, trace_triangles
from .mesh import Mesh

PIXELS = 512  # of the longer side of a view, at most
RINGS = 3  # triangles around one that is seen that stay with it: rays pass between small ones


def seen(mesh: Mesh, cameras: Cameras, progress=None) -> Tensor:
    """[T] bool: the triangles that a pixel of `cameras` sees, and those around them. progress: called with views done
    and views in all."""
    met = torch.zeros(len(mesh.triangles), dtype=torch.bool)
    if not len(mesh.triangles):
        return met
    bvh = Bvh.of(mesh.vertices, mesh.triangles)
    for i in range(len(cameras)):
        camera = cameras[i]
        camera = camera.scaled(min(1.0, PIXELS / float(camera.size.max())))
        rays = camera.image_rays(0)
        hits = trace_triangles(bvh, Rays(rays.origins.contiguous(), rays.directions.contiguous()))
        met[hits.index[hits.index >= 0].long()] = True
        if progress:
            progress(i + 1, len(cameras))
    return around(mesh.triangles, met, len(mesh.vertices), RINGS)


def around(triangles: Tensor, chosen: Tensor, points: int, rings: int) -> Tensor:
    """[T] bool: `chosen`, and what shares a point with it, `rings` times."""
    for _ in range(rings):
        touched = torch.zeros(points, dtype=torch.bool)
        touched[triangles[chosen].reshape(-1)] = True
        chosen = touched[triangles].any(-1)
    return chosen
