"""The Python interface of gsplat 1.5.3 (nerfstudio-project, Apache-2.0) on radfield's kernels, on a CPU as on a GPU.

    radfield.compat.install()
    import gsplat  # is this package

Every line is radfield's own. What runs where:

- **rasterization**: pinhole cameras on native ops (projection, colours, sort, rasteriser), forward and backward; other
  cameras, given covariances and another eps2d are projected in torch, and drawn natively. The constants are those of
  1.5.3: alpha at most 0.999, at least 1/255; a ray ends at a transmittance of 1e-4.
- **rasterize_to_pixels** draws gsplat's lists of tiles natively. The other low-level functions (projection, lists of
  tiles, indices, `accumulate`, spherical harmonics) are plain torch: exact, of any float type, and slow.
- **rasterization_2dgs** and its parts, the unscented transform and `rasterize_to_pixels_eval3d` are plain torch.
- **DefaultStrategy** resets opacities as gsplat states; 1.5.3 by an error of its own never does (see there).
- One process: `distributed` is refused. The wrappers around Inria's rasterisers are not here: they are not free.
- Wrong arguments raise `checks.WrongCall`, an AssertionError as in gsplat, with one line that says the rule.

The modules below have the names and places that programs import from; `MODULES` lists them.
"""

from __future__ import annotations

import importlib

from .compression import PngCompression
from .exporter import export_splats
from .harmonics import spherical_harmonics
from .lenses import RollingShutterType
from .optimizers import SelectiveAdam
from .pairs import accumulate, rasterize_to_indices_in_range
from .pixels import rasterize_to_pixels
from .projection import fully_fused_projection, proj, quat_scale_to_covar_preci, world_to_cam
from .relocation import compute_relocation
from .rendering import rasterization, rasterization_2dgs
from .strategy import DefaultStrategy, MCMCStrategy, Strategy
from .surfel_pixels import accumulate_2dgs, rasterize_to_indices_in_range_2dgs, rasterize_to_pixels_2dgs
from .surfel_projection import fully_fused_projection_2dgs
from .tiles import isect_offset_encode, isect_tiles
from .unscented import fully_fused_projection_with_ut
from .version import __version__
from .world_pixels import rasterize_to_pixels_eval3d

__all__ = [
    "DefaultStrategy",
    "MCMCStrategy",
    "PngCompression",
    "RollingShutterType",
    "SelectiveAdam",
    "Strategy",
    "__version__",
    "accumulate",
    "accumulate_2dgs",
    "compute_relocation",
    "export_splats",
    "fully_fused_projection",
    "fully_fused_projection_2dgs",
    "fully_fused_projection_with_ut",
    "isect_offset_encode",
    "isect_tiles",
    "proj",
    "quat_scale_to_covar_preci",
    "rasterization",
    "rasterization_2dgs",
    "rasterize_to_indices_in_range",
    "rasterize_to_indices_in_range_2dgs",
    "rasterize_to_pixels",
    "rasterize_to_pixels_2dgs",
    "rasterize_to_pixels_eval3d",
    "spherical_harmonics",
    "world_to_cam",
]

#: the modules of gsplat that are here, below its name
MODULES = (
    "compression",
    "compression.png_compression",
    "compression.sort",
    "cuda",
    "cuda._torch_impl",
    "cuda._torch_impl_2dgs",
    "cuda._wrapper",
    "distributed",
    "exporter",
    "optimizers",
    "optimizers.selective_adam",
    "relocation",
    "rendering",
    "strategy",
    "strategy.base",
    "strategy.default",
    "strategy.mcmc",
    "strategy.ops",
    "utils",
    "version",
)


def modules() -> dict:
    """The modules by gsplat's names, this one among them."""
    names = {f"gsplat.{name}": f"{__name__}.{name}" for name in MODULES}
    return {"gsplat": importlib.import_module(__name__)} | {k: importlib.import_module(v) for k, v in names.items()}
