"""Frames of a video."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from radfield.apps.video import write_video
from radfield.data.photographs import frames as f
from radfield.data.photographs.shrink import sharpness


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (-7, 2), (0, -11)])
def test_phase_correlation_finds_a_shift(shift):
    picture = np.random.default_rng(0).random((96, 128))
    found = f.shift_between(picture, np.roll(picture, shift, (0, 1)))
    assert found == pytest.approx(np.hypot(*shift) / 128)


def test_frames_are_spaced_along_the_way_and_the_sharpest_nearby():
    # The camera rests for the first half: two thirds of the frames come from where it moves.
    way = np.cumsum(np.r_[np.full(500, 0.001), np.full(500, 0.01)])
    sharp = np.random.default_rng(0).random(1000)
    chosen = f.choose_frames(way, sharp)
    assert len(chosen) == round((way[-1] - way[0]) / f.STEP) and chosen == sorted(set(chosen))
    assert sum(i >= 500 for i in chosen) > 0.85 * len(chosen)
    assert sharp[chosen].mean() > 0.7
    steps = np.diff(way[chosen])
    assert steps.max() < 2 * f.STEP


def test_a_short_video_gives_all_its_frames():
    assert f.choose_frames(np.linspace(0, 1, 12), np.ones(12)) == list(range(12))
    assert len(f.choose_frames(np.linspace(0, 1000, 5000), np.ones(5000))) == f.MOST


def test_blurred_frames_of_a_video_are_passed_over(tmp_path):
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 256, (40, 400, 3), dtype=np.uint8)).resize((1600, 160))
    moving = [wide.crop((4 * i, 0, 4 * i + 240, 160)) for i in range(120)]
    blurred = [frame.filter(ImageFilter.GaussianBlur(4)) if i % 2 else frame for i, frame in enumerate(moving)]
    write_video(tmp_path / "clip.mp4", map(np.asarray, blurred))
    files = f.write_frames(tmp_path / "clip.mp4", tmp_path)
    assert 25 <= len(files) <= 35 and files[0].name == "clip_0001.jpg"
    for file in files:
        with Image.open(file) as image:
            assert image.size == (240, 160)
            assert sharpness(np.asarray(image.convert("L"))) > 0.5 * sharpness(np.asarray(moving[0].convert("L")))


def test_videos_of_one_name_have_frames_of_their_own(tmp_path):
    videos = [tmp_path / name for name in ("clip.mov", "clip.mp4", "CLIP.MP4", "a\\b.mp4", "a_b.mp4")]
    assert f.different_stems(videos) == ["clip", "clip_mp4", "CLIP_mp4_2", "a_b", "a_b_mp4"]


def test_the_frames_of_two_videos_lie_side_by_side(tmp_path):
    from radfield.data.photographs.child import Child

    for ending, level in (("mov", 200), ("mp4", 40)):
        write_video(tmp_path / "clip.mp4", [np.full((64, 96, 3), level, np.uint8)] * 3)
        (tmp_path / "clip.mp4").rename(tmp_path / f"clip.{ending}")
    videos = [str(tmp_path / "clip.mov"), str(tmp_path / "clip.mp4")]
    job = {"work": tmp_path, "result": tmp_path / "out", "photographs": [], "videos": videos}
    child = Child(job, lambda **_: None)
    child.take_frames(lambda done, total: None)
    names = [photograph["stored"] for photograph in child.photographs]
    assert names == [f"{stem}_{i:04d}.jpg" for stem in ("clip", "clip_mp4") for i in (1, 2, 3)]
    assert sorted(file.name for file in (tmp_path / "out" / "images").iterdir()) == sorted(names)
    for photograph in child.photographs:
        with Image.open(photograph["path"]) as image:
            assert (np.asarray(image).mean() > 120) == (not photograph["name"].startswith("clip_mp4"))


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"nothing of the sort" * 100)
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be decoded"):
        f.write_frames(tmp_path / "clip.mp4", tmp_path)
