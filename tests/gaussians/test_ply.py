"""3DGS PLY files: what is written is read, in every form that other programs write; what is wrong is one line."""

import math

import numpy as np
import pytest
import torch

from radfield.errors import BadInput, RadfieldWarning
from radfield.gaussians.ply import read_ply, write_ply
from radfield.gaussians.scene import GaussianScene
from radfield.renderers.gaussian_color import rest_rows


def random_scene(count, degree=3):
    rows = {"means": (3,), "quaternions": (4,), "log_scales": (3,), "opacity_logits": (), "base": (3,)}
    values = {name: torch.randn(*shape, count) for name, shape in rows.items()}
    return GaussianScene(**values, rest=torch.randn(rest_rows(degree), count))


def equal(a, b):
    return all(torch.equal(x, b.tensors()[name]) for name, x in a.tensors().items())


def split(path):
    """(header lines, the records) of a file that `write_ply` wrote."""
    header, data = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("property")]
    return lines, np.frombuffer(data, [(n, "<f4") for n in names])


def write(path, lines, data):
    path.write_bytes(("\n".join([*lines, "end_header"]) + "\n").encode() + data)


@pytest.fixture
def file(tmp_path):
    scene, path = random_scene(20), tmp_path / "scene.ply"
    write_ply(path, scene)
    return scene, path


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("count", [0, 1, 33])
def test_round_trip(tmp_path, degree, count):
    scene = random_scene(count, degree)
    write_ply(tmp_path / "a.ply", scene)
    assert equal(scene, read_ply(tmp_path / "a.ply"))


def test_layout_is_that_of_the_original(file):
    scene, path = file
    lines, records = split(path)
    assert records.dtype.itemsize == 248 and records.dtype.names[:6] == ("x", "y", "z", "nx", "ny", "nz")
    # the rest of the colours stands channel by channel
    np.testing.assert_array_equal(records["f_rest_0"], scene.rest[0].numpy())
    np.testing.assert_array_equal(records["f_rest_15"], scene.rest[1].numpy())
    assert lines[2] == "element vertex 20"


@pytest.mark.parametrize("order", ["<", ">"])
def test_any_order_type_and_company_of_properties(file, order):
    scene, path = file
    _, records = split(path)
    names = [n for n in reversed(records.dtype.names) if not n.startswith("n")]
    kinds = {n: "f8" if i % 2 else "f4" for i, n in enumerate(names)} | {"red": "u1"}
    moved = np.zeros(20, [(n, order + k) for n, k in kinds.items()])
    for n in names:
        moved[n] = records[n]
    word = {"f8": "double", "f4": "float", "u1": "uchar"}
    endian = "little" if order == "<" else "big"
    lines = ["ply", f"format binary_{endian}_endian 1.0", "comment from a test", "element camera 2", "property int id"]
    lines += ["element vertex 20", *(f"property {word[k]} {n}" for n, k in kinds.items())]
    write(path, lines, np.zeros(2, "i4").tobytes() + moved.tobytes())
    assert equal(scene, read_ply(path))


def changed(lines, old, new):
    return [new if line == old else line for line in lines]


WRONG = {
    "missing": ("property float opacity", "property float fog", "no property opacity"),
    "huge": ("element vertex 20", f"element vertex {2**40}", "the header claims 1099511627776 of vertex"),
    "one more": ("element vertex 20", "element vertex 21", "the header claims 21"),
    "negative": ("element vertex 20", "element vertex -1", "the header has 'element vertex -1'"),
    "ascii": ("format binary_little_endian 1.0", "format ascii 1.0", "format is ascii"),
    "twice": ("property float nx", "property float x", "names a property twice"),
    "list": ("property float nx", "property list uchar int nx", "no lists"),
    "degree": ("property float f_rest_44", "property float other", "44 properties f_rest_"),
    "element": ("element vertex 20", "element face 20", "no element vertex"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_header_is_one_line(file, case):
    _, path = file
    old, new, message = WRONG[case]
    lines, records = split(path)
    write(path, changed(lines, old, new), records.tobytes())
    with pytest.raises(BadInput, match=message) as caught:
        read_ply(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"ply\n", b"glTF", b"ply\nformat binary_little_endian 1.0\n" * 9000])
def test_what_is_no_ply(tmp_path, content):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(BadInput):
        read_ply(tmp_path / "a.ply")
    with pytest.raises(BadInput, match="could not be read"):
        read_ply(tmp_path / "absent.ply")


def test_degenerate_gaussians_are_counted(tmp_path):
    scene = random_scene(10)
    scene.means[0, 2] = float("nan")
    scene.rest[5, 4] = float("inf")
    scene.quaternions[:, 7] = 0
    write_ply(tmp_path / "a.ply", scene)
    with pytest.warns(RadfieldWarning) as said:
        found = read_ply(tmp_path / "a.ply")
    texts = " ".join(str(w.message) for w in said)
    assert "1 Gaussians have a quaternion of length 0" in texts and "2 Gaussians have values that are not" in texts
    assert len(found) == 8 and found.quaternions[:, 5].tolist() == [1, 0, 0, 0]


def test_zero_scales_and_whole_opacities_are_kept_and_counted(tmp_path):
    scene = random_scene(10, 0)
    scene.log_scales[1, 2] = -math.inf
    scene.log_scales[0, 3] = math.inf  # no meaning: left out
    scene.opacity_logits[4], scene.opacity_logits[5], scene.opacity_logits[6] = math.inf, -math.inf, math.nan
    write_ply(tmp_path / "a.ply", scene)
    with pytest.warns(RadfieldWarning) as said:
        found = read_ply(tmp_path / "a.ply")
    texts = [str(w.message) for w in said]
    assert ["1 Gaussians have a scale of 0" in t for t in texts].count(True) == 1
    assert ["2 Gaussians have an opacity of 0 or 1" in t for t in texts].count(True) == 1
    assert ["2 Gaussians have values that are not finite, left out" in t for t in texts].count(True) == 1
    assert len(found) == 8 and found.log_scales[1, 2] == -30
    torch.testing.assert_close(found.opacity_logits[3:5].sigmoid(), torch.tensor([1 - 1e-6, 1e-6]), rtol=1e-2, atol=0)


def test_a_huge_double_is_infinite_and_left_out(file):
    _, path = file
    lines, records = split(path)
    wide = np.zeros(20, [(n, "<f8") for n in records.dtype.names])
    for n in records.dtype.names:
        wide[n] = records[n]
    wide["x"][7] = 1e300
    write(path, [line.replace("property float", "property double") for line in lines], wide.tobytes())
    with pytest.warns(RadfieldWarning, match="1 Gaussians have values that are not finite, left out"):
        assert len(read_ply(path)) == 19


def test_bytes_after_the_last_vertex_are_reported(file):
    scene, path = file
    path.write_bytes(path.read_bytes() + b"123")
    with pytest.warns(RadfieldWarning, match="3 bytes after the last vertex"):
        assert equal(scene, read_ply(path))


def test_files_of_the_original_are_reproduced(captures, tmp_path):
    path = captures / "gaussians" / "loadersgl_train1000" / "train-1000.ply"
    if not path.exists():
        pytest.skip("no such file here")
    write_ply(tmp_path / "a.ply", read_ply(path))
    assert (tmp_path / "a.ply").read_bytes() == path.read_bytes()
