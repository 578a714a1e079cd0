"""Captures in, one `Scene` out; and synthetic captures with exact answers.

`load` reads a folder, `Scene` holds splits of `Views` (cameras, `Images`, names), and `data/synthetic` makes captures
whose geometry is known. Names are imported when first used: `photographs/` has a process that needs no torch.
"""

import importlib

_EXPORTS = {"load": ".loading", "Images": ".scene", "Scene": ".scene", "Views": ".scene"}
__all__ = ["Images", "Scene", "Views", "load"]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name], __name__), name)
