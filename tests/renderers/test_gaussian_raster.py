"""Tiles and rasterisation of Gaussians: agreement with the reference, which draws every Gaussian on every pixel, the
laws of light, and gradients that do not depend on the threads."""

import dataclasses
import itertools

import pytest
import torch
from checks import combine
from renderers_gaussians import camera, random_gaussians

from radfield import backend
from radfield.errors import BadInput
from radfield.renderers.gaussian_color import gaussian_color
from radfield.renderers.gaussian_projection import MIN_ALPHA, Camera, Projected, project, project_reference
from radfield.renderers.gaussian_raster import MIN_TRANSMITTANCE, raster_reference, rasterise
from radfield.renderers.gaussian_tiles import make_tiles

NAMES = ("means", "quaternions", "scales", "opacities", "colors")


def scene(count, channels=3, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    values = random_gaussians(count, generator, **options)
    return {**values, "colors": torch.rand(count, channels, generator=generator)}


def draw(values, view, kind, *, background=None, drop=None, max_alpha=0.99):
    """Image, alpha, and the gradients of a fixed combination of both; pixels in `drop` take no part."""
    native = kind == torch.float32
    values = {k: values[k].detach().to(kind).requires_grad_() for k in NAMES}
    with backend.use("cpu" if native else "reference"):
        projected = (project if native else project_reference)(*[values[k] for k in NAMES[:4]], view)
        behind = None if background is None else background.detach().clone().to(kind).requires_grad_()
        options = {"max_alpha": max_alpha}
        function = rasterise if native else raster_reference
        result = function(projected, values["colors"], view.width, view.height, behind, **options)
        keep = 1.0 if drop is None else (~drop).to(kind)
        keep_color = keep if drop is None else keep[..., None]
        (combine(result.color * keep_color, 1) + combine(result.alpha * keep, 2)).backward()
    grads = {k: v.grad for k, v in values.items()}
    if behind is not None:
        grads["background"] = behind.grad
    return result, grads


def near_threshold(values, view, max_alpha=0.99):
    """[rows, columns], whether an alpha or transmittance lies where rounding decides how the rules apply."""
    values = {k: v.double() for k, v in values.items()}
    found = project_reference(*[values[k] for k in NAMES[:4]], view)
    order = (found.radius > 0).all(1).nonzero()[:, 0]
    order = order[found.depth[order].argsort(stable=True)]
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (view.height, view.width)), indexing="ij")
    dx, dy = x.reshape(1, -1) - found.mean2d[order, :1], y.reshape(1, -1) - found.mean2d[order, 1:]
    a, b, c = found.conic[order].T[..., None]
    raw = found.opacity[order, None] * (-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy).exp()
    alpha = torch.where(raw >= MIN_ALPHA, raw.clamp_max(max_alpha), 0)
    left = (1 - alpha).cumprod(0)
    close = (raw - MIN_ALPHA).abs() < 5e-7
    close |= (raw - max_alpha).abs() < 1e-6
    close |= (left - MIN_TRANSMITTANCE).abs() < 1e-5 * MIN_TRANSMITTANCE
    return close.any(0).view(view.height, view.width)


def agrees(values, view, *, background=None, most_left_out=1e-3, max_alpha=0.99):
    """Image to 1e-5 and gradients to 1e-4 of the reference in float64, but for pixels at a threshold."""
    drop = near_threshold(values, view, max_alpha)
    assert drop.float().mean() <= most_left_out
    options = {"background": background, "drop": drop, "max_alpha": max_alpha}
    ours, our_grads = draw(values, view, torch.float32, **options)
    theirs, their_grads = draw(values, view, torch.float64, **options)
    assert (ours.color - theirs.color)[~drop].abs().max() < 1e-5
    assert (ours.alpha - theirs.alpha)[~drop].abs().max() < 1e-5
    for name, grad in our_grads.items():
        error = (grad - their_grads[name]).abs().max() / their_grads[name].abs().max().clamp_min(1e-9)
        assert error < 1e-4, f"gradient of {name}: {error:.3g}"


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_agrees_with_reference(channels):
    agrees(scene(300, channels), camera(), background=torch.rand(channels))


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (75, 50)])
def test_any_size_of_image(size):
    agrees(scene(120), camera(*size), most_left_out=2e-3)


