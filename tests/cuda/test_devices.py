"""Ops of tensors that are on no CPU: everything that an op makes or looks up is on its tensors' device. Tensors of
torch's "meta" device have no memory, but a device, which the declarations check; so this needs no GPU."""

import pytest
import torch

from radfield import backend
from radfield.camera_rays import camera_rays
from radfield.cameras import Cameras
from radfield.compat.nerfacc import segments, traversal
from radfield.data.pixels import sample_pixels
from radfield.data.scene import Images
from radfield.data.target import target_image
from radfield.encodings import frequency, hash_grid, spherical_harmonics
from radfield.fields import distance, values
from radfield.gaussians import plas
from radfield.gaussians.scene import GaussianScene
from radfield.image_loss import image_loss
from radfield.networks import mlp
from radfield.networks.grid_mlp import grid_mlp
from radfield.rays import Rays
from radfield.renderers import gaussian_eval3d, gaussian_tiles, media, sphere_tracing
from radfield.renderers.composite import composite, composite_raw
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_color import gaussian_color
from radfield.renderers.gaussian_projection import project
from radfield.renderers.gaussian_raster import rasterise
from radfield.renderers.picture_frame import picture_frame
from radfield.sampling import march, occupancy
from radfield.tracing import mesh_distance, shading, solids, texture, wide_bvh, winding
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


@pytest.mark.parametrize(
    ("model", "by_rows", "kind"),
    [("perspective", True, "project_rows"), ("perspective", False, "project"), ("fisheye", True, "unscented")],
)
def test_gaussians(called, monkeypatch, model, by_rows, kind):
    monkeypatch.setattr(gaussian_tiles, "int", lambda value: 5, raising=False)  # numbers that only the device knows
    shapes = {"means": (9, 3), "quaternions": (9, 4), "scales": (9, 3), "opacities": (9,)}
    values = {name: torch.rand(shape, device=META) for name, shape in shapes.items()}
    if not by_rows:
        values = {name: value.mT.contiguous().mT if value.ndim == 2 else value for name, value in values.items()}
    values = {name: value.requires_grad_() for name, value in values.items()}
    base, rest = (torch.rand(rows, 9, device=META).requires_grad_() for rows in (3, 9))
    view = Camera(torch.eye(4), (9.0, 9.0), (4.0, 4.0), 8, 8, model=model).to(META)
    drawn = project(**values, camera=view)
    colors = gaussian_color(values["means"], base, rest, drawn.radius, view.position, degree=1)
    image = rasterise(drawn, colors, 8, 8, torch.zeros(3, device=META)).color
    gradients = torch.autograd.grad(image.sum(), [*values.values(), base, rest])
    target, _ = target_image(torch.zeros(8, 8, 4, dtype=torch.uint8, device=META), torch.zeros(3, device=META), (4, 4))
    assert {v.device for v in (*gradients, target)} == {META}
    passes = {f"{name}_{way}" for name in (kind, "color", "raster") for way in ("forward", "backward")}
    lists = {"pack", "sort", "tiles_count", "tiles_fill", "tiles_trim", "raster_gather"}
    assert set(called) == {f"gaussian_{name}" for name in passes | lists} | {"target_image"}


@pytest.mark.parametrize("options", (gaussian_eval3d.UNSORTED, gaussian_eval3d.SORTED))
def test_gaussians_by_their_response_in_space(called, options):
    shapes = {"means": 3, "quaternions": 4, "log_scales": 3, "opacity_logits": None, "base": 3, "rest": 9}
    values = {k: torch.rand(9 if n is None else (n, 9), device=META).requires_grad_() for k, n in shapes.items()}
    view = Camera(torch.eye(4), (9.0, 9.0), (4.0, 4.0), 8, 8, unscented=True).to(META)
    room, black = gaussian_tiles.EntryBudget(20, META), torch.zeros(3, device=META)
    drawn = gaussian_eval3d.see_eval3d(
        GaussianScene(**values), view, some_rays(64), black, options=options, budget=room
    )
    gradients = torch.autograd.grad(drawn.color.sum() + drawn.depth.sum(), list(values.values()))
    assert {v.device for v in (*drawn[:3], *gradients)} == {META}
    passes = {f"eval3d_{part}" for part in ("pack", "forward", "backward")} | {"color_forward", "color_backward"}
    lists = {"pack", "sort", "tiles_count", "tiles_fill", "tiles_trim", "trace_gather", "unscented_forward"}
    assert set(called) == {f"gaussian_{name}" for name in passes | lists}


