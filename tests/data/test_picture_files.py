"""Pictures of every depth come back as they were written; what is none is one line."""

import struct
import zlib

import numpy as np
import pytest

from radfield.data import picture_files
from radfield.data.picture_files import decoded_jpeg, integers, jpeg_bytes, read_picture, write_picture
from radfield.errors import BadInput, RadfieldWarning

KINDS = (np.uint8, np.uint16, np.float32)
ROOM = 1 << 24


def values(kind, channels, height=7, width=5, seed=0):
    found = np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)
    return found if kind is np.float32 else integers(found, kind)


def back(path, cache, memory=ROOM, disk=ROOM):
    return read_picture(path, cache, memory, disk)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("ending", "kinds"), [(".png", KINDS[:2]), (".tif", KINDS), (".exr", KINDS[2:])])
def test_formats_without_loss(tmp_path, ending, kinds, channels):
    for kind in kinds:
        written = values(kind, channels)
        write_picture(tmp_path / f"some{ending}", written)
        picture = back(tmp_path / f"some{ending}", tmp_path / "cache")
        assert picture.kind == np.dtype(kind).name
        np.testing.assert_array_equal(picture.values, written)


def test_linear_and_srgb_are_converted(tmp_path):
    grey = np.full((4, 4, 3), 0.5, np.float32)
    write_picture(tmp_path / "a.png", grey)
    encoded = back(tmp_path / "a.png", tmp_path / "c").values
    assert encoded.dtype == np.uint16
    assert abs(encoded / 65535 - 0.735357).max() < 1e-5  # the sRGB curve at 0.5
    write_picture(tmp_path / "a.exr", encoded)
    assert abs(back(tmp_path / "a.exr", tmp_path / "c").values - 0.5).max() < 1e-5


def test_opaque_alpha_says_nothing(tmp_path):
    opaque = values(np.uint8, 4)
    opaque[..., 3] = 255
    write_picture(tmp_path / "a.png", opaque)
    np.testing.assert_array_equal(back(tmp_path / "a.png", tmp_path / "c").values, opaque[..., :3])


def test_a_large_picture_stays_on_the_disk(tmp_path):
    written = values(np.uint16, 3, 100, 80)
    write_picture(tmp_path / "a.tif", written)
    picture = back(tmp_path / "a.tif", tmp_path / "cache" / "raw", memory=1000)
    assert isinstance(picture.values, np.memmap)
    np.testing.assert_array_equal(picture.values, written)
    with pytest.raises(BadInput, match="100 pixels take 48000 bytes; the rule: --cache-gb"):
        back(tmp_path / "a.tif", tmp_path / "raw", memory=1000, disk=40000)


def test_many_strips_of_every_format(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "_STRIP_BYTES", 1 << 16)
    written = values(np.uint8, 3, 3000, 800)
    for ending in (".png", ".tif", ".jpg", ".webp"):
        if ending == ".webp":
            from PIL import Image

            Image.fromarray(written).save(tmp_path / "a.webp", lossless=True)
        else:
            write_picture(tmp_path / f"a{ending}", written)
        found = back(tmp_path / f"a{ending}", tmp_path / "c").values
        assert found.shape == written.shape
        if ending != ".jpg":
            np.testing.assert_array_equal(found, written)


def test_palette_orientation_and_frames(tmp_path):
    from PIL import Image

    colors = values(np.uint8, 3, 6, 4)
    Image.fromarray(colors).quantize(8).save(tmp_path / "a.png")
    assert back(tmp_path / "a.png", tmp_path / "c").channels == 3
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(colors).save(tmp_path / "a.jpg", exif=exif)
    assert back(tmp_path / "a.jpg", tmp_path / "c").size == (6, 4)
    frames = [Image.fromarray(values(np.uint8, 3, 6, 4, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(RadfieldWarning, match="3 frames"):
        assert back(tmp_path / "a.gif", tmp_path / "c").size == (4, 6)


def huge_png() -> bytes:
    """A header of 40,000 x 40,000 pixels and nothing behind it."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.png", b"no picture", "cannot be read as a picture"),
        ("a.png", huge_png(), "--cache-gb has room"),
        ("a.exr", b"v/1\x01 and no more", "cannot be read as an EXR picture"),
        ("a.xyz", b"", "the rule: .png"),
    ],
)
def test_what_is_no_picture(tmp_path, name, content, rule):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=rule) as error:
        back(tmp_path / name, tmp_path / "c")
    assert "\n" not in str(error.value)


def test_a_header_alone_takes_no_memory(tmp_path):
    (tmp_path / "a.png").write_bytes(huge_png())
    with pytest.raises(BadInput, match="cannot be read"):
        back(tmp_path / "a.png", tmp_path / "cache" / "raw", memory=1000, disk=1 << 40)
    assert not (tmp_path / "cache" / "raw").exists()


def test_a_file_cut_short(tmp_path):
    for ending in (".png", ".tif", ".exr"):
        write_picture(tmp_path / f"a{ending}", values(np.float32, 3, 200, 200))
        content = (tmp_path / f"a{ending}").read_bytes()
        (tmp_path / f"a{ending}").write_bytes(content[: len(content) // 2])
        with pytest.raises(BadInput, match="cannot be read"):
            back(tmp_path / f"a{ending}", tmp_path / "c")


def test_values_that_are_not_finite(tmp_path):
    wrong = values(np.float32, 3)
    wrong[0, 0, 0], wrong[1, 1, 1] = np.nan, np.inf
    write_picture(tmp_path / "a.exr", wrong)
    with pytest.raises(BadInput, match="2 of its 105 values are not finite"):
        back(tmp_path / "a.exr", tmp_path / "c")


def test_jpeg_in_memory():
    flat = np.full((16, 16, 3), 100, np.uint8)
    content = jpeg_bytes(flat, 90)
    assert content.startswith(b"\xff\xd8")
    assert abs(decoded_jpeg(content).astype(int) - 100).max() <= 1
