"""glTF as text: numbers beside it or inside it, read by others and us; names that lead elsewhere, lengths that lie."""

import base64
import json

import numpy as np
import pytest
import torch
from gaussians.mutations import scene, with_numbers_inside

from radfield.errors import BadInput
from radfield.gaussians.files import read_gaussians, write_gaussians


@pytest.fixture
def written(tmp_path):
    """(path of a .gltf file, its Gaussians); a file of numbers that it must not reach stands above its folder."""
    path, found = tmp_path / "inner" / "a.gltf", scene(20, 1)
    path.parent.mkdir()
    write_gaussians(path, found)
    (tmp_path / "a.bin").write_bytes(path.with_suffix(".bin").read_bytes())
    return path, found


def changed(path, **values):
    """Changes buffer 0 of the file."""
    content = json.loads(path.read_text())
    content["buffers"][0] |= values
    path.write_text(json.dumps(content))


def refused(path, line):
    with pytest.raises(BadInput, match=line) as caught:
        read_gaussians(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def same(one, other):
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def test_pygltflib_finds_the_numbers(written):
    from pygltflib import GLTF2

    path, found = written
    file = GLTF2().load(str(path))
    assert file.buffers[0].uri == "a.bin" and file.buffers[0].byteLength == path.with_suffix(".bin").stat().st_size
    (primitive,) = file.meshes[0].primitives
    assert "KHR_gaussian_splatting" in primitive.extensions
    accessor = file.accessors[primitive.attributes.POSITION]
    view, numbers = file.bufferViews[accessor.bufferView], file.get_data_from_buffer_uri(file.buffers[0].uri)
    means = np.frombuffer(numbers, "<f4", 3 * accessor.count, view.byteOffset).reshape(-1, 3)
    np.testing.assert_array_equal(means, found.means.T.numpy() * np.float32([-1, -1, 1]))


def test_numbers_inside_below_and_shared(written):
    path, _ = written
    expected = read_gaussians(path)
    (path.parent / "deep er").mkdir()
    numbers = path.with_suffix(".bin").rename(path.parent / "deep er" / "n.bin")
    changed(path, uri="deep%20er/n.bin")
    assert same(read_gaussians(path), expected)
    numbers.write_bytes(numbers.read_bytes() + b"more")  # than byteLength says: not looked at
    assert same(read_gaussians(path), expected)
    content = json.loads(path.read_text())  # each view a buffer of its own, all in the same file
    for number, view in enumerate(content["bufferViews"]):
        view["buffer"] = number
    content["buffers"] *= len(content["bufferViews"])
    path.write_text(json.dumps(content))
    assert same(read_gaussians(path), expected)


def test_numbers_inside_the_text(written):
    path, _ = written
    expected = read_gaussians(path)
    path.write_bytes(with_numbers_inside(path))
    path.with_suffix(".bin").unlink()
    assert same(read_gaussians(path), expected)
    content = path.read_text()
    path.write_text(content.replace("application/octet-stream", "application/gltf-buffer"))
    assert same(read_gaussians(path), expected)


@pytest.mark.parametrize(
    "uri",
    [
        *("../a.bin", "%2e%2e/a.bin", "x/../../a.bin", "..%2Fa.bin", "..\\a.bin", "..%5Ca.bin", "/etc/passwd"),
        *("%2Fetc%2Fpasswd", "file:///etc/passwd", "file:a.bin", "http://127.0.0.1/a.bin", "C:/a.bin", "C%3Aa.bin"),
        *("//host/a.bin", "a.bin%00", "", ".", None, 7, ["a.bin"]),
    ],
)
def test_uris_that_lead_elsewhere(written, uri):
    path, _ = written
    changed(path, uri=uri)
    refused(path, "the rule: a file below the same folder, for the uri")


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("b.bin", "b.bin: could not be read: no such file"),
        ("sub", "could not be read: is no file"),
        ("data:,abc", "begins with 'data:'; the rule: base64"),
        ("data:application/octet-stream;base64,@@@@", "is no base64"),
        ("data:application/octet-stream;base64," + "A" * 401, "is no base64"),
        ("data:application/octet-stream;base64," + base64.b64encode(bytes(8)).decode(), "its bytes are 8"),
        ("data:application/octet-stream;base64", "its bytes are 0|is no base64"),
    ],
)
def test_uris_without_the_numbers(written, uri, line):
    path, _ = written
    (path.parent / "sub").mkdir()
    changed(path, uri=uri)
    refused(path, line)


@pytest.mark.parametrize("length", [1 << 40, -1, 1.5, "9", None, True])
def test_lengths_that_disagree(written, length):
    path, _ = written
    changed(path, byteLength=length)
    refused(path, "buffer 0 has byteLength .*; its bytes are")


def test_a_buffer_that_is_cut(written):
    path, _ = written
    numbers = path.with_suffix(".bin")
    whole = numbers.read_bytes()
    numbers.write_bytes(whole[:-1])
    refused(path, f"buffer 0 has byteLength {len(whole)}; its bytes are {len(whole) - 1}")
    changed(path, byteLength=len(whole) - 100)  # shorter than its views, and all that is read
    refused(path, "within its view and")


def test_primitives_that_share_their_numbers(written):
    """A short text that names the same Gaussians again and again."""
    path, _ = written
    content = json.loads(path.read_text())
    content["meshes"][0]["primitives"] *= 1000
    path.write_text(json.dumps(content))
    refused(path, "Gaussians in .* bytes; the rule: each its own")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "its JSON is"),
        ("{", "a.gltf is no JSON"),
        ("{}", "asset.version is None"),
        ('{"asset": {"version": "1.1"}}', "asset.version is '1.1'; the rule: 2.0"),
        ('{"asset": {"version": "2.0"}, "buffers": 3}', "buffers is 3; the rule: a list of objects"),
        ('{"asset": {"version": "2.0"}}', "scene is 0"),
    ],
)
def test_texts_that_are_no_scene(tmp_path, text, line):
    path = tmp_path / "a.gltf"
    path.write_text(text)
    refused(path, line)


def test_an_interrupted_write_leaves_the_file_before(written, monkeypatch):
    path, _ = written
    before = path.read_bytes()
    from radfield.gaussians import gltf_splats

    def failing(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gltf_splats.glb, "described", failing)
        write_gaussians(path, scene(20, 1))
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {"a.gltf", "a.bin"}
