"""What methods read of a run's config.json and checkpoint, checked."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import BadInput
from ..geometry import SceneTransform
from ..training.run_folder import RunFolder

BACKGROUNDS = {"white": 1.0, "black": 0.0}


_AS_NOW = object()


def later(default, *, before=_AS_NOW):
    """A dataclass's field for an option of a method that came when there were runs already. before: the value that says
    what was done until then, which those runs are given; where it is not given, the default."""
    return dataclasses.field(default=default, metadata={"before": default if before is _AS_NOW else before})


def typed_options(kind: type, options, **given):
    """The dataclass `kind` of what config.json has as its options, `given` excepted: a dict. What an older run does not
    have are options that came `later`. Raises `BadInput` for anything else."""
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in given}
    if not isinstance(options, dict):
        raise BadInput("config.json holds no options of its method; the rule: a run that `radfield train` made")
    options = {n: f.metadata["before"] for n, f in fields.items() if "before" in f.metadata} | options
    for names, what in ((set(fields) - set(options), "has no"), (set(options) - set(fields), "has an unknown")):
        if names:
            rule = "the options of this version, or those of one that it can read"
            raise BadInput(f"config.json {what} option {', '.join(sorted(names)):.80}; the rule: {rule}")
    for name, value in options.items():
        default = fields[name].default
        if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
            raise BadInput(f"config.json: {name} is {value!r}; the rule: a {type(default).__name__}")
    return kind(**options, **given)


def options_of_group(kind: type, options: dict, name: str):
    """The dataclass `kind` of the group `name`, which is taken out of `options`. Runs that do not have it are from
    before there was such a group: they have its defaults."""
    return typed_options(kind, options.pop(name)) if name in options else kind()


def scene_from(folder: RunFolder) -> dict:
    """What `build` needs to know of a run's scene: cascades, transform and background. Raises `BadInput` where
    config.json does not have it."""
    scene = folder.read_config().get("scene")
    if (
        not isinstance(scene, dict)
        or scene.get("background") not in BACKGROUNDS
        or scene.get("cascades") not in range(1, 9)
    ):
        raise BadInput(f"{folder.config_path}: scene is {scene!r:.80}; the rule: transform, cascades and background")
    transform = SceneTransform.from_dict(scene.get("transform"))
    return {"cascades": scene["cascades"], "transform": transform, "background": scene["background"]}


def restore(model, tensors: dict[str, Tensor]) -> None:
    """Makes the encoding's parameters as large as those of a checkpoint."""
    prefix = "field.grid."
    model.field.grid.restore({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})


def load_tensors(folder: RunFolder, ours: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Copies a checkpoint's tensors into those at hand. Raises `BadInput` where one is missing or of another shape."""
    for name, tensor in ours.items():
        value = found.get(name)
        if value is None or value.shape != tensor.shape or value.dtype != tensor.dtype:
            what = "is missing" if value is None else f"is {value.dtype} {list(value.shape)}"
            raise BadInput(f"{folder.checkpoint_path}: {name} {what}; the rule: {tensor.dtype} {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(found[name])
