"""`radfield train`: a radiance field from a posed capture, or from bare photographs, whose cameras it finds first.

The budget, and what an interrupted run equals: loop.py. `--resume` without --steps and --seconds continues with the
budget that the run began with.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import itertools
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from . import neus2, ngp, splat
from .loop import budget_of, budget_rules, take_steps, with_budget
from .methods import METHODS
from .run_files import scene_from
from .runs import check, check_fits, device_rules, free_memory, saved_options, use_device

DEFAULT_SECONDS = 120.0
#: options that are part of what was trained: --resume takes them from the run, and refuses others
KEPT_ON_RESUME = ("method", "seed", "holdout", "max_size", "masks", "memory_gb", "cache_gb")


@dataclass(frozen=True)
class Options:
    """Train a radiance field from photographs and write a run: config, checkpoint, metrics, renders, report."""

    # folder of photographs (or a video), or a posed capture: its folder, or the file that makes its format; with
    # --resume the run's by default
    capture: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[CAPTURE]")] = None
    output: Path | None = None  # folder of the run; by default runs/NAME, with a number where it is taken
    method: Literal["ngp", "splat", "neus2"] = "ngp"  # the method: a radiance field, 3D Gaussians, or a surface
    seconds: float | None = None  # stop after this much training (decoding, evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps; without --seconds and --steps: 120 seconds
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    holdout: int = 8  # every so many-th image is held out for validation, where the capture names no split
    max_size: int | None = None  # shrink images whose longer side has more pixels
    masks: Literal["auto", "ignore", "transparent", "none"] = "auto"  # what masks mean; auto: what their place says
    # memory for decoded images, others stay on disk; by default 0.4 of the machine's or the GPU's
    memory_gb: float | None = None
    cache_gb: float = 12.0  # disk space for decoded images where they do not fit into memory
    checkpoint_seconds: float = 60.0  # save the state this often
    viewer: bool = False  # show the scene in the browser while it trains, and afterwards until Ctrl-C
    host: str = "127.0.0.1"  # with --viewer: address to listen on; others than this machine's own need a token
    port: int = 8080  # with --viewer: port to listen on, or the next that is free
    evaluate: bool = True  # measure and report on held-out views at the end
    json: bool = False  # print the figures as one JSON object
    ngp: ngp.Config = field(default_factory=ngp.Config)  # options of the method ngp
    splat: splat.Config = field(default_factory=splat.Config)  # options of the method splat
    neus2: neus2.Config = field(default_factory=neus2.Config)  # options of the method neus2

    @property
    def of_method(self):
        """The options of the method in use."""
        return getattr(self, self.method)


def run(options: Options) -> dict:
    """Trains, and returns the figures of the run."""
    _check(options)
    options = _with_output(options)
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    options = _resumed(folder, options) if options.resume else with_budget(options, DEFAULT_SECONDS)
    options = _with_cameras(options, folder)
    device, about = use_device(options.device, options.threads)
    from ..data import load
    from ..training.progress import Progress

    limits = _limits(options, folder, device)
    reading = {"holdout": options.holdout, "max_size": options.max_size, "masks": options.masks}
    scene = load(options.capture, **reading, limits=limits, progress=Progress)
    options = dataclasses.replace(options, max_size=scene.max_size)
    method = METHODS[options.method]
    loaded = scene
    if hasattr(method, "arranged"):
        scene = method.arranged(scene, options.of_method)
    background = method.report_background(options.of_method, scene)
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": background}
    model = method.build(options.of_method, **where, seed=options.seed, device=device)
    training = method.Training(model, scene, options.seed, limits.memory)
    config = _config(options, scene, background, folder)
    if scene is not loaded:  # the capture alone does not say where it is
        config["scene"]["moved"] = True
    if options.resume:
        _continue(training, scene, folder, config)
    else:
        folder.start(config)
    print(f"train {scene.name}: {len(scene.train)} views, {about}", file=sys.stderr)
    if not options.viewer:
        loop(options, training, folder)
        return _finish(options, training, scene, folder)
    from ..viewer.watched import watched

    with watched(options, model, scene, folder) as live:
        loop(options, training, folder, live)
        figures = _finish(options, training, scene, folder)
        live.go_on()
    return figures


def _with_cameras(options: Options, folder: RunFolder) -> Options:
    """Finds the cameras of bare photographs first; the capture is then what comes of it, inside the run's folder."""
    from ..data import photographs

    if not photographs.is_bare(options.capture):
        return options
    name = options.capture.resolve().stem
    output = folder.capture / name
    # Those of runs beside this one: without --output each training is a new run.
    beside = sorted(folder.path.absolute().parent.glob(f"*/capture/{glob.escape(name)}"))
    figures = photographs.find_cameras(options.capture, output, threads=options.threads, copy=False, earlier=beside)
    photographs.announce(figures)
    return dataclasses.replace(options, capture=output)


