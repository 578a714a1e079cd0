"""`radfield distill`: a trained run into another architecture, without its photographs (distillation/).

What teacher and student can both be compared on decides how: fields at shared samples (`distillation/loop.py`), and
where one of the two is Gaussians by what the teacher shows (`distillation/rendered.py`)."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput, warn
from ...training.run_folder import RunFolder
from .. import splat
from ..loop import budget_of, budget_rules, take_steps, with_budget
from ..runs import check, check_fits, device_rules, saved_options, use_device

DEFAULT_SECONDS = 120.0
#: options that are part of what is distilled: --resume takes them from the run, and refuses others
KEPT_ON_RESUME = ("to", "seed", "poses", "stages", "clamp", "hard_poses", "hard_rays", "hard_points")
KEPT_ON_RESUME += ("batch_samples", "learning_rate", "views", "view_size")
WELL_KNOWN = 0.95  # part of what is seen whose colours a second teacher knows, below which a warning says so
#: options of fields compared at shared samples, which views do not have
AT_SAMPLES = ("stages", "clamp", "hard_poses", "hard_rays", "hard_points")


@dataclass(frozen=True)
class Options:
    """Convert a trained run into another architecture by distillation, and write a run of it."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run that is the teacher
    output: Path  # folder of the student's run
    to: str = ""  # the student: mlp, hash, simplex, probe, vm, cp, dense, sparse, triplane or splat (Gaussians)
    color_from: Path | None = None  # a second teacher, whose colours take the place of the run's; geometry stays
    seconds: float | None = None  # stop after this much distilling (loading, evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps; without --seconds and --steps: 120 seconds
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    # where views are drawn: around an object, in front of the scene, or among the cameras; auto: by the capture's
    poses: Literal["auto", "synthetic", "forward", "unbounded"] = "auto"
    stages: Literal["pvd", "none", "rendered"] = "pvd"  # features first, all at once, or rendered colours alone
    clamp: bool = True  # compare log densities within [-2, 7] only
    hard_poses: bool = False  # more of the views that the student is worst at (PVD-AL)
    hard_rays: bool = False  # more of the rays that it is worst at
    hard_points: bool = False  # compare the samples alone that matter most to the picture
    batch_samples: int | None = None  # samples compared per step; 65536, for mlp 8192, for sparse 131072
    learning_rate: float | None = None  # of grid and networks at the start; 0.03, each at its encoding's factor
    views: int = 100  # to or from Gaussians: views of the teacher, at poses drawn around the scene
    view_size: int = 400  # and the longer side of these in pixels, where the capture's have more
    capture: Path | None = None  # where the run's capture is now, if it has moved
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # measure and report on held-out views at the end, where the capture is there
    json: bool = False  # print the figures as one JSON object
    splat: splat.Config = field(default_factory=splat.Config)  # options of the student with --to splat


def run(options: Options) -> dict:
    """Distils, and returns the figures of the student's run."""
    _check(options)
    source = RunFolder.open(options.run)
    if options.output.resolve() == options.run.resolve():
        raise BadInput(f"--output is {options.output}; the rule: another folder than the teacher's")
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    options = _resumed(options, folder) if options.resume else with_budget(options, DEFAULT_SECONDS)
    device, about = use_device(options.device, options.threads)
    from . import training

    teacher = load_teacher(source, device)
    painter = None if options.color_from is None else load_teacher(RunFolder.open(options.color_from), device)
    if painter is not None:
        teacher, shape = training.fused(teacher, painter), teacher
    by_views = training.by_views(teacher, options.to)
    if by_views:
        _check_by_views(options)
    config = _student_config(options, teacher, folder)
    scene = _scene(options, source, teacher)
    active = training.Active(options.hard_poses, options.hard_rays, options.hard_points)
    sampler = training.sampler_of(scene, teacher, options.poses, options.seed, active)
    if painter is not None:
        _tell_unknown_colors(options, training.known_colors(shape, painter, sampler))
    written = _config(options, source, config, scene)
    if options.resume:
        _check_same(config, folder, written)
    student = _student(options, teacher, config, sampler, by_views)
    if options.resume:
        _continue(student, folder, written)
    student.make_ready()
    if not options.resume:
        folder.start(written)
    print(f"distill {source.path.resolve().name} to {options.to}: {about}", file=sys.stderr)
    loop(options, student, folder)
    return _finish(options, teacher, student, scene, folder)


