"""A written video decodes to the frames it was given."""

import av
import numpy as np
import pytest
import torch

from radfield.apps.video import write_video
from radfield.errors import BadInput


def frames(count: int, height: int, width: int):
    """A bright square wandering over three saturated stripes."""
    for index in range(count):
        image = np.zeros((height, width, 3), np.uint8)
        for channel in range(3):
            image[:, channel * width // 3 : (channel + 1) * width // 3, channel] = 200
        image[8:24, 4 * index : 4 * index + 16] = 255
        yield image


def decoded(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray() for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 95)])
def test_frames_come_back(tmp_path, height, width):
    path = tmp_path / "orbit.mp4"
    assert write_video(path, frames(10, height, width), fps=24) == 10
    result = decoded(path)
    assert len(result) == 10
    for original, frame in zip(frames(10, height, width), result, strict=True):
        assert frame.shape == (64, 96, 3)
        error = np.abs(frame[:height, :width].astype(int) - original)
        # Chroma has half the resolution, so that edges between saturated colours bleed; areas must not.
        assert np.median(error) <= 2 and error.mean() < 6
    assert [file.name for file in tmp_path.iterdir()] == ["orbit.mp4"]


def test_the_file_says_which_colours_and_speed_it_has(tmp_path):
    write_video(tmp_path / "a.mp4", frames(5, 32, 32), fps=29.97)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == 1 and stream.codec_context.color_range == 1
        assert float(stream.average_rate) == pytest.approx(29.97, abs=1e-3)


def test_torch_frames(tmp_path):
    assert write_video(tmp_path / "a.mp4", [torch.full((16, 16, 3), 255, dtype=torch.uint8)]) == 1
    assert np.abs(decoded(tmp_path / "a.mp4")[0].astype(int) - 255).max() <= 2


def test_a_renderer_that_fails_leaves_the_old_video(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, frames(3, 32, 32))
    before = path.read_bytes()

    def failing():
        yield from frames(2, 32, 32)
        raise RuntimeError("out of scene")

    with pytest.raises(RuntimeError, match="out of scene"):
        write_video(path, failing())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(BadInput, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(BadInput, match=r"\.mp4"):
        write_video(tmp_path / "a.gif", frames(1, 32, 32))
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.float32)])
    with pytest.raises(ValueError, match="first frame"):
        write_video(tmp_path / "a.mp4", [*frames(1, 32, 32), *frames(1, 16, 16)])
    assert list(tmp_path.iterdir()) == []
