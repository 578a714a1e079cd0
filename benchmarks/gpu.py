"""Radfield on a GPU: the tests that need one, each op against what memory and arithmetic allow (and tinycudann, where
it is installed), rendering in one kernel and op by op, rasterising Gaussians (and gsplat, where it is installed),
training steps with and without a CUDA graph, a training.

python benchmarks/gpu.py [CAPTURE] [--json] [--save FILE] [--skip-tests]

CAPTURE: a capture to train on, such as lego; without it one of 60 views of 200 x 200 is generated. Under 8 minutes on a
fresh machine. Without a GPU that CUDA kernels can run on it leaves with code 2. This script itself has not been run on
a GPU yet: only its parts that need none have.

Floors: an op cannot be faster than its bytes take at the bandwidth of a large copy (measured here), or than its
products take at the rate of a large bf16 product (measured here). `of_floor` is floor / time: 1 is as fast as can
be, and more where a table stays in the card's cache. Times are of whole calls, host waits and Python included.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rasterise
import torch
from common import report
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
from radfield.errors import BadInput
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
TEST_SECONDS = 240  # the tests may take so long, so that all ends within 8 minutes
WIDTH, HIDDEN = 64, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """An op to time: what runs it, and the bytes and floating-point operations that it cannot do without."""

    run: Callable[[], object]
    bytes: float
    flops: float = 0.0


def milliseconds(function: Callable[[], object], repeats: int = 21) -> float:
    """Median of CUDA events around single calls, after three to warm up (the first compiles)."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def limits(device: torch.device) -> dict:
    """Bytes per second of a copy of 1 GiB (read and written), and operations per second of a bf16 product of 8192^3."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source))
    a = torch.ones(8192, 8192, dtype=torch.bfloat16, device=device)
    product = milliseconds(lambda: a @ a)
    return {"bytes_per_s": 2 * len(source) / copy * 1e3, "flops_per_s": 2 * 8192**3 / product * 1e3}


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


def other_cases(device: torch.device) -> dict[str, Case]:
    """Adam over 2^24 parameters (four streams read, four written, a 16-bit copy); the grid's bits from its values."""
    count = 1 << 24
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


def cases(device: torch.device, m: int = SAMPLES) -> dict[str, Case]:
    """All ops to time, on `device`, with m samples."""
    parts = (grid_cases, level_cases, network_cases, ray_cases)
    return {name: case for part in parts for name, case in part(device, m).items()} | other_cases(device)


def op_figures(device: torch.device, most: dict) -> dict:
    """Milliseconds of each op, its floor, and floor / time."""
    figures = {}
    for name, case in cases(device).items():
        took = milliseconds(case.run)
        floor = 1e3 * max(case.bytes / most["bytes_per_s"], case.flops / most["flops_per_s"])
        figures[name] = {"ms": took, "floor_ms": floor, "of_floor": floor / took}
    return figures


def rival_figures(device: torch.device) -> dict:
    """The grid and the network by tinycudann, where it is installed: milliseconds beside ours."""
    if reason := tcnn_backend.unavailable():
        return {"tinycudann": reason}
    with backend.use("tcnn"):
        both = grid_cases(device, SAMPLES) | network_cases(device, SAMPLES)
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


def gaussian_figures(device: torch.device) -> dict:
    """Milliseconds of the scene of benchmarks/rasterise.py (100,000 Gaussians at 512 x 512), forward and with every
    gradient, and of the same by gsplat, where it is installed."""
    scene = {name: value.detach().to(device).requires_grad_() for name, value in rasterise.ball(GAUSSIANS).items()}
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


def step_figures(capture: Path, device: torch.device, steps: int = 96) -> dict:
    """Milliseconds of a training step: as a replayed CUDA graph, launch by launch, and with the host waiting."""
    scene, figures = load(capture), {}
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    for name in ("graph", "launches", "waiting"):
        training = ngp.Training(ngp.build(ngp.Config(), **where, device=device), scene, 0)
        if name == "waiting":
            training._asked = True
        for i in range(3 * steps):
            if i == 2 * steps:  # the number of rays has settled, and what is captured is
                torch.cuda.synchronize(device)
                began, rays = time.perf_counter(), training.rays
            if name == "launches":
                training.device_steps().replayed._can = False
            ngp.train_step(training, 0.5)
        torch.cuda.synchronize(device)
        figures[name] = {"ms": (time.perf_counter() - began) / steps * 1e3, "rays": rays}
        if name == "graph":
            figures[name]["captured"] = training.device_steps().replayed.captured
    return figures


def test_figures() -> dict:
    """How the tests that touch CUDA end on this machine."""
    folder = Path(__file__).parents[1]
    places = ("cuda", "encodings", "networks", "renderers", "sampling", "training", "apps/test_device.py")
    places += ("apps/test_splat_device.py", "data/test_target.py")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-k", "cuda and not emulated or device"]
    began = time.perf_counter()
    try:
        arguments = [*command, *(f"tests/{each}" for each in places)]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=TEST_SECONDS)
        code, lines = done.returncode, done.stdout.splitlines()
    except subprocess.TimeoutExpired:
        code, lines = None, [f"not done after {TEST_SECONDS} s"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"code": code, "said": lines[-1:], "failed": failed, "seconds": time.perf_counter() - began}


def training_figures(capture: Path, device: torch.device, budgets=BUDGETS, config=None, views: int = 8) -> dict:
    """PSNR on held-out views after so many seconds of one training, whose budget is the last; steps and stages."""
    scene = load(capture)
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    config = dataclasses.replace(config or ngp.Config(), background=scene.background)
    training = ngp.Training(ngp.build(config, **where, device=device), scene, 0)
    figures, left = {}, list(budgets)
    while left:
        began = time.perf_counter()
        result = ngp.train_step(training, min(training.seconds / budgets[-1], 1.0))
        training.count(result, time.perf_counter() - began)
        if training.seconds >= left[0]:
            measured, _ = evaluate_views(training.model, scene, "val" if scene.val else "train", views)
            shown = {k: measured[k] for k in ("psnr", "ssim", "views", "split", "resolution", "seconds_per_view")}
            figures[f"{left.pop(0)} s"] = {"steps": training.step, **shown}
            print(f"{training.seconds:.1f} s: {measured['psnr']:.2f} dB", file=sys.stderr)
    return {"capture": scene.name, "psnr": figures, "stages": dict(training.stages.seconds), **training.figures()}


def generated(folder: Path) -> Path:
    """A capture made here: 60 training and 8 held-out views."""
    from radfield.data.synthetic import write_synthetic_capture

    return write_synthetic_capture(folder, views=60, val_views=8, size=200)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?")
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    try:
        device, _ = backend.device("cuda")
    except BadInput as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    about = torch.cuda.get_device_properties(device)
    figures = {"device": about.name, "memory": about.total_memory, "cuda": torch.version.cuda}
    figures["limits"] = limits(device)
    figures["ops"] = op_figures(device, figures["limits"])
    figures["rivals"] = rival_figures(device)
    figures["render"] = render_figures(device)
    figures["gaussians"] = gaussian_figures(device)
    with tempfile.TemporaryDirectory() as folder:
        capture = options.capture or generated(Path(folder) / "capture")
        figures["step"] = step_figures(capture, device)
        figures["training"] = training_figures(capture, device)
    figures["tests"] = None if options.skip_tests else test_figures()
    if not options.json:
        figures = {name: json.dumps(value) for name, value in figures.items()}
    report(figures, options.json, options.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
