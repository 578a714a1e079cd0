"""Every op that has CUDA kernels, timed on a GPU as the programs call it, for gpu.py.

A workload is something small that a program does: some steps of a training, a view, an encoding forward and backward.
Trainings take the way whose steps wait for the device, so that no op has rows that are not in use. `bytes` of an op are
those of all its tensors, once each: more than it moves where it reads a part of a table.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from gpu_more_ops import MORE, height_field

import radfield
from radfield.apps import neus2, ngp, splat
from radfield.data.picture_pixels import draw_pixels, lattice_of
from radfield.data.scene import Scene
from radfield.encodings import registry
from radfield.fields.radiance import Config as FieldConfig
from radfield.fields.radiance import RadianceField
from radfield.networks.grid_mlp import grid_mlp
from radfield.networks.mlp import MLP
from radfield.networks.mlp import Config as NetworkConfig
from radfield.op import Op
from radfield.rays import Rays
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_projection import project
from radfield.renderers.gaussian_raster import rasterise
from radfield.renderers.gaussian_surfels import project_surfels, rasterise_surfels
from radfield.sampling.occupancy import OccupancyGrid
from radfield.tracing.bvh import Bvh, trace_triangles
from radfield.training.adam import Adam

ENOUGH = 0.8  # of the largest call of an op: one of this size is timed
ENCODINGS = ("hash", "simplex", "probe", "dense", "triplane", "vm", "cp", "sparse", "frequency")


@dataclasses.dataclass
class Size:
    """How large workloads are: samples, pixels a side, Gaussians, and options that make trainings small."""

    samples: int = 1 << 18
    side: int = 512
    gaussians: int = 100_000
    steps: int = 18
    grid: dict = dataclasses.field(default_factory=dict)
    training: dict = dataclasses.field(default_factory=dict)


def has_kernels() -> set[str]:
    """The names of all ops that have CUDA kernels."""
    for module in pkgutil.walk_packages(radfield.__path__, "radfield."):
        if not module.name.endswith("photographs.child") and ".libradfield" not in module.name:
            try:
                importlib.import_module(module.name)
            except ImportError:  # of an optional package; ops import none
                continue
    return {name for name, op in Op.registry.items() if op.plan is not None}


@contextmanager
def calls_of(see: Callable[[Op, dict], Callable[[], None] | None]):
    """Has `see(op, arguments)` precede each call of an op that has CUDA kernels, and what it returns follow."""
    call = Op.__call__

    def seen(op, **values):
        then = see(op, values) if op.plan is not None else None
        call(op, **values)
        if then is not None:
            then()

    Op.__call__ = seen
    try:
        yield
    finally:
        Op.__call__ = call


def bytes_of(values: dict) -> int:
    """Of all tensors of a call, once each."""
    tensors = {value.data_ptr(): value for value in values.values() if isinstance(value, torch.Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def timed(workload: Callable[[], None], milliseconds: Callable, emit, done: set[str]) -> None:
    """Runs the workload twice: to see each op's largest call, and to time one that is nearly as large where it stands,
    so that its arguments are what they were. milliseconds(call, before): of calls, each of which follows one of
    `before`; emit(name, figures) gets milliseconds and bytes of those not `done`."""
    sizes: dict[str, int] = {}
    plain = Op.__call__

    def note(op: Op, values: dict) -> None:
        sizes[op.name] = max(sizes.get(op.name, 0), bytes_of(values))

    def measure(op: Op, values: dict) -> Callable[[], None] | None:
        size = bytes_of(values)
        if op.name in done or size < ENOUGH * sizes.get(op.name, 0):
            return None
        done.add(op.name)
        changed = [values.get(a.name) for a in op.arguments if getattr(a, "role", "") == "inout"]
        kept = [(value, value.clone()) for value in changed if value is not None]

        def restore() -> None:
            for value, before in kept:
                value.copy_(before)

        def then() -> None:
            emit(op.name, {"ms": milliseconds(lambda: plain(op, **values), restore), "bytes": size})
            restore()
            plain(op, **values)  # what follows finds what it expects

        return then

    for see in (note, measure):
        with calls_of(see):
            workload()


def encoding(name: str, device: torch.device, size: Size) -> None:
    """Features and gradients at random points, Adam on the parameters, what regularises them, and the gradients of
    table and positions by themselves."""
    config = registry.config_of(name, **size.grid)
    wanted = {"precision": "bf16", "tv": 1e-4}
    config = dataclasses.replace(config, **{k: v for k, v in wanted.items() if hasattr(config, k)})
    module = registry.build(3, config).to(device)
    optimizer = Adam(module.adam_groups())
    x = torch.rand(size.samples, 3, device=device)
    for _ in range(2):
        found = module(x)
        found.backward(torch.ones_like(found))
        optimizer.step(1e-3)
    module.regularise(1e-3)
    for part in module.modules():
        if hasattr(part, "grad_into"):
            part.grad_into = None
    found = module(x.requires_grad_())
    if found.requires_grad:
        found.backward(torch.ones_like(found))


def derivatives(device: torch.device, size: Size) -> None:
    """Second derivatives of grid and network, and both in one pass; the harmonics' gradients."""
    field = RadianceField(FieldConfig(grid=registry.config_of("hash", **size.grid))).to(device)
    x = torch.rand(size.samples, 3, device=device, requires_grad=True)
    logit, features = field.geometry(x)
    (slope,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
    slope.square().sum().backward()
    d = torch.nn.functional.normalize(torch.randn(size.samples, 3, device=device), dim=1).requires_grad_()
    field.color_logits(features.detach(), d).sum().backward()
    smooth = MLP(3, 1, NetworkConfig(64, 2, "softplus", bias=True)).to(device)
    (slope,) = torch.autograd.grad(smooth(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    with torch.no_grad():
        grid_mlp(x.detach(), field.grid, field.density_network)


def nerf(scene: Scene, device: torch.device, size: Size) -> None:
    """Steps of the method ngp with an update of the occupancy grid, and a view."""
    config = dataclasses.replace(ngp.Config(background=scene.background), **size.training)
    training = ngp.Training(ngp.build(config, **_where(scene, device)), scene, 0)
    training._asked = True
    for i in range(size.steps):
        ngp.train_step(training, i / size.steps)
    training.model.render_view(scene.train.cameras, 0)
    training.model.grid.occupied_fraction()


def surface(scene: Scene, device: torch.device, size: Size) -> None:
    """Steps of the method neus2 at both ends of a budget, and a view."""
    config = dataclasses.replace(neus2.Config(), **size.training)
    training = neus2.Training(neus2.build(config, **_where(scene, device)), scene, 0)
    training._asked = True
    for i in range(size.steps):
        neus2.train_step(training, 0.1 + 0.8 * (i >= size.steps // 2))
    training.model.render_view(scene.train.cameras.scaled(0.5), 0)


def gaussians(scene: Scene, device: torch.device, size: Size, renderer: str = "raster") -> None:
    """Steps of the method splat from random Gaussians, one of which adds and removes some."""
    count = {"initial": "random", "initial_gaussians": size.gaussians // (1 if renderer == "raster" else 10)}
    config = splat.Config(renderer=renderer, refine_interval=max(size.steps // 6, 1), **count)
    training = splat.Training(splat.build(config, **_where(scene, device)), scene, 0)
    for _ in range(size.steps):
        splat.train_step(training, 0.4)


def discs_and_lenses(device: torch.device, size: Size) -> None:
    """2D Gaussians, and a fisheye's sigma points, with all gradients."""
    random = torch.Generator().manual_seed(0)
    n, side = size.gaussians, size.side
    means = (torch.randn(n, 3, generator=random) * 0.3).to(device).requires_grad_()
    turns = torch.randn(n, 4, generator=random).to(device).requires_grad_()
    scales = (torch.rand(n, 3, generator=random) * 0.02 + 0.002).to(device).requires_grad_()
    opacities = (torch.rand(n, generator=random) * 0.8 + 0.1).to(device).requires_grad_()
    colors = torch.rand(n, 3, generator=random).to(device).requires_grad_()
    pose = torch.eye(4, device=device)
    pose[2, 3] = 3.0
    lens = {"focal": (1.1 * side, 1.1 * side), "center": (side / 2, side / 2), "width": side, "height": side}
    fisheye = Camera(pose.requires_grad_(), **lens, model="fisheye")
    rasterise(project(means, turns, scales, opacities, fisheye), colors, side, side).color.sum().backward()
    plain = Camera(pose.detach(), **lens)
    discs = project_surfels(means, turns, scales[:, :2], opacities, plain)
    seen = rasterise_surfels(discs, colors, side, side)
    sum(value.sum() for value in seen if value.requires_grad).backward()


def pictures_and_triangles(device: torch.device, size: Size) -> None:
    """Random pixels of a picture, and rays that meet the triangles of a height field."""
    picture = torch.randint(0, 255, (size.side, size.side, 3), dtype=torch.uint8, device=device)
    count = min(size.samples, size.side**2)
    draw_pixels(picture, lattice_of((size.side, size.side), count), 0, 1 / 255)
    vertices, triangles = height_field(max(size.side // 4, 4))
    origins = torch.rand(size.samples, 3) + torch.tensor([0.0, 0.0, 1.0])
    down = torch.tensor([0.0, 0.0, -1.0]).expand_as(origins).contiguous()
    trace_triangles(Bvh.of(vertices.to(device), triangles.to(device)), Rays(origins, down).to(device))


def cells(device: torch.device) -> None:
    """The occupancy grid's bits, and densities that samples found."""
    grid = OccupancyGrid(device=device)
    grid.refresh()
    grid.observe(torch.rand(1 << 18, 3, device=device), torch.rand(1 << 18, device=device))


def _where(scene: Scene, device: torch.device) -> dict:
    background = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    return background | {"device": device}


def workloads(device: torch.device, size: Size, scene: Callable[[], Scene]) -> dict[str, Callable[[], None]]:
    """All of them by name; `scene()` gives the scene of those that train."""
    found = {f"encoding {name}": lambda name=name: encoding(name, device, size) for name in ENCODINGS}
    found |= {"second derivatives": lambda: derivatives(device, size), "cells": lambda: cells(device)}
    found |= {"discs and lenses": lambda: discs_and_lenses(device, size)}
    found |= {"pictures and triangles": lambda: pictures_and_triangles(device, size)}
    found |= {name: lambda workload=workload: workload(device, size) for name, workload in MORE.items()}
    found |= {"ngp": lambda: nerf(scene(), device, size), "neus2": lambda: surface(scene(), device, size)}
    found |= {
        f"splat {r}": lambda r=r: gaussians(scene(), device, size, r) for r in ("raster", "trace", "3dgut-sorted")
    }
    return found


def capture_in(folder: Path, side: int, views: int) -> Path:
    """A capture made here, held-out views included."""
    from radfield.data.synthetic import write_synthetic_capture

    return write_synthetic_capture(folder, views=views, val_views=max(views // 8, 2), size=side)
