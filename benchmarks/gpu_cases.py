"""What gpu.py measures: ops with what they cannot do without, renders, steps, a training, and the tests of CUDA."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import rasterise
import torch
from rasterise import GAUSSIANS, SIZE

from radfield import backend
from radfield.apps import ngp
from radfield.apps.evaluate import evaluate_views
from radfield.compat import tcnn_backend
from radfield.data import load
from radfield.encodings.hash_grid import Config as GridConfig
from radfield.encodings.hash_grid import HashGrid
from radfield.encodings.hash_grid_adam import SampleGradients
from radfield.encodings.simplex import Config as SimplexConfig
from radfield.encodings.simplex import Simplex
from radfield.encodings.spherical_harmonics import SphericalHarmonics
from radfield.fields.radiance import Config as FieldConfig
from radfield.fields.radiance import RadianceField
from radfield.networks.mlp import MLP
from radfield.networks.mlp import Config as NetworkConfig
from radfield.rays import Rays
from radfield.renderers import fused, gaussian_raster, volume
from radfield.renderers.composite import composite_raw
from radfield.renderers.gaussian_projection import project
from radfield.sampling.march import march
from radfield.sampling.occupancy import OccupancyGrid
from radfield.training.adam import Adam

SAMPLES, PER_RAY = 1 << 18, 64
BUDGETS = (1, 5, 15, 60)  # seconds of training after which PSNR is measured
WIDTH, HIDDEN = 64, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """An op to time: what runs it, and the bytes and floating-point operations that it cannot do without."""

    run: Callable[[], object]
    bytes: float
    flops: float = 0.0


def milliseconds(
    function: Callable[[], object], repeats: int = 21, before: Callable[[], object] = lambda: None
) -> float:
    """Median of CUDA events around single calls, after three to warm up (the first compiles), each after one of
    `before`. Without a GPU one wall time, which means nothing."""
    if not torch.cuda.is_available():
        before()
        began = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - began)
    for _ in range(3):
        before(), function()
    times = []
    for _ in range(repeats):
        before()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def limits(device: torch.device, size: int = 1 << 30, side: int = 8192) -> dict:
    """Bytes per second of a copy of `size` bytes (read and written), and operations per second of a bf16 product of
    side^3 random numbers."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source))
    a = torch.randn(side, side, device=device).bfloat16()
    product = milliseconds(lambda: a @ a)
    return {"bytes_per_s": 2 * size / copy * 1e3, "flops_per_s": 2 * side**3 / product * 1e3}


def grid_cases(device: torch.device, m: int) -> dict[str, Case]:
    """Hash grid L16 F2 T2^19 at random points; entries that are read count once per sample, level and corner."""
    grid = HashGrid(3, GridConfig(precision="bf16")).to(device)
    levels, features = grid.config.levels, grid.config.features
    grid.grad_into = torch.zeros_like(grid.table)
    x = torch.rand(3, m, device=device).T
    found = grid(x)
    grad = torch.ones_like(found)
    entries, output = m * levels * 8 * features, m * grid.channels * 2
    return {
        "hash_grid_forward": Case(lambda: _without_grad(grid, x), 12 * m + 2 * entries + output),
        "hash_grid_backward": Case(lambda: found.backward(grad, retain_graph=True), 12 * m + output + 4 * entries),
    }


def level_cases(device: torch.device, m: int) -> dict[str, Case]:
    """As `grid_cases` for the simplex encoding (4 vertices); and Adam on the hash grid's table from m samples: its
    gradient is cleared, added to and read, and of every entry parameter, moments and copy are read and written."""
    simplex = Simplex(3, SimplexConfig(precision="bf16")).to(device)
    simplex.grad_into = torch.zeros_like(simplex.table)
    x = torch.rand(3, m, device=device).T
    found, grid = simplex(x), HashGrid(3, GridConfig(precision="bf16")).to(device)
    grad, samples = torch.ones_like(found), SampleGradients(grid.grid)
    optimizer = Adam([{"parameter": grid.table.data, "grad": samples, "shadow": grid.stored(), "mode": "skip"}])
    entries, output = m * 16 * 4 * 2, m * 32 * 2

    def step():
        samples.add(grad, x)
        optimizer.step(1e-2)

    table = grid.table.numel()
    return {
        "simplex_forward": Case(lambda: _without_grad(simplex, x), 12 * m + 2 * entries + output),
        "simplex_backward": Case(lambda: found.backward(grad, retain_graph=True), 12 * m + output + 4 * entries),
        "hash_grid_adam": Case(step, 12 * m + output + 8 * entries + table * (8 + 4)),
    }


def network_cases(device: torch.device, m: int) -> dict[str, Case]:
    """MLP 32-64-64-16 in bf16; the backward pass has twice the products of the forward one, and computes that again."""
    network = MLP(32, 16, NetworkConfig(WIDTH, HIDDEN, precision="bf16")).to(device)
    network.grad_into = torch.zeros_like(network.weights)
    x = torch.rand(32, m, device=device).bfloat16().T.requires_grad_()
    found = network(x)
    grad = torch.ones_like(found)
    flops = 2 * m * (32 * WIDTH + (HIDDEN - 1) * WIDTH * WIDTH + WIDTH * 16)
    return {
        "mlp_forward": Case(lambda: _without_grad(network, x), m * (2 * 32 + 4 * 16), flops),
        "mlp_backward": Case(
            lambda: torch.autograd.grad(found, x, grad, retain_graph=True), m * (4 * 32 + 4 * 16), 2 * flops
        ),
    }


