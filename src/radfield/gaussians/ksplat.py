""".ksplat files of GaussianSplats3D, version 0.1, read: sections of records, at three levels of compression.

A header of 4096 bytes, one of 1024 for each section, then the sections: lengths of the partly filled buckets, centres
of all buckets, records. Positions are float32, or at levels 1 and 2 16-bit steps from their bucket's centre; scales
(linear) and quaternions (w, x, y, z) are float32 or float16; colours and opacities bytes; harmonics, degree by degree
and in a degree channel by channel, float32, float16 or bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .packing import C0, logits_of_bytes, streams
from .scene import GaussianScene, joined
from .untrusted import read_bytes, sound

_HEADER, _SECTION = 4096, 1024
_MOST_SECTIONS = 1 << 16
_RANGE = 32767  # of a 16-bit step, where the section says 0
#: number types of position; of scale and turn; of harmonics
_LEVELS = (("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1"))


def read_ksplat(path: Path) -> GaussianScene:
    """The Gaussians of a .ksplat file. Raises `BadInput` for what is none, is cut, or claims too much."""
    data = read_bytes(path)
    if len(data) < _HEADER:
        raise BadInput(f"{path}: has {len(data)} bytes; the rule: a .ksplat file has a header of {_HEADER}")
    major, minor = data[0], data[1]
    most, _, _, count, level = struct.unpack_from("<IIIIH", data, 4)
    if (major, level > 2) != (0, False) or minor < 1 or most > _MOST_SECTIONS:
        raise BadInput(f"{path}: has version {major}.{minor}, level {level}, {most} sections; the rule: 0.1, 0 to 2")
    low, high = struct.unpack_from("<2f", data, 36)
    bounds = low or -1.5, high or 1.5
    parts, start = [], _HEADER + _SECTION * most
    for number in range(most):
        section = data[_HEADER + _SECTION * number :][:_SECTION]
        if len(section) < _SECTION:
            raise BadInput(f"{path}: ends within the header of section {number}")
        part, size = _section(path, section, data[start:], level, bounds)
        parts, start = [*parts, part], start + size
    found = sum(map(len, parts))
    if found != count or not parts:
        raise BadInput(f"{path}: has {found} Gaussians in its sections; its header has {count}")
    return sound(path, joined(parts))


def _section(path: Path, header: bytes, body: bytes, level: int, bounds) -> tuple[GaussianScene, int]:
    """The Gaussians of a section, and its size in bytes."""
    count, most, per_bucket, buckets = struct.unpack_from("<4I", header)
    (size,), (record_bytes,), (steps,) = (
        struct.unpack_from(f, header, at) for f, at in (("<f", 16), ("<H", 20), ("<I", 24))
    )
    full, partial, degree = struct.unpack_from("<IIH", header, 32)
    if degree > 2 or 0 < most < count or record_bytes not in (0, 12):
        raise BadInput(
            f"{path}: a section has degree {degree}, {count} Gaussians of {most}; the rule: 0 to 2, not more"
        )
    position, number, harmonic = _LEVELS[level]
    fields = [("means", position, 3), ("scales", number, 3), ("turn", number, 4), ("color", "u1", 4)]
    record = np.dtype([*fields, ("rest", harmonic, (3 * ((degree + 1) ** 2 - 1),))])
    if level and buckets and record_bytes != 12:
        raise BadInput(f"{path}: a section has {buckets} buckets of {record_bytes} bytes; the rule: 12 bytes each")
    before, wanted = 4 * partial + record_bytes * buckets, max(most, count) * record.itemsize
    if before + wanted > len(body):
        raise BadInput(f"{path}: a section claims {before + wanted} bytes; the file has {len(body)} more")
    records = np.frombuffer(body, record, count, before)
    means = records["means"].astype(np.float64)
    if level:
        centres = np.frombuffer(body, "<f4", 3 * buckets, 4 * partial).reshape(-1, 3)
        lengths = np.frombuffer(body, "<u4", partial).astype(np.int64)
        means = _bucket_centres(path, centres, lengths, full, per_bucket, count) + (means - (steps or _RANGE)) * (
            size / 2 / (steps or _RANGE)
        )
    return _scene(records, means, level, bounds), before + wanted


def _bucket_centres(path: Path, centres, lengths, full: int, per_bucket: int, count: int) -> np.ndarray:
    """[G, 3]: the first `full` buckets hold `per_bucket` each, the others their lengths."""
    if (
        full + len(lengths) > len(centres)
        or full * per_bucket + int(lengths.sum()) < count
        or int(lengths.max(initial=0)) > count
    ):
        raise BadInput(f"{path}: buckets of {full * per_bucket} and {int(lengths.sum())} do not hold {count} Gaussians")
    number, filled = np.arange(count), full * per_bucket
    in_full = number // max(per_bucket, 1)
    in_others = full + np.searchsorted(np.cumsum(lengths), number - filled, side="right")
    return centres[np.where(number < filled, in_full, in_others)].astype(np.float64)


def _scene(records: np.ndarray, means: np.ndarray, level: int, bounds) -> GaussianScene:
    rest = records["rest"].astype(np.float32)
    if level == 2:
        rest = bounds[0] + (bounds[1] - bounds[0]) * rest / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(records["scales"].astype(np.float32))
    each = [0, 9, 24].index(rest.shape[1])  # the degree: channels within each degree are brought side by side
    order = [a + c * n + k for a, n in ((0, 3), (9, 5))[:each] for k in range(n) for c in range(3)]
    rest = rest[:, order]
    return GaussianScene(
        means=streams(means),
        quaternions=streams(records["turn"].astype(np.float32)),
        log_scales=streams(log_scales),
        opacity_logits=logits_of_bytes(records["color"][:, 3]),
        base=streams((records["color"][:, :3].astype(np.float32) / 255 - 0.5) / C0),
        rest=streams(rest),
    )
