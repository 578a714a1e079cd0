"""SOG files (PlayCanvas's spatially ordered Gaussians), versions 1 and 2, read: a .sog zip, or a folder's meta.json, of
images without loss whose pixel i, row by row, is Gaussian i.

    means    16 bits in two images: n = sign(p) ln(1 + |p|) between the bounds       quats    R G B: 3 of (w, x, y, z),
    scales   log scales: of a codebook (2), between bounds (1)                                255 (c / sqrt 2 + 0.5);
    sh0      colours likewise; A: opacity (2), logit between bounds (1)                       A: 252 + the one left out
    shN      labels (R + 256 G) of a palette of harmonics, 64 entries a row, one pixel per coefficient

Untrusted: nothing is unpacked that is much larger than the zip, Gaussians are refused where they are many more than the
images' bytes can mean, and images, by their headers, where they have more pixels than Gaussians call for; nothing
outside the folder or the zip is read.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import BadInput
from .packing import from_smallest_three, logits_of_bytes, looked_up, streams
from .scene import GaussianScene
from .untrusted import is_number, read_bytes, read_json, sound

_LARGEST_META = 1 << 22  # bytes of a meta.json
_LARGEST_RATIO, _ALWAYS_ALLOWED = 4, 1 << 20  # bytes of a zip's member, per byte of the zip; as many in any case
_MOST_EACH, _FEW = 64, 1 << 17  # Gaussians per byte of their images: real ones take 3 bytes each; as many in any case
_PALETTE_ROW = 64


def read_sog(path: Path) -> GaussianScene:
    """The Gaussians of a .sog file, or of the folder of a meta.json. Raises `BadInput` for what is none."""
    return sound(path, _Sog(path).scene())


class _Sog:
    def __init__(self, path: Path):
        self.path, self.zip, self.most = path, None, 0
        if path.suffix.lower() != ".json":
            content = read_bytes(path)
            self.most = max(_LARGEST_RATIO * len(content), _ALWAYS_ALLOWED)
            try:
                self.zip = zipfile.ZipFile(io.BytesIO(content))
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
                raise self.bad(f"cannot be opened as a zip: {str(error)!r:.80}") from None
        self.meta = read_json(path, self.member("meta.json") if self.zip else read_bytes(path, _LARGEST_META))
        self.version = self.of("version", int, 1) if "version" in self.meta else 1
        if self.version not in (1, 2):
            raise self.bad(f"has version {self.version!r:.40}; the rule: 1 or 2")
        self.count = self.of("count", int, 1) if self.version == 2 else self.of("means.shape", list, 2)[0]
        if not isinstance(self.count, int) or not 0 < self.count < 1 << 31:
            raise self.bad(f"has {self.count!r:.40} Gaussians; the rule: from 1 on")
        self.positions_of = [self.member(name) for name in self.of("means.files", list, 2)[:2]]
        size = sum(map(len, self.positions_of))
        if self.count > max(_MOST_EACH * size, _FEW):
            raise self.bad(
                f"has {self.count} Gaussians in {size} bytes of positions; the rule: at most {_MOST_EACH} each"
            )

    def bad(self, text: str) -> BadInput:
        return BadInput(f"{self.path}: {text}")

    def of(self, key: str, kind: type, length: int):
        """What meta.json has at `key` (names with points between them); a list must be so long."""
        value = self.meta
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is list and len(value) < length):
            rule = f"a list of {length}" if kind is list else f"of type {kind.__name__}"
            raise self.bad(f"meta.json has {key} {value!r:.60}; the rule: {rule}")
        return value

    def numbers(self, key: str, length: int) -> np.ndarray:
        """[length] float64."""
        values = self.of(key, list, length)[:length]
        if length == 256 and values[0] is None and is_number(values[1]) and is_number(values[255]):
            values = [values[1] + (values[1] - values[255]) / 255, *values[1:]]  # early files
        if not all(is_number(v) for v in values):
            raise self.bad(f"meta.json has {key} {values!r:.60}; the rule: finite numbers")
        return np.array(values, np.float64)

    def member(self, name: str) -> bytes:
        """A file of the zip or beside meta.json."""
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise self.bad(f"names the file {name!r:.60}; the rule: one in the same folder")
        if self.zip is None:
            return read_bytes(self.path.parent / name)
        try:
            about = self.zip.getinfo(name)
            if about.file_size > self.most or about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                rule = f"the rule: at most {self.most}, stored or deflated"
                raise self.bad(f"{name} has {about.file_size} bytes, packed by method {about.compress_type}; {rule}")
            with self.zip.open(about) as file:
                return file.read(about.file_size)
        except KeyError:
            raise self.bad(f"has no {name:.60}") from None
        except BadInput:
            raise
        except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, OSError, ValueError) as error:
            raise self.bad(f"{name:.60} cannot be unpacked: {str(error)!r:.80}") from None

    def pixels(self, name: str, content: bytes, most: int) -> np.ndarray:
        """[rows, columns, 4] of an image, with at most so many pixels."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(content), formats=("WEBP", "PNG")) as image:
                if image.width * image.height > most:
                    raise self.bad(f"{name} has {image.width} x {image.height} pixels; the rule: at most {most}")
                return np.array(image.convert("RGBA"))
        except BadInput:
            raise
        except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
            raise self.bad(f"{name:.60} is no image: {str(error)!r:.80}") from None

    def image(self, key: str, number: int = 0) -> np.ndarray:
        """[G, 4] bytes of the `number`-th image of `key`."""
        name = self.of(f"{key}.files", list, number + 1)[number]
        content = self.positions_of[number] if key == "means" else self.member(name)
        found = self.pixels(name, content, 4 * self.count + (1 << 16)).reshape(-1, 4)
        if len(found) < self.count:
            raise self.bad(f"{key} has {len(found)} pixels; the rule: one per Gaussian, {self.count}")
        return found[: self.count]

    def values(self, key: str, codes: np.ndarray) -> np.ndarray:
        """What bytes [G, n] mean: entries of the codebook, or numbers between the bounds."""
        if self.version == 2:
            return self.numbers(f"{key}.codebook", 256)[codes]
        low, high = (self.numbers(f"{key}.{end}", codes.shape[1]) for end in ("mins", "maxs"))
        return low + (high - low) * codes / 255

    def scene(self) -> GaussianScene:
        first = self.image("sh0")
        colors = self.values("sh0", first if self.version == 1 else first[:, :3])
        logits = logits_of_bytes(first[:, 3]) if self.version == 2 else torch.from_numpy(colors[:, 3]).float()
        return GaussianScene(
            means=streams(self.positions()),
            quaternions=streams(self.turns()),
            log_scales=streams(self.values("scales", self.image("scales")[:, :3])),
            opacity_logits=logits,
            base=streams(colors[:, :3]),
            rest=self.harmonics(),
        )

    def positions(self) -> np.ndarray:
        low, high = (self.numbers(f"means.{end}", 3) for end in ("mins", "maxs"))
        codes = self.image("means", 0)[:, :3] + 256.0 * self.image("means", 1)[:, :3]
        n = low + (high - low) * codes / 65535
        with np.errstate(over="ignore"):  # infinite positions are left out
            return np.sign(n) * np.expm1(np.abs(n))

    def turns(self) -> np.ndarray:
        codes = self.image("quats")
        known = codes[:, 3] >= 252
        left_out = np.where(known, codes[:, 3], 252).astype(int) - 252
        turns = from_smallest_three(left_out, (codes[:, :3] / 255 - 0.5) * 2**0.5)
        return np.where(known[:, None], turns, [1.0, 0, 0, 0])

    def harmonics(self) -> torch.Tensor:
        if "shN" not in self.meta:
            return torch.zeros(0, self.count)
        names = self.of("shN.files", list, 2)
        # as wide as its coefficients make it, and 2^16 entries long at most
        palette = self.pixels(names[0], self.member(names[0]), (1 << 16) * 15)
        each = palette.shape[1] // _PALETTE_ROW
        if each not in (3, 8, 15) or palette.shape[1] % _PALETTE_ROW:
            raise self.bad(f"{names[0]} is {palette.shape[1]} pixels wide; the rule: 192, 512 or 960")
        entries = palette[..., :3].reshape(-1, each * 3)
        codes = self.image("shN", 1)
        labels = codes[:, 0] + 256 * codes[:, 1].astype(np.int64)
        if int(labels.max()) >= len(entries):
            raise self.bad(f"has label {int(labels.max())}; the rule: below {len(entries)}, the palette's entries")
        if self.version == 2:
            return looked_up(self.numbers("shN.codebook", 256)[entries], labels)
        bounds = [self.meta["shN"].get(end) for end in ("mins", "maxs")]
        if not all(is_number(value) for value in bounds):
            raise self.bad(f"meta.json has shN.mins and maxs {bounds!r:.60}; the rule: finite numbers")
        return looked_up(bounds[0] + (bounds[1] - bounds[0]) * (entries / 255), labels)
