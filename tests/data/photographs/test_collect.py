"""What a folder holds, and what its photographs say of themselves."""

import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from radfield.data.formats import read_capture
from radfield.data.paths import REMNANTS
from radfield.data.photographs import collect as c
from radfield.data.photographs import is_bare
from radfield.errors import BadInput

FOCAL, FOCAL_35MM, MODEL, ORIENTATION = 0x920A, 0xA405, 0x0110, 0x0112


def photograph(path, size=(60, 40), **tags):
    image, exif = Image.new("RGB", size), Image.Exif()
    exif[MODEL] = tags.get("model", "Phone")
    exif[ORIENTATION] = tags.get("orientation", 1)
    inner = exif.get_ifd(0x8769)
    for tag, name in ((FOCAL, "focal"), (FOCAL_35MM, "focal_35mm")):
        if name in tags:
            inner[tag] = tags[name]
    image.save(path, exif=exif)
    return path


def test_focal_length_in_35mm_film_is_of_the_diagonal(tmp_path):
    # A full-frame photograph: 36 mm are its width, and a focal length of 36 mm is 60 of 60 pixels.
    [one, *_] = c.describe([photograph(tmp_path / f"{i}.jpg", focal_35mm=36) for i in range(3)])
    assert one.focal == pytest.approx(60)
    assert math.hypot(*one.size) / one.focal == pytest.approx(c.FILM_DIAGONAL / 36)


def test_photographs_that_share_a_camera(tmp_path):
    files = [
        photograph(tmp_path / "1.jpg", focal=4.3),
        photograph(tmp_path / "2.jpg", focal=4.3),
        photograph(tmp_path / "3.jpg", focal=8.6),
        photograph(tmp_path / "4.jpg", focal=4.3, model="Other"),
        photograph(tmp_path / "5.jpg", focal=4.3, size=(40, 60)),
        photograph(tmp_path / "6.jpg", focal=4.3, orientation=6),
    ]
    found = c.describe(files)
    assert found[0].camera == found[1].camera
    assert len({each.camera for each in found}) == 5
    assert found[5].turned and found[5].size == (40, 60)


def test_broken_exif_is_no_exif(tmp_path):
    for i in range(3):
        file = photograph(tmp_path / f"{i}.jpg", focal_35mm=28)
        data = bytearray(file.read_bytes())
        header = data.index(b"Exif") + 6
        data[header : header + 8] = b"\xff" * 8
        file.write_bytes(data)
    assert [each.focal for each in c.describe(sorted(tmp_path.iterdir()))] == [None] * 3


def test_damaged_exif_raises_nothing(tmp_path):
    # Single bytes of it changed at random, in three photographs at a time, since fewer are refused.
    rng = np.random.default_rng(0)
    sound = photograph(tmp_path / "sound.jpg", focal_35mm=28, model="Phone").read_bytes()
    start, length = sound.index(b"Exif") + 6, int.from_bytes(sound[sound.index(b"Exif") - 2 :][:2], "big") - 8
    for _ in range(100):
        for name in "abc":
            data = np.frombuffer(sound, np.uint8).copy()
            data[start + rng.integers(0, length, 3)] = rng.integers(0, 256, 3)
            (tmp_path / f"{name}.jpg").write_bytes(data.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of corrupt EXIF data
            found = c.describe([tmp_path / f"{name}.jpg" for name in "abc"])
        assert all(each.focal is None or each.focal > 0 for each in found)


@pytest.mark.parametrize("marker", REMNANTS)
def test_a_capture_with_cameras_is_not_bare(tmp_path, marker):
    photograph(tmp_path / "1.jpg")
    assert is_bare(tmp_path)
    (tmp_path / marker).write_bytes(b"")
    assert not is_bare(tmp_path)
    advice = f"1 photographs and {marker} but no whole COLMAP model: remove {marker}, or find the cameras"
    with pytest.raises(BadInput, match=advice):
        read_capture(tmp_path)


def test_a_folder_that_is_a_remnant_is_told_as_one(tmp_path):
    photograph(tmp_path / "1.jpg")
    (tmp_path / "sparse").mkdir()
    with pytest.raises(BadInput, match="photographs and sparse/ but no whole COLMAP model: remove sparse/"):
        read_capture(tmp_path)


def test_photographs_in_a_subfolder(tmp_path):
    (tmp_path / "images").mkdir()
    assert not is_bare(tmp_path) and not is_bare(tmp_path / "nowhere")
    file = photograph(tmp_path / "images" / "1.JPG")
    assert is_bare(tmp_path) and c.collect(tmp_path) == ([file], [])


def test_photographs_are_preferred_to_videos(tmp_path):
    video = tmp_path / "a.MOV"
    video.write_bytes(b"")
    assert c.collect(tmp_path) == c.collect(video) == ([], [video])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), "has no photographs"),
        (("a.txt",), "has no photographs"),
        (("a.HEIC", "b.heic"), "HEIC photographs .* export them as JPEG"),
        (("a.NEF", "b.NEF"), "raw files .* develop them"),
    ],
)
def test_nothing_to_read(tmp_path, names, text):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput, match=text):
        c.collect(tmp_path)


@pytest.mark.parametrize("name", ["missing", "notes.txt"])
def test_no_folder(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="the rule: a folder"):
        c.collect(tmp_path / name)


def test_the_child_needs_no_torch():
    modules = ("child", "shrink", "frames", "pairs", "quality", "matching", "mapping", "refine", "output")
    load = "".join(f"import radfield.data.photographs.{module};" for module in modules)
    code = f"import json, sys; {load} print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