def _with_output(options: Options) -> Options:
    """The options with a folder for the run: a new one below runs/ where none is given."""
    if options.output is not None:
        return options
    if options.resume or options.overwrite:
        raise BadInput("--output is not given; the rule: --resume and --overwrite need the run's folder")
    name = options.capture.resolve().stem
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    output = next(path for each in names if not (path := Path("runs") / each).exists())
    print(f"run folder: {output}", file=sys.stderr)
    return dataclasses.replace(options, output=output)


def loop(options: Options, training, folder: RunFolder, live=None) -> None:
    """Steps until the budget is used; saves now and then, when interrupted, and at the end. live: of a viewer that
    shows the scene (`viewer/training_panel.py`)."""
    method = METHODS[options.method]
    title, step = f"train {options.capture.resolve().name}", functools.partial(method.train_step, training)
    try:
        training.make_ready()
        take_steps(options, training, folder, title, step, shown=method.SHOWN, live=live)
    except FloatingPointError as error:  # of a step, or on a device of one before that was not known of yet
        training.save(folder)
        raise BadInput(
            f"{error}; {folder.path} keeps the state before it; a new run with a smaller {method.RATE} may help"
        ) from None
    except MemoryError as error:
        training.save(folder)
        raise BadInput(f"{error}; {folder.path} keeps the state after step {training.step}") from None


def _finish(options: Options, training, scene, folder: RunFolder) -> dict:
    """Evaluates if wanted, and returns the figures; those of training go to the end of metrics.jsonl too."""
    figures = {"steps": training.step, "training_seconds": training.seconds, **training.figures()}
    stages = dict(training.stages.seconds)
    folder.append_metrics(step=training.step, summary={**figures, "stages": stages})
    if options.evaluate and scene.val is not None:
        from .evaluate import evaluate_views, write_run_report

        measured, views = evaluate_views(training.model, scene, "val")
        figures |= measured
        figures["report"] = str(write_run_report(folder, figures, views, stages))
    return {"run": str(folder.path), **figures}


def _check(options: Options) -> None:
    check(
        [
            *budget_rules(options),
            ("max-size", options.max_size, options.max_size is None or options.max_size >= 16, "at least 16"),
            ("holdout", options.holdout, options.holdout == 0 or options.holdout >= 2, "0 for none, or at least 2"),
            ("memory-gb", options.memory_gb, options.memory_gb is None or 0 < options.memory_gb < math.inf, "positive"),
            ("cache-gb", options.cache_gb, 0 < options.cache_gb < math.inf, "positive"),
            ("port", options.port, 1 <= options.port <= 65535, "from 1 to 65535"),
            *device_rules(options.device, options.threads),
        ]
    )
    METHODS[options.method].check(options.of_method)
    if options.capture is None and not options.resume:
        raise BadInput("no capture is given; the rule: `radfield train CAPTURE`")