def ray_cases(device: torch.device, m: int) -> dict[str, Case]:
    """Spherical harmonics, compositing (rays of 64 samples) and the march of rays through a full grid."""
    harmonics, rays = SphericalHarmonics().to(device), m // PER_RAY
    directions = torch.nn.functional.normalize(torch.randn(3, m, device=device), dim=0).T
    logit = torch.zeros(m, device=device, requires_grad=True)
    colors = torch.zeros(3, m, device=device).T.requires_grad_()
    t = torch.arange(PER_RAY, device=device).repeat(rays) * 1e-2
    start = torch.arange(rays + 1, dtype=torch.int32, device=device) * PER_RAY
    intervals = t, t + 1e-2, start
    seen = composite_raw(logit, colors, *intervals)
    origins = torch.rand(3, rays, device=device).T
    through, grid = Rays(origins, directions[:rays]), OccupancyGrid(device=device)
    marched = len(march(through, grid).x)
    grad = torch.ones_like(seen.color)
    return {
        "harmonics": Case(lambda: harmonics(directions), m * (12 + 4 * harmonics.channels)),
        "composite_forward": Case(lambda: _without_grad(composite_raw, logit, colors, *intervals), 24 * m),
        "composite_backward": Case(
            lambda: torch.autograd.grad(seen.color, [logit, colors], grad, retain_graph=True), 40 * m
        ),
        "march": Case(lambda: march(through, grid), 32 * marched),
    }


def other_cases(device: torch.device, count: int) -> dict[str, Case]:
    """Adam over so many parameters (four streams read, four written, a 16-bit copy); the grid's bits from its
    values."""
    parameter, grad = torch.zeros(count, device=device), torch.ones(count, device=device)
    optimizer = Adam([{"parameter": parameter, "grad": grad, "shadow": parameter.bfloat16()}])
    grid = OccupancyGrid(device=device)
    return {
        "adam": Case(lambda: optimizer.step(1e-2), count * (8 * 4 + 2)),
        "occupancy_bitfield": Case(grid.refresh, 4 * grid.config.cells),
    }


def _without_grad(function, *given):
    with torch.no_grad():
        return function(*given)


def groups(device: torch.device, m: int = SAMPLES) -> dict[str, Callable[[], dict[str, Case]]]:
    """All cases with m samples, made when they are asked for, so that one that cannot be made costs its group alone."""
    parts = (grid_cases, level_cases, network_cases, ray_cases)
    return {part.__name__: functools.partial(part, device, m) for part in parts} | {
        "other_cases": lambda: other_cases(device, 64 * m)
    }


def case_figures(made: Callable[[], dict[str, Case]], most: dict, emit) -> None:
    """Milliseconds of each case, its floor, and floor / time."""
    for name, case in made().items():
        took = milliseconds(case.run)
        floor = 1e3 * max(case.bytes / most["bytes_per_s"], case.flops / most["flops_per_s"])
        emit(name, {"ms": took, "floor_ms": floor, "of_floor": floor / took})


def rival_figures(device: torch.device, m: int) -> dict:
    """The grid and the network by tinycudann, where it is installed: milliseconds beside ours."""
    if reason := tcnn_backend.unavailable():
        return {"tinycudann": reason}
    with backend.use("tcnn"):
        both = grid_cases(device, m) | network_cases(device, m)
        return {f"{name} by tinycudann": milliseconds(case.run) for name, case in both.items()}


def render_figures(device: torch.device, side: int = 800) -> dict:
    """Seconds of a view of side x side rays through a cloud, in one kernel and op by op."""
    grid = OccupancyGrid(device=device)
    field = RadianceField(FieldConfig(grid=GridConfig(levels=8, features=4, log2_size=18), precision="bf16")).to(device)
    across = torch.linspace(-0.4, 0.4, side, device=device)
    v, u = torch.meshgrid(across, across, indexing="ij")
    towards = torch.stack((u, v, torch.ones_like(u)), -1).view(-1, 3)
    origins = torch.tensor([0.5, 0.5, -1.0], device=device).expand(len(towards), 3)
    rays, background = Rays(origins, torch.nn.functional.normalize(towards, dim=1)), torch.ones(3, device=device)

    def render():
        volume.render_rays(field, grid, rays, background, volume.Config())

    figures, applies = {"one kernel": milliseconds(render, 3) / 1e3}, fused.applies
    fused.applies = lambda *_: False
    try:
        figures["op by op"] = milliseconds(render, 3) / 1e3
    finally:
        fused.applies = applies
    return figures


