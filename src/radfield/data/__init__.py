"""Captures in, one `Scene` out; and synthetic captures with exact answers.

`load` reads a folder, `Scene` holds splits of `Views` (cameras, `Images`, names), and `data/synthetic` makes captures
whose geometry is known.
"""

from .loading import load
from .scene import Images, Scene, Views

__all__ = ["Images", "Scene", "Views", "load"]
