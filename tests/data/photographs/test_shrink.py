"""Working copies, sharpness, and pictures that are the same."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from radfield.data.photographs import shrink as s


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
