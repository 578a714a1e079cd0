"""Files of Gaussians: seconds to write and to read a million of degree 3, and bytes per Gaussian, of each format.

python benchmarks/splat_files.py [--count 1000000] [--only .sog .spz] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from common import report

from radfield.gaussians.files import VERSIONS, WRITERS, read_gaussians, write_gaussians
from radfield.gaussians.scene import GaussianScene


def measured(folder: Path, ending: str, scene: GaussianScene, version: int | None) -> dict:
    """Seconds, by the clock and of all threads, and bytes, of a file and those beside it."""
    folder.mkdir()
    path, times = folder / (f"scene{ending}" if ending.startswith(".") else ending), []
    for call in (lambda: write_gaussians(path, scene, version), lambda: read_gaussians(path)):
        began = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    size = sum(each.stat().st_size for each in folder.iterdir())
    shutil.rmtree(folder)
    (write, write_cpu), (read, read_cpu) = times
    return {
        "write_seconds": write,
        "read_seconds": read,
        "write_cpu_seconds": write_cpu,
        "read_cpu_seconds": read_cpu,
        "bytes_per_gaussian": size / len(scene),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", default=None, help="endings")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of what a format leaves out
    generator = torch.Generator().manual_seed(0)
    rows = {"means": (3,), "quaternions": (4,), "log_scales": (3,), "opacity_logits": (), "base": (3,), "rest": (45,)}
    values = {name: torch.randn(*shape, options.count, generator=generator) for name, shape in rows.items()}
    scene, figures = GaussianScene(**values | {"rest": 0.1 * values["rest"]}), {"gaussians": options.count}
    with tempfile.TemporaryDirectory() as folder:
        for ending in options.only or WRITERS:
            for version in VERSIONS.get(ending, (None,)):
                name = ending if version is None else f"{ending} {version}"
                figures[name] = measured(Path(folder) / name.replace(" ", ""), ending, scene, version)
                print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
