"""Small files that claim, or unpack to, much: refused in one line, in little memory. Names that lead elsewhere."""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from gaussians.mutations import ksplat, scene
from PIL import Image

from radfield.errors import BadInput
from radfield.gaussians.files import read_gaussians, write_gaussians

MOST_BYTES = 50 << 20


def refused(path, line):
    """The file is refused with that line, and no more memory was taken than `MOST_BYTES`."""
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=line) as caught:
            read_gaussians(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def repacked(path, changes, method=zipfile.ZIP_STORED):
    """The SOG at `path` with members replaced."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (members | changes).items():
            archive.writestr(name, content)


def meta_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("meta.json"))


@pytest.fixture
def sog(tmp_path):
    path = tmp_path / "a.sog"
    write_gaussians(path, scene(20, 1))
    return path


def black(width, height):
    """A WebP file of a few bytes."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(out, "WEBP", lossless=True, method=0)
    return out.getvalue()


def test_a_zip_bomb(sog):
    repacked(sog, {"quats.webp": bytes(40 << 20)}, zipfile.ZIP_DEFLATED)
    refused(sog, "quats.webp has 41943040 bytes, packed by method 8; the rule: at most 1048576")


def test_packing_that_is_slow_to_undo(sog):
    repacked(sog, {}, zipfile.ZIP_LZMA)
    refused(sog, "meta.json has .* packed by method 14; the rule: .* stored or deflated")


def test_images_with_many_pixels(sog):
    repacked(sog, {"sh0.webp": black(2000, 2000)})
    refused(sog, "sh0.webp has 2000 x 2000 pixels; the rule: at most")


def test_a_count_that_small_images_cannot_hold(sog):
    meta = meta_of(sog) | {"count": 9_000_000}
    pictures = {f"means_{end}.webp": black(3000, 3000) for end in "lu"}
    repacked(sog, pictures | {"meta.json": json.dumps(meta)})
    refused(sog, "has 9000000 Gaussians in .* bytes of positions; the rule: at most 64 each")


@pytest.mark.parametrize("name", ["../a.webp", "/etc/passwd", "a/b.webp", "", "..", 7, None])
def test_names_that_lead_elsewhere(sog, name):
    meta = meta_of(sog)
    meta["scales"]["files"] = [name]
    repacked(sog, {"meta.json": json.dumps(meta)})
    refused(sog, "names the file .*; the rule: one in the same folder")


def test_a_folders_names_that_lead_elsewhere(tmp_path):
    path = tmp_path / "meta.json"
    write_gaussians(path, scene(20, 0))
    whole = path.read_text()
    for name, line in (("../quats.webp", "in the same folder"), ("a\\u0000b", "could not be read")):
        path.write_text(whole.replace("quats.webp", name))
        refused(path, line)
    path.write_text(whole[:-1] + "," + '"x":' + "[" * 100000)
    refused(path, "no JSON")
    path.write_text(whole.replace('"count":20', f'"count":20,"x":"{"x" * (5 << 20)}"'))
    refused(path, "bytes; the rule: at most 4194304")
    path.write_text(whole.replace('mins":[', f'mins":[1{"0" * 400},'))
    refused(path, "means.mins .*; the rule: finite numbers")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["../x/meta.json"], "names the file '../x/meta.json'; the rule: a meta.json below the same folder"),
        (["/x/meta.json"], "below the same folder"),
        (["//x/meta.json"], "below the same folder"),
        (["C:/x/meta.json"], "below the same folder"),
        (["x/a.sog"], "below the same folder"),
        (["x\\meta.json"], "below the same folder"),
        ([None], "below the same folder"),
        ({}, "has filenames {}"),
    ],
)
def test_levels_whose_names_lead_elsewhere(tmp_path, names, line):
    path = tmp_path / "lod-meta.json"
    path.write_text(json.dumps({"filenames": names, "tree": {}}))
    refused(path, line)


def test_levels_that_take_gaussians_twice(tmp_path):
    (tmp_path / "x").mkdir()
    write_gaussians(tmp_path / "x" / "meta.json", scene(20, 0))
    path = tmp_path / "lod-meta.json"
    for ranges, line in (
        (((0, 12), (11, 3)), "takes 3 Gaussians of x from 11 on; the rule: none twice, of 20"),
        (((0, 21),), "takes 21 Gaussians of x from 0 on"),
    ):
        leaves = [{"lods": {"0": {"file": 0, "offset": offset, "count": count}}} for offset, count in ranges]
        path.write_text(json.dumps({"filenames": ["x/meta.json"], "tree": {"children": leaves}}))
        refused(path, line)


def test_a_gzip_bomb(tmp_path):
    path = tmp_path / "a.spz"
    header = b"NGSP" + struct.pack("<IIBBBB", 3, 2_000_000, 0, 12, 0, 0)
    path.write_bytes(gzip.compress(header + bytes(40_000_000)))
    refused(path, "claims 2000000 Gaussians, 40000000 bytes; the file has")


def write_spz4(path, count, frame):
    """A file of SPZ 4 with `count` Gaussians of degree 0, each array as frame(bytes in it) has packed it."""
    sizes = [count * each for each in (9, 1, 3, 3, 4)]
    frames = [frame(size) for size in sizes]
    header = b"NGSP" + struct.pack("<IIBBBBI12x", 4, count, 0, 12, 0, 5, 32)
    listed = b"".join(struct.pack("<QQ", len(f), size) for f, size in zip(frames, sizes, strict=True))
    path.write_bytes(header + listed + b"".join(frames))


def test_a_zstd_bomb(tmp_path):
    import zstandard

    path = tmp_path / "a.spz"
    write_spz4(path, 100_000, lambda size: zstandard.compress(bytes(size + (60 << 20))))
    refused(path, "a stream")


def test_a_frame_that_ends_in_another_ones_beginning(tmp_path):
    import zstandard

    path, of_a_dictionary = tmp_path / "a.spz", bytes((0x28, 0xB5, 0x2F, 0xFD, 0x21, 7, 1, 0x09, 0, 0, 0))
    write_spz4(path, 10, lambda size: zstandard.compress(b"\1" * size))
    assert len(read_gaussians(path)) == 10
    write_spz4(path, 10, lambda size: zstandard.compress(b"\1" * size) + of_a_dictionary)
    refused(path, "a stream")


def test_buckets_that_are_longer_than_their_section(tmp_path):
    """Lengths of 4096 buckets, each as long as all Gaussians."""
    whole, count = ksplat(1, 0, 3000), 4096
    head = bytearray(whole[:5120])
    struct.pack_into("<4I", head, 4096, 3000, 3000, 0, count)
    struct.pack_into("<II", head, 4096 + 32, 0, count)
    path = tmp_path / "a.ksplat"
    body = struct.pack(f"<{count}I", *[3000] * count) + bytes(12 * count) + whole[5120 + 28 :]
    path.write_bytes(bytes(head) + body)
    tracemalloc.start()
    assert len(read_gaussians(path)) == 3000 and tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()
