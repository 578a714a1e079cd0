"""Instant-NGP class radiance fields (Mueller et al. 2022): any encoding of positions, small networks, occupancy grid.

`build` makes a model for a scene, `train_step` is one step of the loop in `train.py`, `load` reads what was trained.
The options are in `config.py`, the model in `model.py`, a step in `step.py` (on a GPU `device_step.py`), the
state of training in `training.py`. Letters: N rays, M samples.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ... import backend
from ...errors import warn
from ...training.checkpoint import load_checkpoint
from ...training.run_folder import RunFolder
from ..run_files import load_tensors, restore, scene_from
from .config import Config, background_color, check, config_from, report_background
from .model import Model, build
from .step import train_step
from .training import StepResult, Training

__all__ = ["Config", "Model", "StepResult", "Training", "build", "check", "config_from", "load", "report_background"]
__all__ += ["background_color", "train_step"]

SHOWN = ("samples_per_s", "psnr")  # figures beside the progress bar
RATE = "--ngp.learning-rate"


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a run folder, ready to render and to answer queries on `device` ("auto": a GPU where there is one),
    whatever it was trained on; what was trained in fp16 is computed in fp32 on a CPU. Raises `BadInput` for what is no
    whole run, and for a device that cannot be used."""
    folder = RunFolder.open(run)
    config, where = config_from(folder.read_config()), backend.device(device)[0]
    if config.precision == "f16" and not backend.on_cuda(torch.empty(0, device=where)):
        warn(f"{folder.path} was trained in fp16, which a CPU has not: computed in fp32")
        config = dataclasses.replace(config, precision="f32")
    model = build(config, **scene_from(folder), device=where)
    tensors, _ = load_checkpoint(folder.checkpoint_path)
    restore(model, tensors)
    load_tensors(folder, model.tensors(), tensors)
    model.field.grid.loaded()
    model.grid.refresh()
    return model