def _tell_unknown_colors(options: Options, known: float) -> None:
    if known < WELL_KNOWN:
        what = f"of what is seen of {options.run} lies where {options.color_from} is empty"
        warn(f"{1 - known:.0%} {what}: colours there are guesses")


def _student_config(options: Options, teacher, folder: RunFolder):
    """The options of the student's method; those of a run that is continued are the run's."""
    from . import training

    if options.to != "splat":
        if options.splat != splat.Config():
            raise BadInput(f"--to is {options.to}; the rule: --splat options are for --to splat")
        return training.student_config(teacher.config, options.to, options.batch_samples, options.learning_rate)
    config = splat.config_from(folder.read_config()) if options.resume else options.splat
    if options.resume and options.splat not in (splat.Config(), config):
        raise BadInput(
            f"{folder.path}: the --splat options differ from those of the run; the rule: --resume keeps them"
        )
    splat.check(config)
    if config.exposure or config.cameras:
        raise BadInput("--splat.exposure or --splat.cameras is given; the rule: a teacher's views need no corrections")
    return config


def _student(options: Options, teacher, config, sampler, by_views: bool):
    from . import training
    from . import views as distill_views

    if by_views:
        drawn = {"views": options.views, "size": options.view_size}
        return distill_views.student_of(teacher, config, sampler, options.seed, **drawn)
    student = training.Student(training.fresh_student(teacher, config, options.seed), teacher, sampler, options.seed)
    student.compare(teacher, options.stages, options.clamp)
    return student


def load_teacher(source: RunFolder, device):
    """The model of a run. Raises `BadInput` where it is of another method, or not trained."""
    from ...training.checkpoint import load_checkpoint
    from ..methods import METHODS, method_of

    method = method_of(source)
    if method not in METHODS.values():
        rule = f"a teacher is a run of --method {' or '.join(METHODS)}"
        raise BadInput(f"{source.path}: is a run of another method; the rule: {rule}")
    _, metadata = load_checkpoint(source.checkpoint_path)
    if metadata.get("step") == "0":
        raise BadInput(f"{source.path}: is not trained, its checkpoint is of step 0; the rule: a trained teacher")
    return method.load(source.path, device)


def loop(options: Options, student, folder: RunFolder) -> None:
    """Distils until the budget is used; saves now and then, when interrupted, and at the end."""
    try:
        title = f"distill to {options.to}"
        take_steps(options, student, folder, title, student.advance, shown=student.shown)
    except FloatingPointError as error:
        raise BadInput(f"{error}; a smaller {student.rate} may help") from None
    except MemoryError as error:
        student.save(folder)
        raise BadInput(f"{error}; {folder.path} keeps the state after step {student.step}") from None


def _finish(options: Options, teacher, student, scene, folder: RunFolder) -> dict:
    """Measures, and returns the figures; those of the distillation go to the end of metrics.jsonl too."""
    from ..runs import open_run
    from .training import psnr_to

    figures = {"to": options.to, "steps": student.step, "training_seconds": student.seconds, **student.figures()}
    folder.append_metrics(step=student.step, summary=figures)
    if options.evaluate:
        figures["psnr_to_teacher"] = psnr_to(teacher, student.model, student.sampler)
    if options.evaluate and scene is not None and scene.val is not None:
        from ..evaluate import evaluate_views, write_run_report

        _, model, scene = open_run(folder.path, "val", device=student.model.device)
        measured, views = evaluate_views(model, scene, "val")
        figures |= measured
        figures["report"] = str(write_run_report(folder, figures, views, {}))
    return {"run": str(folder.path), "teacher": str(options.run), **figures}


def _check(options: Options) -> None:
    from .training import TARGETS

    targets = ", ".join(TARGETS)
    check(
        [
            ("to", options.to, options.to in TARGETS or (options.resume and not options.to), f"one of {targets}"),
            *budget_rules(options),
            ("views", options.views, 1 <= options.views <= 10_000, "from 1 to 10000"),
            ("view-size", options.view_size, 16 <= options.view_size <= 4096, "from 16 to 4096"),
            *device_rules(options.device, options.threads),
        ]
    )


