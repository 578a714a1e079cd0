"""`radfield fit-sdf`: a signed distance field of a triangle mesh, measured against it.

The budget is steps, seconds, or both (what ends first); with --steps a resumed run equals an uninterrupted one bit for
bit. Evaluating and saving are not counted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from . import sdf
from .loop import budget_of, budget_rules, take_steps, with_budget
from .runs import check, device_rules, use_device, write_picture

DEFAULT_SECONDS = 60.0
REPORT_VIEWS, REPORT_PIXELS = 4, 800
_KEPT = ("seed", "up")


@dataclass(frozen=True)
class Options:
    """Fit a signed distance field to a triangle mesh and write a run: config, checkpoint, metrics, renders, report."""

    mesh: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[MESH]")] = None  # .obj, .ply or .glb
    output: Path | None = None  # folder of the run
    seconds: float | None = None  # stop after this much training (evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps; without --seconds and --steps: 60 seconds
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    up: Literal["y", "z"] = "y"  # the mesh's axis that points upwards in pictures
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # measure against the mesh and report at the end
    json: bool = False  # print the figures as one JSON object
    sdf: sdf.Config = field(default_factory=sdf.Config)  # options of the field and its training


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    _check(options)
    folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
    options = _resumed(folder, options) if options.resume else with_budget(options, DEFAULT_SECONDS)
    _, about = use_device("cpu", options.threads)
    surface, transform = open_surface(options.mesh)
    model = sdf.build(options.sdf, transform=transform, size=sdf.size_of(surface), seed=options.seed)
    training = sdf.Training(model, surface, options.seed)
    config = _config(options, surface, transform)
    if options.resume:
        if folder.read_config().get("scene") != config["scene"]:
            raise BadInput(f"{options.mesh}: is not the mesh that {folder.path} was fitted to")
        training.load(folder)
        folder.resume(training.step)
        folder.write_config(config)
    else:
        folder.start(config)
    rule = {"pseudonormal": "signs by pseudonormals", "winding": "signs by winding numbers"}[surface.rule]
    print(f"fit {options.mesh.name}: {len(surface.triangles)} triangles, {rule}, {about}", file=sys.stderr)
    loop(options, training, folder)
    figures = {"steps": training.step, "training_seconds": training.seconds}
    figures["samples_per_s"] = training.step * options.sdf.batch / max(training.seconds, 1e-9)
    figures["parameters"] = sum(p.numel() for p in model.field.parameters())
    stages = dict(training.stages.seconds)
    folder.append_metrics(step=training.step, summary={**figures, "stages": stages})
    if options.evaluate:
        figures |= evaluate(folder, model, surface, figures, stages)
    return {"run": str(folder.path), **figures}


def open_surface(path: Path):
    """(the mesh's surface in scene coordinates, the similarity that leads there). Says what is unusual about the mesh.
    BadInput, in one line, where it is none."""
    import torch

    from ..data.synthetic.mesh import read_mesh
    from ..tracing.surface import Surface

    vertices, triangles = read_mesh(path, torch.float64)[:2]
    try:
        surface = Surface.of(vertices, triangles)
        transform = sdf.scene_of(surface)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    surface.announce(path.name)
    return dataclasses.replace(surface, vertices=transform.points(surface.vertices)), transform


def loop(options: Options, training, folder: RunFolder) -> None:
    """Steps until the budget is used; saves now and then, when interrupted, and at the end."""
    title, step = f"fit {options.mesh.name}", functools.partial(sdf.train_step, training)
    try:
        take_steps(options, training, folder, title, step, shown=("loss",))
    except FloatingPointError as error:
        training.save(folder)
        raise BadInput(f"{error}; {folder.path} keeps the state before it; try --sdf.learning-rate") from None


def evaluate(folder: RunFolder, model, surface, figures: dict, stages: dict) -> dict:
    """Measures, writes pictures and the report, and returns what was found."""
    from ..metrics import psnr
    from ..tracing.bvh import Bvh
    from . import sdf_views
    from .report import write_report

    found = sdf_views.measure(model, surface)
    cameras = sdf_views.cameras_around(model.size, saved_options(folder)["up"], REPORT_VIEWS, REPORT_PIXELS)
    bvh = Bvh.of(surface.vertices, surface.triangles)
    assert model.space is not None  # made once, before frames are timed
    views, seconds = [], []
    for i in range(REPORT_VIEWS):
        began = time.perf_counter()
        picture = model.render_view(cameras, i).color
        seconds.append(time.perf_counter() - began)
        views.append((f"view {i}", picture, sdf_views.mesh_picture(bvh, cameras, i)))
        write_picture(folder.renders / f"{i:03d}.png", picture)
    found |= {"views": REPORT_VIEWS, "resolution": f"{REPORT_PIXELS} x {REPORT_PIXELS}", "background": "white"}
    found["seconds_per_view"] = sum(seconds) / len(seconds)
    shown = {"psnr": sum(float(psnr(ours, mesh)) for _, ours, mesh in views) / len(views)}
    summary = {"name": folder.path.resolve().name, **figures, **found, **shown}
    report = write_report(folder, folder.read_metrics(), views, summary, stages)
    return {**found, "report": str(report)}


def saved_options(folder: RunFolder) -> dict:
    """The options of a run. Raises `BadInput` where config.json does not have them."""
    options = folder.read_config().get("options")
    kinds = {"mesh": str, "seed": int, "up": str, "steps": (int, type(None)), "seconds": (int, float, type(None))}
    if not isinstance(options, dict) or not all(isinstance(options.get(k, kinds), v) for k, v in kinds.items()):
        raise BadInput(f"{folder.config_path}: has no options; the rule: a run that `radfield fit-sdf` made")
    if options["up"] not in ("y", "z"):
        raise BadInput(f"{folder.config_path}: up is {options['up']!r:.80}; the rule: y or z")
    return options


def open_run(folder: RunFolder, mesh: Path | None = None):
    """The model of a run, and the surface of its mesh in scene coordinates. mesh: where that is now, if it moved."""
    mesh = mesh or Path(saved_options(folder)["mesh"])
    surface, transform = open_surface(mesh)
    model = sdf.load(folder.path)
    if transform != model.transform:
        raise BadInput(f"{mesh}: is not the mesh that {folder.path} was fitted to")
    return model, surface


def _check(options: Options) -> None:
    check(
        [
            *budget_rules(options),
            *device_rules("cpu", options.threads),
        ]
    )
    sdf.check(options.sdf)
    if options.mesh is None and not options.resume:
        raise BadInput("no mesh is given; the rule: `radfield fit-sdf MESH --output RUN`")
    if options.output is None:
        raise BadInput("--output is not given; the rule: `radfield fit-sdf MESH --output RUN`")


def _resumed(folder: RunFolder, options: Options) -> Options:
    """The options of the run that is continued; a new budget replaces the old one, a mesh given is where it is now."""
    method, saved = sdf.config_from(folder.read_config()), saved_options(folder)
    if options.sdf not in (sdf.Config(), method):
        raise BadInput(
            f"{folder.path}: the options of the field differ from those of the run; the rule: --resume keeps them"
        )
    changes = {"sdf": method, "mesh": options.mesh or Path(saved["mesh"])}
    for name in _KEPT:
        given, default = getattr(options, name), getattr(Options, name)
        if given not in (default, saved[name]):
            raise BadInput(f"--{name} is {given}; the rule: --resume keeps the run's {saved[name]}")
        changes[name] = saved[name]
    return with_budget(dataclasses.replace(options, **changes, **budget_of(options, saved)), DEFAULT_SECONDS)


def _config(options: Options, surface, transform) -> dict:
    """config.json of the run; the mesh's path is absolute, so that the run can be opened from any folder."""
    values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    method = values.pop("sdf")
    values["mesh"] = os.path.abspath(options.mesh)
    scene = {"transform": transform.to_dict(), "cascades": 1, "background": "white"}
    scene["size"] = sdf.size_of(surface).tolist()
    return {"app": "sdf", "options": values, "sdf": method, "scene": scene}
