"""A fitted picture as one small file: entries of the encoding in 16 bits, as the kernels read them, so that nothing is
lost; learned probes baked to integers; the network in 32 bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from ...encodings.baked_probe import BakedProbe, to_bits
from ...encodings.learned_probe import LearnedProbe
from ...errors import BadInput
from ...training.checkpoint import load_checkpoint, save_checkpoint
from . import picture
from .picture import Model

_NETWORK = "field.network."


def write_compact(path: Path, model: Model) -> None:
    """Writes the file. BadInput unless the model computes in 16 bits, or where the file cannot be written."""
    if model.config.precision != "bf16":
        raise BadInput(f"picture: precision is {model.config.precision}; the rule: bf16, which a compact file keeps")
    grid = model.field.grid
    if isinstance(grid, LearnedProbe):
        grid = grid.bake()
    if isinstance(grid, BakedProbe):
        tensors = {"grid.table": grid.table, "grid.choices": to_bits(grid.choices.cpu(), grid.grid.log2_probes)}
    else:
        tensors = {f"grid.{name}": value.detach().bfloat16() for name, value in grid.state_dict().items()}
    tensors |= {k: v for k, v in model.tensors().items() if k.startswith(_NETWORK)}
    about = {"config": dataclasses.asdict(model.config), "size": model.size, "kind": model.kind, "peak": model.peak}
    about["channels"] = model.field.config.channels
    save_checkpoint(path, tensors, {"picture": json.dumps(about)})


def read_compact(path: Path, device: torch.device | str = "cpu") -> Model:
    """What `write_compact` wrote, on `device`. Raises `BadInput` for any other file."""
    tensors, metadata = load_checkpoint(path)
    try:
        about = json.loads(metadata["picture"])
        config = about.pop("config")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{path}: holds no picture; the rule: a compact file of `radfield fit-image`") from None
    config = picture.config_from({"app": "picture", "picture": config})
    model = picture.build(config, **picture.scene_from(path, about), device=device)
    grid = model.field.grid
    if isinstance(grid, LearnedProbe):
        model.field.grid = BakedProbe.of(path, 2, grid.config, _part(tensors, "grid.")).to(device)
    else:
        _take(path, grid.state_dict(), _part(tensors, "grid."))
        grid.loaded()
    _take(path, model.field.network.state_dict(), _part(tensors, _NETWORK))
    return model


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _take(path: Path, ours: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Copies the file's tensors. Raises `BadInput` where one is missing or of another shape."""
    for name, tensor in ours.items():
        value = found.get(name)
        if value is None or value.shape != tensor.shape:
            what = "missing" if value is None else f"{list(value.shape)}"
            raise BadInput(f"{path}: {name} is {what}; the rule: {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(found[name])
