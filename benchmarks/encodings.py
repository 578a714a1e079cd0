"""Every encoding on one capture: PSNR, parameters, bytes and samples per second after some seconds of training.

    python benchmarks/encodings.py CAPTURE --seconds 60 300 [--encodings hash vm ...] [--save FILE] [--markdown FILE]

Each budget is a training of its own (rates and resolutions follow the budget), on a white background, measured on the
validation views. `--save` adds to what FILE has, after each training, so that a table can be made in parts;
`--markdown` writes the table of all that is known. Bytes are those of the field's tensors as the checkpoint holds them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from capture import program
from common import machine

from radfield import atomic
from radfield.training.checkpoint import load_checkpoint

ENCODINGS = ("hash", "simplex", "permutohedral", "probe", "dense", "tiled", "triplane", "vm", "cp", "sparse")


def trained(options: argparse.Namespace, encoding: str, seconds: float) -> dict:
    """The figures of one training."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        budget = ("--seconds", seconds, "--seed", options.seed, "--ngp.background", "white")
        size = () if options.max_size is None else ("--max-size", options.max_size)
        found = program("train", options.capture, "--output", run, "--encoding", encoding, *budget, *size)
        tensors = load_checkpoint(run / "checkpoint.safetensors")[0]
    field = [t for name, t in tensors.items() if name.startswith("field.")]
    names = ("psnr", "ssim", "views", "width", "height", "steps", "training_seconds", "samples_per_s", "parameters")
    figures = {name: found[name] for name in names if name in found}
    return {**figures, "bytes": sum(t.numel() * t.element_size() for t in field), "machine": machine()}


def table(known: dict) -> str:
    """Markdown: a row per encoding, three columns per budget."""
    budgets = sorted({seconds for rows in known.values() for seconds in rows}, key=float)
    heads = [f"PSNR, {s} s | million samples/s | parameters | MB" for s in budgets]
    lines = [f"| encoding | {' | '.join(heads)} |", "| --- |" + " ---: |" * (4 * len(budgets))]
    for encoding in sorted(known, key=lambda name: ENCODINGS.index(name) if name in ENCODINGS else len(ENCODINGS)):
        cells = [_cells(known[encoding].get(s)) for s in budgets]
        lines.append(f"| {encoding} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(found: dict | None) -> str:
    if found is None:
        return " | | | "
    numbers = f"{found['psnr']:.2f} | {found['samples_per_s'] / 1e6:.2f}"
    return f"{numbers} | {found['parameters']:,} | {found['bytes'] / 1e6:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 300.0])
    parser.add_argument("--encodings", nargs="+", default=list(ENCODINGS), metavar="NAME")
    parser.add_argument("--max-size", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None, help="JSON that the figures are added to")
    parser.add_argument("--markdown", type=Path, default=None, help="file for the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.save.read_text())["encodings"] if options.save and options.save.exists() else {}
    for encoding in options.encodings:
        for seconds in options.seconds:
            known.setdefault(encoding, {})[f"{seconds:g}"] = trained(options, encoding, seconds)
            if options.save:
                atomic.write_json(options.save, {"capture": options.capture.name, "encodings": known})
    if options.markdown:
        atomic.write_text(options.markdown, table(known))
    print(json.dumps({"capture": options.capture.name, "encodings": known}) if options.json else table(known))


if __name__ == "__main__":
    main()
