"""Cameras from bare photographs: how many, how exact, and how long against pycolmap's defaults in the same run.

    python benchmarks/poses.py PHOTOS [--given transforms.json | NAME_par.txt] [--defaults] [--json] [--save FILE]

PHOTOS are copied to a temporary folder first, without whatever else lies beside them. --given: cameras to compare
with; the centres found are brought to theirs by a similarity, and their distances are told in parts of the extent (the
diagonal of the box around the given centres). --defaults: also run pycolmap's features, exhaustive matching and
incremental mapping with its defaults, right afterwards, and tell the ratios of wall and CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import report

DEFAULTS = """
import sys, time, json, pycolmap
from pathlib import Path
photographs, work = map(Path, sys.argv[1:])
seconds, clock = {}, time.perf_counter()
def lap(name):
    global clock
    clock, begun = time.perf_counter(), clock
    seconds[name] = clock - begun
pycolmap.logging.minloglevel = 2
pycolmap.extract_features(work / "database.db", photographs)
lap("features")
pycolmap.match_exhaustive(work / "database.db")
lap("matching")
models = pycolmap.incremental_mapping(work / "database.db", photographs, work)
lap("mapping")
print(json.dumps({"registered": max((m.num_reg_images() for m in models.values()), default=0), "stages": seconds}))
"""


def measured(command: list) -> dict:
    """Runs a command whose last line is JSON; its figures with wall and CPU seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"exit_code": done.returncode}
    return {**figures, "wall_seconds": wall, "cpu_seconds": cpu}


def copied(source: Path, target: Path) -> Path:
    """The photographs of a folder, alone."""
    target.mkdir()
    for file in source.iterdir():
        if file.suffix.lower() in (".jpg", ".jpeg", ".png"):
            shutil.copyfile(file, target / file.name)
    return target


def given_centres(file: Path) -> dict[str, np.ndarray]:
    """Camera centres by file name, of a transforms.json or a Middlebury par file (K, R, t with x = K (R X + t))."""
    if file.suffix == ".json":
        frames = json.loads(file.read_text())["frames"]
        return {Path(f["file_path"]).name: np.array(f["transform_matrix"])[:3, 3] for f in frames}
    centres = {}
    for line in file.read_text().splitlines()[1:]:
        name, *numbers = line.split()
        values = np.array(numbers, dtype=float)
        centres[name] = -values[9:18].reshape(3, 3).T @ values[18:21]
    return centres


def centre_errors(found: Path, given: dict[str, np.ndarray]) -> np.ndarray:
    """Per camera: its centre's distance from the given one after alignment (Umeyama 1991), in parts of the extent."""
    centres = given_centres(found)
    a, b = (np.array([each[name] for name in centres]) for each in (centres, given))
    x, y = a - a.mean(0), b - b.mean(0)
    u, s, v = np.linalg.svd(y.T @ x)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ v))])
    moved = (s * np.diag(flip)).sum() / (x**2).sum() * x @ (u @ flip @ v).T
    return np.linalg.norm(moved - y, axis=1) / np.linalg.norm(np.ptp(b, axis=0))


def measure(options: argparse.Namespace, work: Path) -> dict:
    photographs = copied(options.photographs, work / "photographs")
    program = [sys.executable, "-m", "radfield.apps.command_line", "data", "poses", photographs, "--json"]
    ours = measured([*program, "--output", work / "found"])
    ours.pop("output", None)  # a temporary folder
    figures = {"ours": ours}
    if options.given and "registered" in ours:
        errors = centre_errors(work / "found" / "transforms.json", given_centres(options.given))
        figures["centre_error_of_extent"] = {"median": float(np.median(errors)), "largest": float(errors.max())}
    if options.defaults:
        (work / "defaults").mkdir()
        defaults = measured([sys.executable, "-c", DEFAULTS, photographs, work / "defaults"])
        figures["pycolmap_defaults"] = defaults
        for clock in ("wall", "cpu"):
            figures[f"{clock}_ratio"] = ours[f"{clock}_seconds"] / defaults[f"{clock}_seconds"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--given", type=Path)
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        report(measure(options, Path(work)), options.json, options.save)


if __name__ == "__main__":
    main()
