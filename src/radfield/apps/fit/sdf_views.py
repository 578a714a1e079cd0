"""What is measured and shown of a signed distance field: overlap and distance to the mesh, pictures from around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...cameras import Cameras, look_at
from ...meshing.compare import compare, overlap
from ...meshing.level_set import asked, mesh_of_distance
from ...meshing.mesh import Mesh
from ...rays import Rays
from ...renderers.sphere_tracing import shade
from ...tracing.bvh import Bvh, trace_triangles
from ...tracing.surface import MOST_TRIANGLES, Surface
from .sdf import Model
from .sdf_samples import uniform

OVERLAP_POINTS = 1 << 20
CHAMFER_RESOLUTION = 256
DISTANCE = 2.0  # of cameras from the middle of the scene
FILLED = 0.5  # of a picture's height, by the mesh's


def distances(model: Model, x: Tensor) -> Tensor:
    """f [M] at scene positions x [M, 3], in parts that fit the memory."""
    return asked(model.distance, x)


def extract(model: Model, resolution: int, progress=None) -> Mesh:
    """The surface in scene coordinates, with `resolution` cells along the longest side of the mesh's box."""
    return mesh_of_distance(model.distance, model.box, resolution, progress)


def measure(model: Model, surface: Surface) -> dict:
    """Figures against the mesh (`surface`, in scene coordinates). Chamfer and threshold are parts of the diagonal."""
    x = uniform(surface, OVERLAP_POINTS, torch.Generator().manual_seed(1))
    inside = distances(model, x) <= 0
    figures = {"iou": overlap(inside, surface.signed_distance(x) <= 0), "chamfer": None, "f_score": None}
    mesh = extract(model, CHAMFER_RESOLUTION)
    if 0 < len(mesh.triangles) <= MOST_TRIANGLES:  # a field that has hardly been trained may be all surface
        threshold = 0.002 * surface.diagonal
        found = compare(Surface.of(mesh.vertices, mesh.triangles), surface, threshold)
        figures["chamfer"] = found["chamfer"] / surface.diagonal
        figures["f_score"] = found["f_score"]
        figures["chamfer_in_units"] = found["chamfer"] / model.transform.scale
    figures["diagonal_in_units"] = surface.diagonal / model.transform.scale
    return figures


def cameras_around(size: Tensor, up: str, count: int, pixels: int) -> Cameras:
    """`count` square pictures, a turn around the middle of the scene; the mesh, whose box has the sides `size` [3],
    fills half of their height."""
    axis = {"y": 1, "z": 2}[up]
    angle = torch.arange(count, dtype=torch.float64) / count * 2 * math.pi + 0.4
    level = torch.zeros(count, 3, dtype=torch.float64)
    level[:, (axis + 1) % 3], level[:, (axis + 2) % 3], level[:, axis] = angle.cos(), angle.sin(), 0.35
    towards = torch.zeros(3, dtype=torch.float64)
    towards[axis] = 1
    centre = torch.full((3,), 0.5, dtype=torch.float64)
    origin = centre + DISTANCE * torch.nn.functional.normalize(level, dim=-1)
    focal = FILLED * pixels * DISTANCE / max(float(size[axis]), 0.25 * float(size.max()))
    return Cameras(
        look_at(origin, centre, towards).float(),
        torch.full((count, 2), focal),
        torch.full((count, 2), pixels / 2),
        torch.full((count, 2), pixels),
        torch.zeros(count, 9),
    )


def mesh_picture(bvh: Bvh, cameras: Cameras, view: int) -> Tensor:
    """[H, W, 3]: the mesh itself as the field is shown, with flat triangles on white."""
    width, height = cameras.size[view].tolist()
    rays = cameras.image_rays(view)
    hits = trace_triangles(bvh, Rays(rays.origins.contiguous(), rays.directions.contiguous()))
    met = (hits.index >= 0).nonzero()[:, 0]
    color = torch.ones(len(rays), 3)
    color[met] = shade(bvh.normals[hits.index[met].long()], rays.directions[met])
    return color.view(height, width, 3)
