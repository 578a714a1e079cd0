"""Rasterisation of Gaussians with their response in space, through any lens (Wu et al. 2025, 3DGUT).

As in `gaussian_raster.py` the Gaussians of a tile come from their image, which sigma points give for any lens
(gaussian_projection.py). But a pixel's response is not that of an ellipse on the image: the pixel's ray o + t d meets
Gaussian i where its response is largest, in three dimensions, by the equations of the ray tracer (gaussian_trace.py):

    tau_i   = -(A (o - mean)) . (A d) / |A d|^2          A = S^-1 R^T, u_i = A (o + tau_i d - mean)
    alpha_i = min(max_alpha, opacity exp(-|u_i|^2 / 2))  hit where opacity times response >= 1/255 and tau_i > near
    T_(i+1) = T_i (1 - alpha_i), T_0 = 1                 until T is at or below `min_transmittance`
    color   = sum_i T_i alpha_i color_i + T background   depth = sum_i T_i alpha_i tau_i

color_i is seen from the camera's position, and the same for all pixels. Hits are blended in one of two orders:

- *unsorted* (k = 0), that of the tiles' lists: by the depth of the centres, one order for the whole image;
- *sorted* (k > 0), through a buffer of k hits of each ray: when one more comes, the nearest of all leaves it and is
  blended. So a ray's order is that of tau where no hit stands more than k places late in the list. 3DGUT takes k = 16:
  on a scanned scene 48 dB from the tracer's image, by k = 64 it is 77 dB, and unsorted 39.

Where no response is left out by the lists, and nothing is further out of order than k, this is what the tracer sees,
but that it takes colours in the ray's direction. The lists leave out the rim of large Gaussians, whose outline is no
ellipse, and those that `project` leaves out, such as what reaches around the camera. There is no blur on the image (no
`eps`, no `antialiased`): Gaussians smaller than a pixel may fall between pixels.

The reference draws every Gaussian on every pixel (or on those that `drawn` says). The way back goes front to back, too,
and stores no hits; a tile writes a row of sums per entry, and each Gaussian adds its rows in a fixed order. On CUDA
the rows of sorted hits are added up by atomics: their bits are not the same every time.

Letters: G Gaussians, N = rows * columns rays, K entries of T tiles (gaussian_tiles.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import memory
from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..rays import Rays
from ..tensors import feature_major
from ..tracing.particle_bvh import Kernel, particle_streams
from .gaussian_color import HARMONIC_0, gaussian_color
from .gaussian_projection import MIN_ALPHA, Camera, Projected, project
from .gaussian_raster import MIN_TRANSMITTANCE
from .gaussian_tiles import EntryBudget, Tiles, make_tiles
from .gaussian_trace_ops import GATHER
from .gaussian_trace_reference import blend_in_order, meetings

if TYPE_CHECKING:
    from ..gaussians.memory_cap import MemoryCap
    from ..gaussians.scene import GaussianScene

MOST_K = 64
SORTED_K = 16  # 3DGUT's
_PARTICLES = (
    In("means", "f32", "3 G"),
    In("quaternions", "f32", "4 G"),
    In("scales", "f32", "3 G"),
    In("opacities", "f32", "G"),
)
_LISTS = (
    In("origins", "f32", "3 N"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("records", "f32", "G 16"),
    In("entries", "i32", "K"),
    In("tile_start", "i32", "T+1"),
    Scalar("near", "float"),
    Scalar("min_transmittance", "float"),
    Scalar("max_alpha", "float"),
    Scalar("k", "int", "hits that wait to be sorted; 0: blended as they come"),
)
PACK = Op(
    "gaussian_eval3d_pack",
    Out("records", "f32", "G 16", "mean, A by rows, opacity, colour"),
    *_PARTICLES,
    In("colors", "f32", "3 G"),
)
FORWARD = Op(
    "gaussian_eval3d_forward",
    Out("image", "f32", "rows columns 3", "without background"),
    Out("depth", "f32", "rows columns"),
    Out("transmittance", "f32", "rows columns"),
    *_LISTS,
)
BACKWARD = Op(
    "gaussian_eval3d_backward",
    Out("partial", "f32", "K 16", "rows of sums of each entry (gaussian_trace.h)"),
    In("image", "f32", "rows columns 3"),
    In("depth", "f32", "rows columns"),
    In("transmittance", "f32", "rows columns"),
    In("grad_image", "f32", "rows columns 3", optional=True),
    In("grad_depth", "f32", "rows columns", optional=True),
    In("grad_transmittance", "f32", "rows columns", optional=True),
    *_LISTS,
)


@PACK.cuda
def _(a):
    a.aligned("records", 16)
    return Launch("gaussian_eval3d_pack", blocks(a.G))


@FORWARD.cuda
def _(a):
    return _of_tiles("gaussian_eval3d_forward", a)


@BACKWARD.cuda
def _(a):
    a.aligned("partial", 16)
    return _of_tiles("gaussian_eval3d_backward", a)


def _of_tiles(kernel: str, a) -> Launch:
    """A block per tile, for buffers of none, up to 16, or up to 64 hits."""
    a.aligned("records", 16)
    return Launch(f"{kernel}<{next(most for most in (0, 16, MOST_K) if a.k <= most)}>", (a.T,))


@dataclass(frozen=True)
class Eval3d:
    """How hits are blended."""

    k: int = 0  # of the buffer that sorts each ray's hits; 0: unsorted
    min_transmittance: float = MIN_TRANSMITTANCE  # a ray ends here
    max_alpha: float = 0.99  # ceiling of a Gaussian's alpha

    def __post_init__(self):
        rules = [
            ("k", 0 <= self.k <= MOST_K, f"from 0 to {MOST_K}"),
            ("min_transmittance", 0 < self.min_transmittance < 1, "above 0 and below 1"),
            ("max_alpha", 0 < self.max_alpha < 1, "above 0 and below 1"),
        ]
        for name, holds, rule in rules:
            if not holds:
                raise BadInput(f"Eval3d: {name} is {getattr(self, name)!r}; the rule: {rule}")


UNSORTED, SORTED = Eval3d(), Eval3d(k=SORTED_K)


class Drawn(NamedTuple):
    """What the camera sees. Gradients pass through all but the last."""

    color: Tensor  # [rows, columns, 3], the background blended in
    alpha: Tensor  # [rows, columns]
    depth: Tensor  # [rows, columns], sum of weight times distance along the ray: divide by alpha for its mean
    projected: Projected  # the Gaussians on the image, by sigma points, without gradient


class Particles(NamedTuple):
    """G Gaussians as streams, float32, and their colours for one camera."""

    means: Tensor  # [3, G]
    quaternions: Tensor  # [4, G]
    scales: Tensor  # [3, G]
    opacities: Tensor  # [G]
    colors: Tensor  # [3, G]


def eval3d_reference(
    particles: Particles, order: Tensor, rays: tuple[Tensor, Tensor], near: float, options: Eval3d, drawn=None
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification, of any float type: (color [N, 3], depth [N], transmittance [N]) of `rays` (origins [N, 3],
    directions [N, 3]), `order` being the numbers of the Gaussians in the list, [n]. drawn: [N, G], where each Gaussian
    is drawn; everywhere by default."""
    listed = Particles(*(value[..., order] for value in particles))
    limits = rays[0].new_full((len(rays[0]),), near), rays[0].new_full((len(rays[0]),), torch.inf)
    found = meetings(*listed[:4], (*rays, *limits), Kernel(min_response=MIN_ALPHA))
    if drawn is not None:
        found = found._replace(on=found.on & drawn[:, order])
    rank = _ranks(found.tau.detach().float(), found.on, options.k)
    limits = {"min_transmittance": options.min_transmittance, "max_alpha": options.max_alpha}
    seen = listed.colors.T[None].expand(len(rank), -1, -1)
    color, depth, transmittance, *_ = blend_in_order(found, rank, seen, **limits)
    return color, depth, transmittance


