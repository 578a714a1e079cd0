"""Files of Gaussians: seconds to write and to read a million of degree 3, and bytes per Gaussian, of each format and
version; .ksplat, of degree 2, is read alone. The values are random: no format packs them well.

python benchmarks/splat_files.py [--count 1000000] [--only .sog .spz] [--json] [--save FILE]

CPU seconds are those of all threads together. --save keeps the figures of formats that are not asked for.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from common import report

from radfield.gaussians.files import VERSIONS, WRITERS, read_gaussians, write_gaussians
from radfield.gaussians.scene import GaussianScene


def measured(folder: Path, ending: str, scene: GaussianScene, version: int | None) -> dict:
    """Seconds, by the clock and of all threads, and bytes, of a file and those beside it."""
    folder.mkdir()
    path, figures = folder / (f"scene{ending}" if ending.startswith(".") else ending), {}
    calls = {"write": lambda: write_gaussians(path, scene, version), "read": lambda: read_gaussians(path)}
    if ending == ".ksplat":
        write_ksplat(path, scene)
        del calls["write"]
    for name, call in calls.items():
        began = time.perf_counter(), time.process_time()
        call()
        figures[f"{name}_seconds"] = time.perf_counter() - began[0]
        figures[f"{name}_cpu_seconds"] = time.process_time() - began[1]
    figures["bytes_per_gaussian"] = sum(each.stat().st_size for each in folder.iterdir()) / len(scene)
    shutil.rmtree(folder)
    return figures


def write_ksplat(path: Path, scene: GaussianScene) -> None:
    """A .ksplat file of compression level 1 and degree 2, of one section, with positions on a grid of their bucket."""
    count, bucket = len(scene), 256
    full, left = divmod(count, bucket)
    parts = [("p", "<u2", 3), ("s", "<f2", 3), ("q", "<f2", 4), ("c", "u1", 4), ("h", "<f2", 24)]
    record = np.zeros(count, parts)
    record["p"], record["c"] = 32767 + 1000 * scene.means.T.numpy(), 128
    record["s"], record["q"] = scene.log_scales.exp().T.numpy(), scene.quaternions.T.numpy()
    record["h"] = scene.rest[:24].T.numpy()
    main, section = bytearray(4096), bytearray(1024)
    main[1] = 1
    struct.pack_into("<IIIIH", main, 4, 1, 1, count, count, 1)
    buckets = full + (left > 0)
    struct.pack_into("<4IfHxxI", section, 0, count, count, bucket, buckets, 5.0, 12, 0)
    struct.pack_into("<IIH", section, 32, full, buckets - full, 2)
    lengths = struct.pack("<I", left) if left else b""
    path.write_bytes(bytes(main + section) + lengths + bytes(12 * buckets) + record.tobytes())


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
    before = json.loads(options.save.read_text()) if options.save and options.save.exists() else {}
    if before.get("gaussians") == options.count:
        figures = {name: value for name, value in before.items() if name != "machine"}
    with tempfile.TemporaryDirectory() as folder:
        for ending in options.only or (*WRITERS, ".ksplat"):
            for version in VERSIONS.get(ending, (None,)):
                name = ending if version is None else f"{ending} {version}"
                figures[name] = measured(Path(folder) / name.replace(" ", ""), ending, scene, version)
                print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
