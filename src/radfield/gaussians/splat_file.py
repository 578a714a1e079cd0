""".splat files (antimatter15's layout): 32 bytes per Gaussian, without a header and without view-dependent colours.

    position 3 float32, scale 3 float32 (linear), red green blue and opacity as bytes, quaternion (w, x, y, z) as bytes

A byte of a colour is 255 (0.5 + C0 f_dc), of an opacity 255 o, of a quaternion 128 q + 128, rounded. The axes are those
of PLY files. Exact to half a step: colours 1/510, opacities 1/510, quaternions 1/256.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..atomic import replacing_file
from ..errors import BadInput, warn
from .packing import C0, logits_of_bytes, rows, streams, to_bytes, unit_quaternions
from .scene import GaussianScene
from .untrusted import finite, read_bytes, sound

_RECORD = np.dtype(
    [("means", "<f4", 3), ("scales", "<f4", 3), ("color", "u1", 3), ("opacity", "u1"), ("turn", "u1", 4)]
)


def read_splat(path: Path) -> GaussianScene:
    """The Gaussians of a .splat file. Raises `BadInput` where its size is no multiple of 32 bytes."""
    data = read_bytes(path)
    if len(data) % _RECORD.itemsize:
        raise BadInput(f"{path}: has {len(data)} bytes; the rule: {_RECORD.itemsize} per Gaussian")
    records = np.frombuffer(data, _RECORD)
    scales = records["scales"]
    if bool((scales < 0).any()):
        raise BadInput(
            f"{path}: has a scale of {scales.min():g}; the rule: not negative (a .splat file of this layout)"
        )
    with np.errstate(divide="ignore"):
        log_scales = np.log(scales)
    return sound(
        path,
        GaussianScene(
            means=streams(records["means"]),
            quaternions=streams((records["turn"].astype(np.float32) - 128) / 128),
            log_scales=streams(log_scales),
            opacity_logits=logits_of_bytes(records["opacity"]),
            base=streams((records["color"].astype(np.float32) / 255 - 0.5) / C0),
            rest=torch.zeros(0, len(records)),
        ),
    )


def write_splat(path: Path, scene: GaussianScene) -> None:
    """Writes a .splat file, atomically; warns where colours by direction are lost."""
    scene = finite(path, scene)
    if scene.degree:
        warn(f"{path}: .splat holds one colour per Gaussian; harmonics of degree 1 to {scene.degree} are left out")
    records = np.zeros(len(scene), _RECORD)
    records["means"], records["scales"] = rows(scene.means), np.exp(rows(scene.log_scales))
    records["color"] = to_bytes(255 * (0.5 + C0 * rows(scene.base)))
    records["opacity"] = to_bytes(255 * scene.opacity_logits.detach().double().sigmoid().numpy())
    records["turn"] = to_bytes(128 * unit_quaternions(scene) + 128)
    with replacing_file(path) as file:
        file.write(records.tobytes())
