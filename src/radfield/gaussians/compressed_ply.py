"""Packed PLY files (PlayCanvas's compressed PLY): four 32-bit words per Gaussian, between the bounds of a chunk of 256.

chunk    18 floats: least and most of position, log scale and colour (0.5 + C0 f_dc); the oldest form has no colours
vertex   packed_position and packed_scale: 11, 10 and 11 bits between the chunk's bounds
         packed_rotation: 2 bits say which of (w, x, y, z) is left out, as it is the largest, 10 bits for each other
         packed_color: red, green, blue between the bounds, opacity, 8 bits each
sh       bytes of the harmonics, channel by channel: 8 b / 255 - 4
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..atomic import replacing_file
from ..errors import BadInput
from .packing import (
    C0,
    byte_rows,
    columns,
    from_smallest_three,
    logits_of_bytes,
    rows,
    smallest_three,
    streams,
    to_bytes,
    unit_quaternions,
)
from .scene import DEGREES, GaussianScene
from .untrusted import finite

CHUNK = 256
_POSITION, _SCALE, _COLOR = ("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b")
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def packed_scene(path: Path, elements: dict[str, np.ndarray]) -> GaussianScene:
    """The Gaussians of the elements of a file. Raises `BadInput` where something is missing or does not fit."""
    vertex, chunk = elements["vertex"], elements["chunk"]
    if any(vertex.dtype.names.count(word) != 1 or vertex[word].dtype.kind != "u" for word in _WORDS):
        raise BadInput(f"{path}: vertex has {', '.join(vertex.dtype.names):.80}; the rule: uint {', '.join(_WORDS)}")
    if len(chunk) != -(-len(vertex) // CHUNK):
        raise BadInput(f"{path}: has {len(chunk)} chunks for {len(vertex)} Gaussians; the rule: one per {CHUNK}")
    rgba = _fractions(vertex["packed_color"], (8, 8, 8, 8))
    colors = _between(path, chunk, _COLOR, rgba[:, :3]) if "min_r" in chunk.dtype.names else rgba[:, :3]
    return GaussianScene(
        means=streams(_between(path, chunk, _POSITION, _fractions(vertex["packed_position"], (11, 10, 11)))),
        quaternions=streams(_turns(vertex["packed_rotation"])),
        log_scales=streams(_between(path, chunk, _SCALE, _fractions(vertex["packed_scale"], (11, 10, 11)))),
        opacity_logits=logits_of_bytes(vertex["packed_color"] & 255),
        base=streams((colors - 0.5) / C0),
        rest=_harmonics(path, elements.get("sh"), len(vertex)),
    )


def _fractions(words: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """[G, n] in [0, 1]: the fields of 32-bit words, the first in the highest bits."""
    fields, shift = [], 32
    for width in widths:
        shift -= width
        fields.append((words.astype(np.uint32) >> np.uint32(shift) & (1 << width) - 1) / (2**width - 1))
    return np.stack(fields, 1)


def _between(path: Path, chunk: np.ndarray, names: tuple[str, ...], fractions: np.ndarray) -> np.ndarray:
    """[G, n] between the bounds of each one's chunk."""
    missing = [f"{end}_{name}" for name in names for end in ("min", "max") if f"{end}_{name}" not in chunk.dtype.names]
    if missing:
        raise BadInput(f"{path}: chunk has no {', '.join(missing)}; the rule: bounds of position and scale")
    low, high = (np.stack([chunk[f"{end}_{name}"] for name in names], 1).astype(np.float64) for end in ("min", "max"))
    number = np.arange(len(fractions)) // CHUNK
    with np.errstate(invalid="ignore", over="ignore"):  # what is then not finite is left out
        return low[number] + (high - low)[number] * fractions


def _turns(words: np.ndarray) -> np.ndarray:
    """[G, 4] (w, x, y, z)."""
    three = (_fractions(words, (2, 10, 10, 10))[:, 1:] - 0.5) * 2**0.5
    return from_smallest_three((words.astype(np.uint32) >> np.uint32(30)).astype(int), three)


