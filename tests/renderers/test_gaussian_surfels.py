"""2D Gaussians: agreement with the reference, rays that meet planes, the laws of light, what is left out."""

import contextlib
import dataclasses
import math

import pytest
import torch
from checks import EMULATES, combine
from cuda_emulator.backend import emulator
from renderers_gaussians import camera, random_gaussians

from radfield import backend
from radfield.errors import BadInput
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_projection import MIN_ALPHA, rotation_matrices
from radfield.renderers.gaussian_raster import MIN_TRANSMITTANCE
from radfield.renderers.gaussian_surfels import Surfels, project_surfels, rasterise_surfels, surfel_hits

NAMES = ("means", "quaternions", "scales", "opacities")


def scene(count, channels=3, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    values = random_gaussians(count, generator, **options)
    return {**values, "colors": torch.rand(count, channels, generator=generator)}


def draw(values, view, kind, drop, background):
    """The planes, and the gradients of a fixed combination of them without the pixels in `drop`; of float64 those of
    the reference."""
    leaves = {k: v.detach().clone().to(kind).requires_grad_() for k, v in values.items()}
    pose = view.world_to_camera.clone().to(kind).requires_grad_()
    behind = background.clone().to(kind).requires_grad_()
    with contextlib.nullcontext() if kind == torch.float32 else backend.use("reference"):
        posed = dataclasses.replace(view, world_to_camera=pose)
        found = project_surfels(*[leaves[k] for k in NAMES], posed)
        image = rasterise_surfels(found, leaves["colors"], view.width, view.height, behind, near=view.near)
        keep = (~drop).to(kind)
        planes = (image.color * keep[..., None], image.alpha * keep, image.depth * keep, 30 * image.distortion * keep)
        sum(combine(v, i) for i, v in enumerate(planes)).backward()
    return image, {**{k: v.grad for k, v in leaves.items()}, "background": behind.grad, "pose": pose.grad}


def at_threshold(values, view, max_alpha=0.99):
    """[rows, columns], whether rounding decides how the rules apply: alpha, transmittance, disc or filter."""
    values = {k: v.double() for k, v in values.items()}
    found = project_surfels(*[values[k] for k in NAMES], view)
    order = (found.radius > 0).all(1).nonzero()[:, 0]
    order = order[found.depth[order].argsort(stable=True)]
    sorted_ones = Surfels(*(v[order] for v in found))
    rho, depth, above = surfel_hits(sorted_ones, view.width, view.height, view.near)
    raw = sorted_ones.opacity[:, None] * (-rho / 2).exp()
    alpha = torch.where(raw >= MIN_ALPHA, raw.clamp_max(max_alpha), 0)
    left = (1 - alpha).cumprod(0)
    close = ((raw - MIN_ALPHA).abs() < 1e-6) | ((raw - max_alpha).abs() < 2e-6)
    close |= (left - MIN_TRANSMITTANCE).abs() < 2e-5 * MIN_TRANSMITTANCE
    close |= (above.abs() < 1e-4 * (1 + rho)) & (raw > 0.5 * MIN_ALPHA)
    close |= (depth - view.near).abs() < 1e-4
    return close.any(0).view(view.height, view.width), (left - 0.5).abs().amin(0).view(view.height, view.width) < 1e-5


def agrees(values, view, most_left_out=2e-3):
    drop, half = at_threshold(values, view)
    assert drop.float().mean() <= most_left_out
    background = torch.rand(values["colors"].shape[1], generator=torch.Generator().manual_seed(9))
    (ours, our_grads), (theirs, their_grads) = (
        draw(values, view, kind, drop, background) for kind in (torch.float32, torch.float64)
    )
    for name in ("color", "alpha", "depth", "distortion"):
        one, other = getattr(ours, name).detach()[~drop], getattr(theirs, name).detach()[~drop]
        assert (one - other).abs().max() < 2e-5 * max(1, float(other.abs().max())), name
    settled = ~drop & ~half
    torch.testing.assert_close(ours.median[settled].double(), theirs.median[settled], rtol=1e-4, atol=1e-4)
    for name, grad in our_grads.items():  # p x q of a disc seen nearly edge-on is a difference of products
        error = (grad - their_grads[name]).abs().max() / their_grads[name].abs().max().clamp_min(1e-9)
        assert error < 5e-4, f"gradient of {name}: {error:.3g}"


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_agrees_with_reference(channels):
    agrees(scene(150, channels, size=-2.5), camera())


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(
    ("channels", "count", "size", "order"), [(1, 30, (17, 9), 0), (3, 60, (37, 30), 7), (6, 300, (16, 16), 1)]
)
def test_emulated_kernels_agree_with_reference(channels, count, size, order):
    """Also rays that end, and more entries than a batch has."""
    emulator.order = order
    values = scene(count, channels, size=-2.2)
    values["opacities"][::2] = 0.97
    with backend.use(backend.EMULATED):
        agrees(values, camera(*size), most_left_out=1e-2)


@pytest.mark.parametrize("size", [(1, 1), (17, 33)])
def test_any_size_of_image(size):
    agrees(scene(100, size=-2.5), camera(*size), most_left_out=5e-3)


def test_tiny_ones_are_as_wide_as_the_filter():
    values = scene(150)
    values["scales"][:] = 1e-5
    agrees(values, camera())


def wall(tilt, count=30):
    """Surfels of one plane, which is turned by `tilt` about y; and the plane's normal."""
    grid = torch.linspace(-1.5, 1.5, count)
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    turn = torch.tensor([math.cos(tilt / 2), 0, math.sin(tilt / 2), 0])[None]
    axes = rotation_matrices(turn)[0]
    means = u.reshape(-1, 1) * axes[:, 0] + v.reshape(-1, 1) * axes[:, 1] + torch.tensor([0, 0, 3.0])
    count = len(means)
    values = {"means": means, "quaternions": turn.expand(count, 4), "scales": torch.full((count, 2), 0.15)}
    return {**values, "opacities": torch.full((count,), 0.8)}, axes[:, 2]


@pytest.mark.parametrize("tilt", [0.0, 0.5, -0.7])
def test_a_plane_has_its_own_depth_and_no_distortion(tilt):
    """Every ray meets every surfel of a plane at the plane: to the last digits, whatever the angle."""
    values, normal = wall(tilt)
    view = Camera(torch.eye(4), (60.0, 60.0), (20.0, 15.0), 40, 30)
    found = project_surfels(*values.values(), view)
    image = rasterise_surfels(found, torch.ones(len(found.depth), 1), 40, 30)
    y, x = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    ray = torch.stack(((x - 20) / 60, (y - 15) / 60, torch.ones_like(x)), -1)
    depth = (normal @ torch.tensor([0, 0, 3.0])) / (ray @ normal)
    solid = image.alpha > 0.5
    assert solid.float().mean() > 0.5
    torch.testing.assert_close((image.depth / image.alpha)[solid], depth[solid], rtol=1e-4, atol=0)
    torch.testing.assert_close(image.median[solid], depth[solid], rtol=1e-4, atol=0)
    assert image.distortion[solid].max() < 1e-6


def test_response_is_where_the_ray_meets_the_disc():
    """One surfel: alpha is that of the point on its plane, found in the world by another route."""
    mean, turn = torch.tensor([[0.1, -0.05, 2.0]]), torch.tensor([[0.9, 0.3, -0.2, 0.1]])
    scales, view = torch.tensor([[0.5, 0.3]]), Camera(torch.eye(4), (50.0, 50.0), (16.0, 16.0), 32, 32)
    image = rasterise_surfels(project_surfels(mean, turn, scales, torch.tensor([0.9]), view), torch.ones(1, 1), 32, 32)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    ray = torch.stack(((x - 16) / 50, (y - 16) / 50, torch.ones_like(x)), -1)
    axes = rotation_matrices(turn)[0]
    distance = (mean[0] @ axes[:, 2]) / (ray @ axes[:, 2])
    on_disc = ((ray * distance[..., None] - mean[0]) @ axes[:, :2]) / scales[0]
    wanted = 0.9 * (-on_disc.square().sum(-1) / 2).exp()
    torch.testing.assert_close(image.alpha, torch.where(wanted >= MIN_ALPHA, wanted, 0), rtol=1e-4, atol=1e-5)


def test_distortion_is_the_sum_over_pairs():
    """Two discs of known alpha: w_1 w_2 (m_1 - m_2)^2."""
    means, turn = torch.tensor([[0.0, 0, 2], [0.0, 0, 2.5]]), torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4)
    view = Camera(torch.eye(4), (50.0, 50.0), (0.5, 0.5), 1, 1)
    found = project_surfels(means, turn, torch.full((2, 2), 0.2), torch.tensor([0.5, 0.8]), view)
    image = rasterise_surfels(found, torch.ones(2, 1), 1, 1)
    torch.testing.assert_close(image.distortion[0, 0], torch.tensor(0.5 * 0.4 * 0.25))
    torch.testing.assert_close(image.depth[0, 0], torch.tensor(0.5 * 2 + 0.4 * 2.5))
    assert image.median[0, 0] == 2


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_what_is_degenerate_is_left_out_and_has_no_gradient(name):
    values = {k: v for k, v in scene(10).items() if k != "colors"}
    values["means"][:], values["opacities"][:], values["scales"][:] = 0, 0.5, 0.05
    values["means"][0, 1] = math.nan
    values["quaternions"][1] = 0
    values["scales"][2, 1] = math.inf
    values["opacities"][3] = 0
    values["means"][4] = torch.tensor([50.0, 0, 0])
    values["means"][5, 2] = -10  # behind
    values["scales"][6] = 10  # reaches the camera
    values["scales"][7] = 0  # as wide as the filter
    values["quaternions"][8] = torch.tensor([math.sqrt(0.5), 0, math.sqrt(0.5), 0])  # edge-on
    values["opacities"][9] = 1
    values = {k: v.requires_grad_() for k, v in values.items()}
    with backend.use(name):
        found = project_surfels(*values.values(), camera())
        assert (found.radius > 0).all(1).tolist() == [False] * 7 + [True] * 3
        image = rasterise_surfels(found, torch.rand(10, 3), 75, 50)
        sum(v.sum() for v in image).backward()
    assert all(bool(v.detach().isfinite().all()) for v in image)
    for value in values.values():
        assert bool(value.grad[:7].eq(0).all()) and bool(value.grad.isfinite().all())