def _ranks(tau: Tensor, on: Tensor, k: int) -> Tensor:
    """[N, n], when the hits of a list leave a buffer of k: at a place of the list, or after its end; inf for none."""
    count = tau.shape[1]
    by_tau = torch.where(on, tau, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    rank = torch.where(on, (count + by_tau).to(tau), torch.inf)
    waiting = torch.zeros_like(on)
    for i in range(count):
        waiting[:, i] = on[:, i]
        full = (waiting.sum(1) > k).nonzero()[:, 0]
        nearest = torch.where(waiting[full], tau[full], torch.inf).argmin(1)
        rank[full, nearest], waiting[full, nearest] = float(i), False
    return rank


class _Call(NamedTuple):
    """What the passes share: the arguments of `_LISTS`, the particles as the ops take them, and the tiles."""

    lists: dict
    particles: dict
    tiles: Tiles


class _Rasterise(torch.autograd.Function):
    """Of particles as streams."""

    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, colors, call: _Call):
        size = (call.tiles.height, call.tiles.width)
        image = memory.empty((*size, 3), torch.float32, means.device)
        depth, transmittance = (memory.empty(size, torch.float32, means.device) for _ in range(2))
        FORWARD(image=image, depth=depth, transmittance=transmittance, **call.lists)
        ctx.save_for_backward(image, depth, transmittance)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return image, depth, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_depth, grad_transmittance):
        image, depth, transmittance = ctx.saved_tensors
        call, g = ctx.call, len(ctx.call.lists["records"])
        grads = {"grad_image": grad_image, "grad_depth": grad_depth, "grad_transmittance": grad_transmittance}
        grads = {name: None if v is None else v.contiguous() for name, v in grads.items()}
        partial = memory.empty((len(call.tiles.entries), 16), torch.float32, image.device)
        BACKWARD(partial=partial, image=image, depth=depth, transmittance=transmittance, **grads, **call.lists)
        shapes = {"means": (3, g), "quaternions": (4, g), "scales": (3, g), "opacities": (g,), "base": (3, g)}
        found = {f"grad_{name}": image.new_empty(shape) for name, shape in shapes.items()}
        none = {"grad_rest": image.new_empty(0, g), "partial_rest": image.new_empty(len(partial), 0)}
        order = {"position": call.tiles.position, "slot_start": call.tiles.slot_start}
        GATHER(**found, **none, partial=partial, **order, **call.particles, min_response=MIN_ALPHA)
        *geometry, base = found.values()
        return *geometry, base / HARMONIC_0, None  # by colours: those of degree 0 are HARMONIC_0 base + 1/2