def _harmonics(path: Path, found: np.ndarray | None, count: int) -> torch.Tensor:
    if found is None or not found.dtype.names:
        return torch.zeros(0, count)
    names = found.dtype.names
    if len(found) != count or len(names) not in DEGREES or any(f"f_rest_{i}" not in names for i in range(len(names))):
        known = ", ".join(map(str, DEGREES))
        raise BadInput(f"{path}: sh has {len(found)} records of {len(names)}; the rule: {count} of f_rest_*, {known}")
    each = len(names) // 3
    order = [f"f_rest_{channel * each + k}" for k in range(each) for channel in range(3)]
    return columns(found, order).mul_(8 / 255).sub_(4)


def write_compressed_ply(path: Path, scene: GaussianScene) -> None:
    """Writes a packed PLY file, atomically."""
    scene = finite(path, scene)
    values = {_POSITION: rows(scene.means), _SCALE: rows(scene.log_scales).clip(-20, 20)}
    values[_COLOR] = 0.5 + C0 * rows(scene.base)
    opacity = to_bytes(255 * scene.opacity_logits.detach().double().sigmoid().numpy())
    bounds, fractions = zip(*(_bounds_and_fractions(each) for each in values.values()), strict=True)
    words = np.zeros((len(scene), len(_WORDS)), "<u4")
    words[:, 0], words[:, 2] = _packed(fractions[0], (11, 10, 11)), _packed(fractions[1], (11, 10, 11))
    words[:, 1] = _turn_words(unit_quaternions(scene))
    words[:, 3] = _packed(fractions[2], (8, 8, 8)) << np.uint32(8) | opacity
    chunk_names = [f"{end}_{name}" for names in values for end in ("min", "max") for name in names]
    elements = [("chunk", len(bounds[0]), "float", chunk_names), ("vertex", len(scene), "uint", _WORDS)]
    by_channel = scene.rest.detach().view(-1, 3, len(scene)).transpose(0, 1).reshape(-1, len(scene))
    harmonics = byte_rows(by_channel, lambda block: to_bytes(np.float32(255 / 8) * (block + 4)))
    if scene.degree:
        elements.append(("sh", len(scene), "uchar", [f"f_rest_{i}" for i in range(harmonics.shape[1])]))
    header = ["ply", "format binary_little_endian 1.0"]
    for name, count, kind, properties in elements:
        header += [f"element {name} {count}", *(f"property {kind} {each}" for each in properties)]
    with replacing_file(path) as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode())
        for part in (np.concatenate(bounds, 1).astype("<f4"), words, harmonics):
            file.write(np.ascontiguousarray(part).tobytes())


def _bounds_and_fractions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bounds [chunks, 6] as the file has them, float32; `values` [G, 3] between them)."""
    starts = np.arange(0, len(values), CHUNK)
    both = [
        end.reduceat(values, starts).astype(np.float32) if len(values) else values for end in (np.minimum, np.maximum)
    ]
    low, extent = both[0].astype(np.float64), both[1].astype(np.float64) - both[0]
    number = np.arange(len(values)) // CHUNK
    wide = extent >= 1e-5
    fractions = (values - low[number]) / np.where(wide, extent, 1)[number]
    return np.concatenate(both, 1), np.where(wide[number], fractions, 0)


def _packed(fractions: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """[G] words of fields in [0, 1], the first in the highest bits in use."""
    words = np.zeros(len(fractions), np.uint32)
    for column, width in zip(fractions.T, widths, strict=True):
        field = np.clip(np.floor(column * (2**width - 1) + 0.5), 0, 2**width - 1).astype(np.uint32)
        words = words << np.uint32(width) | field
    return words


def _turn_words(turns: np.ndarray) -> np.ndarray:
    """[G] words of quaternions [G, 4] (w, x, y, z) of length 1."""
    left_out, three = smallest_three(turns)
    return left_out.astype(np.uint32) << np.uint32(30) | _packed(three / 2**0.5 + 0.5, (10, 10, 10))