def test_empty_scene_shows_the_background():
    values, behind = scene(0), torch.tensor([0.2, 0.4, 0.6])
    found = project_surfels(*[values[k] for k in NAMES], camera())
    for name in ("cpu", "reference"):
        with backend.use(name):
            image = rasterise_surfels(found, values["colors"], 20, 10, behind)
        assert torch.equal(image.color, behind.expand(10, 20, 3)) and not any(v.any() for v in image[1:])


def test_light_is_conserved():
    values = scene(300, size=-2.5)
    found = project_surfels(*[values[k] for k in NAMES], camera())
    image = rasterise_surfels(found, torch.ones(300, 3), 75, 50, torch.ones(3))
    torch.testing.assert_close(image.color, torch.ones_like(image.color), rtol=0, atol=2e-6)


def test_bits_do_not_depend_on_threads(threads):
    values, nothing = scene(1000, size=-2.5), torch.zeros(90, 110, dtype=torch.bool)

    def run():
        image, grads = draw(values, camera(110, 90), torch.float32, nothing, torch.zeros(3))
        return *(v.detach() for v in image), *grads.values()

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_bad_input():
    values = scene(5)
    with pytest.raises(BadInput, match="without distortion"):
        project_surfels(*[values[k] for k in NAMES], dataclasses.replace(camera(), model="fisheye"))
    found = project_surfels(*[values[k] for k in NAMES], camera())
    with pytest.raises(BadInput, match="C from 1 to 6"):
        rasterise_surfels(found, torch.zeros(5, 7), 8, 8)
    with pytest.raises(BadInput, match="max_alpha is 0"):
        rasterise_surfels(found, torch.zeros(5, 3), 8, 8, max_alpha=0)