def test_needles_and_pancakes():
    values = scene(200, size=-2.0)
    values["scales"][:100, 1:] = 1e-6
    values["scales"][100:, 2] = 1e-6
    agrees(values, camera())


def test_opaque_ones_and_the_ceiling():
    values = scene(150, size=-2.5)
    values["opacities"][:] = 1
    agrees(values, camera(), background=torch.rand(3), max_alpha=0.999)


def test_thousands_on_one_pixel():
    values = scene(3000, size=-6.0, spread=1e-3)
    values["means"][:, 2] = torch.linspace(-0.5, 0.5, 3000)  # far enough apart for one order in every float type
    values["opacities"] = values["opacities"] * 0.02
    agrees(values, camera(24, 20), background=torch.rand(3), most_left_out=1e-2)


def test_empty_scene_and_nothing_in_sight():
    for count, shift in ((0, 0.0), (20, -50.0)):
        values = scene(count)
        values["means"][:, 2] += shift
        found, grads = draw(values, camera(), torch.float32, background=torch.tensor([0.2, 0.4, 0.6]))
        assert torch.equal(found.color, torch.tensor([0.2, 0.4, 0.6]).expand_as(found.color))
        assert not found.alpha.any() and not any(grads[k].any() for k in NAMES)


def test_light_is_conserved():
    """White Gaussians before a white background are white everywhere; alpha is what they hide of another."""
    values = scene(400)
    values["colors"][:] = 1
    found, _ = draw(values, camera(), torch.float32, background=torch.ones(3))
    torch.testing.assert_close(found.color, torch.ones_like(found.color), rtol=0, atol=2e-6)
    black, _ = draw(values, camera(), torch.float32)
    torch.testing.assert_close(black.color[..., 0], black.alpha, rtol=0, atol=2e-6)


def test_order_in_memory_does_not_matter():
    values = scene(500)
    turned = {k: v.flip(0) for k, v in values.items()}
    ours, theirs = (draw(v, camera(), torch.float32)[0].color for v in (values, turned))
    assert torch.equal(ours, theirs)


def test_bits_do_not_depend_on_threads(threads):
    values = scene(2000, size=-2.5)

    def run():
        found, grads = draw(values, camera(150, 130), torch.float32)
        return found.color.detach(), found.alpha.detach(), *grads.values()

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_absolute_gradients():
    """Those of one Gaussian on one pixel are the absolute values; on many never less than the gradient's own."""
    values, view = scene(300), camera()

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
    a, b, c = found.conic.T
    seen = found.opacity * (-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy).exp() >= MIN_ALPHA
    blocks = in_block[(x // 8).long(), (y // 8).long()]
    assert not (seen & ~blocks).any()
    owner = torch.repeat_interleave(torch.arange(len(found.depth)), tiles.slot_start.diff())
    assert torch.equal(numbers[tiles.position.long()].long(), owner)


def test_real_depth_ranges(captures):
    """gsplat's garden: every point a Gaussian, a part of the image against the reference."""
    import numpy as np

    path = captures / "gsplat_garden" / "test_garden.npz"
    if not path.exists():
        pytest.skip("no gsplat_garden here")
    data = np.load(path)
    means = torch.from_numpy(data["means3d"]).float()
    pose, k = torch.from_numpy(data["viewmats"][0]).float(), data["Ks"][0]
    view = Camera(pose, (float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]) - 200, float(k[1, 2]) - 150), 24, 24)
    generator = torch.Generator().manual_seed(0)
    values = {
        "means": means,
        "quaternions": torch.randn(len(means), 4, generator=generator),
        "scales": torch.rand(len(means), 3, generator=generator) * 0.02,
        "opacities": torch.rand(len(means), generator=generator),
        "colors": torch.from_numpy(data["colors"]).float() / 255,
    }
    kept = (project(*[values[k] for k in NAMES[:4]], view).radius > 0).all(1)
    agrees({k: v[kept] for k, v in values.items()}, view, most_left_out=5e-3)


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
    drop = near_threshold(values, view)

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
