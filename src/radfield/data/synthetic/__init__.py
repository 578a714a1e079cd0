"""Synthetic captures with exact answers: known geometry, textures and light, traced by ray.

`synthetic_scene` gives a scene by name or from a mesh's file, `SyntheticScene` answers for any ray, and
`write_synthetic_capture` writes a capture of it in any of `FORMATS`; `write_synthetic_sequence` one per frame of a
moving object.
"""

from .cameras import LENSES, synthetic_cameras
from .catalog import SCENES, synthetic_scene
from .files import FORMATS, write_synthetic_capture
from .scene import SyntheticScene, synthetic_image
from .sequence import write_synthetic_sequence

__all__ = [
    "FORMATS",
    "LENSES",
    "SCENES",
    "SyntheticScene",
    "synthetic_cameras",
    "synthetic_image",
    "synthetic_scene",
    "write_synthetic_capture",
    "write_synthetic_sequence",
]
