"""radfield: photographs, meshes and images into neural scenes.

The public API is this list; each name is imported when first used, so that `import radfield` costs next to nothing
beyond torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_EXPORTS = {
    "load": ("radfield.apps.methods", "load"),
    "load_capture": ("radfield.data", "load"),
    "RadianceField": ("radfield.fields.radiance", "RadianceField"),
    "OccupancyGrid": ("radfield.sampling.occupancy", "OccupancyGrid"),
    "Rays": ("radfield.rays", "Rays"),
    "render_view": ("radfield.renderers.volume", "render_view"),
    "trace": ("radfield.renderers.gaussian_trace", "trace"),
    "BadInput": ("radfield.errors", "BadInput"),
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'radfield' has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__():
    return sorted(__all__)
