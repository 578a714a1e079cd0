"""Gaussians rasterised with their response in space (3DGUT): agreement with the reference in float64, with the ray
tracer through several lenses, the laws of light, bits, bad input."""

import dataclasses
import math

import pytest
import torch
from checks import EMULATES
from cuda_emulator.backend import emulator
from renderers_traced import gaussian_scene

from radfield import backend
from radfield.cameras import Cameras, look_at
from radfield.cuda import library
from radfield.errors import BadInput
from radfield.gaussians.scene import GaussianScene
from radfield.rays import Rays
from radfield.renderers.gaussian_camera import Camera, RollingShutter
from radfield.renderers.gaussian_color import gaussian_color_reference
from radfield.renderers.gaussian_eval3d import (
    SORTED,
    UNSORTED,
    Drawn,
    Eval3d,
    Particles,
    eval3d_reference,
    rasterise_eval3d,
    see_eval3d,
)
from radfield.renderers.gaussian_projection import MIN_ALPHA, Projected
from radfield.renderers.gaussian_tiles import BLOCK, TILE, Tiles, make_tiles
from radfield.renderers.gaussian_trace import Tracing
from radfield.renderers.gaussian_trace_reference import meetings
from radfield.renderers.traced_view import rolling_rays, trace_view, view_rays
from radfield.tracing.particle_bvh import Kernel

LIKE_RASTER = Tracing(Kernel(min_response=MIN_ALPHA), min_transmittance=1e-4)
BARREL = (-0.25, 0.08, 0.01, 0.0, 0.002, -0.003, 0.05, 0.01, 0.0)
NAMES = ("means", "quaternions", "log_scales", "opacity_logits", "base")
LENSES = {"perspective": {}, "distorted": {"distortion": BARREL}, "fisheye": {"model": "fisheye"}}


