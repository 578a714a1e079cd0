"""`radfield eval`: PSNR and SSIM of a trained run on held-out views, and its report."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..training.run_folder import RunFolder
from .fit.fit_image import FitImage
from .fit.fit_sdf import FitSdf
from .fit.fit_volume import FitVolume
from .fit.program import Fit
from .runs import check, device_rules, open_run, use_device, write_picture

_FITS: dict[str, type[Fit]] = {fit.name: fit for fit in (FitImage, FitSdf, FitVolume)}


@dataclass(frozen=True)
class Options:
    """Measure PSNR and SSIM of a trained run on held-out views."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run
    split: Literal["train", "val", "test"] = "val"  # the views to measure on
    views: int | None = None  # measure the first so many views only
    capture: Path | None = None  # where the run's capture, or what it was fitted to, is now, if it has moved
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Evaluates a run; the figures state split, resolution, background and colour space."""
    check(
        [
            ("views", options.views, options.views is None or options.views >= 1, "at least 1"),
            *device_rules(options.device, options.threads),
        ]
    )
    device, about = use_device(options.device, options.threads)
    folder = RunFolder.open(options.run)
    if fit := _FITS.get(folder.read_config()["app"]):
        trained = run_figures(folder)
        stages = trained.pop("stages", {})
        return fit().evaluate_run(folder, options.capture, device, about, trained, stages)
    folder, model, scene = open_run(options.run, options.split, capture=options.capture, device=device)
    print(f"eval {folder.path.resolve().name}: {options.split} views, {about}", file=sys.stderr)
    figures, views = evaluate_views(model, scene, options.split, options.views)
    trained = run_figures(folder)
    stages = trained.pop("stages", {})
    report = write_run_report(folder, {**trained, **figures}, views, stages)
    return {**figures, "report": str(report)}


def run_figures(folder: RunFolder) -> dict:
    """What metrics.jsonl says of the whole training: its last summary. A run that was interrupted has none."""
    summaries = [record["summary"] for record in folder.read_metrics() if isinstance(record.get("summary"), dict)]
    return dict(summaries[-1]) if summaries else {}


def evaluate_views(model, scene, split: str, limit: int | None = None) -> tuple[dict, list]:
    """Figures over the views of a split, and (name, render, truth) of each: sRGB, on the model's background."""
    from ..metrics import ssim
    from .ngp import background_color

    views = scene.split(split)
    count = min(limit or len(views), len(views))
    background = background_color(model.background, model.device)
    cameras = views.cameras.to(model.device)
    shown, values, inside, seconds = [], [], [], 0.0
    for i in range(count):
        began = time.perf_counter()
        render = model.render_view(cameras, i).color.clamp(0, 1).cpu()  # waits for a GPU to be done
        seconds += time.perf_counter() - began
        truth = views.images.composited(i, background.cpu())
        kept = views.images.kept(i)
        if kept is not None:  # ignored pixels count as right: neither their colour nor what surrounds it is measured
            render, truth = render.where(kept[..., None], 0), truth.where(kept[..., None], 0)
        values.append((_psnr(render, truth, kept), float(ssim(render, truth)) if min(truth.shape[:2]) >= 11 else None))
        shown.append((views.names[i], render, truth))
        if views.images.channels == 4:  # what is the object's alone
            mask = views.images[i][..., 3] > 127
            mask = mask if kept is None else mask & kept
            inside += [_psnr(render, truth, mask)] if bool(mask.any()) else []
    width, height = views.cameras.size[0].tolist()
    similarities = [s for _, s in values if s is not None]
    figures = {
        "psnr": sum(p for p, _ in values) / count,
        **({"psnr_inside": sum(inside) / len(inside)} if inside else {}),
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


def _psnr(render, truth, kept) -> float:
    from ..metrics import psnr

    return float(psnr(render, truth) if kept is None else psnr(render[kept], truth[kept]))


def write_run_report(folder: RunFolder, figures: dict, views: list, timings: dict) -> Path:
    """Writes the run's renders as PNG files to renders/<split>/, and its report.html, whose path is returned."""
    from .report.page import write_report

    target = folder.renders / figures["split"]
    target.mkdir(parents=True, exist_ok=True)
    for i, (_, render, _) in enumerate(views):
        write_picture(target / f"{i:03d}.png", render)
    summary = {"name": folder.path.resolve().name, **figures}
    return write_report(folder, folder.read_metrics(), views, summary, timings)
