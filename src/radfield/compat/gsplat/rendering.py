"""`gsplat.rendering`: `rasterization`, on radfield's projection, sort and rasteriser (2D Gaussians: `surfel_*.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ...backend import by_gsplat
from .. import gsplat_backend
from ..lazy import LazyDict
from .checks import check_choice, check_shape, require
from .lenses import RollingShutterType
from .projection import SparseGradient
from .scene import Options, Scene, checked, conics_of
from .surfel_rendering import rasterization_2dgs
from .tiles import isect_offset_encode, isect_tiles
from .unscented import Exposure, FThetaCameraDistortionParameters
from .views import Drawn, behind, channels_of, draw, shade
from .world_pixels import rasterize_to_pixels_eval3d

__all__ = ["rasterization", "rasterization_2dgs"]
LEAST_ALPHA = 1e-10


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: FThetaCameraDistortionParameters | None = None,
    rolling_shutter: RollingShutterType = RollingShutterType.GLOBAL,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict]:
    """Draws N Gaussians for C cameras: (colours [..., C, height, width, X], alphas [..., C, height, width, 1], meta).

    `means` [..., N, 3], `quats` [..., N, 4] (w, x, y, z), `scales` [..., N, 3] or `covars` [..., N, 3, 3], `opacities`
    [..., N], `viewmats` (world to camera) [..., C, 4, 4], `Ks` [..., C, 3, 3], float32; `colors` [..., (C,) N, D], or
    with `sh_degree` coefficients [..., (C,) N, K, 3]; `backgrounds` [..., C, D]. X is D, 1 for depths, D + 1 for both.

    Every argument and key of `meta` is gsplat 1.5.3's. Differences: pinhole cameras with quaternions, scales and eps2d
    of 0.3 are projected by the native op, others in torch (slower); compensations are at least 0.005; radii are 0 also
    where the box misses the image only before it is rounded up to whole pixels; of `meta` the radii, the conics (whose
    gradients go nowhere), the lists of tiles and the packed numbers of batch and camera are made when they are read;
    absgrad takes at most 4 channels; sparse gradients hold the rows that are not zero. with_ut and with_eval3d (lenses,
    rolling shutters: `lenses.py`) are plain torch; f-theta lenses and `distributed` are refused; `segmented` and
    `channel_chunk` change nothing. Under the backend "gsplat" all is gsplat's own.
    Raises `WrongCall`, which is an AssertionError and a ValueError.
    """
    arguments = dict(locals())
    if by_gsplat():
        return gsplat_backend.rasterization(arguments)
    options = _options(arguments)
    return _rendered(_scene(arguments), options, backgrounds)


def _options(a: dict) -> Options:
    """How it is drawn, of the arguments of `rasterization`."""
    check_choice("rasterize_mode", a["rasterize_mode"], ("classic", "antialiased"))
    require(not a["distributed"], "distributed", a["distributed"], "False: radfield draws in one process")
    same = (field.name for field in dataclasses.fields(Options) if field.name in a)
    lens = Exposure(**{field.name: a[field.name] for field in dataclasses.fields(Exposure) if field.name in a})
    return Options(
        **{name: a[name] for name in same},
        antialiased=a["rasterize_mode"] == "antialiased",
        exposure=_exposure(lens, a["with_ut"], tuple(a["viewmats"].shape[:-2])),
        in_space=a["with_eval3d"],
    )


def _scene(a: dict) -> Scene:
    """What is drawn, of the arguments of `rasterization`."""
    special = a["with_ut"] or a["with_eval3d"]
    require(a["covars"] is None or not special, "covars with with_ut or with_eval3d", "given", "None")
    geometry = {name: a[name] for name in ("means", "quats", "scales", "covars")}
    if a["sparse_grad"]:
        shape = list(a["means"].shape)
        require(len(shape) == 2, "means.shape with sparse_grad", shape, "[N, 3], no batch dimensions")
        geometry = {name: v if v is None else SparseGradient.apply(v) for name, v in geometry.items()}
    rest = {name: a[name] for name in ("opacities", "colors", "viewmats", "Ks")}
    return checked(**geometry, **rest, degree=a["sh_degree"])


def _exposure(exposure: Exposure, with_ut: bool, cameras: tuple[int, ...]) -> Exposure | None:
    """What is beyond a lens without distortion, where `with_ut` asks for it."""
    if with_ut:
        exposure.check(cameras)
        return exposure
    plain = dataclasses.replace(exposure, camera_model="pinhole") == Exposure()
    require(plain, "with_ut", False, "True with distortion or a rolling shutter")
    return None


def _rendered(scene: Scene, options: Options, backgrounds: Tensor | None) -> tuple[Tensor, Tensor, LazyDict]:
    B, C, _ = scene.counts
    if backgrounds is not None:
        shapes = [(*scene.batch, C, scene.colors.shape[-1])]
        shapes += [] if options.with_color else [(*scene.batch, C, 1)]
        check_shape("backgrounds", backgrounds, *shapes)
        backgrounds = behind(backgrounds.reshape(B * C, -1), options)
    drawn = draw(scene, options)
    meta = described(scene, options, drawn)
    if options.in_space:
        image, alpha = _along_rays(scene, options, drawn, backgrounds, meta)
    else:
        image, alpha = shade(scene, options, drawn, backgrounds)
    size = (*scene.batch, C, options.height, options.width)
    image, alpha = image.view(*size, -1), alpha.view(*size, 1)
    if options.render_mode.endswith("ED"):
        depth = image[..., -1:] / alpha.clamp_min(LEAST_ALPHA)
        image = torch.cat((image[..., :-1], depth), -1) if options.with_color else depth
    return image, alpha, meta


def _along_rays(scene: Scene, options: Options, drawn: Drawn, backgrounds: Tensor | None, meta: LazyDict):
    """As `shade`, by `rasterize_to_pixels_eval3d`."""
    B, C, N = scene.counts
    exposure = options.exposure or Exposure(options.camera_model)
    channels = torch.stack(list(channels_of(scene, options, drawn))).view(B, C, N, -1)
    return rasterize_to_pixels_eval3d(
        scene.means,
        scene.quats,
        scene.scales,
        channels,
        drawn.opacities.reshape(B, C, N),
        scene.viewmats,
        scene.Ks,
        options.width,
        options.height,
        options.tile_size,
        meta["isect_offsets"].reshape(B, C, *meta["isect_offsets"].shape[-2:]),
        meta["flatten_ids"],
        None if backgrounds is None else backgrounds.view(B, C, -1),
        **{
            name: value.reshape(B, C, *value.shape[len(scene.batch) + 1 :]) if isinstance(value, Tensor) else value
            for name, value in vars(exposure).items()
        },
    )


def described(scene: Scene, options: Options, drawn: Drawn) -> LazyDict:
    """gsplat's dictionary. What our kernels do not need is made when it is read."""
    B, C, _ = scene.counts
    lists, width, height = tile_lists_of(scene, options, drawn)
    pending = {"radii": drawn.radii, "conics": lambda: conics_of(drawn.forms)} | lists
    if options.packed:
        pending |= {"batch_ids": lambda: drawn.image_ids() // C, "camera_ids": lambda: drawn.image_ids() % C}
    known = {
        "batch_ids": None,
        "camera_ids": None,
        "gaussian_ids": drawn.gaussian_ids,
        "radii": None,
        "means2d": drawn.means2d,
        "depths": drawn.depths,
        "conics": None,
        "opacities": drawn.opacities,
        "tile_width": width,
        "tile_height": height,
        "tiles_per_gauss": None,
        "isect_ids": None,
        "flatten_ids": None,
        "isect_offsets": None,
        "width": options.width,
        "height": options.height,
        "tile_size": options.tile_size,
        "n_batches": B,
        "n_cameras": C,
    }
    return LazyDict(known, pending)


def tile_lists_of(scene: Scene, options: Options, drawn: Drawn) -> tuple[dict[str, Callable], int, int]:
    """(what makes each of the lists of tiles, tiles in a row, rows of tiles)."""
    B, C, _ = scene.counts
    width, height = -(-options.width // options.tile_size), -(-options.height // options.tile_size)
    made: list = []

    def lists() -> list:
        if not made:
            packed = {}
            if options.packed:
                packed = {"packed": True, "n_images": B * C, "image_ids": drawn.image_ids()}
                packed["gaussian_ids"] = drawn.gaussian_ids
            values = drawn.means2d.detach(), drawn.radii(), drawn.depths.detach()
            made.extend(isect_tiles(*values, options.tile_size, width, height, **packed))
            made.append(isect_offset_encode(made[1], B * C, width, height).view(*scene.batch, C, height, width))
        return made

    names = ("tiles_per_gauss", "isect_ids", "flatten_ids", "isect_offsets")
    return {name: lambda i=i: lists()[i] for i, name in enumerate(names)}, width, height
