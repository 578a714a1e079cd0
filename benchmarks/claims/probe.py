"""Learned probe against hash grid: PSNR against bytes for N_p in {1, 2, 4, 8, 16}, time of a step, time of inference
(Takikawa et al. 2023: 2.8 times smaller at -0.27 dB over the 8 scenes; a step takes 1.2 to 2.6 times as long; inference
no slower).

All are trained for the same number of steps, with 16 levels of 2 features from 16 to 2048 and the networks of the
method ngp. The time of a step is in parts of that of N_p = 1 (N_f = T = 2^12) and of T = 2^16, the paper's. Bytes: what
is kept of the encoding, 16 bits per feature and log2 N_p per row of a codebook. Inference: features of 2^18 random
points, one thread's CPU time, in turns with the hash grid of T = 2^16.

python benchmarks/claims/probe.py CAPTURE [--steps 2000] [--batch 65536] [--max-size 800] [--views 20] [--json]
    [--save FILE] [--plot FILE.svg]
"""

from __future__ import annotations

import torch
from fitting import capture_of, cpu_ms, fit, options_of, plot, report

from radfield.encodings import hash_grid, learned_probe

GROWTH = 128 ** (1 / 15)
PROBES = (1, 2, 4, 8, 16)
HASH_SIZES = (12, 14, 16)
POINTS = 1 << 18


def probe_config(probes: int, **changes) -> learned_probe.Config:
    return learned_probe.Config(probes=probes, growth=GROWTH, **changes)


def bytes_of(config) -> int:
    """Of the encoding as it is kept: features of 16 bits, and the codebooks."""
    if isinstance(config, learned_probe.Config):
        return learned_probe.probe_levels(3, config).bits // 8
    return 2 * config.features * hash_grid.grid_levels(3, config).entries


def inference(precision: str, repeats: int = 15) -> dict:
    """CPU milliseconds of the features of 2^18 random points, N_f 2^12, N_c 2^14, N_p 8 against T = 2^16."""
    x = torch.rand(3, POINTS, generator=torch.Generator().manual_seed(0)).T
    encodings = {
        "probe": learned_probe.LearnedProbe(3, probe_config(8, precision=precision)),
        "hash_2^16": hash_grid.HashGrid(3, hash_grid.Config(log2_size=16, growth=GROWTH, precision=precision)),
    }
    times = cpu_ms({name: lambda e=e: e(x) for name, e in encodings.items()}, repeats)
    return {**times, "ratio": times["probe"] / times["hash_2^16"]}


def main() -> None:
    options = options_of(__doc__, steps=2000, batch=1 << 16, max_size=800, views=20)
    scene = capture_of(options.capture, options.max_size)
    configs = {f"N_p={n}": probe_config(n) for n in PROBES}
    configs |= {f"T=2^{t}": hash_grid.Config(log2_size=t, growth=GROWTH) for t in HASH_SIZES}
    sizes = {"steps": options.steps, "batch": options.batch, "views": options.views}
    figures = {"capture": options.capture.name, **sizes, "max_size": options.max_size}
    for name, config in configs.items():
        _, row = fit(scene, config, **sizes)
        figures[name] = {"bytes": bytes_of(config), **row}
        options.say(name, figures[name])
    for base in ("N_p=1", "T=2^16"):
        times = {f"N_p={n}": figures[f"N_p={n}"]["step_ms"] / figures[base]["step_ms"] for n in PROBES}
        figures[f"step_ratio to {base}"] = times
    figures["inference"] = {precision: inference(precision) for precision in ("f32", "bf16")}
    report(figures, options.json, options.save)
    if options.plot:
        groups = {"learned probe": [f"N_p={n}" for n in PROBES], "hash grid": [f"T=2^{t}" for t in HASH_SIZES]}
        points = {
            name: ([figures[k]["bytes"] / 1e3 for k in keys], [figures[k]["psnr"] for k in keys])
            for name, keys in groups.items()
        }
        plot(options.plot, "PSNR (dB) against size", "kB of the encoding", points)


if __name__ == "__main__":
    main()
