"""The Python interface of nerfacc 0.5.3 (MIT) on radfield's kernels, on a CPU, where nerfacc itself has none.

    radfield.compat.install()
    import nerfacc  # is this package

Names, signatures, defaults, shapes and dtypes are nerfacc's; every line is radfield's own. `indices=` of the running
sums and products, and `losses.distortion`, are those of nerfacc's main branch. What runs where:

- **native**: `traverse_grids` and `OccGridEstimator.sampling` (`traversal.*`), sums and products along rays
  (`segments.*`), and `rendering` of densities (`renderers/composite.*`).
- **plain torch**: the rest, and everything of other dtypes than float32 (sums and products: and float64). On a GPU all
  runs there; nothing of this has run on a GPU yet.

What is not as there:

- What is wrong raises `BadInput`, a ValueError, in one line; nerfacc has AssertionErrors, or reads beyond an array.
  `ray_indices` must not fall, `packed_info` must leave no gaps.
- The traversal computes in float64, so that a sample whose middle is next to a cell's border may be on its other side.
- `traverse_grids` obeys `rays_mask` always (there, only with `over_allocate`); a ray that is left out ends at its near
  plane. `importance_sampling` of one interval a ray gives the whole ray.
- The gradient of a product is right where a factor is 0.
- Random numbers are torch's, of its global generator: others than CUDA's.
- `VDBEstimator` and `nerfacc.cuda` are not here.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from .data_specs import RayIntervals, RaySamples
from .estimators.occ_grid import OccGridEstimator
from .estimators.prop_net import PropNetEstimator
from .grid import ray_aabb_intersect, traverse_grids
from .pack import pack_info
from .pdf import importance_sampling, searchsorted
from .scan import exclusive_prod, exclusive_sum, inclusive_prod, inclusive_sum
from .version import __version__
from .volrend import (
    accumulate_along_rays,
    render_transmittance_from_alpha,
    render_transmittance_from_density,
    render_visibility_from_alpha,
    render_visibility_from_density,
    render_weight_from_alpha,
    render_weight_from_density,
    rendering,
)

__all__ = [
    "OccGridEstimator",
    "PropNetEstimator",
    "RayIntervals",
    "RaySamples",
    "__version__",
    "accumulate_along_rays",
    "exclusive_prod",
    "exclusive_sum",
    "importance_sampling",
    "inclusive_prod",
    "inclusive_sum",
    "pack_info",
    "ray_aabb_intersect",
    "render_transmittance_from_alpha",
    "render_transmittance_from_density",
    "render_visibility_from_alpha",
    "render_visibility_from_density",
    "render_weight_from_alpha",
    "render_weight_from_density",
    "rendering",
    "searchsorted",
    "traverse_grids",
]

_MODULES = ("cameras", "data_specs", "estimators", "estimators.base", "estimators.occ_grid", "estimators.prop_net")
_MODULES += ("grid", "losses", "pack", "pdf", "scan", "version", "volrend")


def modules() -> dict[str, ModuleType]:
    """This package's modules by the names that programs import."""
    ours = {f"nerfacc.{name}": importlib.import_module(f"{__name__}.{name}") for name in _MODULES}
    return {"nerfacc": sys.modules[__name__], **ours}
