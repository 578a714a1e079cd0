"""What the claims about encodings share: options, a capture fitted by a given encoding for so many steps, CPU times of
calls that take turns, and a plot."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import report  # noqa: F401

from radfield.apps import ngp
from radfield.apps.evaluate import evaluate_views
from radfield.apps.report.charts import HEIGHT, WIDTH, Series, line_chart
from radfield.cpu import library
from radfield.data import load
from radfield.fields import radiance

STYLE = """<style>.chart{font-family:sans-serif;background:#fff}.chart text{fill:#555;font-size:11px}
.chart .end{text-anchor:end}.chart .middle{text-anchor:middle}.chart .grid{stroke:#ddd}.chart .axis{stroke:#888}
.chart polyline{fill:none;stroke:currentColor;stroke-width:1.5}.chart circle{fill:currentColor}
.hue1{color:#2b66c9}.hue2{color:#d1711a}.hue3{color:#2c8a57}.hue4{color:#a23a8f}.hue5{color:#7a6ad8}
.hue6{color:#b38a00}</style>"""


def options_of(doc: str, *, optional_capture: bool = False, **defaults) -> argparse.Namespace:
    """The command line: the capture, the numbers of `defaults`, where figures go; `say` prints them as they come."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?" if optional_capture else None)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="log2 of the tables, where they vary")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    options = parser.parse_args()
    options.say = lambda name, row: print(f"{name}: {row}", file=sys.stderr, flush=True)
    torch.set_num_threads(1)
    return options


@torch.no_grad()
def cpu_ms(calls: dict, repeats: int) -> dict:
    """Median milliseconds of CPU time of each call on one thread; they take turns, so that all see the same load."""
    before = library.num_threads()
    library.set_num_threads(1)
    times = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if repeat:
                times[name].append(1e3 * (time.process_time() - began))
    library.set_num_threads(before)
    return {name: statistics.median(values) for name, values in times.items()}


def capture_of(path: Path, max_size: int | None):
    """The scene of a capture, its images reduced to `max_size` pixels along the longer side."""
    return load(path, max_size=max_size)


def fit(scene, grid, *, steps: int, batch: int, views: int, seed: int = 0) -> tuple[ngp.Model, dict]:
    """Trains `grid` (a Config of encodings/registry.py) with the networks of the method ngp for `steps` steps of about
    `batch` samples on white; returns the model, PSNR over the first `views` held-out views, parameters, median
    milliseconds of a step and samples per second, both of one thread's CPU time."""
    config = ngp.Config(batch_samples=batch, background="white")
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    model = ngp.build(dataclasses.replace(config, log2_size=10), **where, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    model.config = config
    model.field = radiance.RadianceField(radiance.Config(grid=grid, precision="bf16"), scene.cascades, generator)
    training = ngp.Training(model, scene, seed)
    seconds = []
    for step in range(steps):
        began = time.process_time()
        result = ngp.train_step(training, step / steps)
        seconds.append(time.process_time() - began)
        training.count(result, seconds[-1])
    measured, _ = evaluate_views(model, scene, "val", views)
    figures = {
        "psnr": measured["psnr"],
        "parameters": sum(p.numel() for p in model.field.parameters()),
        "step_ms": 1e3 * statistics.median(seconds[steps // 2 :]),
        "samples_per_s": training.samples / training.seconds,
        **{k: measured[k] for k in ("views", "resolution", "background", "color_space") if k in measured},
    }
    return model, figures


def plot(path: Path, title: str, x_label: str, series: dict[str, tuple[list, list]]) -> None:
    """Dots over an axis, one colour per name of `series`, as an SVG that stands alone. Title and names stand above the
    chart, where no line can meet them."""
    lines = [Series(name, x, y, "dots", hue) for hue, (name, (x, y)) in enumerate(series.items(), 1)]
    names, u, v = "", 46, 38
    for line in lines:
        width = 18 + 6 * len(line.name)
        if u > 46 and u + width > WIDTH:
            u, v = 46, v + 15
        names += f'<text x="{u}" y="{v}" class="hue{line.hue}" style="fill:currentColor">{line.name}</text>'
        u += width
    chart = line_chart(title, x_label, lines).replace("<svg ", f'<svg y="{v}" width="{WIDTH}" height="{HEIGHT}" ', 1)
    height = v + HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}">{STYLE}'
    head += f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    head += f'<text x="46" y="20" style="font-weight:bold">{title}</text>'
    path.write_text(head + names + chart + "</svg>\n")
