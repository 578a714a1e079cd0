"""What gpu.py times steps of besides the methods of `radfield train`: a distance field, a picture and a volume, fitted
to what is generated here."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from radfield.apps.fit import picture, sdf, volume
from radfield.apps.fit.training import FitTraining
from radfield.data.picture_files import Picture
from radfield.data.volume_files import cloud
from radfield.tracing.surface import Surface

_TINY = {"levels": 3, "log2_size": 8, "base_resolution": 4, "finest_resolution": 32, "batch": 256}


def fits(device: torch.device, tiny: bool) -> dict[str, Callable[[], FitTraining]]:
    """What makes each training at its beginning, at the sizes of `radfield fit-sdf`, `fit-image` and `fit-volume`."""
    options = _TINY if tiny else {}
    return {
        "fit-sdf": functools.partial(of_mesh, device, options, 16 if tiny else 224),
        "fit-image": functools.partial(of_picture, device, options, 32 if tiny else 4096),
        "fit-volume": functools.partial(of_cloud, device, options, 12 if tiny else 192),
    }


def of_mesh(device: torch.device, options: dict, cells: int) -> sdf.Training:
    """A bumpy torus of 2 cells^2 triangles."""
    turn = 2 * torch.pi * torch.arange(cells, dtype=torch.float64) / cells
    around, along = (each.flatten() for each in torch.meshgrid(turn, turn, indexing="ij"))
    radius = 0.12 + 0.01 * torch.sin(9 * around) * torch.sin(11 * along)
    reach = 0.3 + radius * along.cos()
    vertices = 0.5 + torch.stack((reach * around.cos(), reach * around.sin(), radius * along.sin()), 1)
    row, column = (each.flatten() for each in torch.meshgrid(*(torch.arange(cells),) * 2, indexing="ij"))
    corner = [((row + i) % cells) * cells + (column + j) % cells for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    triangles = torch.cat([torch.stack([corner[k] for k in each], 1) for each in ((0, 1, 2), (0, 2, 3))])
    surface = Surface.of(vertices, triangles)
    scene = {"transform": sdf.scene_of(surface), "size": sdf.size_of(surface)}
    return sdf.Training(sdf.build(sdf.Config(**options), **scene, device=device), surface, 0)


def of_picture(device: torch.device, options: dict, side: int) -> picture.Training:
    """Waves of three colours, side x side pixels of 8 bits."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    waves = [np.sin(40 * x * (1 + y)), np.sin(90 * x + 60 * y * y), np.sin(200 * x * y)]
    target = Picture(((np.stack(waves, 2) + 1) * 127.5).astype(np.uint8))
    scene = {**picture.scene_of(target), "size": target.size}
    return picture.Training(picture.build(picture.Config(**options), **scene, device=device), target, 0)


def of_cloud(device: torch.device, options: dict, side: int) -> volume.Training:
    """The procedural cloud of side^3 voxels."""
    model = volume.build(volume.Config(**options), size=(side,) * 3, channels=1, peak=1.0, device=device)
    return volume.Training(model, volume.Lookup(cloud(side), 1.0, device), 0)
