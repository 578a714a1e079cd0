"""What `rasterization` is asked for, checked, and what each camera sees of it.

Letters: B batches, C cameras of each, I = B C images, N Gaussians, D channels, K coefficients per channel,
n Gaussians of an image (all of them, or packed those that are drawn).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...backend import native
from ...renderers.gaussian_camera import Camera
from ...renderers.gaussian_packed import project_packed
from ...renderers.gaussian_projection import EPS, Projected, project
from .checks import check_choice, check_shape, require
from .harmonics import check_degree
from .projection import LINEAR_MODELS, ellipses, quat_scale_to_covar_preci
from .unscented import Exposure, unscented_ellipses

MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")


@dataclass(frozen=True)
class Options:
    """How it is drawn: gsplat's arguments by their names."""

    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    packed: bool
    tile_size: int
    render_mode: str
    sparse_grad: bool
    absgrad: bool
    antialiased: bool
    camera_model: str
    exposure: Exposure | None = None  # by the unscented transform
    in_space: bool = False  # whether the response is evaluated along the rays

    def __post_init__(self):
        check_choice("render_mode", self.render_mode, MODES)
        for name in ("width", "height", "tile_size"):
            value = getattr(self, name)
            require(isinstance(value, int) and value > 0, name, repr(value), "a whole number above 0")
        require(not self.sparse_grad or self.packed, "sparse_grad", True, "only where packed is True")
        special = self.exposure is not None or self.in_space
        require(not (special and self.packed), "packed with with_ut or with_eval3d", True, "False")
        require(not (self.in_space and self.absgrad), "absgrad with with_eval3d", True, "False")

    @property
    def with_color(self) -> bool:
        """Whether colours are drawn."""
        return self.render_mode.startswith("RGB")

    @property
    def with_depth(self) -> bool:
        """Whether the last channel is a depth."""
        return self.render_mode != "RGB"


@dataclass(frozen=True)
class Scene:
    """Gaussians and cameras; `batch` are the leading dimensions, here flattened into one."""

    means: Tensor  # [B, N, 3]
    quats: Tensor | None  # [B, N, 4]
    scales: Tensor | None  # [B, N, 3]
    covars: Tensor | None  # [B, N, 3, 3]
    opacities: Tensor  # [B, N]
    colors: Tensor  # [B, N, D] or [B, N, K, 3]; per view: [B, C, N, ...]
    viewmats: Tensor  # [B, C, 4, 4]
    Ks: Tensor  # [B, C, 3, 3]
    degree: int | None  # of the spherical harmonics
    per_view: bool  # whether each camera has its own colours
    batch: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, int, int]:
        """(B, C, N)."""
        return *self.viewmats.shape[:2], self.means.shape[1]

    def of(self, name: str, batch: int) -> Tensor:
        """One batch of the field `name`."""
        return one_of(getattr(self, name), batch)

    def colors_of(self, batch: int, camera: int) -> Tensor:
        """[N, D] or [N, K, 3]."""
        return one_of(self.of("colors", batch), camera) if self.per_view else self.of("colors", batch)


def one_of(values: Tensor, number: int) -> Tensor:
    """values[number]; of a single one as a view, whose gradient is no copy into zeros."""
    return values.squeeze(0) if len(values) == 1 else values[number]


def checked(means, quats, scales, opacities, colors, viewmats, Ks, covars, degree: int | None) -> Scene:
    """The scene of gsplat's arguments. Raises `WrongCall`."""
    require(means.ndim >= 2, "means.shape", list(means.shape), "[..., N, 3]")
    require(viewmats.ndim >= 3, "viewmats.shape", list(viewmats.shape), "[..., C, 4, 4]")
    batch, N, C = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    check_shape("means", means, (*batch, N, 3))
    if covars is None:
        check_shape("quats", quats, (*batch, N, 4))
        check_shape("scales", scales, (*batch, N, 3))
    else:
        check_shape("covars", covars, (*batch, N, 3, 3))
        quats = scales = None
    check_shape("opacities", opacities, (*batch, N))
    check_shape("viewmats", viewmats, (*batch, C, 4, 4))
    check_shape("Ks", Ks, (*batch, C, 3, 3))
    end = tuple(colors.shape[-1:]) if degree is None else (*colors.shape[-2:-1], 3)
    check_shape("colors", colors, (*batch, N, *end), (*batch, C, N, *end))
    if degree is not None:
        check_degree(degree, colors.shape[-2])
    per_view = colors.ndim == len(batch) + 2 + len(end)
    for name, value in {"means": means, "opacities": opacities, "colors": colors, "viewmats": viewmats}.items():
        require(value.dtype == torch.float32, f"{name}.dtype", value.dtype, "torch.float32")
        require(value.device == means.device, f"{name}.device", value.device, f"that of means, {means.device}")
    flat = [_flat(v, len(batch)) for v in (means, quats, scales, covars, opacities, colors, viewmats, Ks)]
    return Scene(*flat, degree, per_view, batch)