def _check_by_views(options: Options) -> None:
    defaults = {each.name: each.default for each in dataclasses.fields(Options)}
    for name in (*AT_SAMPLES, *(("batch_samples", "learning_rate") if options.to == "splat" else ())):
        if (given := getattr(options, name)) != defaults[name]:
            rule = "options of two fields that are compared at samples; Gaussians are compared by rendered views"
            raise BadInput(f"--{name.replace('_', '-')} is {given}; the rule: {rule}")


def _resumed(options: Options, folder: RunFolder) -> Options:
    """The options of the run that is continued; a new budget replaces the old one. Raises `BadInput` where others than
    the run's are given that would not fit its checkpoint."""
    saved = folder.read_config().get("distill")
    if not isinstance(saved, dict) or not {"to", "seconds", "steps"} <= saved.keys():
        raise BadInput(f"{folder.path}: is not distilled; the rule: --resume continues what `radfield distill` began")
    changes = {}
    for each in dataclasses.fields(Options):
        if each.name in KEPT_ON_RESUME:
            given, changes[each.name] = getattr(options, each.name), saved.get(each.name, each.default)
            if given not in (each.default, changes[each.name]):
                rule = f"--resume keeps the run's {changes[each.name]!r:.40}"
                raise BadInput(f"--{each.name.replace('_', '-')} is {given}; the rule: {rule}")
    second = None if saved.get("color_from") is None else Path(saved["color_from"])
    if options.color_from is not None and (second is None or options.color_from.resolve() != second.resolve()):
        raise BadInput(f"--color-from is {options.color_from}; the rule: --resume keeps the run's {second}")
    changes |= {"color_from": second, **budget_of(options, saved)}
    resumed = with_budget(dataclasses.replace(options, **changes), DEFAULT_SECONDS)
    _check(resumed)
    return resumed


def _check_same(config, folder: RunFolder, written: dict) -> None:
    """Raises `BadInput` where the run that is continued is not of this teacher."""
    from ..methods import METHODS

    found = folder.read_config()
    method = METHODS.get(found["app"])
    if written["app"] != found["app"] or config != method.config_from(found) or found.get("scene") != written["scene"]:
        raise BadInput(f"{folder.path}: is not of this teacher; the rule: --resume continues with the same one")


def _continue(student, folder: RunFolder, written: dict) -> None:
    """Puts the state of the checkpoint into `student`, and the run's folder back to it."""
    student.load(folder)
    folder.resume(student.step)
    folder.write_config(written)
    print(f"resume {folder.path}: from step {student.step}", file=sys.stderr)


def _scene(options: Options, source: RunFolder, teacher):
    """The cameras of the teacher's capture; None, announced, where it cannot be read."""
    from ...data import load

    saved = saved_options(source)
    reading = {"holdout": saved["holdout"], "max_size": saved["max_size"], "masks": saved.get("masks", "auto")}
    place = options.capture or saved["capture"]
    try:
        if not place.exists():
            raise BadInput(f"{place}: the run's capture is not there")
        scene = load(place, **reading, split=())
        check_fits(scene, teacher.transform, teacher.cascades, source)
        return scene
    except BadInput as error:
        if options.capture is not None:
            raise
        warn(f"{error}: views are drawn around the scene box instead, and nothing is measured on photographs")
        return None


def _config(options: Options, source: RunFolder, config, scene) -> dict:
    """config.json of the student's run: one of its method, in the teacher's scene."""
    theirs, saved = source.read_config(), saved_options(source)
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    kept = {name: saved[name] for name in ("holdout", "max_size")} | {"masks": saved.get("masks", "auto")}
    kept |= {name: values[name] for name in ("seed", "steps", "seconds")}
    capture = os.path.abspath(options.capture or saved["capture"])
    method = "splat" if isinstance(config, splat.Config) else "ngp"
    return {
        "app": method,
        "options": {"method": method, **kept, "capture": capture},
        method: json.loads(json.dumps(dataclasses.asdict(config))),
        "scene": {**theirs["scene"], "capture": capture},
        "distill": {name: values[name] for name in (*KEPT_ON_RESUME, "steps", "seconds")}
        | {"teacher": os.path.abspath(source.path), "color_from": _absolute(options.color_from)},
    }


def _absolute(path: Path | None) -> str | None:
    return None if path is None else os.path.abspath(path)
