"""`gsplat.cuda._wrapper`: the low-level functions."""

from ..harmonics import spherical_harmonics
from ..lenses import RollingShutterType
from ..optimizers.selective_adam import adam
from ..pairs import rasterize_to_indices_in_range
from ..pixels import rasterize_to_pixels
from ..projection import fully_fused_projection, persp_proj, proj, quat_scale_to_covar_preci, world_to_cam
from ..surfel_pixels import rasterize_to_indices_in_range_2dgs, rasterize_to_pixels_2dgs
from ..surfel_projection import fully_fused_projection_2dgs
from ..tiles import isect_offset_encode, isect_tiles
from ..unscented import (
    FThetaCameraDistortionParameters,
    FThetaPolynomialType,
    UnscentedTransformParameters,
    fully_fused_projection_with_ut,
)
from ..world_pixels import rasterize_to_pixels_eval3d

__all__ = [
    "FThetaCameraDistortionParameters",
    "FThetaPolynomialType",
    "RollingShutterType",
    "UnscentedTransformParameters",
    "adam",
    "fully_fused_projection",
    "fully_fused_projection_2dgs",
    "fully_fused_projection_with_ut",
    "isect_offset_encode",
    "isect_tiles",
    "persp_proj",
    "proj",
    "quat_scale_to_covar_preci",
    "rasterize_to_indices_in_range",
    "rasterize_to_indices_in_range_2dgs",
    "rasterize_to_pixels",
    "rasterize_to_pixels_2dgs",
    "rasterize_to_pixels_eval3d",
    "spherical_harmonics",
    "world_to_cam",
]
