"""Distillation between architectures against training each from photographs (PVD, Fang et al. 2023; PVD-AL, 2023b).

    python benchmarks/claims/pvd.py --output FOLDER [--capture CAPTURE] [--teachers hash] [--seconds 30] [--quick]
        [--long [--long-seconds 600]] [--json] [--save FILE]

- matrix: teachers and students of mlp (8x256), hash, vm, sparse and triplane; each teacher is trained for
  --teacher-seconds, each student distilled for --seconds, and trained from the photographs for the same time. Where
  the teacher is 1 dB above what photographs give in that time, the distilled student should be above it too; elsewhere
  within 0.5 dB of its teacher.
- ablations, from hash to mlp and to vm: no clamp, no stages, rendered colours alone, and PVD-AL with all its levels.
- --long: the mlp trained from photographs for --long-seconds (600), which a tenth of that time should reach by
  distillation; PVD-AL should be 0.5 dB above it.

Without --capture the synthetic scene "solids" is made, 200 x 200. Every cell is a run in a folder of the capture and
the budgets in FOLDER; figures.json there has those that are done, and a second call goes on with the others. PSNR: val
views, white background, sRGB.
--quick: 3 s a cell, hash, vm and mlp, 60 x 60: whether all of it runs, no figure to quote.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture import program
from common import report

from radfield import atomic
from radfield.data.synthetic import write_synthetic_capture

ARCHITECTURES = ("mlp", "hash", "vm", "sparse", "triplane")
ENCODINGS = {"mlp": "frequency"}
#: steps of the plain MLP cost more and its occupancy updates most, from photographs as well
LEAN = ("--ngp.batch-samples", 16384, "--ngp.uniform-cells", 65536, "--ngp.occupied-cells", 16384)
ACTIVE = ("--hard-poses", "--hard-rays", "--hard-points")
ABLATIONS = {
    "no_clamp": ("--no-clamp",),
    "no_stages": ("--stages", "none"),
    "rendered_only": ("--stages", "rendered"),
    "active": ACTIVE,
}
KEPT = ("psnr", "ssim", "psnr_to_teacher", "steps", "training_seconds", "samples_per_s", "parameters", "views")


class Cells:
    """Figures by name, kept in a file as they come."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "figures.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, dict] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def __call__(self, name: str, *arguments: object) -> dict:
        """The figures of `radfield ARGUMENTS --output FOLDER/name`, measured where they are not known."""
        if name not in self.known:
            found = program(*arguments, "--output", self.folder / name, "--overwrite")
            self.known[name] = {key: found[key] for key in KEPT if key in found}
            atomic.write_json(self.path, self.known)
            print(f"{name}: {self.known[name]}", file=sys.stderr, flush=True)
        return self.known[name]


def trained(cells: Cells, capture: Path, name: str, architecture: str, seconds: float) -> dict:
    """A training from the photographs."""
    lean = LEAN if architecture == "mlp" else ()
    encoding = ("--encoding", ENCODINGS.get(architecture, architecture))
    return cells(name, "train", capture, *encoding, "--seconds", seconds, "--ngp.background", "white", *lean)


def distilled(cells: Cells, name: str, teacher: str, to: str, seconds: float, *more: object) -> dict:
    """A distillation of a teacher of `cells`."""
    return cells(name, "distill", cells.folder / f"teacher_{teacher}", "--to", to, "--seconds", seconds, *more)


def matrix(cells: Cells, options: argparse.Namespace, names: tuple[str, ...]) -> dict:
    """Per pair the PSNR of teacher, student, and student from photographs, and whether the claim holds."""
    for teacher in options.teachers or names:
        trained(cells, options.capture, f"teacher_{teacher}", teacher, options.teacher_seconds)
    rows = {}
    for teacher in options.teachers or names:
        for to in names:
            scratch = trained(cells, options.capture, f"scratch_{to}", to, options.seconds)["psnr"]
            student = distilled(cells, f"{teacher}_to_{to}", teacher, to, options.seconds)["psnr"]
            reference = cells.known[f"teacher_{teacher}"]["psnr"]
            holds = student > scratch if reference >= scratch + 1 else student >= reference - 0.5
            rows[f"{teacher} to {to}"] = {"teacher": reference, "student": student, "scratch": scratch, "holds": holds}
    return rows


def ablations(cells: Cells, options: argparse.Namespace) -> dict:
    """PSNR by student and ablation; "pvd" is the cell of the matrix."""
    rows = {}
    for to in ("mlp", "vm"):
        rows[to] = {"pvd": distilled(cells, f"hash_to_{to}", "hash", to, options.seconds)["psnr"]}
        for name, more in ABLATIONS.items():
            rows[to][name] = distilled(cells, f"hash_to_{to}_{name}", "hash", to, options.seconds, *more)["psnr"]
        rows[to]["active_minus_pvd"] = rows[to]["active"] - rows[to]["pvd"]
    return rows


def long(cells: Cells, options: argparse.Namespace) -> dict:
    """The plain MLP from photographs against a tenth of that time by distillation."""
    whole, part = options.long_seconds, options.long_seconds / 10
    scratch = trained(cells, options.capture, f"scratch_mlp_{whole:g}", "mlp", whole)["psnr"]
    tenth = distilled(cells, f"hash_to_mlp_{part:g}", "hash", "mlp", part)["psnr"]
    active = distilled(cells, f"hash_to_mlp_{part:g}_active", "hash", "mlp", part, *ACTIVE)["psnr"]
    return {
        "seconds": whole,
        "scratch": scratch,
        "pvd_in_a_tenth": tenth,
        "active_in_a_tenth": active,
        "ten_times_sooner": tenth >= scratch,
        "active_half_a_decibel_above": active >= scratch + 0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs and figures.json")
    parser.add_argument("--capture", type=Path, default=None)
    parser.add_argument("--teachers", nargs="+", choices=ARCHITECTURES, default=None)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--teacher-seconds", type=float, default=90.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--long-seconds", type=float, default=600.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    names = ("hash", "vm", "mlp") if options.quick else ARCHITECTURES
    if options.quick:
        options.seconds = options.teacher_seconds = 3.0
    if options.capture is None:
        size = 60 if options.quick else 200
        options.capture = options.output / f"solids_{size}"
        if not options.capture.exists():
            write_synthetic_capture(options.capture, "solids", views=60, val_views=8, size=size)
    budgets = f"{options.capture.resolve().name}_{options.teacher_seconds:g}s_{options.seconds:g}s"
    cells = Cells(options.output / budgets)
    figures = {"capture": options.capture.name, "seconds": options.seconds, "matrix": matrix(cells, options, names)}
    if not options.teachers or "hash" in options.teachers:
        figures["ablations"] = ablations(cells, options)
        figures |= {"long": long(cells, options)} if options.long else {}
    figures["cells"] = cells.known
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