def test_adam(called):
    parameter, grad = torch.zeros(50, device=META), torch.zeros(50, device=META)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        Adam([{"parameter": parameter, "grad": grad, "shadow": parameter.bfloat16()}]).step(0.1)
    assert called == ["adam_step"]


def some_rays(n: int = 5) -> Rays:
    return Rays(torch.zeros(n, 3, device=META), torch.zeros(n, 3, device=META))


def test_frames_in_one_pass(called):
    at, space = torch.zeros(5, device=META), sphere_tracing.FreeSpace(torch.zeros(sphere_tracing.CELLS**3))
    picture = values.ValueField(2, values.Config(grid=CONFIG, width=16)).to(META)
    shown = distance.DistanceField(distance.Config(CONFIG, 16)).to(META)
    medium = values.ValueField(3, values.Config(grid=CONFIG, width=16, channels=4)).to(META)
    box = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    given = (sphere_tracing.FieldDistance(shown, crop=((0, 0, 0), (1, 1, 1))), space, some_rays(), tuple(box), box[1])
    found = (
        picture_frame(picture.grid, picture.network, at, at, torch.uint16),
        *sphere_tracing.render_rays(*given),
        media.march(media.FieldMedium(medium), box, some_rays(), media.Environment()),
    )
    assert {v.device for v in found} == {META}
    assert called == ["picture_frame", "sphere_trace", "media_march"]


def test_known_geometry(called):
    x = torch.zeros(5, 3, device=META)
    tables = {"box": (1, 6, 16), "child": (1, 16), "span": (1, 16, 2), "block": (1, 9, 16), "triangle": (1, 16)}
    whole = {"child", "span", "triangle"}
    tree = wide_bvh.WideBvh(
        **{name: torch.zeros(shape, dtype=torch.int32 if name in whole else None) for name, shape in tables.items()},
        order=torch.zeros(3, dtype=torch.int32),
        corners=torch.zeros(3, 9),
        centre=(0.0, 0.0, 0.0),
        scale=1.0,
    )
    shapes = solids.Solids.of([solids.Shape("sphere", (1.0,))])
    textures = texture.Textures.of([texture.Material()], shapes.placement)
    light, index = shading.Light().table(), torch.zeros(5, dtype=torch.int32, device=META)
    found = (
        *mesh_distance.mesh_distance(tree, x, torch.zeros(3, 7, 3, device=META)),
        winding.mesh_winding(tree, torch.zeros(1, 7, 16, device=META), x),
        solids.trace_solids(shapes, some_rays(), limit=x[:, 0]).normal,
        shading.shade(x, x, x, x[:, 0], index, textures.gloss, light),
        shading.sky(x, light),
        texture.texture(textures, x, x[:, 0], index),
    )
    assert {v.device for v in found} == {META}
    assert called == ["mesh_distance", "mesh_winding", "solids_trace", "shade", "sky", "texture"]


def test_sorting_onto_a_grid(called):
    cells, whole = torch.zeros(8, 16, device=META), {"dtype": torch.int32, "device": META}
    gain = plas.exchange(torch.zeros(8, **whole), cells, cells, torch.zeros(2, 4, **whole))
    assert gain.device == META and called == ["plas_exchange"]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        plas.plas_sort(torch.zeros(8, 3, device=META), 4)  # comes as far as what is left of the sum of squares


def test_what_the_nerfacc_stand_in_adds(called):
    x, start = torch.rand(5, device=META).requires_grad_(), torch.zeros(3, dtype=torch.int64, device=META)
    for product in (False, True):
        y = segments.segment_scan(x, start, product=product, exclusive=True)
        assert torch.autograd.grad(y.sum(), x)[0].device == META
    assert called == ["segment_scan"] * 3 + ["segment_product_backward"]
    scene = {name: torch.zeros(5, 3, device=META) for name in ("origins", "directions")}
    scene |= {name: torch.zeros(5, device=META) for name in ("near", "far")}
    scene |= {"t_sorted": torch.zeros(5, 2, device=META), "aabbs": torch.zeros(1, 6, device=META), "mask": None}
    scene |= {"t_indices": torch.zeros(5, 2, dtype=torch.int64, device=META)}
    scene |= {"hits": torch.zeros(5, 1, dtype=torch.uint8, device=META), "step": 0.1, "cone": 0.0, "limit": 4}
    scene |= {"occupied": torch.zeros(1, 2, 2, 2, dtype=torch.uint8, device=META)}
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        traversal.traverse(scene, edges=True)  # comes as far as the number of samples
    assert called[-1] == "grid_traverse_count"
