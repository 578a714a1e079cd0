"""Ops of tensors that are on no CPU: everything that an op makes or looks up is on its tensors' device. Tensors of
torch's "meta" device have no memory, but a device, which the declarations check; so this needs no GPU."""

import pytest
import torch

from radfield import backend
from radfield.camera_rays import camera_rays
from radfield.cameras import Cameras
from radfield.data.pixels import sample_pixels
from radfield.data.scene import Images
from radfield.data.target import target_image
from radfield.encodings import frequency, hash_grid, spherical_harmonics
from radfield.image_loss import image_loss
from radfield.networks import mlp
from radfield.networks.grid_mlp import grid_mlp
from radfield.rays import Rays
from radfield.renderers import gaussian_tiles
from radfield.renderers.composite import composite, composite_raw
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_color import gaussian_color
from radfield.renderers.gaussian_projection import project
from radfield.renderers.gaussian_raster import rasterise
from radfield.sampling import march, occupancy
from radfield.training.adam import Adam

META = torch.device("meta")


@pytest.fixture
def called(monkeypatch):
    """The names of the ops that run, on a device of which only the tensors' places are known."""
    names = []

    def run(op, packed, device):
        if device == META:  # not what a module does when it is made
            op.launches(packed)
            names.append(op.name)

    monkeypatch.setattr(backend, "backend_for", lambda tensor: backend.EMULATED)
    monkeypatch.setattr(backend, "runner", lambda device: run)
    return names


def test_encodings(called):
    x = torch.rand(9, 3).to(META).requires_grad_()
    table = torch.zeros(hash_grid.grid_levels(3, CONFIG).entries, 2, device=META, requires_grad=True)
    features = hash_grid.hash_grid(x, table, hash_grid.grid_levels(3, CONFIG))
    gradients = torch.autograd.grad(features.sum(), [x, table], create_graph=True)
    torch.autograd.grad(sum(g.sum() for g in gradients), [x, table])
    for result in (frequency.frequency(x, 3), spherical_harmonics.spherical_harmonics(x, 3)):
        torch.autograd.grad(result.sum(), x)
        assert result.device == META
    assert {"hash_grid_forward", "hash_grid_backward", "hash_grid_backward_x", "frequency_backward"} <= set(called)


CONFIG = hash_grid.Config(3, 2, 8)


def test_networks(called):
    net = mlp.MLP(6, 3, mlp.Config(16, 1, "silu")).to(META)
    x = torch.rand(9, 6, device=META).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    torch.autograd.grad(gradient.sum(), x)
    assert grid_mlp(torch.rand(5, 3, device=META), hash_grid.HashGrid(3, CONFIG).to(META), net).device == META
    assert {"mlp_forward", "mlp_backward", "mlp_second", "grid_mlp_forward"} == set(called)


@pytest.mark.parametrize("raw", [False, True])
def test_compositing(called, raw, monkeypatch):
    names = ("t_start", "t_end", "ray_start")
    intervals = "radfield.renderers.composite._intervals"
    monkeypatch.setattr(intervals, lambda *values: dict(zip(names, values, strict=True)))
    sigma, rgb = torch.rand(9, device=META).requires_grad_(), torch.rand(9, 3, device=META).requires_grad_()
    times = torch.rand(9, device=META)
    found = (composite_raw if raw else composite)(
        sigma, rgb, times, times, torch.zeros(4, dtype=torch.int32, device=META)
    )
    torch.autograd.grad(found.color.sum(), [sigma, rgb])
    assert called == ["composite_forward", "composite_backward"]


def test_pictures(called):
    image = torch.rand(20, 30, 3, device=META).requires_grad_()
    assert image_loss(image, image.detach()).device == META
    sizes = torch.tensor([[5, 4]], device=META)
    offset = torch.zeros(2, dtype=torch.int64, device=META)
    images = Images(torch.zeros(20, 3, dtype=torch.uint8, device=META), offset, sizes)
    pixels = sample_pixels(images, 7, background=(1.0, 1.0, 1.0))
    assert pixels.color.device == META and called == ["image_loss", "pixels_sample"]


def test_rays(called, monkeypatch):
    eye = torch.eye(4).expand(2, 4, 4)
    two = torch.ones(2, 2)
    cameras = Cameras(eye, two, two, torch.full((2, 2), 4), torch.zeros(2, 9), "perspective")
    moved = {name: value.to(META) for name, value in vars(cameras).items() if isinstance(value, torch.Tensor)}
    for name, value in moved.items():
        object.__setattr__(cameras, name, value)
    monkeypatch.setattr(Cameras, "distorted", False)
    rays = camera_rays(cameras, torch.zeros(0, dtype=torch.int32, device=META), torch.zeros(0, 2, device=META))
    assert rays.origins.device == META and called == ["camera_rays"]


def test_occupancy_and_march(called):
    grid = occupancy.OccupancyGrid(occupancy.Config(resolution=16)).to(META)
    cells = torch.zeros(5, dtype=torch.int32, device=META)
    grid.refresh()
    grid.record(cells, torch.zeros(5, device=META))
    grid.observe(occupancy.points(cells, 16, 1), torch.zeros(5, device=META))
    counted = (
        lambda: occupancy.uniform_cells(grid.values, 4, 0, 1),
        lambda: occupancy.occupied_cells(grid.bitfield, 9, 1),
    )
    rays = Rays(torch.zeros(5, 3, device=META), torch.zeros(5, 3, device=META))
    for ask in (*counted, lambda: march.march(rays, grid)):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            ask()  # comes as far as the number that only a device with memory knows
    expected = {"uniform_cells", "occupied_cells", "points", "update", "observe", "bitfield"}
    assert set(called) == {f"occupancy_{name}" for name in expected} | {"march_count"}


@pytest.mark.parametrize("model", ["perspective", "fisheye"])
def test_gaussians(called, monkeypatch, model):
    monkeypatch.setattr(gaussian_tiles, "int", lambda value: 5, raising=False)  # numbers that only the device knows
    shapes = {"means": (9, 3), "quaternions": (9, 4), "scales": (9, 3), "opacities": (9,)}
    values = {name: torch.rand(shape, device=META).requires_grad_() for name, shape in shapes.items()}
    base, rest = (torch.rand(rows, 9, device=META).requires_grad_() for rows in (3, 9))
    view = Camera(torch.eye(4), (9.0, 9.0), (4.0, 4.0), 8, 8, model=model).to(META)
    drawn = project(**values, camera=view)
    colors = gaussian_color(values["means"], base, rest, drawn.radius, view.position, degree=1)
    image = rasterise(drawn, colors, 8, 8, torch.zeros(3, device=META)).color
    gradients = torch.autograd.grad(image.sum(), [*values.values(), base, rest])
    target, _ = target_image(torch.zeros(8, 8, 4, dtype=torch.uint8, device=META), torch.zeros(3, device=META), (4, 4))
    assert {v.device for v in (*gradients, target)} == {META}
    kind = "project" if model == "perspective" else "unscented"
    passes = {f"{name}_{way}" for name in (kind, "color", "raster") for way in ("forward", "backward")}
    lists = {"pack", "sort", "tiles_count", "tiles_fill", "tiles_trim", "raster_gather"}
    assert set(called) == {f"gaussian_{name}" for name in passes | lists} | {"target_image"}


def test_adam(called):
    parameter, grad = torch.zeros(50, device=META), torch.zeros(50, device=META)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        Adam([{"parameter": parameter, "grad": grad, "shadow": parameter.bfloat16()}]).step(0.1)
    assert called == ["adam_step"]
