"""Working copies, sharpness, and pictures that are the same."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from radfield.data.images import Decode, decode
from radfield.data.photographs import shrink as s
from radfield.errors import BadInput


def picture(seed=0, size=(120, 80)) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3)).astype(np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def copy_of(image: Image.Image, folder, name: str, **how) -> s.Copy:
    image.save(folder / name)
    return s.shrink(folder / name, folder / f"{name}.copy.png", **{"turned": False, "size": 60, **how})


def test_a_copy_has_the_size_asked_for(tmp_path):
    copy = copy_of(picture(), tmp_path, "a.jpg")
    assert copy.size == (60, 40)
    with Image.open(tmp_path / copy.name) as image:
        assert image.size == (60, 40) and image.mode == "RGB"
    assert copy_of(picture(), tmp_path, "b.png", size=500).size == (120, 80)


def test_sharpness_falls_with_blur_and_not_with_brightness():
    sharp = np.asarray(picture().convert("L"))
    values = [s.sharpness(np.asarray(picture().convert("L").filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[3] < s.BLURRED * values[0]
    assert s.sharpness(0.5 * sharp + 20) == pytest.approx(s.sharpness(sharp), rel=1e-4)
    assert s.sharpness(np.full((9, 9), 7)) == 0 == s.sharpness(np.zeros((2, 2)))


def test_blurred_and_repeated_photographs(tmp_path):
    images = [picture(0), picture(1), picture(2), picture(3).filter(ImageFilter.GaussianBlur(8)), picture(1)]
    copies = [copy_of(image, tmp_path, f"{i}.png") for i, image in enumerate(images)]
    assert s.blurred(copies) == [3] and s.first_of_each(copies) == [0, 1, 2, 3]


def test_what_is_transparent_is_one_level(tmp_path):
    image = picture().convert("RGBA")
    image.putalpha(0)
    copy = copy_of(image, tmp_path, "a.png")
    with Image.open(tmp_path / copy.name) as shown:
        assert shown.getcolors() == [(60 * 40, (s.MIDDLE_GREY,) * 3)]


def test_sixteen_bits(tmp_path):
    levels = (np.asarray(picture().convert("L")).astype(np.uint16)) * 257
    Image.fromarray(levels).save(tmp_path / "deep.png")
    s.shrink(tmp_path / "deep.png", tmp_path / "copy.png", turned=False, size=120)
    with Image.open(tmp_path / "copy.png") as image:
        assert np.array_equal(np.asarray(image)[..., 0], levels // 257)


MODES = {"RGB": (10, 20, 30), "L": 77, "1": 1, "CMYK": (9, 8, 7, 6), "I;16": 31999, "RGBA": (10, 20, 30, 255)}


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_has_the_levels_that_training_sees(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    copy_of(Image.new(mode, (8, 8), MODES[mode]), tmp_path, path.name)
    with Image.open(tmp_path / f"{path.name}.copy.png") as shown:
        assert np.array_equal(np.asarray(shown), decode(Decode(path, (8, 8)), 3))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_what_training_refuses_makes_no_copy(tmp_path, mode):
    image = Image.new(mode, (8, 8), 1)
    with pytest.raises(ValueError, match=f"its mode is {mode}"):
        copy_of(image, tmp_path, "a.tif")
    with pytest.raises(BadInput, match=f"its mode is {mode}"):
        decode(Decode(tmp_path / "a.tif", (8, 8)), 3)


@pytest.mark.parametrize("error", [KeyError("x"), struct.error("x"), zlib.error("x"), Image.DecompressionBombError()])
def test_damage_of_every_kind_leaves_one_photograph_out(tmp_path, monkeypatch, error):
    from radfield.data.photographs.child import Child

    listed = []
    for i in range(4):
        picture(i).save(tmp_path / f"{i}.png")
        listed.append({"name": f"{i}.png", "path": str(tmp_path / f"{i}.png"), "turned": False})
    sound = s.shrink

    def shrink(source, *rest, **how):
        if source.name == "2.png":
            raise error
        return sound(source, *rest, **how)

    monkeypatch.setattr(s, "shrink", shrink)
    job = {"work": tmp_path, "result": tmp_path, "photographs": listed, "threads": 2, "feature_size": 60}
    child = Child(job, lambda **_: None)
    child.shrink(lambda done, total: None)
    assert [photograph["name"] for photograph in child.photographs] == ["0.png", "1.png", "3.png"]
    assert child.warnings == ["1 photographs cannot be decoded and are left out: 2.png"]
