"""The methods of `radfield train`: one module each, which has

Config, check, config_from    the method's options; whether they are in range; those of a run
build, load                   a model, fresh or of a run: `render_view`, `transform`, `cascades`, `background`
Training, train_step          the state of training; one step of the loop in train.py, which raises FloatingPointError
                              or MemoryError with the state whole
SHOWN, RATE                   figures to show on the way; the option to lower where a loss is not finite
report_background             behind renders and figures
CHANGED_ON_RESUME             options that --resume may be given anew, where there are some
arranged                      of some methods: the scene in the coordinates that the method wants, by its options
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from ..errors import BadInput
from ..training.run_folder import RunFolder
from . import neus2, ngp, splat
from .fit import picture, sdf, volume

METHODS: dict[str, ModuleType] = {"ngp": ngp, "splat": splat, "neus2": neus2}
#: what a run can be of; those of `radfield fit-sdf`, `fit-image` and `fit-volume` have Config, check, config_from,
#: build and load
KINDS = METHODS | {"sdf": sdf, "picture": picture, "volume": volume}


def method_of(folder: RunFolder) -> ModuleType:
    """The method that made a run. Raises `BadInput` where this version has none of that name."""
    name = folder.read_config()["app"]
    if name not in KINDS:
        raise BadInput(f"{folder.config_path}: app is {name!r:.80}; the rule: one of {', '.join(KINDS)}")
    return KINDS[name]


def load(run: str | Path, device="cpu"):
    """The model of a run folder, of whatever method, on `device` ("auto": a GPU where there is one). Raises `BadInput`
    for what is no whole run, and for a device that cannot be used."""
    return method_of(RunFolder.open(run)).load(run, device)
