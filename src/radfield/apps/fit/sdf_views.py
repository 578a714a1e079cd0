"""What is measured and shown of a distance field: overlap and distance to the mesh, for an unsigned one its error and
holes; pictures from around it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...cameras import Cameras, look_at
from ...meshing.compare import compare, overlap
from ...meshing.level_set import asked, from_host, mesh_of_distance
from ...meshing.mesh import Mesh
from ...meshing.parts import hole_figures
from ...meshing.unsigned import mesh_of_unsigned
from ...rays import Rays
from ...renderers.sphere_tracing import BEFORE, UNSIGNED_STEP, normals, shade
from ...tracing.bvh import Bvh, trace_triangles
from ...tracing.cloud import Cloud
from ...tracing.surface import MOST_TRIANGLES, Surface
from .sdf import Model
from .sdf_samples import uniform

OVERLAP_POINTS = 1 << 20
CHAMFER_RESOLUTION = 256
DISTANCE = 2.0  # of cameras from the middle of the scene
FILLED = 0.5  # of a picture's height, by the mesh's
THRESHOLD = 0.002  # of the F-score, in parts of the diagonal


def distances(model: Model, x: Tensor) -> Tensor:
    """f [M] at scene positions x [M, 3] on the model's device, in parts that fit the memory."""
    return asked(model.distance, x)


def extract(model: Model, resolution: int, progress=None) -> Mesh:
    """The surface in scene coordinates, with `resolution` cells along the longest side of the mesh's box, or as many
    as a cloud's points allow."""
    mesher = mesh_of_unsigned if model.unsigned else mesh_of_distance
    distance = from_host(model.distance, model.device)
    return mesher(distance, model.box, min(resolution, model.most_cells or resolution), progress)


def measure(model: Model, surface: Surface) -> dict:
    """Figures against the mesh (`surface`, in scene coordinates). Chamfer and threshold are parts of the diagonal."""
    x = uniform(surface, OVERLAP_POINTS, torch.Generator().manual_seed(1)).to(model.device)
    inside = distances(model, x) <= 0
    figures = {"iou": overlap(inside, surface.signed_distance(x) <= 0), "chamfer": None, "f_score": None}
    mesh = extract(model, CHAMFER_RESOLUTION)
    if 0 < len(mesh.triangles) <= MOST_TRIANGLES:  # a field that has hardly been trained may be all surface
        threshold = THRESHOLD * surface.diagonal
        found = compare(Surface.of(mesh.vertices, mesh.triangles), surface, threshold, device=model.device)
        figures["chamfer"] = found["chamfer"] / surface.diagonal
        figures["f_score"] = found["f_score"]
        figures["chamfer_in_units"] = found["chamfer"] / model.transform.scale
    figures["diagonal_in_units"] = surface.diagonal / model.transform.scale
    return figures


def measure_unsigned(model: Model, surface: Surface | Cloud) -> dict:
    """Figures of an unsigned field against the mesh or cloud, in scene coordinates. Chamfer, its two halves, threshold,
    `distance_error` (of uniform points) and lengths of holes are parts of the diagonal; `uncovered` is the share of the
    mesh's area, or of the points, that has no triangle within two cells. To a cloud's points no surface is nearer than
    about half their spacing, which the threshold is no less than."""
    x = uniform(surface, OVERLAP_POINTS, torch.Generator().manual_seed(1)).to(model.device)
    figures = {"distance_error": float((distances(model, x) - surface.distance(x)).abs().mean()) / surface.diagonal}
    figures |= dict.fromkeys(("chamfer", "f_score", "uncovered"))
    mesh = extract(model, CHAMFER_RESOLUTION)
    if 0 < len(mesh.triangles) <= MOST_TRIANGLES:
        threshold = max(THRESHOLD * surface.diagonal, getattr(surface, "spacing", 0.0))
        ours = Surface.of(mesh.vertices, mesh.triangles)
        found = compare(ours, surface, threshold, device=model.device)
        lengths = ("chamfer", "accuracy", "completeness", "threshold")
        figures |= {name: found[name] / surface.diagonal for name in lengths}
        figures["f_score"] = found["f_score"]
        figures["chamfer_in_units"] = found["chamfer"] / model.transform.scale
        on = surface.sample(OVERLAP_POINTS, torch.Generator().manual_seed(2)).to(model.device)
        cell = float((model.box[1] - model.box[0]).max()) / CHAMFER_RESOLUTION
        figures["uncovered"] = float((ours.distance(on) > 2 * cell).double().mean())
        figures["components"] = len(mesh.components().unique())
    figures |= hole_figures(mesh.vertices / surface.diagonal, mesh.triangles)
    if isinstance(surface, Surface):
        figures |= hole_figures(surface.vertices / surface.diagonal, surface.triangles, "truth_")
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


def truth_of(model: Model, surface: Surface | Cloud) -> Callable[[Cameras, int], Tensor]:
    """What draws the mesh, or the cloud, as the field is shown: (cameras, view) -> [H, W, 3]."""
    if isinstance(surface, Cloud):
        return lambda cameras, view: cloud_picture(model, surface, cameras, view)
    bvh = Bvh.of(surface.vertices, surface.triangles)
    return lambda cameras, view: mesh_picture(bvh, cameras, view)


def cloud_picture(model: Model, cloud: Cloud, cameras: Cameras, view: int) -> Tensor:
    """[H, W, 3]: the cloud's points on white as squares about as wide as the space between them, the nearest in front;
    their light is by the field's normals a little before them, since points have none."""
    width, height = cameras.size[view].tolist()
    points = cloud.points.float()
    pixel, depth = cameras.project(torch.full((len(points),), view), points)
    directions = torch.nn.functional.normalize(points - cameras.camera_to_world[view, :3, 3], dim=-1)
    distance = from_host(model.distance, model.device)
    normal = normals(distance, points - BEFORE * directions, UNSIGNED_STEP)
    color = shade(normal, directions)
    reach = max(0, min(4, round(float(cameras.focal[view, 0]) * cloud.spacing / float(depth.median()))))
    order = depth.argsort(descending=True)  # the nearest is drawn last
    picture = torch.ones(height * width, 3)
    front = torch.full((height * width,), torch.inf)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            at = (pixel[order] + torch.tensor([x, y])).long()
            inside = ((at >= 0) & (at < torch.tensor([width, height]))).all(-1) & (depth[order] > 0)
            place, drawn = (at[:, 1] * width + at[:, 0])[inside], order[inside]
            front.scatter_reduce_(0, place, depth[drawn], "amin")
            nearest = depth[drawn] <= front[place]
            picture[place[nearest]] = color[drawn[nearest]]
    return picture.view(height, width, 3)