def cameras(lens="perspective", width=64, height=48, origin=(0.0, -3.0, 0.4), focal=60.0):
    pose = look_at(torch.tensor([origin]), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    size, kind = torch.tensor([[width, height]]), LENSES[lens]
    distortion = torch.tensor([kind.get("distortion", (0.0,) * 9)])
    focal = torch.full((1, 2), focal)
    return Cameras(pose, focal, size / 2.0, size, distortion, kind.get("model", "perspective"))


def seen(gaussians, there, options=UNSORTED, background=None, near=0.0):
    """By the rasteriser, with sigma points."""
    camera = dataclasses.replace(Camera.of(there, 0), unscented=True)
    return see_eval3d(gaussians, camera, view_rays(there, 0), background, near=near, options=options)


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


def listed(tiles: Tiles, count: int) -> torch.Tensor:
    """[N, G], whether the lists have the Gaussian on the pixel."""
    found = torch.zeros(tiles.height, tiles.width, count, dtype=torch.bool)
    for tile, (begin, end) in enumerate(zip(tiles.tile_start[:-1], tiles.tile_start[1:], strict=True)):
        for entry in tiles.entries[begin:end].tolist():
            for bit in (b for b in range(4) if entry >> b & 1):
                y = tile // tiles.columns * TILE + bit // 2 * BLOCK
                x = tile % tiles.columns * TILE + bit % 2 * BLOCK
                found[y : y + BLOCK, x : x + BLOCK, entry >> 4] = True
    return found.view(-1, count)


def on_cpu(drawn: Drawn) -> Drawn:
    """The same there."""
    return Drawn(*(v.cpu() for v in drawn[:3]), Projected(*(v.cpu() for v in drawn.projected)))


class Reference:
    """What float64 says of the lists that the native code has: `color` [N, 3], `depth`, `transmittance`; `close`: rays
    of which a response, transmittance or order lies at a threshold."""

    def __init__(self, gaussians: GaussianScene, there: Cameras, projected: Projected, near: float, options: Eval3d):
        width, height = there.size[0].tolist()
        rays = view_rays(there, 0)
        self.leaves = gaussians.map(lambda value: value.detach().double().requires_grad_())
        self.color, self.depth, self.transmittance = _by_float64(self.leaves, there, projected, rays, near, options)
        with backend.use("cpu"):
            tiles, _ = make_tiles(projected, torch.zeros(3, len(gaussians)), width, height)
        drawn = listed(tiles, len(gaussians))
        found = _by_float64(self.leaves, there, projected, rays, near, options, drawn)
        self.cut = float((self.color - found[0]).detach().abs().max())  # what the lists leave out
        self.color, self.depth, self.transmittance = found
        with torch.no_grad():
            values = _streams(self.leaves)
            limits = [torch.full((len(rays),), v).double() for v in (near, torch.inf)]
            met = meetings(*values, (rays.origins.double(), rays.directions.double(), *limits), Kernel(2, MIN_ALPHA))
            close = ((met.raw / MIN_ALPHA - 1).abs() < 1e-4) | ((met.raw - options.max_alpha).abs() < 1e-5)
            close |= (met.tau - near).abs() < 1e-5
            ordered = torch.where(met.on & drawn, met.tau, torch.arange(len(gaussians)) + 1e6).sort(1).values
            order = (ordered.diff(dim=1) < 1e-5).any(1) & (options.k > 0)
            ended = (self.transmittance / options.min_transmittance - 1).abs() < 1e-3
            self.close = (close & drawn).any(1) | order | ended


def _streams(gaussians: GaussianScene):
    opacities = gaussians.opacity_logits.sigmoid()
    return gaussians.means, gaussians.quaternions, gaussians.log_scales.exp(), opacities


def _by_float64(leaves, there, projected, rays, near, options, drawn=None):
    position, radius = there.camera_to_world[0, :3, 3].double(), projected.radius.double()
    color = gaussian_color_reference(leaves.means.T, leaves.base, leaves.rest, radius, position, degree=leaves.degree).T
    order = (projected.radius > 0).all(1).nonzero()[:, 0]
    order = order[projected.depth[order].argsort(stable=True)]
    together = rays.origins.double(), rays.directions.double()
    return eval3d_reference(Particles(*_streams(leaves), color), order, together, near, options, drawn)


@pytest.mark.parametrize(("lens", "k"), [("perspective", 0), ("perspective", 3), ("distorted", 16), ("fisheye", 16)])
def test_agrees_with_the_reference(lens, k):
    agrees(gaussian_scene(120, seed=k, size=-2.1), cameras(lens, 37, 26, focal=30.0), Eval3d(k))


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(
    ("k", "count", "size", "order"),
    [(0, 70, (19, 18), 0), (4, 70, (18, 19), 1), (16, 40, (17, 9), 7), (40, 300, (9, 8), 7)],
)
def test_emulated_kernels_agree_with_the_reference(k, count, size, order):
    """Rays that end, buffers that run over and such that do not, more entries than a batch has, tiles that reach beyond
    the image."""
    emulator.order = order
    gaussians = gaussian_scene(count, seed=k + 1, size=-1.2)
    gaussians.opacity_logits[::2] = 4.0
    with backend.use(backend.EMULATED):
        agrees(gaussians, cameras("perspective", *size, focal=0.9 * size[0]), Eval3d(k))


@pytest.mark.skipif(library.unavailable() is not None, reason="needs a GPU that CUDA kernels run on")
@pytest.mark.parametrize("k", [0, 4, 16, 40])
def test_agrees_with_the_reference_on_cuda(k):
    agrees(gaussian_scene(120, seed=k, size=-2.1), cameras("fisheye", 37, 26, focal=30.0), Eval3d(k), "cuda")


def agrees(gaussians, there, options, device="cpu", near=2.3):
    """Values and gradients of what is drawn on `device` with the reference's in float64."""
    leaves = gaussians.map(lambda value: value.detach().to(device, copy=True).requires_grad_())
    ours = on_cpu(seen(leaves, there.to(device), options, near=near))
    theirs = Reference(gaussians, there, ours.projected, near, options)
    keep = ~theirs.close
    assert float(keep.float().mean()) > 0.97 and float(ours.alpha.detach().mean()) > 0.3
    flat = ours.color.view(-1, 3), ours.depth.view(-1), 1 - ours.alpha.view(-1)
    wanted = theirs.color, theirs.depth, theirs.transmittance
    for found, value in zip(flat, wanted, strict=True):
        assert float((found - value).detach()[keep].abs().max()) < 2e-5
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(value.shape, generator=random) * keep.view(-1, *[1] * (value.ndim - 1)) for value in flat]
    sum((w * v).sum() for w, v in zip(weights, flat, strict=True)).backward()
    sum((w.double() * v).sum() for w, v in zip(weights, wanted, strict=True)).backward()
    for name in NAMES:
        found, value = getattr(leaves, name).grad.cpu(), getattr(theirs.leaves, name).grad
        assert float((found - value).abs().max()) < 2e-4 * float(value.abs().max()), name


