"""Tiles and rasterisation of Gaussians: agreement with the reference, which draws every Gaussian on every pixel, the
laws of light, and gradients that do not depend on the threads."""

import dataclasses
import itertools

import pytest
import torch
from checks import EMULATES, combine
from cuda_emulator.backend import SCHEDULES, emulator
from renderers_gaussians import NAMES, Reference, agrees, camera, draw, scene

from radfield import backend
from radfield.cuda import library
from radfield.errors import BadInput
from radfield.renderers.gaussian_color import gaussian_color
from radfield.renderers.gaussian_projection import MIN_ALPHA, Projected, project
from radfield.renderers.gaussian_raster import rasterise
from radfield.renderers.gaussian_tiles import make_tiles


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_agrees_with_reference(channels):
    agrees(scene(300, channels), camera(), background=torch.rand(channels))


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(
    ("channels", "count", "size", "order"),
    [(1, 40, (17, 9), 0), (3, 90, (37, 30), 1), (3, 60, (20, 33), 7), (4, 500, (16, 16), 7)],
)
def test_emulated_kernels_agree_with_reference(channels, count, size, order):
    """Needles, more entries than a batch has, and rays that end among them."""
    emulator.order = order
    values = scene(count, channels, size=-2.2)
    values["opacities"][::2] = 0.97
    with backend.use(backend.EMULATED):
        agrees(values, camera(*size), background=torch.rand(channels), most_left_out=4e-3)


@pytest.mark.skipif(library.unavailable() is not None, reason="needs a GPU that CUDA kernels run on")
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_agrees_with_reference_on_cuda(channels):
    agrees(scene(3000, channels), camera(150, 130), background=torch.rand(channels), device="cuda")


@pytest.mark.usefixtures("each_backend_once")
def test_gradient_of_alpha_alone():
    values = {k: v.requires_grad_() for k, v in scene(30).items()}
    projected = project(*[values[k] for k in NAMES[:4]], camera(20, 20))
    alpha = rasterise(projected, values["colors"], 20, 20).alpha
    found = torch.autograd.grad(alpha.sum(), values["opacities"], retain_graph=True)[0]
    color = rasterise(projected, torch.ones_like(values["colors"]), 20, 20).color[..., 0]
    torch.testing.assert_close(found, torch.autograd.grad(color.sum(), values["opacities"])[0], rtol=1e-4, atol=1e-5)
    assert found.any() and bool(found.isfinite().all())


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (75, 50)])
def test_any_size_of_image(size):
    agrees(scene(120), camera(*size), most_left_out=2e-3)


def test_empty_scene_and_nothing_in_sight():
    for count, shift in ((0, 0.0), (20, -50.0)):
        values = scene(count)
        values["means"][:, 2] += shift
        found, grads = draw(values, camera(), background=torch.tensor([0.2, 0.4, 0.6]))
        assert torch.equal(found.color, torch.tensor([0.2, 0.4, 0.6]).expand_as(found.color))
        assert not found.alpha.any() and not any(grads[k].any() for k in NAMES)


def test_light_is_conserved():
    """White Gaussians before a white background are white everywhere; alpha is what they hide of another."""
    values = scene(400)
    values["colors"][:] = 1
    found, _ = draw(values, camera(), background=torch.ones(3))
    torch.testing.assert_close(found.color, torch.ones_like(found.color), rtol=0, atol=2e-6)
    black, _ = draw(values, camera())
    torch.testing.assert_close(black.color[..., 0], black.alpha, rtol=0, atol=2e-6)


def test_order_in_memory_does_not_matter():
    values = scene(500)
    turned = {k: v.flip(0) for k, v in values.items()}
    ours, theirs = (draw(v, camera())[0].color for v in (values, turned))
    assert torch.equal(ours, theirs)


def test_bits_do_not_depend_on_threads(threads):
    values = scene(2000, size=-2.5)

    def run():
        found, grads = draw(values, camera(150, 130))
        return found.color.detach(), found.alpha.detach(), *grads.values()

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("each_backend_once")
def test_absolute_gradients():
    """Those of one Gaussian on one pixel are the absolute values; on many never less than the gradient's own."""
    values, view = scene(80), camera(50, 30)

    def both(columns, rows):
        projected = project(*[values[k].requires_grad_() for k in NAMES[:4]], view)
        projected.mean2d.retain_grad()
        absolute = torch.zeros(2, len(projected.depth))
        result = rasterise(projected, values["colors"], view.width, view.height, absolute=absolute)
        result.color[rows, columns].sum().backward()
        return absolute.T, projected.mean2d.grad

    absolute, grad = both(40, 25)
    torch.testing.assert_close(absolute, grad.abs(), rtol=1e-4, atol=1e-6)
    absolute, grad = both(slice(None), slice(None))
    assert bool((absolute >= grad.abs() - 1e-4 * absolute.max()).all())
    with pytest.raises(BadInput, match="absolute with 7 channels"):
        rasterise(project(*[values[k] for k in NAMES[:4]], view), torch.rand(300, 7), 8, 8, absolute=absolute)


