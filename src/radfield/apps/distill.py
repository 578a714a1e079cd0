"""`radfield distill`: a trained run into another architecture, without its photographs (distillation/)."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput, warn
from ..training.run_folder import RunFolder
from .loop import budget_of, budget_rules, take_steps, with_budget
from .runs import check, check_fits, device_rules, saved_options, use_device

DEFAULT_SECONDS = 120.0
#: options that are part of what is distilled: --resume takes them from the run, and refuses others
KEPT_ON_RESUME = ("to", "seed", "poses", "stages", "clamp", "hard_poses", "hard_rays", "hard_points")
KEPT_ON_RESUME += ("batch_samples", "learning_rate")


@dataclass(frozen=True)
class Options:
    """Convert a trained run into another architecture by distillation, and write a run of it."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run that is the teacher
    output: Path  # folder of the student's run
    to: str = ""  # the student: mlp, hash, simplex, probe, vm, cp, dense, sparse or triplane
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
    batch_samples: int | None = None  # samples compared per step; 65536, for mlp 8192
    learning_rate: float | None = None  # of grid and networks at the start; 0.03, each at its encoding's factor
    capture: Path | None = None  # where the run's capture is now, if it has moved
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # measure and report on held-out views at the end, where the capture is there
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Distils, and returns the figures of the student's run."""
    _check(options)
    source = RunFolder.open(options.run)
    if options.output.resolve() == options.run.resolve():
        raise BadInput(f"--output is {options.output}; the rule: another folder than the teacher's")
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    options = _resumed(options, folder) if options.resume else with_budget(options, DEFAULT_SECONDS)
    device, about = use_device(options.device, options.threads)
    from ..distillation import Active
    from . import distill_training as training
    from . import ngp

    teacher = load_teacher(source, device)
    config = training.student_config(teacher.config, options.to, options.batch_samples, options.learning_rate)
    scene = _scene(options, source, teacher)
    active = Active(options.hard_poses, options.hard_rays, options.hard_points)
    sampler = training.sampler_of(scene, teacher, options.poses, options.seed, active)
    student = training.Student(training.fresh_student(teacher, config, options.seed), teacher, sampler, options.seed)
    written = _config(options, source, config, scene)
    if options.resume:
        _continue(student, ngp.config_from(folder.read_config()), folder, written)
    state = training.distillation_of(teacher, student, options.stages, options.clamp)
    if not options.resume:
        folder.start(written)
    print(f"distill {source.path.resolve().name} to {options.to}: {about}", file=sys.stderr)
    loop(options, state, student, folder)
    return _finish(options, teacher, student, scene, folder)


def load_teacher(source: RunFolder, device):
    """The model of a run. Raises `BadInput` where it is of another method, or not trained."""
    from ..training.checkpoint import load_checkpoint
    from . import ngp
    from .methods import method_of

    if method_of(source) is not ngp:
        raise BadInput(f"{source.path}: is a run of another method; the rule: a teacher is a run of --method ngp")
    _, metadata = load_checkpoint(source.checkpoint_path)
    if metadata.get("step") == "0":
        raise BadInput(f"{source.path}: is not trained, its checkpoint is of step 0; the rule: a trained teacher")
    return ngp.load(source.path, device)


def loop(options: Options, state, student, folder: RunFolder) -> None:
    """Distils until the budget is used; saves now and then, when interrupted, and at the end."""
    from ..distillation import step

    def step_of(used: float):
        result = step(state, used)
        return student.taken(state, result)

    try:
        take_steps(options, student, folder, f"distill to {options.to}", step_of, shown=("samples_per_s",))
    except FloatingPointError as error:
        raise BadInput(f"{error}; a smaller --learning-rate may help") from None


def _finish(options: Options, teacher, student, scene, folder: RunFolder) -> dict:
    """Measures, and returns the figures; those of the distillation go to the end of metrics.jsonl too."""
    from .distill_training import psnr_to
    from .runs import open_run

    figures = {"to": options.to, "steps": student.step, "training_seconds": student.seconds, **student.figures()}
    folder.append_metrics(step=student.step, summary=figures)
    if options.evaluate:
        figures["psnr_to_teacher"] = psnr_to(teacher, student.model, student.sampler)
    if options.evaluate and scene is not None and scene.val is not None:
        from .evaluate import evaluate_views, write_run_report

        _, model, scene = open_run(folder.path, "val", device=student.model.device)
        measured, views = evaluate_views(model, scene, "val")
        figures |= measured
        figures["report"] = str(write_run_report(folder, figures, views, {}))
    return {"run": str(folder.path), "teacher": str(options.run), **figures}


def _check(options: Options) -> None:
    from .distill_training import TARGETS

    targets = ", ".join(TARGETS)
    check(
        [
            ("to", options.to, options.to in TARGETS or (options.resume and not options.to), f"one of {targets}"),
            *budget_rules(options),
            *device_rules(options.device, options.threads),
        ]
    )


def _resumed(options: Options, folder: RunFolder) -> Options:
    """The options of the run that is continued; a new budget replaces the old one. Raises `BadInput` where others than
    the run's are given that would not fit its checkpoint."""
    saved = folder.read_config().get("distill")
    names = {*KEPT_ON_RESUME, "seconds", "steps"}
    if not isinstance(saved, dict) or not names <= saved.keys():
        raise BadInput(f"{folder.path}: is not distilled; the rule: --resume continues what `radfield distill` began")
    changes = {}
    for each in dataclasses.fields(Options):
        if each.name in KEPT_ON_RESUME:
            given, changes[each.name] = getattr(options, each.name), saved[each.name]
            if given not in (each.default, saved[each.name]):
                rule = f"--resume keeps the run's {saved[each.name]!r:.40}"
                raise BadInput(f"--{each.name.replace('_', '-')} is {given}; the rule: {rule}")
    resumed = with_budget(dataclasses.replace(options, **changes, **budget_of(options, saved)), DEFAULT_SECONDS)
    _check(resumed)
    return resumed


def _continue(student, config, folder: RunFolder, written: dict) -> None:
    """Puts the state of the checkpoint into `student`, and the run's folder back to it."""
    if config != student.model.config or folder.read_config().get("scene") != written["scene"]:
        raise BadInput(f"{folder.path}: is not of this teacher; the rule: --resume continues with the same one")
    student.load(folder)
    folder.resume(student.step)
    folder.write_config(written)
    print(f"resume {folder.path}: from step {student.step}", file=sys.stderr)


def _scene(options: Options, source: RunFolder, teacher):
    """The cameras of the teacher's capture; None, announced, where it cannot be read."""
    from ..data import load

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
    """config.json of the student's run: a run of the method ngp in the teacher's scene."""
    theirs, saved = source.read_config(), saved_options(source)
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    kept = {name: saved[name] for name in ("holdout", "max_size")} | {"masks": saved.get("masks", "auto")}
    kept |= {name: values[name] for name in ("seed", "steps", "seconds")}
    capture = os.path.abspath(options.capture or saved["capture"])
    return {
        "app": "ngp",
        "options": {**kept, "capture": capture},
        "ngp": json.loads(json.dumps(dataclasses.asdict(config))),
        "scene": {**theirs["scene"], "capture": capture},
        "distill": {name: values[name] for name in (*KEPT_ON_RESUME, "steps", "seconds")}
        | {"teacher": os.path.abspath(source.path)},
    }
