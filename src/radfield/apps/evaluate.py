"""`radfield eval`: PSNR and SSIM of a trained run on held-out views, and its report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Measure PSNR and SSIM of a trained run on held-out views."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run
    split: Literal["train", "val", "test"] = "val"  # the views to measure on
    views: int | None = None  # measure the first so many views only
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Evaluates a run; the figures state split, resolution, background and colour space."""
    if options.views is not None and options.views < 1:
        raise BadInput(f"--views is {options.views}; the rule: at least 1")
    from .runs import open_run

    folder, model, scene = open_run(options.run, options.split, options.threads)
    figures, views = evaluate_views(model, scene, options.split, options.views)
    write_run_report(folder, {**run_figures(folder), **figures}, views, {})
    return figures


def run_figures(folder: RunFolder) -> dict:
    """What the last line of metrics.jsonl says of the training."""
    last = (folder.read_metrics() or [{}])[-1]
    names = {"step": "steps", "seconds": "training_seconds", "samples_per_s": "samples_per_s"}
    return {new: last[old] for old, new in names.items() if old in last}


def evaluate_views(model, scene, split: str, limit: int | None = None) -> tuple[dict, list]:
    """Figures over the views of a split, and (name, render, truth) of each, sRGB in [0, 1] on the model's background."""
    import torch

    from ..metrics import psnr, ssim
    from .ngp import BACKGROUNDS

    views = scene.split(split)
    count = min(limit or len(views), len(views))
    background = torch.full((3,), BACKGROUNDS[model.background])
    shown, values, seconds = [], [], 0.0
    for i in range(count):
        began = time.perf_counter()
        render = model.render_view(views.cameras, i).color.clamp(0, 1)
        seconds += time.perf_counter() - began
        truth = views.images.composited(i, background)
        values.append((float(psnr(render, truth)), float(ssim(render, truth)) if min(truth.shape[:2]) >= 11 else None))
        shown.append((views.names[i], render, truth))
    width, height = views.cameras.size[0].tolist()
    similarities = [s for _, s in values if s is not None]
    figures = {
        "psnr": sum(p for p, _ in values) / count,
        "ssim": sum(similarities) / len(similarities) if similarities else None,
        "views": count,
        "split": split,
        "resolution": f"{width} x {height}",
        "background": model.background,
        "color_space": "sRGB",
        "seconds": seconds,
        "seconds_per_view": seconds / count,
    }
    return figures, shown


def write_run_report(folder: RunFolder, figures: dict, views: list, timings: dict) -> None:
    """The run's report.html, and its renders as PNG files in renders/<split>/."""
    from ..data.images import write_png
    from .report import write_report

    target = folder.renders / figures["split"]
    target.mkdir(parents=True, exist_ok=True)
    for i, (_, render, _) in enumerate(views):
        write_png(target / f"{i:03d}.png", (render * 255).round().byte())
    write_report(folder, folder.read_metrics(), views, {"name": folder.path.resolve().name, **figures}, timings)