def _limits(options: Options, folder: RunFolder, device):
    """What decoded images may take of memory and disk: they go to a GPU's memory where one is used."""
    from ..data.decoded_cache import Limits
    from ..data.images import machine_memory

    memory = 0.4 * (machine_memory() or 8e9) if options.memory_gb is None else options.memory_gb * 1e9
    if device.type == "cuda" and options.memory_gb is None:
        memory = min(memory, 0.4 * free_memory(device))
    return Limits(folder.cache, int(memory), int(options.cache_gb * 1e9))


def _resumed(folder: RunFolder, options: Options) -> Options:
    """The options of the run that is continued. A new budget replaces the old one; a capture given is where it is now.
    Raises `BadInput` where other options than the run's are given that would not fit its checkpoint."""
    saved, name = saved_options(folder), folder.read_config()["app"]
    if name != options.method:
        options = _with_method(options, name, folder)
    method = METHODS[name].config_from(folder.read_config())
    changes = {name: method, "capture": options.capture or saved["capture"]}
    changes[name] = _with_changes(folder, name, method, options.of_method)
    for each in dataclasses.fields(Options):
        if each.name not in KEPT_ON_RESUME:
            continue
        changes[each.name] = saved.get(each.name, each.default)
        given = getattr(options, each.name)
        if given not in (each.default, changes[each.name]):
            name = each.name.replace("_", "-")
            raise BadInput(f"--{name} is {given}; the rule: --resume keeps the run's {changes[each.name]}")
    resumed = with_budget(dataclasses.replace(options, **changes, **budget_of(options, saved)), DEFAULT_SECONDS)
    _check(resumed)
    return resumed


def _with_changes(folder: RunFolder, name: str, method, given):
    """The method's options of the run, and of those `given` what its module allows to change. Raises `BadInput` where
    others than these are given."""
    default, allowed = type(method)(), getattr(METHODS[name], "CHANGED_ON_RESUME", ())
    new = {each: getattr(given, each) for each in allowed if getattr(given, each) != getattr(default, each)}
    changed, kept = dataclasses.replace(method, **new), {each: getattr(default, each) for each in allowed}
    if given not in (default, method) and dataclasses.replace(given, **kept) != default and given != changed:
        but = f", but for {', '.join(allowed)}" if allowed else ""
        raise BadInput(
            f"{folder.path}: the --{name} options differ from those of the run; the rule: --resume keeps them{but}"
        )
    return changed


def _with_method(options: Options, name: str, folder: RunFolder) -> Options:
    """The options with the method of the run, where none other was asked for."""
    if name not in METHODS or options.method != Options.method:
        raise BadInput(f"--method is {options.method}; the rule: --resume keeps the run's {name!r:.80}")
    return dataclasses.replace(options, method=name)


def _continue(training, scene, folder: RunFolder, config: dict) -> None:
    """Puts the state of the checkpoint into `training`, and the run's folder back to it."""
    trained = scene_from(folder)
    check_fits(scene, trained["transform"], trained["cascades"], folder)
    training.load(folder)
    folder.resume(training.step)
    folder.write_config(config)
    print(f"resume {folder.path}: from step {training.step}", file=sys.stderr)


def _config(options: Options, scene, background: str, folder: RunFolder) -> dict:
    """config.json of the run. The capture's path is absolute, so that the run can be opened from any folder; but one
    within the run's folder moves with it."""
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    methods = {name: values.pop(name) for name in METHODS}
    capture, own = os.path.abspath(options.capture), os.path.abspath(folder.capture)
    if os.path.dirname(capture) == own:
        capture = os.path.relpath(capture, os.path.abspath(folder.path))
    values["capture"] = capture
    return {
        "app": options.method,
        "options": values,
        options.method: methods[options.method],
        "scene": {
            "capture": capture,
            "name": scene.name,
            "transform": scene.transform.to_dict(),
            "cascades": scene.cascades,
            "background": background,
        },
    }
