"""Distillation to and from Gaussians, against training them from photographs for as many steps.

    python benchmarks/claims/gaussian_distillation.py --output FOLDER [--capture CAPTURE] [--steps 2000]
        [--teacher-steps 1000] [--size 160] [--json] [--save FILE]

- to: a hash grid trained on photographs teaches Gaussians, which never see these; beside them Gaussians that are
  trained on the photographs for the same steps.
- back: the Gaussians trained on photographs teach a hash grid; beside it one that is trained on the photographs for the
  same steps.

Without --capture the synthetic scene "solids" is made, 48 views. Steps, not seconds, so that a busy machine gives the
same PSNR. PSNR: 8 held-out views, white background, sRGB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture import program
from common import report

from radfield.data.synthetic import write_synthetic_capture

KEPT = ("psnr", "ssim", "psnr_to_teacher", "steps", "gaussians", "views", "resolution")


def figures_of(options: argparse.Namespace, name: str, *arguments: object) -> dict:
    """The figures of a run in a folder of that name."""
    found = program(*arguments, "--output", options.output / name, "--overwrite")
    print(f"{name}: PSNR {found['psnr']:.2f} dB", file=sys.stderr, flush=True)
    return {key: found[key] for key in KEPT if key in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--capture", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=2000, help="of each student, and of each from photographs")
    parser.add_argument("--teacher-steps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=160, help="pixels of a side of the synthetic capture")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.capture is None:
        options.capture = options.output / f"solids_{options.size}"
        if not options.capture.exists():
            write_synthetic_capture(options.capture, "solids", views=48, val_views=8, size=options.size)
    capture, steps = options.capture, ("--steps", options.steps)
    fewer = ("--steps", options.steps // 4)  # a step of a field is of more rays than a view of Gaussians has pixels
    runs = options.output
    figures = {
        "teacher_hash": figures_of(options, "hash", "train", capture, "--steps", options.teacher_steps),
        "splat_distilled": figures_of(options, "hash_to_splat", "distill", runs / "hash", "--to", "splat", *steps),
        "splat_photographs": figures_of(options, "splat", "train", capture, "--method", "splat", *steps),
        "hash_distilled": figures_of(options, "splat_to_hash", "distill", runs / "splat", "--to", "hash", *fewer),
        "hash_photographs": figures_of(options, "hash_same_steps", "train", capture, *fewer),
    }
    report({"capture": capture.name, **figures}, options.json, options.save)


if __name__ == "__main__":
    main()