def _flat(value: Tensor | None, dims: int) -> Tensor | None:
    if value is None or dims == 1:
        return value
    return value[None] if dims == 0 else value.reshape(math.prod(value.shape[:dims]), *value.shape[dims:])


class Seen(NamedTuple):
    """What one image shows: of all Gaussians (n = N), or packed of those `rows`."""

    drawn: Projected  # its radii are gsplat's before they are rounded up
    rows: Tensor | None  # [n] int64


def project_view(scene: Scene, batch: int, camera: int, intrinsics: list, options: Options) -> Seen:
    """The Gaussians on one image. `intrinsics` are its K as lists."""
    linear = options.camera_model == "pinhole" and scene.covars is None and options.eps2d == EPS
    if options.exposure is not None:
        found = _unscented(scene, batch, camera, options)
    elif linear and native(scene.means):
        return _native(scene, batch, camera, intrinsics, options)
    else:
        found = _plain(scene, batch, camera, options)
    if options.radius_clip > 0:
        found = found._replace(radius=_clipped(found.radius, options.radius_clip))
    if not options.antialiased:
        found = found._replace(opacity=scene.of("opacities", batch))
    rows = None
    if options.packed:
        rows = (found.radius > 0).all(1).nonzero()[:, 0]
        found = Projected(*(v[rows] for v in found))
    return Seen(found, rows)


def _clipped(radii: Tensor, least: float) -> Tensor:
    """0 where both, rounded up, are at most `least`."""
    return radii.masked_fill((radii.ceil() <= least).all(1, keepdim=True), 0.0)


def _native(scene: Scene, batch: int, camera: int, intrinsics: list, options: Options) -> Seen:
    view = Camera(
        scene.viewmats[batch, camera],
        (intrinsics[0][0], intrinsics[1][1]),
        (intrinsics[0][2], intrinsics[1][2]),
        options.width,
        options.height,
        options.near_plane,
        options.far_plane,
    )
    opacities, clip = scene.of("opacities", batch), options.radius_clip
    geometry = scene.of("means", batch), scene.of("quats", batch), scene.of("scales", batch)
    how = {"antialiased": options.antialiased}
    if options.packed:
        found, rows = project_packed(*geometry, opacities, view, radius_clip=clip, **how)
        return Seen(found, rows)
    found = project(*geometry, opacities if options.antialiased else opacities.detach(), view, **how)
    if clip > 0:
        found = found._replace(radius=_clipped(found.radius, clip))
    if not options.antialiased:
        found = found._replace(opacity=opacities)  # also of those that are left out
    return Seen(found, None)


def _plain(scene: Scene, batch: int, camera: int, options: Options) -> Projected:
    """By the equations of `projection.py`, in torch."""
    check_choice("camera_model", options.camera_model, LINEAR_MODELS)
    if scene.covars is None:
        covars, _ = quat_scale_to_covar_preci(scene.of("quats", batch), scene.of("scales", batch), True, False)
    else:
        covars = scene.of("covars", batch)
    cameras = scene.viewmats[batch, camera, None], scene.Ks[batch, camera, None]
    found = ellipses(
        scene.of("means", batch),
        covars,
        *cameras,
        scene.of("opacities", batch),
        (options.width, options.height),
        eps2d=options.eps2d,
        depths=(options.near_plane, options.far_plane),
        radius_clip=options.radius_clip,
        compensated=options.antialiased,
        camera_model=options.camera_model,
    )
    return as_projected(*(v[0] for v in found), scene.of("opacities", batch))


def _unscented(scene: Scene, batch: int, camera: int, options: Options) -> Projected:
    lens, shutter = options.exposure.of(
        scene.viewmats, scene.Ks, batch * scene.counts[1] + camera, (options.width, options.height)
    )
    values = scene.of("means", batch), scene.of("quats", batch), scene.of("scales", batch), scene.of("opacities", batch)
    found = unscented_ellipses(
        *(v.detach() for v in values),
        lens,
        shutter,
        options.exposure.ut_params,
        eps2d=options.eps2d,
        depths=(options.near_plane, options.far_plane),
        radius_clip=options.radius_clip,
    )
    return as_projected(*found, values[3])


def as_projected(radii, means2d, depths, conics, compensations, opacities) -> Projected:
    """What the rasteriser takes, of gsplat's five for one image and `opacities` [N]; drawn with the compensations."""
    xx, xy, yy = conics.unbind(1)
    safe = torch.where(yy > 0, yy, 1.0)
    forms = torch.stack(((xx * yy - xy * xy) / safe, xy / safe, yy), 1)
    return Projected(means2d, forms, depths, radii.to(means2d), opacities * compensations)


def conics_of(forms: Tensor) -> Tensor:
    """gsplat's conics (xx, xy, yy) [..., 3] of ours, (e, k, c)."""
    e, k, c = forms.unbind(-1)
    return torch.stack((e + c * k * k, c * k, c), -1)
