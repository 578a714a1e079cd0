"""Frames of a video: sharp ones, evenly spaced along the camera's way rather than in time.

The way is measured on small grey frames by phase correlation of each with the one before: the shift of the picture in
parts of its longer side, summed up. A frame is wanted each `STEP` of it; around each such place the sharpest is taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .links import stored_name
from .shrink import sharpness

SMALL = 192  # longer side of the frames that the way is measured on
STEP = 0.07
FEWEST, MOST = 30, 300
# A picture that does not move still counts as moving this much per frame: a slow turn around an object moves its
# middle little.
LEAST_SHIFT = 0.001
MOST_SHIFT = 0.2  # beyond it phase correlation has found nothing
QUALITY = 95  # of the JPEG files


def write_frames(video: Path, folder: Path, progress=lambda done, total: None, stem: str | None = None) -> list[Path]:
    """Writes the chosen frames of a video as STEM_0001.jpg and on, STEM being the video's unless it is given; returns
    the files. ValueError where it cannot be decoded."""
    stem = stored_name(video.stem) if stem is None else stem
    way, sharp = _survey(video, progress)
    chosen = set(choose_frames(way, sharp))
    files = []
    for index, frame in enumerate(_decoded(video)):
        if index in chosen:
            files.append(folder / f"{stem}_{len(files) + 1:04d}.jpg")
            _upright(frame).save(files[-1], "JPEG", quality=QUALITY)
            progress(len(files), len(chosen))
    return files


def different_stems(videos: list[Path]) -> list[str]:
    """A stem for each video's frames, different for each, also where a disk takes a.jpg for A.jpg."""
    stems: list[str] = []
    for video in videos:
        stem, number = stored_name(video.stem), 2
        if stem.lower() in map(str.lower, stems):
            stem += f"_{video.suffix[1:].lower()}"  # clip.mov beside clip.mp4
        first = stem
        while stem.lower() in map(str.lower, stems):
            stem, number = f"{first}_{number}", number + 1
        stems.append(stem)
    return stems


def choose_frames(way: np.ndarray, sharp: np.ndarray) -> list[int]:
    """Indices of frames, growing. way: [F], never falling; sharp: [F]. All of them where there are few."""
    length = way[-1] - way[0]
    count = int(np.clip(round(length / STEP), FEWEST, MOST))
    if len(way) <= count:
        return list(range(len(way)))
    chosen = []
    for k in range(count):
        low, high = (way[0] + length * (k + part) / count for part in (0.1, 0.9))
        near = np.flatnonzero((way >= low) & (way <= high))
        if not len(near):  # a fast move: the one frame closest to the place
            near = [int(np.abs(way - 0.5 * (low + high)).argmin())]
        chosen.append(int(near[np.argmax(sharp[near])]))
    return sorted(set(chosen))


def shift_between(a: np.ndarray, b: np.ndarray) -> float:
    """How far the picture [H, W] moved, in parts of its longer side, by phase correlation."""
    window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
    f, g = (np.fft.rfft2((x - x.mean()) * window) for x in (a.astype(np.float64), b.astype(np.float64)))
    cross = f * g.conj()
    peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), a.shape)
    at = np.array(np.unravel_index(peak.argmax(), peak.shape), dtype=np.float64)
    size = np.array(a.shape)
    at = np.where(at > size / 2, at - size, at)
    return float(np.linalg.norm(at)) / max(a.shape)


def _survey(video: Path, progress) -> tuple[np.ndarray, np.ndarray]:
    way, sharp, before = [0.0], [], None
    for index, frame in enumerate(_decoded(video)):
        scale = min(1.0, SMALL / max(frame.width, frame.height))
        size = {"width": max(2, round(frame.width * scale)), "height": max(2, round(frame.height * scale))}
        small = frame.reformat(**size, format="gray").to_ndarray()
        sharp.append(sharpness(small))
        if before is not None:
            shift = shift_between(before, small)
            way.append(way[-1] + (max(shift, LEAST_SHIFT) if shift < MOST_SHIFT else LEAST_SHIFT))
        before = small
        if index % 64 == 0:
            progress(index, 0)
    if not sharp:
        raise ValueError(f"{video.name} has no frames")
    return np.array(way), np.array(sharp)


def _decoded(video: Path):
    import av

    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise ValueError(f"{video.name} has no pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from container.decode(stream)
    except av.error.FFmpegError as error:
        raise ValueError(f"{video.name} cannot be decoded: {error.strerror}") from None


def _upright(frame):
    # Phones store portrait videos lying down, with a note on how to turn them.
    image = frame.to_image()
    turn = getattr(frame, "rotation", 0) or 0
    return image.rotate(turn, expand=True) if turn % 360 else image