@pytest.mark.parametrize("lens", LENSES)
def test_sorted_it_is_what_the_tracer_sees(lens):
    """But for the rim of alpha 1/255 that the lists may cut off, and more than 16 hits out of order."""
    gaussians, there = gaussian_scene(400), cameras(lens)
    background = torch.tensor([0.2, 0.4, 0.6])
    wanted = trace_view(gaussians, there, 0, background, tracing=LIKE_RASTER)
    ours = seen(gaussians, there, SORTED, background)
    assert psnr(ours.color, wanted.color) > 50 and psnr(ours.alpha, wanted.opacity) > 50
    assert float(((ours.color - wanted.color).abs().amax(-1) < 1e-4).float().mean()) > 0.8
    assert float((ours.depth - wanted.depth * wanted.opacity).abs().quantile(0.99)) < 0.05
    unsorted = seen(gaussians, there, UNSORTED, background)
    assert psnr(unsorted.color, wanted.color) < psnr(ours.color, wanted.color) - 6
    assert float(wanted.opacity.mean()) > 0.3


@pytest.mark.parametrize("lens", LENSES)
def test_unsorted_it_is_near_where_gaussians_are_small(lens):
    gaussians = gaussian_scene(400, size=-4.0, spread=0.12)
    gaussians.means[1] *= 30  # apart along the view
    there = cameras(lens, 96, 72, (0.0, -30.0, 4.0), 8000.0 if lens != "fisheye" else 4000.0)
    wanted = trace_view(gaussians, there, 0, tracing=LIKE_RASTER)
    assert psnr(seen(gaussians, there).color, wanted.color) > 40
    assert float(wanted.opacity.mean()) > 0.1


def test_a_rolling_shutter():
    gaussians, there = gaussian_scene(300), cameras()
    later = look_at(torch.tensor([0.15, -3.0, 0.5]), torch.tensor([0.02, 0.0, 0.03]), torch.tensor([0.03, 0.0, 1.0]))
    shutter = RollingShutter(torch.linalg.inv(later))
    camera = dataclasses.replace(Camera.of(there, 0), shutter=shutter)
    ours = see_eval3d(gaussians, camera, rolling_rays(there, 0, shutter), options=SORTED)
    wanted = trace_view(gaussians, there, 0, tracing=LIKE_RASTER, shutter=shutter)
    assert psnr(ours.color, wanted.color) > 45 > psnr(seen(gaussians, there, SORTED).color, wanted.color) + 10


def test_light_is_conserved():
    """White before white is white; alpha is what is hidden of another background."""
    gaussians = gaussian_scene(300)
    gaussians.base[:] = 0.5 / 0.28209479177387814
    for options in (UNSORTED, SORTED):
        ours = seen(gaussians, cameras(), options, torch.ones(3))
        torch.testing.assert_close(ours.color, torch.ones_like(ours.color), rtol=0, atol=3e-6)
        black = seen(gaussians, cameras(), options)
        torch.testing.assert_close(black.color[..., 1], black.alpha, rtol=0, atol=3e-6)


