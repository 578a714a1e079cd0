"""`radfield fit-image`: a field fitted to one picture of any depth and size, measured against it pixel by pixel.

The budget: loop.py. Evaluating and saving are not counted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from . import picture
from .loop import budget_of, budget_rules, take_steps, with_budget
from .runs import check, device_rules, use_device

DEFAULT_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """Fit a field to one picture and write a run: config, checkpoint, metrics, decoded picture, report."""

    # .png, .jpg, .tif, .webp, .gif or .exr, of 8 or 16 bits or floats, grey or RGB, with or without alpha
    image: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE]")] = None
    output: Path | None = None  # folder of the run
    seconds: float | None = None  # stop after this much training (evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps; without --seconds and --steps: 60 seconds
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    threads: int | None = None  # threads to use; all by default
    memory_gb: float | None = None  # memory for the decoded picture, else it stays on disk; by default 0.4 of all
    cache_gb: float = 12.0  # disk space for a picture that does not fit into memory
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # decode, measure and report at the end
    json: bool = False  # print the figures as one JSON object
    picture: picture.Config = field(default_factory=picture.Config)  # options of the field and its training


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    _check(options)
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    options = _resumed(folder, options) if options.resume else with_budget(options, DEFAULT_SECONDS)
    _, about = use_device("cpu", options.threads)
    target = open_picture(options, folder)
    scene = picture.scene_of(target)
    model = picture.build(options.picture, **{**scene, "size": target.size}, seed=options.seed)
    training = picture.Training(model, target, options.seed)
    if options.resume:
        if folder.read_config().get("scene") != scene:
            raise BadInput(f"{options.image}: is not the picture that {folder.path} was fitted to")
        training.load(folder)
        folder.resume(training.step)
    else:
        folder.start(_config(options, scene))
    width, height = target.size
    print(f"fit {options.image.name}: {width} x {height}, {target.channels} channels, {about}", file=sys.stderr)
    loop(options, training, folder)
    figures = {"steps": training.step, "training_seconds": training.seconds}
    figures["samples_per_s"] = training.step * training.batch / max(training.seconds, 1e-9)
    figures["parameters"] = sum(p.numel() for p in model.field.parameters())
    stages = dict(training.stages.seconds)
    folder.append_metrics(step=training.step, summary={**figures, "stages": stages})
    if options.evaluate:
        from .picture_views import evaluate

        figures |= evaluate(folder, model, target, figures, stages)
    return {"run": str(folder.path), **figures}


def open_picture(options, folder: RunFolder):
    """The picture of the options' file; what does not fit into memory is decoded into the run's folder."""
    from ..data.images import machine_memory
    from ..data.picture_files import read_picture

    memory = 0.4 * (machine_memory() or 8e9) if options.memory_gb is None else options.memory_gb * 1e9
    return read_picture(options.image, folder.cache / "picture.raw", int(memory), int(options.cache_gb * 1e9))


def loop(options: Options, training, folder: RunFolder) -> None:
    """Steps until the budget is used; saves now and then, when interrupted, and at the end."""
    title, step = f"fit {options.image.name}", functools.partial(picture.train_step, training)
    try:
        take_steps(options, training, folder, title, step, shown=("psnr", "samples_per_s"))
    except FloatingPointError as error:
        training.save(folder)
        raise BadInput(f"{error}; {folder.path} keeps the state before it; try --picture.learning-rate") from None


def _check(options: Options) -> None:
    check(
        [
            *budget_rules(options),
            ("memory-gb", options.memory_gb, options.memory_gb is None or options.memory_gb > 0, "positive"),
            ("cache-gb", options.cache_gb, options.cache_gb > 0, "positive"),
            *device_rules("cpu", options.threads),
        ]
    )
    picture.check(options.picture)
    if options.image is None and not options.resume:
        raise BadInput("no image is given; the rule: `radfield fit-image FILE --output RUN`")
    if options.output is None:
        raise BadInput("--output is not given; the rule: `radfield fit-image FILE --output RUN`")


def saved_options(folder: RunFolder) -> dict:
    """The options of a run. Raises `BadInput` where config.json does not have them."""
    options = folder.read_config().get("options")
    kinds = {"image": str, "seed": int, "steps": (int, type(None)), "seconds": (int, float, type(None))}
    if not isinstance(options, dict) or not all(isinstance(options.get(k, kinds), v) for k, v in kinds.items()):
        raise BadInput(f"{folder.config_path}: has no options; the rule: a run that `radfield fit-image` made")
    return options


def _resumed(folder: RunFolder, options: Options) -> Options:
    """The options of the run that is continued; a new budget replaces the old one, an image given is where it is
    now."""
    method, saved = picture.config_from(folder.read_config()), saved_options(folder)
    if options.picture not in (picture.Config(), method):
        rule = "--resume keeps them"
        raise BadInput(f"{folder.path}: the --picture options differ from those of the run; the rule: {rule}")
    if options.seed not in (Options.seed, saved["seed"]):
        raise BadInput(f"--seed is {options.seed}; the rule: --resume keeps the run's {saved['seed']}")
    changes = {"picture": method, "image": options.image or Path(saved["image"]), "seed": saved["seed"]}
    return with_budget(dataclasses.replace(options, **changes, **budget_of(options, saved)), DEFAULT_SECONDS)


def _config(options: Options, scene: dict) -> dict:
    """config.json of the run; the image's path is absolute, so that the run can be opened from any folder."""
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    method = values.pop("picture")
    values["image"] = os.path.abspath(options.image)
    return {"app": "picture", "options": values, "picture": method, "scene": scene}
