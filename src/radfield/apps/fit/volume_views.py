"""What is measured and shown of a fitted volume: pictures of the voxels and of the field under the same sky."""

from __future__ import annotations

import dataclasses
import math
import time

import torch
from torch import Tensor

from ...cameras import Cameras, look_at
from ...metrics import psnr
from ...rays import Rays
from ...renderers.media import Environment, FieldMedium, Medium, delta_track, march
from ...srgb import encode_srgb
from ...training.run_folder import RunFolder
from ..report.page import write_report
from ..runs import write_picture
from .volume import Lookup, Model

VIEWS, PIXELS, PATHS = 2, 160, 32
_DISTANCE, _FILLED = 2.2, 0.85
_POINTS = 1 << 18


def cameras_around(box: Tensor, count: int, pixels: int) -> Cameras:
    """`count` square pictures, a turn around the middle of the volume's `box` [2, 3], z up."""
    centre = box.mean(0).double()
    angle = torch.arange(count, dtype=torch.float64) / count * 2 * math.pi + 0.6
    away = torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 0.25)], 1)
    origin = centre + _DISTANCE * torch.nn.functional.normalize(away, dim=1)
    return Cameras(
        look_at(origin, centre, torch.tensor([0.0, 0, 1], dtype=torch.float64)).float(),
        torch.full((count, 2), _FILLED * pixels * _DISTANCE),
        torch.full((count, 2), pixels / 2),
        torch.full((count, 2), pixels),
        torch.zeros(count, 9),
    )


def pictures(medium: Medium, box: Tensor, rays: Rays, extinction: float, forward: float, paths: int) -> dict:
    """{"delta tracking", "ray marching"}: radiance [N, 3] along the rays, of `paths` paths each. medium: its densities
    are in parts of the largest, whose extinction is given."""
    sky = Environment()

    def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
        density, albedo = medium(x)
        return extinction * density, albedo

    if isinstance(medium, FieldMedium):
        scaled = dataclasses.replace(medium, extinction=extinction)
    tracked = [delta_track(scaled, extinction, box, rays, sky, seed=i, g=forward) for i in range(paths)]
    return {"delta tracking": sum(tracked) / paths, "ray marching": march(scaled, box, rays, sky, g=forward)}


def evaluate(
    folder: RunFolder, model: Model, lookup: Lookup, extinction: float, forward: float, figures: dict, stages: dict
) -> dict:
    """Draws voxels and field with the same random numbers, measures, writes pictures and report; returns what was
    found: PSNR of the pictures in sRGB, of densities in parts of the peak."""
    cameras = cameras_around(model.box.cpu(), VIEWS, PIXELS).to(model.device)
    views, quality, seconds = [], {}, {"field": 0.0, "voxels": 0.0}
    for i in range(VIEWS):
        rays = cameras.image_rays(i)
        rays = Rays(rays.origins.contiguous(), rays.directions.contiguous())
        drawn = {}
        for name, medium in (("field", FieldMedium(model.field)), ("voxels", lookup.medium)):
            began = time.perf_counter()
            shown = pictures(medium, model.box, rays, extinction, forward, PATHS)
            drawn[name] = {how: colors.cpu() for how, colors in shown.items()}  # waits for a GPU to be done
            seconds[name] += time.perf_counter() - began
        for how in drawn["field"]:
            ours, truth = (encode_srgb(drawn[name][how]).view(PIXELS, PIXELS, 3) for name in ("field", "voxels"))
            quality.setdefault(how, []).append(float(psnr(ours, truth)))
            views.append((f"view {i}, {how}", ours, truth))
            write_picture(folder.renders / f"{i:03d}_{how.replace(' ', '_')}.png", ours)
    found = {
        "psnr": sum(quality["delta tracking"]) / VIEWS,
        "psnr_ray_marching": sum(quality["ray marching"]) / VIEWS,
        "density_psnr": _density_psnr(model, lookup),
        **{"views": VIEWS, "resolution": f"{PIXELS} x {PIXELS}", "paths_per_pixel": PATHS, "color_space": "sRGB"},
        **{"background": "sky", "seconds_per_view": seconds["field"] / VIEWS},
        "voxels_seconds_per_view": seconds["voxels"] / VIEWS,
    }
    summary = {"name": folder.path.resolve().name, **figures, **found}
    report = write_report(folder, folder.read_metrics(), views, summary, stages)
    return {**found, "report": str(report)}


def _density_psnr(model: Model, lookup: Lookup) -> float:
    x = torch.rand(_POINTS, 3, generator=torch.Generator().manual_seed(1)).to(model.device) * model.box[1]
    error = (model.medium(x)[0] - lookup.medium(x)[0]).square().mean().item()
    return -10 * math.log10(max(error, 1e-12))