def test_one_gaussian_has_its_exact_values():
    gaussians = gaussian_scene(1)
    gaussians.means[:, 0] = 0
    gaussians.log_scales[:] = math.log(0.2)
    gaussians.opacity_logits[:], gaussians.base[:] = 0, 0
    there = cameras(width=33, height=33, origin=(0.0, -2.0, 0.0), focal=40.0)
    ours = seen(gaussians, there, SORTED, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(ours.color[16, 16], torch.tensor([0.75, 0.25, 0.25]))
    torch.testing.assert_close(ours.depth[16, 16], torch.tensor(1.0))
    # a pixel five to the right: the ray passes at 2 sin(theta) of the centre
    passes = 2 * math.sin(math.atan(5 / 40))
    torch.testing.assert_close(ours.alpha[16, 21], torch.tensor(0.5 * math.exp(-((passes / 0.2) ** 2) / 2)))
    assert not ours.alpha[0, 0] and not seen(gaussians, there, SORTED, near=2.1).alpha.any()


@pytest.mark.parametrize("options", (UNSORTED, SORTED))
def test_bits_do_not_depend_on_threads(threads, options):
    gaussians, there = gaussian_scene(1500), cameras(width=70, height=50)

    def run():
        leaves = gaussians.map(lambda value: value.detach().clone().requires_grad_())
        drawn = seen(leaves, there, options)
        (drawn.color.square().sum() + drawn.depth.sum()).backward()
        return drawn.color.detach(), drawn.alpha.detach(), *[getattr(leaves, name).grad for name in NAMES]

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_nothing_in_sight():
    for gaussians in (gaussian_scene(0), gaussian_scene(20)):
        gaussians.means[1] -= 50
        leaves = gaussians.map(lambda value: value.detach().clone().requires_grad_())
        drawn = seen(leaves, cameras(), SORTED, torch.tensor([0.2, 0.4, 0.6]))
        assert torch.equal(drawn.color, torch.tensor([0.2, 0.4, 0.6]).expand_as(drawn.color))
        drawn.color.sum().backward()
        assert not any(getattr(leaves, name).grad.any() for name in NAMES)


def test_unsound_gaussians_are_not_drawn():
    gaussians = gaussian_scene(40)
    gaussians.means[0, 0], gaussians.log_scales[1, 1], gaussians.opacity_logits[2] = math.nan, math.inf, math.nan
    gaussians.quaternions[:, 3] = 0
    leaves = gaussians.map(lambda value: value.detach().clone().requires_grad_())
    drawn = seen(leaves, cameras(), SORTED)
    alone = seen(gaussians.select(torch.arange(4, 40)), cameras(), SORTED)
    assert torch.equal(drawn.color.detach(), alone.color)
    drawn.color.sum().backward()
    for name in ("means", "quaternions", "base"):  # the others' go through exp and sigmoid of what is no number
        found = getattr(leaves, name).grad
        assert bool(found.isfinite().all()) and not found[..., :4].any(), name


def test_plain_torch_sees_the_same():
    gaussians, there = gaussian_scene(60), cameras(width=20, height=14, focal=20.0)
    ours = seen(gaussians, there, SORTED)
    with backend.use("reference"):
        theirs = seen(gaussians, there, SORTED)
    assert psnr(ours.color, theirs.color) > 50 and psnr(ours.depth, theirs.depth) > 45


def test_bad_input():
    for change, rule in (
        ({"k": 65}, "from 0 to 64"),
        ({"max_alpha": 1.0}, "below 1"),
        ({"min_transmittance": 0}, "above"),
    ):
        with pytest.raises(BadInput, match=rule):
            Eval3d(**change)
    gaussians, there = gaussian_scene(5), cameras()
    camera, rays = dataclasses.replace(Camera.of(there, 0), unscented=True), view_rays(there, 0)
    with pytest.raises(BadInput, match="there are 100 rays; the rule: 64 x 48"):
        see_eval3d(gaussians, camera, Rays(rays.origins[:100], rays.directions[:100]))
    with pytest.raises(BadInput, match="near is -1"):
        see_eval3d(gaussians, camera, rays, near=-1.0)
    rays.directions[7] = math.nan
    with pytest.raises(BadInput, match="1 rays have no direction"):
        see_eval3d(gaussians, camera, rays)
    particles = Particles(*_streams(gaussians), torch.rand(3, 4))
    with pytest.raises(BadInput, match="colors"):
        rasterise_eval3d(particles, seen(gaussians, there).projected, view_rays(there, 0), 64, 48)