def gaussian_figures(device: torch.device, count: int = GAUSSIANS) -> dict:
    """Milliseconds of the scene of benchmarks/rasterise.py (100,000 Gaussians at 512 x 512), forward and with every
    gradient, and of the same by gsplat, where it is installed."""
    scene = {name: value.detach().to(device).requires_grad_() for name, value in rasterise.ball(count).items()}
    geometry, view = [scene[k] for k in ("means", "quaternions", "scales", "opacities")], rasterise.camera().to(device)
    weights, size = torch.full((SIZE, SIZE, 3), 1e-3, device=device), (SIZE, SIZE)

    def ours():
        return gaussian_raster.rasterise(project(*geometry, view), scene["colors"], *size).color

    def gsplats():
        lens = torch.tensor([[view.focal[0], 0, view.center[0]], [0, view.focal[1], view.center[1]], [0, 0, 1.0]])
        cameras = view.world_to_camera[None], lens[None].to(device)
        return gsplat.rasterization(*geometry, scene["colors"], *cameras, *size, packed=False)[0][0]

    figures = _forward_and_backward(ours, scene, weights)
    try:
        import gsplat
    except ImportError as error:
        return figures | {"gsplat": f"not installed: {error}"}
    return figures | {"gsplat": _forward_and_backward(gsplats, scene, weights)}


def _forward_and_backward(draw, scene: dict, weights: torch.Tensor) -> dict:
    """Milliseconds of `draw`, and with the gradients of `scene`."""
    both = milliseconds(lambda: torch.autograd.grad((draw() * weights).sum(), list(scene.values())))
    return {"forward_ms": milliseconds(lambda: _without_grad(draw)), "forward_backward_ms": both}


def from_photographs(method, config, capture: Path, device: torch.device):
    """A training of `method` at its beginning."""
    scene = load(capture)
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    return method.Training(method.build(config, **where, device=device), scene, 0)


def step_figures(made: Callable, step: Callable, device: torch.device, name: str, steps: int = 96) -> dict:
    """Milliseconds of `step` of the training that `made()` gives, at half the budget: as a replayed CUDA graph
    ("graph"), launch by launch ("launches"), or with the host waiting ("waiting")."""
    training = made()
    training._asked = name == "waiting"
    for i in range(3 * steps):
        if i == 2 * steps:  # the number of rays has settled, and what is captured is
            wait(device)
            began, rays = time.perf_counter(), getattr(training, "rays", None)
        if name == "launches":
            for replayed in _replayed(training):
                replayed._can = False
        step(training, 0.5)
    wait(device)
    figures = {"ms": (time.perf_counter() - began) / steps * 1e3, "rays": rays}
    return figures | {"captured": any(replayed.captured for replayed in _replayed(training))}


def _replayed(training) -> list:
    """What may be a graph of a training's steps."""
    taken = training.device_steps()
    return [] if taken is None else list(taken.graphs.values()) if hasattr(taken, "graphs") else [taken.replayed]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def test_figures(seconds: float) -> dict:
    """How the tests of CUDA kernels on a GPU end on this machine; those of the emulator are left out."""
    places = ("cuda/test_library.py", "encodings", "networks", "renderers", "sampling", "tracing", "training")
    places += ("test_camera_rays.py", "data/test_pixels.py", "data/test_target.py", "data/test_picture_pixels.py")
    places += (
        "apps/test_device.py",
        "apps/test_neus2_device.py",
        "apps/test_splat_device.py",
        "apps/test_fit_device.py",
        "fields",
    )
    folder = Path(__file__).parents[1]
    there = [f"tests/{each}" for each in places if (folder / "tests" / each).exists()]
    chosen = ["-m", "not slow", "-k", "(cuda or gpu or agree or reference or activations) and not emulated"]
    side_by_side = ["-n", "4", "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *chosen, *side_by_side]
    began, environment = time.perf_counter(), {**os.environ, "RADFIELD_TEST_EMULATED": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([*command, *there], cwd=folder, env=environment, **pipes)
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reading.start()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        code = None
    reading.join(5)
    failed = [line.strip() for line in lines if line.startswith(("FAILED", "ERROR"))]
    about = {"code": code, "failed": failed[:200], "seconds": time.perf_counter() - began}
    return about | {"said": [line.rstrip() for line in lines[-(80 if code else 1) :]]}


def training_figures(capture: Path, device: torch.device, emit, budgets=BUDGETS, config=None, views: int = 8) -> None:
    """PSNR on held-out views after so many seconds of one training, whose budget is the last; steps and stages."""
    scene = load(capture)
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    config = dataclasses.replace(config or ngp.Config(), background=scene.background)
    training = ngp.Training(ngp.build(config, **where, device=device), scene, 0)
    left = list(budgets)
    while left:
        began = time.perf_counter()
        result = ngp.train_step(training, min(training.seconds / budgets[-1], 1.0))
        training.count(result, time.perf_counter() - began)
        if training.seconds >= left[0]:
            wait(device)
            measured, _ = evaluate_views(training.model, scene, "val" if scene.val else "train", views)
            shown = {k: measured[k] for k in ("psnr", "ssim", "views", "split", "resolution", "seconds_per_view")}
            emit(f"{left.pop(0)} s", {"steps": training.step, **shown})
    emit("whole", {"capture": scene.name, "stages": dict(training.stages.seconds), **training.figures()})
