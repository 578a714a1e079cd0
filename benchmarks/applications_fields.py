"""The fields whose frames applications.py times, and the camera that looks at them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from capture import program
from torch import Tensor

from radfield.apps import ngp
from radfield.apps.fit import sdf, volume
from radfield.apps.fit import training as fitting
from radfield.cameras import Cameras, look_at
from radfield.data import load
from radfield.data.volume_files import cloud
from radfield.fields import distance, radiance, values
from radfield.geometry import SceneTransform
from radfield.losses import mape

BOX = (torch.zeros(3), torch.ones(3))
SIDE = (1.0, 0.35, 0.55)  # where the camera stands, from the middle of the scene
VIEWS, VIEW_PIXELS, CLOUD = 40, 100, 64


def camera(size: tuple[int, int], distance: float, towards: tuple[float, float, float]) -> Cameras:
    """One view of `size` (W, H) from so far away, whose height the unit cube about fills; z up."""
    width, height = size
    middle = torch.full((1, 3), 0.5, dtype=torch.float64)
    origin = middle + distance * torch.nn.functional.normalize(torch.tensor([towards], dtype=torch.float64), dim=1)
    pose = look_at(origin, middle[0], torch.tensor([0.0, 0, 1], dtype=torch.float64)).float()
    focal = torch.full((1, 2), 1.0 * height * distance)
    sizes = torch.tensor([[width, height]])
    return Cameras(pose, focal, sizes / 2, sizes, torch.zeros(1, 9))


def ring(x: Tensor) -> Tensor:
    """About the distance [M] to a ring with bumps, at x [M, 3]."""
    x = x - 0.5
    around = torch.stack([x[:, :2].norm(dim=1) - 0.29, x[:, 2]], 1).norm(dim=1)
    return around - 0.11 - 0.008 * torch.sin(40 * x).prod(1)


def slope(x: Tensor) -> Tensor:
    """Unit gradient [M, 3] of the ring's distance, by differences."""
    moved = torch.stack([ring(x + 1e-3 * axis) for axis in torch.eye(3)], 1)
    return torch.nn.functional.normalize(moved - ring(x)[:, None], dim=1)


def trained_distance(grid, precision: str, steps: int) -> distance.DistanceField:
    """A field fitted to the ring: half of its points near the surface."""
    model = sdf.build(sdf.Config(), transform=SceneTransform(1.0), size=torch.tensor([0.8, 0.8, 0.25]).double())
    model.field = distance.DistanceField(distance.Config(grid=grid, precision=precision))
    training = fitting.FitTraining(model, 0, 1 << 15)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        x = torch.rand(training.batch, 3, generator=generator)
        near = x[::2]
        noise = 0.01 * torch.randn(len(near), 1, generator=generator)
        x[::2] = (near + (noise - ring(near)[:, None]) * slope(near)).clamp(0, 1)
        mape(model.field.distance(x), ring(x)).backward()
        training.optimizer.step(lr=1e-2 * 0.02 ** (step / steps))
    return model.field


def trained_cloud(grid, precision: str, steps: int) -> values.ValueField:
    """Density of a procedural cloud."""
    lookup = volume.Lookup(cloud(CLOUD), 1.0)
    model = volume.build(volume.Config(batch=1 << 15), size=(CLOUD,) * 3, channels=1, peak=1.0)
    model.field = values.ValueField(3, values.Config(grid=grid, channels=1, precision=precision))
    training = volume.Training(model, lookup, 0)
    for step in range(steps):
        volume.train_step(training, step / steps)
    return model.field


def random_picture(grid, precision: str) -> values.ValueField:
    """Colours of random weights."""
    field = values.ValueField(2, values.Config(grid=grid, precision=precision), torch.Generator().manual_seed(0))
    with torch.no_grad():
        field.grid.table.normal_(generator=torch.Generator().manual_seed(0))
    field.grid.loaded()
    return field


def nerf_model(grid, precision: str, steps: int, capture: Path, device: str) -> ngp.Model:
    """A radiance field of the generated capture `capture`, which is made where it is not there yet."""
    if not capture.exists():
        program("data", "synth", "solids", capture, "--views", VIEWS, "--size", VIEW_PIXELS)
    scene = load(capture)
    config = ngp.Config(batch_samples=1 << 16, background="white", log2_size=10)
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    model = ngp.build(config, **where, device=device)
    field = radiance.RadianceField(radiance.Config(grid=grid, precision=precision), scene.cascades)
    model = dataclasses.replace(model, field=field.to(device))
    training = ngp.Training(model, scene, 0)
    for step in range(steps):
        training.count(ngp.train_step(training, step / steps), 1.0)
    return model