def test_lists_of_tiles():
    """Every block that a Gaussian reaches has it, nearest first, and `position` finds the entries of each."""
    values, view = scene(300, size=-2.5), camera()
    found = project(*[values[k] for k in NAMES[:4]], view)
    tiles, _ = make_tiles(found, values["colors"].T.contiguous(), view.width, view.height)
    numbers, bits = tiles.entries >> 4, tiles.entries & 15
    starts = tiles.tile_start.tolist()
    in_block = torch.zeros(tiles.columns * 2, -(-view.height // 16) * 2, len(found.depth), dtype=torch.bool)
    for t, (begin, end) in enumerate(itertools.pairwise(starts)):
        depth = found.depth[numbers[begin:end].long()]
        assert bool((depth[1:] >= depth[:-1]).all())
        for bit in range(4):
            inside = numbers[begin:end][(bits[begin:end] >> bit & 1).bool()].long()
            in_block[t % tiles.columns * 2 + bit % 2, t // tiles.columns * 2 + bit // 2, inside] = True
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (view.height, view.width)), indexing="ij")
    dx, dy = x[..., None] - found.mean2d[:, 0], y[..., None] - found.mean2d[:, 1]
    e, k, c = found.conic.T
    seen = found.opacity * (-(e * dx * dx + c * (dy + k * dx).square()) / 2).exp() >= MIN_ALPHA
    blocks = in_block[(x // 8).long(), (y // 8).long()]
    assert not (seen & ~blocks).any()
    owner = torch.repeat_interleave(torch.arange(len(found.depth)), tiles.slot_start.diff())
    assert torch.equal(numbers[tiles.position.long()].long(), owner)


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize(("count", "far"), [(0, 0.0), (1, 0.0), (70, 0.0), (70, 100.0), (2500, 0.0)])
def test_emulated_lists_are_those_of_the_cpu(count, far, order):
    """Bit for bit, ties and what is left out among them; `far` Gaussians need all passes of the sort."""
    values, view = scene(count, size=-2.5), camera(300, 40)
    found = project(*[values[k] for k in NAMES[:4]], view)
    found.depth[:: 1 + count // 8] *= 1 + far
    found.depth[count // 2 : count // 2 + 20] = 2.0
    emulator.order = order
    lists = []
    for name in ("cpu", backend.EMULATED):
        with backend.use(name):
            tiles, records = make_tiles(found, values["colors"].T.contiguous(), view.width, view.height)
        drawn = (found.radius > 0).all(1)
        lists.append((tiles.entries, tiles.tile_start, tiles.position, tiles.slot_start, tiles.boxes, records[drawn]))
    for ours, theirs in zip(*lists, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize("size", [(8, 8), (1200, 1100)])
def test_emulated_lists_of_one_tile_and_of_thousands(size):
    """No pass of the sort by tile, and two of them."""
    values, view, lists = scene(40, size=-2.0), camera(*size), []
    emulator.order = SCHEDULES[-1]
    found = project(*[values[k] for k in NAMES[:4]], view)
    for name in ("cpu", backend.EMULATED):
        with backend.use(name):
            tiles, _ = make_tiles(found, values["colors"].T.contiguous(), *size)
        lists.append((tiles.entries, tiles.tile_start, tiles.position))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*lists, strict=True)) and len(lists[0][0])


def test_bad_input():
    empty = Projected(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(BadInput, match="max_alpha is 1"):
        rasterise(empty, torch.zeros(1, 3), 8, 8, max_alpha=1)
    with pytest.raises(BadInput, match="colors has shape"):
        rasterise(empty, torch.zeros(1, 0), 8, 8)
    with pytest.raises(BadInput, match="background has shape"):
        rasterise(empty, torch.zeros(1, 3), 8, 8, torch.zeros(2))
    with pytest.raises(BadInput, match="a side"):
        rasterise(empty, torch.zeros(1, 3), 1 << 18, 8)


def test_gradients_reach_the_camera():
    """Down to pose and lens, through projection, colour and raster: those of the reference in float64."""
    values, view = scene(200), camera()
    rest = torch.randn(9, 200, generator=torch.Generator().manual_seed(3)) * 0.2
    drop = Reference(values, view).close

    def gradients(kind):
        native = kind == torch.float32
        cast = {k: v.to(kind) for k, v in values.items()}
        pose, focal = (v.to(kind).requires_grad_() for v in (view.world_to_camera.clone(), torch.tensor(view.focal)))
        seen = dataclasses.replace(view, world_to_camera=pose, focal=focal)
        with backend.use("cpu" if native else "reference"):
            projected = project(*[cast[k] for k in NAMES[:4]], seen)
            coefficients = cast["colors"].T.contiguous(), rest.to(kind)
            colors = gaussian_color(cast["means"], *coefficients, projected.radius, seen.position, degree=1)
            result = rasterise(projected, colors, view.width, view.height)
        return torch.autograd.grad(combine(result.color * (~drop).to(kind)[..., None], 1), (pose, focal))

    for ours, theirs in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