def rasterise_eval3d(
    particles: Particles,
    projected: Projected,
    rays: Rays,
    width: int,
    height: int,
    background: Tensor | None = None,
    *,
    near: float = 0.0,
    options: Eval3d = UNSORTED,
    budget: EntryBudget | None = None,
) -> Drawn:
    """Draws `particles`, which `project` has seen as `projected`, along the `rays` of the image's pixels, row by row,
    over `background` [3] (black by default). Nothing at a distance up to `near` is hit. budget: for CUDA kernels, room
    for the tiles' entries; directions are not looked at then, so that the host need not wait.

    Gradients, once: to all five of the particles, and the background. Raises `BadInput` for shapes that do not fit and
    rays without direction.
    """
    if len(rays) != width * height:
        raise BadInput(f"rasterise_eval3d: there are {len(rays)} rays; the rule: {width} x {height}, one per pixel")
    if budget is None and (bad := int((~((rays.directions.detach().square().sum(1) - 1).abs() < 0.01)).sum())):
        raise BadInput(f"rasterise_eval3d: {bad} rays have no direction; the rule: unit vectors")
    if not near >= 0:
        raise BadInput(f"rasterise_eval3d: near is {near}; the rule: at least 0")
    if native(particles.means):
        color, depth, transmittance = _native(particles, projected, rays, (width, height), near, options, budget)
    else:
        order = (projected.radius > 0).all(1).nonzero()[:, 0]
        order = order[projected.depth.detach()[order].argsort(stable=True)]
        seen = eval3d_reference(particles, order, (rays.origins, rays.directions), near, options)
        color, depth, transmittance = (v.view(height, width, *v.shape[1:]) for v in seen)
    if background is not None:
        color = color + transmittance[..., None] * background
    return Drawn(color, 1 - transmittance, depth, projected)


def _native(particles: Particles, projected: Projected, rays: Rays, size, near: float, options: Eval3d, budget):
    projected = Projected(*(value.detach() for value in projected))
    colors = particles.colors.detach().contiguous()
    differentiate = torch.is_grad_enabled() and any(value.requires_grad for value in particles)
    tiles, _ = make_tiles(projected, colors, *size, differentiate=differentiate, budget=budget)
    streams = particle_streams(*particles[:4])
    records = memory.empty((len(particles.opacities), 16), torch.float32, colors.device)
    PACK(records=records, **streams, colors=colors)
    lists = {
        "origins": feature_major(rays.origins.detach()),
        "directions": feature_major(rays.directions.detach()),
        "records": records,
        "entries": tiles.entries,
        "tile_start": tiles.tile_start,
        "near": near,
        "min_transmittance": options.min_transmittance,
        "max_alpha": options.max_alpha,
        "k": options.k,
    }
    return _Rasterise.apply(*particles, _Call(lists, streams, tiles))


def see_eval3d(
    scene: GaussianScene,
    camera: Camera,
    rays: Rays,
    background: Tensor | None = None,
    *,
    near: float = 0.0,
    options: Eval3d = UNSORTED,
    cap: MemoryCap | None = None,
    budget: EntryBudget | None = None,
) -> Drawn:
    """What `camera` sees of `scene` along `rays`, those of its pixels row by row (`traced_view.view_rays`); the other
    arguments are those of `rasterise_eval3d`, and `cap` is asked whether there is memory. Differentiable by the scene's
    parameters. A perspective lens without distortion takes sigma points where the camera says `unscented`.

        run = radfield.load("run")  # of the method splat
        cameras = radfield.data.load("capture").val.cameras
        camera, rays = Camera.of(cameras, 0), view_rays(cameras, 0)
        picture = see_eval3d(run.gaussians, camera, rays, options=SORTED).color
    """
    scales, opacities = scene.log_scales.exp(), scene.opacity_logits.sigmoid()
    with torch.no_grad():
        geometry = scene.means.T, scene.quaternions.T, scales.T, opacities
        projected = project(*geometry, camera)
    if cap is not None:
        cap.check(projected.radius, camera.width, camera.height)
    position = camera.position.detach()
    colors = gaussian_color(scene.means.T, scene.base, scene.rest, projected.radius, position, degree=scene.degree).T
    particles = Particles(scene.means, scene.quaternions, scales, opacities, colors)
    size = camera.width, camera.height
    drawing = {"near": near, "options": options, "budget": budget}
    return rasterise_eval3d(particles, projected, rays, *size, background, **drawing)
