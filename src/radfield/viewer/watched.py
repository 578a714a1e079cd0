"""`radfield train --viewer`: the scene that trains, in the browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .exhibit import Exhibit
from .sources import source_of
from .training_panel import Live
from .viewer import Viewer


@contextlib.contextmanager
def watched(options, model, scene, folder) -> Iterator[Live]:
    """A viewer of the model in training, for as long as the block lasts; yields what its loop calls."""
    reading = {name: getattr(options, name) for name in ("holdout", "max_size", "masks")}
    exhibit = Exhibit(
        scene.name,
        f"in training, method {options.method}",
        source_of(model),
        folder=folder.path,
        scene=scene,
        transform=model.transform,
        reading=reading,
    )
    live = Live()
    viewer = Viewer(exhibit, options.host, options.port, live=live)
    viewer.announce()
    try:
        yield live
    finally:
        viewer.stop()
