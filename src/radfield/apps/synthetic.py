"""`radfield data synthetic`: a small synthetic capture with exact geometry, to try everything without photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Options:
    """Writes a posed capture of a synthetic scene (NeRF-synthetic form: transforms_train.json, transforms_val.json)."""

    folder: tyro.conf.Positional[Path]
    """The folder to write to; files of the same names are replaced."""
    views: int = 60
    """Training views."""
    val_views: int = 6
    """Held-out views."""
    size: int = 200
    """Width and height of every view, in pixels."""
    seed: int = 0
    """Chooses the cameras."""
    json: bool = False
    """Print one JSON object as the last line."""


def run(options: Options) -> dict:
    """Writes the capture; returns what was written."""
    from ..data.synthetic import write_synthetic_capture
    from ..errors import BadInput

    if options.folder.exists() and not options.folder.is_dir():
        raise BadInput(f"{options.folder}: is a file; the rule: a folder for the capture")
    folder = write_synthetic_capture(
        options.folder, views=options.views, val_views=options.val_views, size=options.size, seed=options.seed
    )
    return {"folder": str(folder), "views": options.views, "val_views": options.val_views, "size": options.size}
