"""The backend "gsplat": Gaussians by gsplat's own package (1.5.3), where it is installed and has a GPU, to measure side
by side. Everything else runs where it would run without it; radfield never needs that package.

- `radfield.compat.gsplat.rasterization` and `rasterization_2dgs` hand their arguments over as they are.
- Projection, colours and rasterisation of radfield's own programs (`renderers/gaussian_projection.py`,
  `gaussian_color.py`, `gaussian_raster.py`) call gsplat's functions of the same purpose. There alpha is at most 0.999,
  whatever `max_alpha` says, which is announced. What it has not (other cameras than perspective ones without
  distortion, gradients of focal lengths) raises `BadInput`.

Letters: G Gaussians, C channels, R rows of `rest`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch
from torch import Tensor

from ..errors import BadInput, warn

TILE = 16  # pixels
MAX_ALPHA = 0.999


def unavailable() -> str | None:
    """Why the backend cannot be used here, in one line; None where it can."""
    found = sys.modules.get("gsplat")
    if found is not None and found is sys.modules.get(f"{__package__}.gsplat"):
        return "`gsplat` is radfield's own stand-in here (radfield.compat.install)"
    if found is None and importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed (pip install gsplat==1.5.3)"
    if not torch.cuda.is_available():
        return "torch has no CUDA GPU here, and gsplat runs on one alone"
    try:
        importlib.import_module("gsplat")
    except (ImportError, OSError) as error:
        return f"gsplat cannot be imported ({' '.join(str(error).split())[:150]})"
    return None


def package() -> ModuleType:
    """gsplat itself."""
    return importlib.import_module("gsplat")


def rasterization(arguments: dict):
    """What gsplat's `rasterization` gives for the arguments of the stand-in's; the shutter's kind becomes its own."""
    shutter = arguments["rolling_shutter"].name
    kinds = importlib.import_module("gsplat.cuda._wrapper").RollingShutterType
    return package().rasterization(**arguments | {"rolling_shutter": getattr(kinds, shutter)})


def project(means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, camera, antialiased: bool):
    """`Projected`; arguments as those of `renderers.gaussian_projection.project`."""
    from ..renderers.gaussian_projection import EPS, Projected

    intrinsics = _intrinsics(camera, means)
    radii, mean2d, depth, conics, compensations = package().fully_fused_projection(
        means.contiguous(),
        None,
        quaternions.contiguous(),
        scales.contiguous(),
        camera.world_to_camera.float()[None],
        intrinsics,
        camera.width,
        camera.height,
        eps2d=EPS,
        near_plane=camera.near,
        far_plane=camera.far,
        calc_compensations=antialiased,
        opacities=opacities.contiguous(),
    )
    drawn = (radii[0] > 0).all(-1)
    opacity = torch.where(drawn, opacities * compensations[0] if antialiased else opacities, 0.0)
    xx, xy, yy = conics[0].unbind(-1)
    safe = torch.where(drawn & (yy > 0), yy, 1.0)
    conic = torch.stack((xx - xy * xy / safe, xy / safe, yy), -1)
    values = mean2d[0], conic, depth[0], radii[0].to(mean2d)
    return Projected(*(torch.where(drawn[:, None] if v.ndim > 1 else drawn, v, 0.0) for v in values), opacity)


def _intrinsics(camera, means: Tensor) -> Tensor:
    """[1, 3, 3]. Raises `BadInput` for a camera that gsplat's projection has not."""
    if camera.by_sigma_points:
        raise BadInput(f"backend 'gsplat': the camera is {camera.model} or has a distortion or a shutter; the rule: "
                       "perspective, without")  # fmt: skip
    if any(isinstance(v, Tensor) and v.requires_grad for v in (camera.focal, camera.center)):
        raise BadInput("backend 'gsplat': focal or center requires a gradient; the rule: none does")
    (fx, fy), (cx, cy) = camera.numbers
    return torch.tensor([[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]], device=means.device)


def colors(means: Tensor, base: Tensor, rest: Tensor, radius: Tensor, position: Tensor, degree: int) -> Tensor:
    """[G, 3]; arguments as those of `renderers.gaussian_color.gaussian_color`."""
    coefficients = torch.cat((base, rest)).T.reshape(len(means), -1, 3)
    drawn = (radius > 0).all(1)
    found = package().spherical_harmonics(degree, means - position.to(means), coefficients, masks=drawn)
    return torch.where(drawn[:, None], (found + 0.5).clamp_min(0), 0.0)


def rasterise(projected, colors: Tensor, width: int, height: int, background, max_alpha: float, absolute):
    """`Rasterised`; arguments as those of `renderers.gaussian_raster.rasterise`."""
    from ..renderers.gaussian_raster import Rasterised

    if max_alpha != MAX_ALPHA:
        warn(f"backend 'gsplat': alpha is at most {MAX_ALPHA} there, not {max_alpha:g}")
    e, k, c = projected.conic.unbind(-1)
    conics = torch.stack((e + c * k * k, c * k, c), -1)[None]
    mean2d, columns, rows = projected.mean2d[None], -(-width // TILE), -(-height // TILE)
    radii = projected.radius.ceil().int()[None]
    values = mean2d.detach(), radii, projected.depth.detach()[None]
    _, keys, ids = package().isect_tiles(*values, TILE, columns, rows)
    offsets = package().isect_offset_encode(keys, 1, columns, rows)
    image, alpha = package().rasterize_to_pixels(
        mean2d,
        conics,
        colors.contiguous()[None],
        projected.opacity[None],
        width,
        height,
        TILE,
        offsets,
        ids,
        backgrounds=None if background is None else background[None],
        absgrad=absolute is not None,
    )
    if absolute is not None:
        _add_absolute(mean2d, absolute)
    return Rasterised(image[0], alpha[0, ..., 0])


def _add_absolute(mean2d: Tensor, absolute: Tensor) -> None:
    """Once the gradient of `mean2d` [1, G, 2] is known, adds what gsplat has left in `mean2d.absgrad` to `absolute`."""
    if not mean2d.requires_grad:
        return
    held = [mean2d]  # given up by the hook: a tensor that its own hook holds would live until the next gc

    def hook(_):
        absolute.add_(held.pop().absgrad[0].T)

    mean2d.register_hook(hook)
