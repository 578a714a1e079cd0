"""What the benchmarks share: timing, the machine's name, and printing."""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from radfield.atomic import replacing
from radfield.cpu import library


def median_seconds(function: Callable[[], object], repeats: int = 7) -> float:
    """Median wall time of a call, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def machine() -> dict:
    """What a figure depends on."""
    model = "unknown"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    about = library.describe()
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model,
        "isa": about["isa"],
        "features": about["features"],
        "threads": about["threads"],
        "torch": torch.__version__,
    }


def save_figures(path: Path, figures: dict) -> dict:
    """Keeps the figures in a file, with the machine's name; returns what stands there."""
    figures = {**figures, "machine": machine()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def report(figures: dict, as_json: bool, save: Path | None) -> None:
    """Prints the figures, as one JSON object in the last line where asked; and keeps them in a file where asked."""
    figures = save_figures(save, figures) if save else {**figures, "machine": machine()}
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value}")
