"""`radfield fit-volume`: a field fitted to a dense volume, measured by pictures of both: scattered light of all orders
(delta tracking, the same random numbers for both) and of the first (ray marching).

The budget: loop.py. Evaluating and saving are not counted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from . import volume
from .loop import budget_of, budget_rules, take_steps, with_budget
from .runs import check, device_rules, use_device

DEFAULT_SECONDS = 120.0
#: options that are part of what was fitted and of what is drawn of it
KEPT = ("seed", "shape", "dtype", "extinction", "forward")


@dataclass(frozen=True)
class Options:
    """Fit a field to a dense volume and write a run: config, checkpoint, metrics, renders, report."""

    # .npy, .nrrd or .raw: densities [D, H, W], or with albedos [D, H, W, 4]; or cloud:N, a procedural one of N^3 voxels
    volume_file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[VOLUME]")] = ""
    output: Path | None = None  # folder of the run
    shape: tuple[int, int, int] | None = None  # of a .raw file: W H D
    dtype: str | None = None  # of a .raw file: uint8, uint16, int16, float32 or float64
    extinction: float = 60.0  # of the densest voxel, per longest side of the volume, in pictures
    forward: float = 0.4  # mean cosine of scattering (Henyey-Greenstein's g), from -0.95 to 0.95
    seconds: float | None = None  # stop after this much training (evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps; without --seconds and --steps: 120 seconds
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # draw, measure and report at the end
    json: bool = False  # print the figures as one JSON object
    volume: volume.Config = field(default_factory=volume.Config)  # options of the field and its training


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    _check(options)
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    options = _resumed(folder, options) if options.resume else with_budget(options, DEFAULT_SECONDS)
    _, about = use_device("cpu", options.threads)
    target = open_volume(options)
    scene = volume.scene_of(target)
    model = volume.build(options.volume, **{**scene, "size": target.size}, seed=options.seed)
    training = volume.Training(model, volume.Lookup(target, model.peak), options.seed)
    if options.resume:
        if folder.read_config().get("scene") != scene:
            raise BadInput(f"{options.volume_file}: is not the volume that {folder.path} was fitted to")
        training.load(folder)
        folder.resume(training.step)
    else:
        folder.start(_config(options, scene))
    size = " x ".join(map(str, target.size))
    print(
        f"fit {Path(options.volume_file).name}: {size} voxels, {scene['channels']} channels, {about}", file=sys.stderr
    )
    loop(options, training, folder)
    figures = {"steps": training.step, "training_seconds": training.seconds}
    figures["samples_per_s"] = training.step * options.volume.batch / max(training.seconds, 1e-9)
    figures["parameters"] = sum(p.numel() for p in model.field.parameters())
    stages = dict(training.stages.seconds)
    folder.append_metrics(step=training.step, summary={**figures, "stages": stages})
    if options.evaluate:
        from .volume_views import evaluate

        figures |= evaluate(folder, model, training.lookup, options.extinction, options.forward, figures, stages)
    return {"run": str(folder.path), **figures}


def open_volume(options: Options):
    """The volume of the options."""
    from ..data.volume_files import cloud, read_volume

    name, _, resolution = options.volume_file.partition(":")
    if name != "cloud" or not resolution:
        return read_volume(Path(options.volume_file), options.shape, options.dtype)
    if not resolution.isdecimal() or not 8 <= int(resolution) <= 1024:
        raise BadInput(f"{options.volume_file}: the rule: cloud:N, N from 8 to 1024")
    return cloud(int(resolution), options.seed)


def loop(options: Options, training, folder: RunFolder) -> None:
    """Steps until the budget is used; saves now and then, when interrupted, and at the end."""
    title, step = f"fit {Path(options.volume_file).name}", functools.partial(volume.train_step, training)
    try:
        take_steps(options, training, folder, title, step, shown=("loss", "samples_per_s"))
    except FloatingPointError as error:
        training.save(folder)
        raise BadInput(f"{error}; {folder.path} keeps the state before it; try --volume.learning-rate") from None


def _check(options: Options) -> None:
    check(
        [
            *budget_rules(options),
            ("extinction", options.extinction, 0 < options.extinction < math.inf, "positive"),
            ("forward", options.forward, -0.95 <= options.forward <= 0.95, "from -0.95 to 0.95"),
            *device_rules("cpu", options.threads),
        ]
    )
    volume.check(options.volume)
    if not options.volume_file and not options.resume:
        raise BadInput("no volume is given; the rule: `radfield fit-volume FILE --output RUN`, or cloud:256")
    if options.output is None:
        raise BadInput("--output is not given; the rule: `radfield fit-volume FILE --output RUN`")


def saved_options(folder: RunFolder) -> dict:
    """The options of a run. Raises `BadInput` where config.json does not have them."""
    options = folder.read_config().get("options")
    number = (int, float, type(None))
    kinds = {"volume_file": str, "seed": int, "steps": (int, type(None)), "seconds": number, "extinction": number}
    kinds |= {"forward": number, "shape": (list, type(None)), "dtype": (str, type(None))}
    if not isinstance(options, dict) or not all(k in options and isinstance(options[k], v) for k, v in kinds.items()):
        raise BadInput(f"{folder.config_path}: has no options; the rule: a run that `radfield fit-volume` made")
    shape = options["shape"]
    if shape is not None and not (len(shape) == 3 and all(type(n) is int for n in shape)):
        raise BadInput(f"{folder.config_path}: shape is {shape!r:.40}; the rule: three whole numbers")
    return {**options, "shape": shape if shape is None else tuple(shape)}


def _resumed(folder: RunFolder, options: Options) -> Options:
    """The options of the run that is continued; a new budget replaces the old one, a volume given is where it is
    now."""
    method, saved = volume.config_from(folder.read_config()), saved_options(folder)
    if options.volume not in (volume.Config(), method):
        rule = "--resume keeps them"
        raise BadInput(f"{folder.path}: the --volume options differ from those of the run; the rule: {rule}")
    changes = {"volume": method, "volume_file": options.volume_file or saved["volume_file"]}
    for name in KEPT:
        given, default = getattr(options, name), getattr(Options, name)
        if given not in (default, saved[name]):
            raise BadInput(f"--{name} is {given}; the rule: --resume keeps the run's {saved[name]}")
        changes[name] = saved[name]
    return with_budget(dataclasses.replace(options, **changes, **budget_of(options, saved)), DEFAULT_SECONDS)


def _config(options: Options, scene: dict) -> dict:
    """config.json of the run; a file's path is absolute, so that the run can be opened from any folder."""
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    method = values.pop("volume")
    if Path(options.volume_file).is_file():
        values["volume_file"] = os.path.abspath(options.volume_file)
    return {"app": "volume", "options": values, "volume": method, "scene": scene}
