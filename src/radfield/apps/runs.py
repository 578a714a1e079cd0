"""Opening a finished run for what renders or measures it."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadInput
from ..training.run_folder import RunFolder


def open_run(path: Path, split: str | None, threads: int | None):
    """The run's folder, its model, and its scene with the images of `split` (None: cameras alone)."""
    import torch

    from ..cpu.library import default_num_threads, set_num_threads
    from ..data import load
    from . import ngp

    if threads is not None and not 1 <= threads <= 1024:
        raise BadInput(f"--threads is {threads}; the rule: from 1 to 1024")
    set_num_threads(threads or default_num_threads())
    torch.set_num_threads(1)
    folder = RunFolder.open(path)
    model = ngp.load(path)
    config = folder.read_config()
    options = config.get("options", {})
    scene = load(
        Path(config["scene"]["capture"]),
        holdout=options.get("holdout", 8),
        max_size=options.get("max_size"),
        split=() if split is None else split,
    )
    return folder, model, scene
