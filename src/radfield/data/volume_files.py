"""Dense volumes from files: .npy, .nrrd (raw or gzip), .raw with a stated shape and type; and a procedural cloud.

A volume is densities [D, H, W] (z, y, x), or with four channels [D, H, W, 4] densities and albedos. Nothing is
allocated that the file does not hold.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from .array_files import read_npy

TYPES = {"uint8": "u1", "uint16": "<u2", "int16": "<i2", "float32": "<f4", "float64": "<f8"}
_NRRD_TYPES = {
    **{name: "u1" for name in ("uchar", "unsigned char", "uint8", "uint8_t")},
    **{name: "u2" for name in ("ushort", "unsigned short", "uint16", "uint16_t")},
    **{name: "i2" for name in ("short", "int16", "int16_t", "signed short")},
    **{"float": "f4", "double": "f8"},
}
LARGEST = 1 << 31  # voxels
_HEADER = 1 << 16


@dataclass(frozen=True)
class Volume:
    """density: [D, H, W] float32, at least 0, per voxel; albedo: [D, H, W, 3] in [0, 1], or None where it is 1."""

    density: Tensor
    albedo: Tensor | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """(W, H, D): voxels along x, y, z."""
        return tuple(reversed(self.density.shape))

    @property
    def box(self) -> Tensor:
        """[2, 3]: where the volume lies in the scene, its longest side from 0 to 1."""
        sides = torch.tensor(self.size, dtype=torch.float32)
        return torch.stack([torch.zeros(3), sides / sides.max()])

    def channels(self) -> Tensor:
        """[D, H, W, 1 or 4]: density and albedo."""
        return self.density[..., None] if self.albedo is None else torch.cat([self.density[..., None], self.albedo], -1)


def read_volume(path: Path, shape: tuple[int, int, int] | None = None, dtype: str | None = None) -> Volume:
    """The volume of a file; shape (W, H, D) and dtype (of `TYPES`) of a .raw file. Raises `BadInput` for what is
    none."""
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file")
    ending = path.suffix.lower()
    if ending == ".npy":
        values = read_npy(path)
    elif ending == ".nrrd":
        values = _read_nrrd(path)
    elif ending == ".raw":
        if shape is None or dtype not in TYPES:
            given = f"--shape is {shape}, --dtype {dtype}"
            raise BadInput(f"{path}: {given}; the rule: .raw files need both, W H D and one of {', '.join(TYPES)}")
        values = _array(path, path.read_bytes(), np.dtype(TYPES[dtype]), shape)
    else:
        raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: .npy, .nrrd or .raw")
    return volume_of(values, str(path))


def volume_of(values: np.ndarray, name: str) -> Volume:
    """The volume of an array [D, H, W] or [D, H, W, 4]. Raises `BadInput` for another, or values out of range."""
    if not (values.ndim == 3 or (values.ndim == 4 and values.shape[3] == 4)) or 0 in values.shape:
        raise BadInput(f"{name}: has shape {list(values.shape)}; the rule: [D, H, W], or [D, H, W, 4] with albedos")
    tensor = torch.from_numpy(np.array(values, np.float32, order="C"))  # a copy: the file's bytes are read-only
    if wrong := int((~tensor.isfinite()).sum()):
        raise BadInput(f"{name}: {wrong} of its {tensor.numel()} values are not finite; the rule: finite ones")
    if float(tensor.min()) < 0:
        raise BadInput(f"{name}: its least value is {float(tensor.min()):g}; the rule: densities are not negative")
    if tensor.ndim == 3:
        return Volume(tensor)
    if float(tensor[..., 1:].max()) > 1:
        raise BadInput(f"{name}: its largest albedo is {float(tensor[..., 1:].max()):g}; the rule: at most 1")
    return Volume(tensor[..., 0].contiguous(), tensor[..., 1:].contiguous())


def _array(path: Path, content: bytes, dtype: np.dtype, size: tuple[int, ...]) -> np.ndarray:
    """Numbers [..., H, W] of a file that has them x first."""
    if not all(side > 0 for side in size) or math.prod(size) > LARGEST:
        raise BadInput(f"{path}: its shape is {list(size)}; the rule: positive sides, at most 2^31 voxels")
    if math.prod(size) * dtype.itemsize != len(content):
        needed = math.prod(size) * dtype.itemsize
        raise BadInput(f"{path}: has {len(content)} bytes of numbers; the rule: {needed} for {list(size)} {dtype}")
    return np.frombuffer(content, dtype).reshape(tuple(reversed(size)))


def _read_nrrd(path: Path) -> np.ndarray:
    content = path.read_bytes()
    header, found, _ = content[:_HEADER].partition(b"\n\n")
    if not content.startswith(b"NRRD") or not found:
        raise BadInput(f"{path}: has no header of an NRRD file")
    lines = (line.split(":", 1) for line in header.decode("latin-1").splitlines()[1:] if not line.startswith("#"))
    fields = {part[0].strip().lower(): part[1].strip() for part in lines if len(part) == 2}
    if "data file" in fields or "datafile" in fields:
        raise BadInput(f"{path}: its numbers are in another file; the rule: an NRRD file that holds them itself")
    try:
        size = tuple(int(n) for n in fields["sizes"].split())
        kind = _NRRD_TYPES[fields["type"].lower()]
        encoding = fields.get("encoding", "raw").lower()
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path}: its header has no such sizes or type: {error!s:.60}") from None
    dtype = np.dtype((">" if fields.get("endian") == "big" else "<") + kind)
    numbers = content[len(header) + 2 :]
    if encoding in ("gzip", "gz"):
        numbers = _unzipped(path, numbers, math.prod(size) * dtype.itemsize)
    elif encoding != "raw":
        raise BadInput(f"{path}: its encoding is {encoding:.20}; the rule: raw or gzip")
    return _array(path, numbers, dtype, size)


def _unzipped(path: Path, packed: bytes, size: int) -> bytes:
    """At most `size` bytes, and one more where there are others."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        return unpack.decompress(packed, min(size, 8 * LARGEST) + 1)
    except zlib.error as error:
        raise BadInput(f"{path}: its numbers cannot be unpacked: {error}") from None


def cloud(resolution: int, seed: int = 0, peak: float = 1.0) -> Volume:
    """A cumulus of noise in five octaves inside a flat-bottomed ellipsoid; `resolution`^3 voxels, densities up to about
    `peak`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.zeros(resolution, resolution, resolution)
    side, strength = 5, 0.5
    while side < resolution and strength > 0.02:
        lattice = torch.rand(1, 1, side, side, side, generator=generator)
        octave = torch.nn.functional.interpolate(lattice, (resolution,) * 3, mode="trilinear", align_corners=True)
        noise += strength * octave[0, 0]
        side, strength = 2 * side, 0.55 * strength
    at = (torch.arange(resolution) + 0.5) / resolution - 0.5
    z, y, x = at[:, None, None] + 0.12, at[None, :, None], at[None, None, :]
    distance = ((x / 0.42) ** 2 + (y / 0.36) ** 2 + (torch.where(z < 0, 2.2 * z, z) / 0.38) ** 2).sqrt()
    inside = ((1.15 - distance) / 0.15).clamp(0, 1)  # nothing touches the box
    density = inside * ((1.05 - distance) + 2.2 * (noise - 0.55)).clamp(0, 0.35) / 0.35
    return Volume(peak * density * density)
