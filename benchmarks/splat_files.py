"""Files of Gaussians: seconds to write and to read a million of degree 3, and bytes per Gaussian.

python benchmarks/splat_files.py [--count 1000000] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch
from common import report

from radfield.gaussians.files import WRITERS, read_gaussians, write_gaussians
from radfield.gaussians.scene import GaussianScene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of what a format leaves out
    generator = torch.Generator().manual_seed(0)
    rows = {"means": (3,), "quaternions": (4,), "log_scales": (3,), "opacity_logits": (), "base": (3,), "rest": (45,)}
    values = {name: torch.randn(*shape, options.count, generator=generator) for name, shape in rows.items()}
    scene, figures = GaussianScene(**values | {"rest": 0.1 * values["rest"]}), {"gaussians": options.count}
    with tempfile.TemporaryDirectory() as folder:
        for ending in WRITERS:
            path = Path(folder) / f"scene{ending}"
            began = time.perf_counter()
            write_gaussians(path, scene)
            written = time.perf_counter()
            read_gaussians(path)
            figures[ending] = {
                "write_seconds": written - began,
                "read_seconds": time.perf_counter() - written,
                "bytes_per_gaussian": path.stat().st_size / options.count,
            }
            path.unlink()
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
