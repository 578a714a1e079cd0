"""`radfield train`: a radiance field from a posed capture."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from . import ngp

LOG_INTERVAL = 16  # steps between two lines of metrics.jsonl


@dataclass(frozen=True)
class Options:
    """Train a radiance field from a posed capture and write a run: config, checkpoint, metrics, renders, report."""

    capture: Annotated[Path, tyro.conf.Positional]  # folder with transforms.json (or transforms_train.json) and images
    output: Path  # folder of the run
    method: Literal["ngp"] = "ngp"  # the method to train with
    seconds: float | None = None  # stop after this much training (decoding, evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps; without --seconds and --steps: 120 seconds
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    device: Literal["auto", "cpu", "cuda"] = "auto"  # this version computes on the cpu
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint
    overwrite: bool = False  # replace the run in the output folder
    holdout: int = 8  # every so many-th image is held out for validation, where the capture names no split
    max_size: int | None = None  # shrink images whose longer side has more pixels
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # measure and report on held-out views at the end
    json: bool = False  # print the figures as one JSON object
    ngp: ngp.Config = field(default_factory=ngp.Config)  # the method's options


def run(options: Options) -> dict:
    """Trains, and returns the figures of the run."""
    _check(options)
    import torch

    from ..cpu.library import default_num_threads, set_num_threads
    from ..data import load

    set_num_threads(options.threads or default_num_threads())
    torch.set_num_threads(1)  # torch's own threads would compete with ours for the same cores
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    config = _resumed_config(folder, options) if options.resume else options.ngp
    scene = load(options.capture, holdout=options.holdout, max_size=options.max_size)
    background = ngp.report_background(config, scene)
    model = ngp.build(
        config, cascades=scene.cascades, transform=scene.transform, background=background, seed=options.seed
    )
    training = ngp.Training(model, scene, options.seed)
    if options.resume:
        training.load(folder)
        folder.resume(training.step)
    else:
        folder.start(_config(options, scene, model))
    loop(options, training, folder)
    figures = {"steps": training.step, "training_seconds": training.seconds, **training.figures()}
    if options.evaluate and scene.val is not None and scene.val.images is not None:
        from .evaluate import evaluate_views, write_run_report

        measured, views = evaluate_views(model, scene, "val")
        figures |= measured
        write_run_report(folder, figures, views, dict(training.stages.seconds))
        print(f"radfield: report: {folder.report_path}", file=__import__("sys").stderr)
    return figures


def loop(options: Options, training: ngp.Training, folder: RunFolder) -> None:
    """Steps until the budget is used; saves now and then, when interrupted, and at the end."""
    from ..training.progress import Interrupted, Progress, interruptible

    budget = {"steps": options.steps, "seconds": options.seconds}
    if options.steps is None and options.seconds is None:
        budget["seconds"] = 120.0
    saved = training.seconds
    with (
        Progress(f"train {options.capture.name}", **budget, resumed_from=(training.step, training.seconds)) as progress,
        interruptible() as interrupt,
    ):
        while (used := _used(training, budget)) < 1:
            began = time.perf_counter()
            try:
                result = ngp.train_step(training, used)
            except FloatingPointError as error:
                training.save(folder)
                raise BadInput(
                    f"{error}; the state before it is saved in {folder.path}; a smaller --ngp.learning-rate may help"
                ) from None
            training.count(result, time.perf_counter() - began)
            if training.step % LOG_INTERVAL == 0:
                figures = training.log(folder)
                progress.update(
                    training.step,
                    seconds=training.seconds,
                    samples_per_s=figures["samples_per_s"],
                    psnr=figures["psnr"],
                )
            if interrupt:
                training.save(folder)
                raise Interrupted(
                    f"{folder.path}: the state after step {training.step} is saved; --resume continues it"
                )
            if training.seconds - saved > options.checkpoint_seconds:
                training.save(folder)
                saved = training.seconds
        progress.update(training.step, seconds=training.seconds)
    training.save(folder)


def _used(training: ngp.Training, budget: dict) -> float:
    parts = [training.step / budget["steps"]] if budget["steps"] is not None else []
    parts += [training.seconds / budget["seconds"]] if budget["seconds"] is not None else []
    return max(parts)


def _check(options: Options) -> None:
    rules = [
        ("seconds", options.seconds, options.seconds is None or 0 < options.seconds < math.inf, "positive"),
        ("steps", options.steps, options.steps is None or options.steps > 0, "positive"),
        ("threads", options.threads, options.threads is None or 1 <= options.threads <= 1024, "from 1 to 1024"),
        ("max-size", options.max_size, options.max_size is None or options.max_size >= 16, "at least 16"),
        ("holdout", options.holdout, options.holdout >= 0, "0 for none, or every so many-th image"),
        ("checkpoint-seconds", options.checkpoint_seconds, options.checkpoint_seconds > 0, "positive"),
        ("device", options.device, options.device != "cuda", "auto or cpu: this version has no CUDA kernels"),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"--{name} is {value}; the rule: {rule}")


def _config(options: Options, scene, model: ngp.Model) -> dict:
    """config.json of a new run."""
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    method = values.pop("ngp")
    return {
        "app": "ngp",
        "options": values,
        "ngp": method,
        "scene": {
            "capture": str(options.capture),
            "name": scene.name,
            "transform": scene.transform.to_dict(),
            "cascades": scene.cascades,
            "background": model.background,
        },
    }


def _resumed_config(folder: RunFolder, options: Options) -> ngp.Config:
    """The method's options of the run that is continued; others given now would not fit its checkpoint."""
    config = ngp.config_from(folder.read_config())
    if options.ngp not in (ngp.Config(), config):
        raise BadInput(f"{folder.path}: the --ngp options differ from those of the run; the rule: --resume takes none")
    return config
