"""Videos: frames `[H, W, 3]` uint8 sRGB into an mp4 file that every browser and player shows (H.264, 4:2:0, BT.709)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import replacing
from ..errors import BadInput

if TYPE_CHECKING:
    from av.video.stream import VideoStream

#: ISO/IEC 23001-8 code points: BT.709 primaries, transfer function and matrix
_BT709 = 1
_LIMITED_RANGE = 1


def write_video(path: Path | str, frames: Iterable[np.ndarray], fps: float = 30.0, crf: int = 18) -> int:
    """Writes `frames` (arrays, or CPU tensors, `[H, W, 3]` uint8, all of one size) to `path` atomically; returns how
    many there were.

    Frames are taken one at a time, so a generator may render them as they are written. `crf` is x264's quality, 0
    (best) to 51. H.264 wants even sizes: an odd last row or column is doubled. Raises `BadInput` without frames, or
    where `path` cannot be written.
    """
    import av

    path = Path(path)
    if path.suffix != ".mp4":
        raise BadInput(f"{path}: has the ending {path.suffix!r}; the rule: .mp4")
    count = 0
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", options={"movflags": "+faststart"}) as container,
    ):
        stream = None
        for frame in frames:
            image = _even(_checked(frame))
            if stream is None:
                stream = _add_stream(container, image, fps, crf)
            elif image.shape[:2] != (stream.height, stream.width):
                raise ValueError(f"frame {count} has shape {list(image.shape)}; the rule: that of the first frame")
            container.mux(stream.encode(_converted(image)))
            count += 1
        if stream is None:
            raise BadInput(f"{path}: there are no frames to write; the rule: at least one")
        container.mux(stream.encode(None))
    return count


def _add_stream(container, image: np.ndarray, fps: float, crf: int) -> VideoStream:
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "medium"})
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt = "yuv420p"
    # Without these marks a player guesses the matrix from the size, and small videos come out with other colours.
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def _converted(image: np.ndarray):
    from av import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace

    return VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )


def _checked(frame: np.ndarray) -> np.ndarray:
    image = np.asarray(frame)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a frame has shape {list(image.shape)}, dtype {image.dtype}; the rule: [H, W, 3] uint8")
    return image


def _even(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)
