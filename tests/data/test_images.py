"""Decoding: every mode to RGB(A), damage named, one buffer."""

import os

import numpy as np
import pytest
from PIL import Image

from radfield.data.images import Decode, decode, decode_all, read_header, write_png
from radfield.errors import BadInput


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def decoded(path, channels: int) -> list[int]:
    """The first pixel."""
    return decode(Decode(path, read_header(path).size), channels)[0, 0].tolist()


MODES = {
    "RGB": ((10, 20, 30), [10, 20, 30, 255]),
    "RGBA": ((10, 20, 30, 40), [10, 20, 30, 40]),
    "L": (77, [77, 77, 77, 255]),
    "LA": ((77, 5), [77, 77, 77, 5]),
    "1": (1, [255, 255, 255, 255]),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(tmp_path, mode):
    value, expected = MODES[mode]
    path = save(tmp_path / "a.png", Image.new(mode, (3, 2), value))
    assert read_header(path).alpha == mode.endswith("A")
    assert decoded(path, 4) == expected
    assert decoded(path, 3) == expected[:3]


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    opaque = save(tmp_path / "p.png", image)
    clear = save(tmp_path / "t.png", image, transparency=bytes([255, 60]))
    assert not read_header(opaque).alpha and read_header(clear).alpha
    assert decoded(opaque, 3) == [9, 8, 7] and decoded(opaque, 4) == [9, 8, 7, 255]
    assert decoded(clear, 3) == [9, 8, 7] and decoded(clear, 4) == [9, 8, 7, 60]


def test_cmyk(tmp_path):
    path = save(tmp_path / "c.jpg", Image.new("CMYK", (16, 16), (255, 0, 0, 0)), quality=100)
    r, g, b = decoded(path, 3)
    assert r < 5 and g > 250 and b > 250


def test_sixteen_bit_grey_is_rounded_to_eight(tmp_path):
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    path = save(tmp_path / "g.png", Image.fromarray(levels))
    assert read_header(path).deep
    rows = decode(Decode(path, (6, 1)), 3)
    assert rows[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (rows[..., :1] == rows).all()


def test_sixteen_bit_colour_is_recognised(tmp_path):
    path = tmp_path / "d.png"
    write_sixteen_bit_rgb(path)
    assert read_header(path).deep
    assert decoded(path, 3) == [0, 128, 255]


def write_sixteen_bit_rgb(path) -> None:
    """A 1x1 PNG with channels 0, 32896, 65535, by hand: Pillow writes none."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 0, 32896, 65535))
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def test_floating_point_files_are_refused(tmp_path):
    path = save(tmp_path / "f.tif", Image.new("F", (4, 4), 0.5))
    with pytest.raises(BadInput, match=r"f\.tif cannot be read as an image: its mode is F"):
        decoded(path, 3)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_files_are_named(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{kind}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=rf"cut\.{kind} cannot be read as an image: "):
        decode_all([Decode(path, (64, 64))], 3)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_files_that_are_no_images_are_named(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.png cannot be read as an image") as error:
        read_header(path)
    assert "\n" not in str(error.value)


def test_orientation_is_offered_not_applied(tmp_path):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = save(tmp_path / "a.webp", image, exif=exif, lossless=True)
    header = read_header(path)
    assert (header.size, header.upright) == ((3, 2), (2, 3))
    stored = decode(Decode(path, (3, 2)), 3)[..., 0]
    turned = decode(Decode(path, (2, 3), turned=True), 3)[..., 0]
    assert stored.tolist() == [[0, 40, 80], [120, 160, 200]]
    assert turned.tolist() == [[120, 0], [160, 40], [200, 80]]


def test_reduction_averages_with_alpha_as_weight(tmp_path):
    pixels = np.array([[[200, 0, 0, 255], [0, 100, 0, 0]]], dtype=np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    (pixel,) = decode(Decode(path, (1, 1)), 4)[0].tolist()
    assert pixel[:3] == pytest.approx([200, 0, 0], abs=2), "an invisible pixel lends no colour"
    assert pixel[3] == pytest.approx(128, abs=1)


def test_decode_all_keeps_order_and_sizes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (h, w, 4), dtype=np.uint8) for w, h in ((5, 3), (2, 7), (4, 4))]
    paths = []
    for i, array in enumerate(arrays):
        paths.append(tmp_path / f"{i}.png")
        write_png(paths[-1], array)
    images = decode_all([Decode(p, a.shape[1::-1]) for p, a in zip(paths, arrays, strict=True)], 4)
    for image, array in zip((images[i] for i in range(3)), arrays, strict=True):
        assert np.array_equal(image.numpy(), array)


def test_more_than_memory_is_refused_before_it_is_allocated(tmp_path):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    side = int((memory / 3) ** 0.5)
    with pytest.raises(BadInput, match=r"need .* GiB and this machine has .* GiB; load them smaller"):
        decode_all([Decode(tmp_path / "never read.png", (side, side))], 3)
