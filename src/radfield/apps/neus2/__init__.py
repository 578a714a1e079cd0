"""NeuS2 (Wang et al. 2023): a surface from photographs, as a signed distance field on a hash grid.

`build` makes a model for a scene, `train_step` is one step of the loop in `train.py`, `load` reads what was trained.
The options are in `config.py`, the model in `model.py`, its place in the scene in `scene.py`, a step
in `step.py` (on a GPU `device_step.py`), the state of training in `training.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ... import backend
from ...training.checkpoint import load_checkpoint
from ...training.run_folder import RunFolder
from ..run_files import load_tensors, restore, scene_from
from .config import Config, check, config_from, report_background
from .model import Model, build
from .scene import arranged
from .step import train_step
from .training import StepResult, Training

__all__ = ["Config", "Model", "StepResult", "Training", "arranged", "build", "check", "config_from", "load"]
__all__ += ["report_background", "train_step"]

SHOWN = ("samples_per_s", "psnr", "sharpness")  # figures beside the progress bar
RATE = "--neus2.learning-rate"


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a run folder on `device` ("auto": a GPU where there is one), whatever it was trained on. Raises
    `BadInput` for what is no whole run, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    model = build(config_from(folder.read_config()), **scene_from(folder), device=backend.device(device)[0])
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    restore(model, tensors)
    load_tensors(folder, model.tensors(), tensors)
    for grid in model.field.grids:
        grid.loaded()
    if model.outside is not None:
        model.outside.grid.loaded()
    model.grid.refresh()
    return model
