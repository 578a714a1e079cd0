"""Volume rendering by simplex interpolation against the hash grid's, by the number of samples along a ray (Wen and
Yang, arXiv 2311.15439: at most 41.2 % speed-up, "when the samples are dense enough"; the paper's scene and GPU are not
known).

python benchmarks/claims/volumetric_samples.py [--samples 8 16 32 64 128 256] [--rays 96] [--quick] [--json]
    [--save FILE] [--plot FILE.svg]

A fitted cloud is marched: samples along every ray, encoded, asked of the network and absorbed, light of the sky behind
it. Two networks: 2 hidden layers of 64 neurons, as fields have, and none; and the encoding alone. Both fields go stage
by stage in blocks of 2^17 points, on one thread, and take turns; times are medians of the process's CPU time. Both
encodings have as many vertices in the cube. `agreement_psnr` is that between the two pictures. The claim holds where
the largest speed-up, 1 - time / time of the hash grid, reaches 41.2 % and comes with dense samples.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import torch
from fitting import cpu_ms, plot, report

from radfield.apps.fit import volume
from radfield.apps.fit.volume_views import cameras_around
from radfield.data.volume_files import cloud
from radfield.encodings import hash_grid, simplex
from radfield.fields import values
from radfield.rays import Rays
from radfield.renderers.media import Environment, crossing

CLAIMED = 0.412
EXTINCTION = 40.0
POINTS = 1 << 17


def fitted(grid, layers: int, options: argparse.Namespace) -> values.ValueField:
    """A cloud's density, in so many steps."""
    lookup = volume.Lookup(cloud(options.resolution), 1.0)
    config = volume.Config(batch=1 << 15)
    model = volume.build(config, size=(options.resolution,) * 3, channels=1, peak=1.0)
    field = values.Config(grid=grid, channels=1, layers=layers, precision=options.precision)
    model.field = values.ValueField(3, field)
    training = volume.Training(model, lookup, 0)
    for step in range(options.steps):
        volume.train_step(training, step / options.steps)
    return model.field


def fields(layers: int, options: argparse.Namespace) -> dict[str, values.ValueField]:
    """The hash grid's and the simplex encoding's, of as many vertices."""
    sizes = {"levels": 12, "growth": (options.resolution / 16) ** (1 / 11)}
    grids = {"hash": hash_grid.Config(**sizes), "simplex": simplex.Config(convention="vertices", **sizes)}
    return {name: fitted(grid, layers, options) for name, grid in grids.items()}


def steps_along(rays: Rays, box: torch.Tensor, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The middles [3, N samples] of equal steps through the box, and their length [N]."""
    near, far = crossing(rays.origins, rays.directions, box)
    length = (far - near).clamp_min(0) / samples
    middle = near[:, None] + (torch.arange(samples) + 0.5) * length[:, None]
    points = torch.addcmul(rays.origins.T[:, :, None], rays.directions.T[:, :, None], middle)
    return points.reshape(3, -1), length


@torch.no_grad()
def seen(field: values.ValueField, rays: Rays, box: torch.Tensor, samples: int) -> torch.Tensor:
    """The sky [N, 3] through the medium: exp(-sum sigma dt)."""
    points, length = steps_along(rays, box, samples)
    density = torch.cat([field.values(part.T)[:, 0] for part in points.split(POINTS, 1)]).clamp(0, 1)
    depth = EXTINCTION * density.view(-1, samples).sum(1) * length
    return (-depth).exp()[:, None] * Environment().radiance(rays.directions)


@torch.no_grad()
def encoded(field: values.ValueField, points: torch.Tensor) -> None:
    """The encoding alone, of points [3, M]."""
    for part in points.split(POINTS, 1):
        field.grid(part.T)


def swept(layers: int, options: argparse.Namespace) -> dict:
    """Per number of samples: milliseconds of both, the speed-up, also that of the encoding alone, and how well the
    pictures agree."""
    both, rows = fields(layers, options), {}
    box = torch.stack([torch.zeros(3), torch.ones(3)])
    rays = cameras_around(box, 1, options.rays).image_rays(0)
    for samples in options.samples:
        calls = {name: functools.partial(seen, field, rays, box, samples) for name, field in both.items()}
        points, _ = steps_along(rays, box, samples)
        alone = {f"{name}_encoding": functools.partial(encoded, field, points) for name, field in both.items()}
        ms = cpu_ms(calls | alone, options.repeats)
        error = (calls["hash"]() - calls["simplex"]()).square().mean().item()
        rows[samples] = {
            **{f"{name}_ms": value for name, value in ms.items()},
            "speed_up": 1 - ms["simplex"] / ms["hash"],
            "encoding_speed_up": 1 - ms["simplex_encoding"] / ms["hash_encoding"],
            "agreement_psnr": float(-10 * torch.tensor(max(error, 1e-12)).log10()),
        }
        print(f"{layers} hidden layers, {samples} samples: {rows[samples]}", file=sys.stderr, flush=True)
    return rows


def verdict(tables: dict[str, dict]) -> dict:
    """The largest speed-up, where it is, and whether it is the paper's."""
    every = [(row["speed_up"], samples, name) for name, rows in tables.items() for samples, row in rows.items()]
    best, samples, name = max(every)
    dense = all(rows[max(rows)]["speed_up"] >= rows[min(rows)]["speed_up"] for rows in tables.values())
    told = f"at most {100 * best:.1f} % ({samples} samples, {name}; paper: 41.2 %), "
    told += "more with denser samples: " if dense else "not more with denser samples: "
    holds = best >= CLAIMED and dense
    told += "holds" if holds else "does not hold here"
    return {"best_speed_up": best, "best_samples": samples, "grows": dense, "holds": holds, "verdict": told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=None)
    parser.add_argument("--rays", type=int, default=96, help="of a square picture's side")
    parser.add_argument("--resolution", type=int, default=128, help="of the cloud, and of the finest level")
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", choices=("bf16", "f32"), default="f32")
    parser.add_argument("--quick", action="store_true", help="few rays, samples and steps: not for publication")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    options = parser.parse_args()
    if options.quick:
        options.rays, options.steps, options.repeats, options.resolution = 32, 40, 3, 64
    options.samples = options.samples or ([16, 128] if options.quick else [8, 16, 32, 64, 128, 256])
    torch.set_num_threads(1)
    tables = {"2 hidden layers": swept(2, options), "no hidden layer": swept(0, options)}
    found = verdict(tables)
    print(found["verdict"], file=sys.stderr)
    about = {"rays": options.rays**2, "precision": options.precision, "resolution": options.resolution, "threads": 1}
    report({**about, **found, **tables}, options.json, options.save)
    if options.plot:
        curves = {k: (list(rows), [100 * r["speed_up"] for r in rows.values()]) for k, rows in tables.items()}
        rows = tables["no hidden layer"]
        curves["the encoding alone"] = (list(rows), [100 * r["encoding_speed_up"] for r in rows.values()])
        plot(options.plot, "Time saved by simplex interpolation, %", "samples per ray", curves)


if __name__ == "__main__":
    main()
