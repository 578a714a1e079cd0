"""Decoding many images into one file, which may be interrupted and goes on where it was.

Until all are decoded, NAME.partial has the pixels so far, image after image, and NAME.partial.jsonl a line for each
whole image: [what its pixels depend on, its spans or null]. Pixels are on their way to the disk before their line. Who
goes on believes the lines as far as they say what the images are now, and decodes the rest.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..atomic import DISK_ERRORS
from ..errors import BadInput
from .images import DECODING_THREADS, Decode, decode, kept_spans

# So many are decoded at a time, each at its full size before it is reduced: memory.
_TOGETHER = 8


class PartialCache:
    """What is decoded of `jobs` for the file `path`; rows: per job what its pixels depend on, as JSON gives it back."""

    def __init__(self, jobs: Sequence[Decode], rows: Sequence, channels: int, path: Path):
        self.jobs, self.rows, self.channels, self.path = jobs, rows, channels, path
        self.pixels, self.journal = path.with_suffix(".partial"), path.with_suffix(".partial.jsonl")
        self.masked = masked(jobs)
        self.spans: list = []
        self._length = 0  # of the part of the journal that holds
        self._read()

    @property
    def done(self) -> int:
        """Images that need no decoding any more."""
        return len(self.spans)

    @property
    def bytes_done(self) -> int:
        """How many bytes of the pixels file those are."""
        return self.channels * sum(w * h for w, h in (job.size for job in self.jobs[: self.done]))

    def finish(self, progress: Callable[[int], None]) -> list | None:
        """Decodes the others and makes the file; returns the spans of all, None without masks. `BadInput` where the
        disk has no room, which then gets back what was taken, or an image cannot be read."""
        try:
            with open(self.pixels, "r+b" if self.done else "wb") as pixels, open(self.journal, "ab") as journal:
                pixels.truncate(self.bytes_done)
                pixels.seek(0, os.SEEK_END)
                journal.truncate(self._length)
                self._decode(pixels, journal, progress)
            os.replace(self.pixels, self.path)
            self.journal.unlink()
        except KeyboardInterrupt:
            said = f"{self.done} of {len(self.jobs)} images are decoded; training with the same --output goes on there"
            raise KeyboardInterrupt(f"{self.pixels}: {said}") from None
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            for file in (self.pixels, self.journal):
                file.unlink(missing_ok=True)
            raise BadInput(f"{self.path}: could not be written: {(error.strerror or str(error)).lower()}") from error
        return self.spans if self.masked else None

    def _decode(self, pixels, journal, progress: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(min(DECODING_THREADS, os.cpu_count() or 1)) as pool:
            for begin in range(self.done, len(self.jobs), _TOGETHER):
                for image, spans in pool.map(self._one, self.jobs[begin : begin + _TOGETHER]):
                    pixels.write(np.ascontiguousarray(image).data)
                    pixels.flush()
                    journal.write(json.dumps([self.rows[self.done], spans]).encode() + b"\n")
                    journal.flush()
                    self.spans.append(spans)
                progress(self.done)

    def _one(self, job: Decode) -> tuple[np.ndarray, list | None]:
        return decode(job, self.channels), kept_spans(job).tolist() if self.masked else None

    def _read(self) -> None:
        try:
            lines = self.journal.read_bytes().splitlines(keepends=True)
            there = self.pixels.stat().st_size
        except OSError:
            return
        for line, row, job in zip(lines, self.rows, self.jobs, strict=False):
            spans = _spans_of(line, row, job, self.masked)
            there -= self.channels * job.size[0] * job.size[1]
            if spans is False or there < 0:
                return
            self.spans.append(spans)
            self._length += len(line)


def _spans_of(line: bytes, row, job: Decode, with_masks: bool):
    # The spans that a line gives, None without masks; False where it is of another image, cut short or damaged.
    try:
        about, spans = json.loads(line)
    except (ValueError, TypeError):
        return False
    sound = rises(spans, job.size[0] * job.size[1]) if with_masks else spans is None
    return spans if line.endswith(b"\n") and about == row and sound else False


def masked(jobs: Sequence[Decode]) -> bool:
    """Whether any of the images has pixels to ignore."""
    return any(job.mask is not None and not job.mask.transparent for job in jobs)


def rises(spans, pixels: int) -> bool:
    """Whether this is a list of [first, past the last] with 0 <= first < past the last <= next first ... <= pixels."""
    if not isinstance(spans, list) or not all(isinstance(span, list) and len(span) == 2 for span in spans):
        return False
    bounds = [bound for span in spans for bound in span]
    if not all(type(bound) is int and 0 <= bound <= pixels for bound in bounds):  # bool is an int to Python
        return False
    filled = all(first < last for first, last in spans)
    return filled and all(a <= b for a, b in itertools.pairwise(bounds))
