"""Decoded images on disk, for captures whose images do not all fit into memory.

One file of pixels, image after image as in `Images`, and one JSON file that says what it holds: which image files, of
which size and time, at which resolution. It is written once, under another name until it is whole
(`partial_cache.py`), and lies in the run's folder: the capture's own folder may be read-only. A cache that does not
match the capture is made again. Letters: V images, P pixels of all of them, C channels.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic import replacing_file
from ..errors import BadInput
from .images import Decode
from .partial_cache import PartialCache, masked, rises
from .scene import Images

VERSION = 1
#: longer side in pixels that images are reduced to where they do not fit and nothing else is asked for
LONGEST = 1600


@dataclass(frozen=True)
class Limits:
    """Where decoded images go that do not fit: folder: of the cache files; memory: bytes that those of the training
    split may take without it, and that the resident ones take with it; disk: bytes of all splits' files."""

    folder: Path
    memory: int
    disk: int


def fitting_size(sizes: Sequence[tuple[int, int]], channels: int, disk: int) -> int:
    """The longer side, at most LONGEST, at which images of these (width, height)s take at most `disk` bytes."""
    longest = min(LONGEST, max(map(max, sizes)))
    while longest > 16 and channels * sum(w * h for w, h in (reduced(size, longest) for size in sizes)) > disk:
        longest = int(longest * 0.98)
    return longest


def reduced(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """(width, height) with its longer side at most `longest`."""
    if longest is None or max(size) <= longest:
        return size
    return tuple(max(1, round(side * longest / max(size))) for side in size)


@dataclass(frozen=True)
class CachedImages:
    """V images on disk: what `Images` says of them, and each when asked for. size: [V, 2]; offset: [V + 1], in pixels;
    kept_pixels: per image its spans [S, 2] from its own first pixel, or None where all pixels of all images count."""

    path: Path
    channels: int
    size: Tensor
    offset: Tensor
    spans: list[np.ndarray] | None

    def __len__(self) -> int:
        return len(self.size)

    def read_into(self, i: int, target: np.ndarray) -> None:
        """Image i's pixels into target [pixels, C] uint8, without mapping the file: memory stays what was asked for."""
        begin, end = self.offset[i : i + 2].tolist()
        flat = target.reshape(-1)[: (end - begin) * self.channels]
        with open(self.path, "rb", buffering=0) as file:
            file.seek(begin * self.channels)
            view, done = memoryview(flat), 0
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise BadInput(f"{self.path} ends too early; remove it, and it is made again")
                done += count

    def only(self, i: int) -> Images:
        """Image i alone in memory."""
        width, height = self.size[i].tolist()
        images = Images.allocate([(width, height)], self.channels)
        self.read_into(i, images.pixels.numpy())
        if self.spans is None:
            return images
        return Images(images.pixels, images.offset, images.size, torch.from_numpy(self.spans[i]))

    def composited(self, i: int, background) -> Tensor:
        """As `Images.composited`."""
        return self.only(i).composited(0, background)

    def kept(self, i: int) -> Tensor | None:
        """As `Images.kept`."""
        return self.only(i).kept(0)

    def __getitem__(self, i: int) -> Tensor:
        """[H, W, C] uint8."""
        return self.only(i)[0]


def cached(
    jobs: Sequence[Decode], channels: int, path: Path, progress: Callable[..., AbstractContextManager] | None = None
) -> CachedImages:
    """The decoded images at `path`, decoded now unless the file there is of the same jobs. progress: the class
    `training.progress.Progress`, or one like it, by which decoding is shown.

    BadInput where the disk has no room, or an image cannot be read. What was decoded until then, or until an
    interruption, is not decoded again the next time.
    """
    about = path.with_suffix(".json")
    wanted = _describe(jobs, channels)
    found = _read(about)
    total = channels * sum(w * h for w, h in (job.size for job in jobs))
    whole = path.is_file() and path.stat().st_size == total
    if not whole or found is None or found["images"] != wanted or not _spans_fit(found["spans"], jobs):
        about.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        partial = PartialCache(jobs, wanted[2:], channels, path)
        _check_room(path.parent, total - partial.bytes_done)
        resumed = {"resumed_from": (partial.done, 0.0)} if partial.done else {}
        with (progress or _Quiet)(f"decode {path.stem}", steps=len(jobs), **resumed) as shown:
            spans = partial.finish(shown.update)
        found = {"images": wanted, "spans": spans}
        with replacing_file(about) as file:
            file.write(json.dumps(found).encode())
    size = torch.tensor([job.size for job in jobs], dtype=torch.int64).view(-1, 2)
    offset = torch.cat((torch.zeros(1, dtype=torch.int64), size.prod(-1).cumsum(0)))
    spans = found["spans"] and [np.array(s, dtype=np.int64).reshape(-1, 2) for s in found["spans"]]
    return CachedImages(path, channels, size, offset, spans)


class _Quiet(AbstractContextManager):
    """Progress that nobody sees."""

    def __init__(self, title: str, steps: int, resumed_from: tuple[int, float] = (0, 0.0)):
        pass

    def update(self, step: int) -> None:
        pass

    def __exit__(self, *error) -> None:
        pass


def _describe(jobs: Sequence[Decode], channels: int) -> list:
    # what the pixels depend on, as JSON gives it back
    def stamp(path: Path) -> list:
        status = path.stat()
        return [str(path), status.st_size, status.st_mtime_ns]

    masks = [job.mask and [*stamp(job.mask.path), job.mask.transparent, job.mask.inverted] for job in jobs]
    rows = [[*stamp(job.path), *job.size, job.turned, mask] for job, mask in zip(jobs, masks, strict=True)]
    return [VERSION, channels, *rows]


def _read(about: Path) -> dict | None:
    try:
        found = json.loads(about.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"images", "spans"} <= set(found) else None


def _spans_fit(spans, jobs: Sequence[Decode]) -> bool:
    """Whether spans are such as `_write` gives: the run's folder may be damaged or another's, and spans are offsets
    that native code reads at. A list per job of [first, past the last], rising, within the image's pixels; or None."""
    if spans is None:
        return not masked(jobs)
    if not masked(jobs) or not isinstance(spans, list) or len(spans) != len(jobs):
        return False
    return all(rises(each, job.size[0] * job.size[1]) for each, job in zip(spans, jobs, strict=True))


def _check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise BadInput(
            f"{folder}: the decoded images need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "a smaller --max-size needs less"
        )
