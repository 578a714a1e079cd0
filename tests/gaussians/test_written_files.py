"""Files that are written, read by others: gaussforge (PLY, packed PLY, SPZ, SOG 2), plyfile, pygltflib, and where there
is no other reader by a few lines that follow the format's description (.splat, SOG 1)."""

import io
import json
import math
import struct
import zipfile

import numpy as np
import pytest
import torch
from gaussians.mutations import scene
from gaussians.test_files import differences
from PIL import Image

from radfield.errors import BadInput, RadfieldWarning
from radfield.gaussians.files import VERSIONS, read_gaussians, write_gaussians
from radfield.gaussians.palette import codebook, nearest_codes, palette

COUNT = 300


@pytest.fixture
def gaussians():
    """Within what every format holds."""
    found = scene(COUNT, 2, seed=1)
    found.base.clamp_(-1, 1), found.rest.clamp_(-0.9, 0.9)
    return found


def of_gaussforge(path, ending, names=("positions", "rotations", "scales", "alphas", "colors", "sh")):
    """{name: [G, n]} of a file, read by gaussforge."""
    gaussforge = pytest.importorskip("gaussforge", reason="gaussforge has no wheel for this machine")
    read = gaussforge.GaussForge().read(path.read_bytes(), ending)
    assert "error" not in read, read
    return {name: np.frombuffer(read["data"][name], "<f4").reshape(read["data"]["numPoints"], -1) for name in names}


def as_theirs(found):
    values = (found.means, found.quaternions, found.log_scales, found.opacity_logits[None], found.base, found.rest)
    names = ("positions", "rotations", "scales", "alphas", "colors", "sh")
    return {name: value.T.numpy() for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize(
    ("ending", "version"), [("ply", None), ("compressed.ply", None), ("spz", 2), ("spz", 3), ("spz", 4), ("sog", 2)]
)
def test_gaussforge_reads_the_same(tmp_path, gaussians, ending, version):
    path = tmp_path / f"a.{ending}"
    write_gaussians(path, gaussians, version)
    ours, theirs = as_theirs(read_gaussians(path)), of_gaussforge(path, ending)
    if ending == "spz":  # it leaves SPZ's own axes, right, up, back
        ours["positions"] = ours["positions"] * np.array([1, -1, -1])
        ours["rotations"] = ours["rotations"] * np.array([1, 1, -1, -1])
        ours["sh"] = ours["sh"] * np.repeat([-1, -1, 1, -1, 1, 1, -1, 1], 3)
    ours["rotations"] = ours["rotations"] * np.sign((ours["rotations"] * theirs["rotations"]).sum(1, keepdims=True))
    # the harmonics of packed PLY files have two readings, which differ by up to 1/64
    loose = {"sh": 1 / 64} if ending == "compressed.ply" else {"rotations": 1e-5} if version == 2 else {}
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=loose.get(name, 2e-6), err_msg=name)


def test_plyfile_reads_the_same(tmp_path, gaussians):
    from plyfile import PlyData

    write_gaussians(tmp_path / "a.ply", gaussians)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    np.testing.assert_array_equal(vertex["x"], gaussians.means[0].numpy())
    np.testing.assert_array_equal(vertex["f_rest_8"], gaussians.rest[1].numpy())  # green's first of eight
    np.testing.assert_array_equal(vertex["rot_3"], gaussians.quaternions[3].numpy())
    write_gaussians(tmp_path / "a.compressed.ply", gaussians)
    packed = PlyData.read(tmp_path / "a.compressed.ply")
    assert [(e.name, e.count) for e in packed] == [("chunk", 2), ("vertex", COUNT), ("sh", COUNT)]


def test_a_splat_file_by_its_description(tmp_path, gaussians):
    with pytest.warns(RadfieldWarning, match="degree 1 to 2 are left out"):
        write_gaussians(tmp_path / "a.splat", gaussians)
    data = (tmp_path / "a.splat").read_bytes()
    for i in (0, 7, COUNT - 1):
        x, y, z, *rest = struct.unpack_from("<6f8B", data, 32 * i)
        assert (x, y, z) == tuple(gaussians.means[:, i].tolist())
        np.testing.assert_allclose(rest[:3], gaussians.log_scales[:, i].exp(), rtol=1e-6)
        assert abs(rest[6] / 255 - float(gaussians.opacity_logits[i].sigmoid())) <= 0.501 / 255
        turn = torch.nn.functional.normalize(gaussians.quaternions[:, i], dim=0)
        np.testing.assert_allclose((np.array(rest[7:]) - 128) / 128, turn, atol=1.001 / 128)


def accessor(file, number):
    """[count, n] of an accessor of pygltflib's."""
    found, width = file.accessors[number], {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
    kind = {5126: "<f4", 5121: "u1"}[found.componentType]
    view = file.bufferViews[found.bufferView]
    count = found.count * width[found.type]
    return np.frombuffer(file.binary_blob(), kind, count, view.byteOffset).reshape(found.count, -1)


def test_pygltflib_reads_the_same(tmp_path, gaussians):
    from pygltflib import GLTF2

    write_gaussians(tmp_path / "a.glb", gaussians)
    file = GLTF2().load_binary(str(tmp_path / "a.glb"))
    (primitive,) = file.meshes[0].primitives
    about = primitive.extensions["KHR_gaussian_splatting"]
    assert primitive.mode == 0 and file.extensionsUsed == ["KHR_gaussian_splatting"]
    assert about["kernel"] == "ellipse" and about["colorSpace"] == "srgb_rec709_display"
    found = {k: accessor(file, n) for k, n in vars(primitive.attributes).items() if n is not None}
    prefix, means = "KHR_gaussian_splatting:", gaussians.means.T.numpy()
    np.testing.assert_array_equal(found["POSITION"], means * np.float32([-1, -1, 1]))  # left, up, front
    assert file.accessors[primitive.attributes.POSITION].min == found["POSITION"].min(0).tolist()
    np.testing.assert_allclose(found[prefix + "SCALE"], gaussians.log_scales.exp().T, rtol=1e-6)
    np.testing.assert_allclose(found[prefix + "OPACITY"][:, 0], gaussians.opacity_logits.sigmoid(), rtol=1e-6)
    np.testing.assert_array_equal(found[prefix + "SH_DEGREE_0_COEF_0"], gaussians.base.T)
    assert sum("SH_DEGREE_2" in name for name in found) == 5 and not any("SH_DEGREE_3" in name for name in found)
    w, x, y, z = torch.nn.functional.normalize(gaussians.quaternions, dim=0).numpy()
    np.testing.assert_allclose(found[prefix + "ROTATION"], np.stack([-x, -y, z, w], 1), atol=1e-6)
    linear = 0.5**2.4  # about: grey of 0.5 is 0.214 as light
    grey = scene(1, 0).map(torch.zeros_like)
    grey.quaternions[0] = 1
    write_gaussians(tmp_path / "grey.glb", grey)
    file = GLTF2().load_binary(str(tmp_path / "grey.glb"))
    color = accessor(file, file.meshes[0].primitives[0].attributes.COLOR_0)
    assert color.tolist() == [[55, 55, 55, 128]] and abs(55 / 255 - linear) < 0.03


@pytest.mark.parametrize("ending", ["glb", "gltf"])
@pytest.mark.parametrize("degree", range(5))
def test_a_gltf_file_loses_nothing(tmp_path, degree, ending):
    found, path = scene(40, degree), tmp_path / f"a b%.{ending}"
    if degree == 4:
        with pytest.warns(RadfieldWarning, match="those of degree 4 are left out"):
            write_gaussians(path, found)
    else:
        write_gaussians(path, found)
    back = read_gaussians(path)
    assert max(differences(found, back).values()) < 1e-5 and back.degree == min(degree, 3)
    torch.testing.assert_close(back.rest, found.rest[: len(back.rest)])


def glb_with(path, **changes):
    """Writes the file at `path` with changes of its JSON, by the keys of the first node, mesh and view."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    content = json.loads(data[20 : 20 + size])
    for key, value in changes.items():
        place, _, name = key.rpartition("_")
        {"": content, "node": content["nodes"][0], "view": content["bufferViews"][0]}[place][name] = value
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    path.write_bytes(data[:12] + struct.pack("<I", len(text)) + data[16:20] + text + data[20 + size :])


def test_nodes_move_gaussians(tmp_path):
    path, found = tmp_path / "a.glb", scene(20, 1)
    write_gaussians(path, found)
    half = math.sqrt(0.5)
    glb_with(path, node_translation=[1, 2, 3], node_rotation=[0, 0, half, half], node_scale=[2, 2, 2])
    moved = read_gaussians(path)
    x, y, z = found.means * torch.tensor([-1.0, -1, 1])[:, None]  # as in the file; a quarter turn: x to y, y to -x
    expected = torch.stack([-(1 - 2 * y), -(2 + 2 * x), 3 + 2 * z])
    torch.testing.assert_close(moved.means, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved.log_scales, found.log_scales + math.log(2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"node_scale": [1, 2, 1]}, "a turn times one scale"),
        ({"node_children": [0]}, "stands in two places"),
        ({"node_mesh": 3}, "numbers below 1"),
        ({"view_byteLength": 1 << 30}, "ends at byte|within its view"),
        ({"view_byteLength": 5}, "within its view"),
        ({"view_buffer": 1}, "a part of one of 1 buffers"),
        ({"view_buffer": -1}, "a part of one of 1 buffers"),
        ({"buffers": [{"byteLength": 1 << 30}]}, "buffer 0 has byteLength 1073741824; its bytes are"),
        ({"buffers": [{}]}, "buffer 0 has byteLength None"),
        ({"buffers": [{"byteLength": 9, "uri": 7}]}, "below the same folder, for the uri 7"),
        ({"asset": {"version": "1.0"}}, "asset.version is '1.0'; the rule: 2.0"),
        ({"accessors": []}, "POSITION names 0; the rule: one of 0"),
        ({"meshes": [{"primitives": [{}]}]}, "has no Gaussians"),
        ({"scene": 4}, "scene is 4"),
    ],
)
def test_glb_files_that_are_wrong(tmp_path, changes, line):
    path = tmp_path / "a.glb"
    write_gaussians(path, scene(3, 0))
    glb_with(path, **changes)
    with pytest.raises(BadInput, match=line):
        read_gaussians(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput):
        read_gaussians(path)


def image(archive, meta, key, number=0):
    """[pixels, 4] of an image of a SOG."""
    with Image.open(io.BytesIO(archive.read(meta[key]["files"][number]))) as found:
        return np.array(found.convert("RGBA")).reshape(-1, 4).astype(float)


def test_a_sog_of_version_1_by_its_description(tmp_path, gaussians):
    write_gaussians(tmp_path / "a.sog", gaussians, 1)
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist()) and not archive.comment
        meta = json.loads(archive.read("meta.json"))
        assert "version" not in meta and meta["means"]["shape"] == [COUNT, 3]
        code = image(archive, meta, "means", 0)[:COUNT, :3] + 256 * image(archive, meta, "means", 1)[:COUNT, :3]
        low, high = (np.array(meta["means"][end]) for end in ("mins", "maxs"))
        n = low + (high - low) * code / 65535
        np.testing.assert_allclose(np.sign(n) * np.expm1(abs(n)), gaussians.means.T, atol=1e-3)
        for key, values in (
            ("scales", gaussians.log_scales),
            ("sh0", torch.cat([gaussians.base, gaussians.opacity_logits[None]])),
        ):
            low, high = (np.array(meta[key][end]) for end in ("mins", "maxs"))
            found = low + (high - low) * image(archive, meta, key)[:COUNT, : len(low)] / 255
            assert (abs(found - values.T.numpy()) <= (high - low) / 509).all()
        label = image(archive, meta, "shN", 1)[:COUNT]
        with Image.open(io.BytesIO(archive.read(meta["shN"]["files"][0]))) as found:
            entries = np.array(found.convert("RGB")).reshape(-1, 8, 3)[(label[:, 0] + 256 * label[:, 1]).astype(int)]
        low, high = meta["shN"]["mins"], meta["shN"]["maxs"]
        found = low + (high - low) * entries / 255
        assert abs(found.reshape(COUNT, 24) - gaussians.rest.T.numpy()).max() <= (high - low) / 509
    back = read_gaussians(tmp_path / "a.sog")
    assert differences(gaussians, back)["turns"] < 0.01 and differences(gaussians, back)["means"] < 1e-3


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("count", "degree"), [(1, 0), (2, 3), (1500, 1)])
def test_sogs_and_their_folders_are_stable(tmp_path, version, count, degree):
    found = scene(count, degree)
    for name in ("a.sog", "meta.json"):
        write_gaussians(tmp_path / name, found, version)
        back = read_gaussians(tmp_path / name)
        assert len(back) == count and back.degree == degree
        write_gaussians(tmp_path / name, back, version)
        again = differences(back, read_gaussians(tmp_path / name))
        again.pop("rest", None) if count > 1024 else None  # a palette of fewer entries than Gaussians is found anew
        # 8 bits of a codebook that is made anew from what it rounded to
        assert max(again[k] for k in again if k in ("means", "opacities")) < 2e-4 and again["turns"] < 6e-3


def test_versions_that_there_are_none_of(tmp_path):
    for ending, versions in VERSIONS.items():
        with pytest.raises(BadInput, match=f"the version is 9; the rule: {', '.join(map(str, versions))}"):
            write_gaussians(tmp_path / f"a{ending}", scene(3, 0), 9)
    with pytest.raises(BadInput, match=r"the version is 3; the rule: none for \.ply"):
        write_gaussians(tmp_path / "a.ply", scene(3, 0), 3)
    for ending in ("sog", "glb"):
        with pytest.raises(BadInput, match="there is no Gaussian to write"):
            write_gaussians(tmp_path / f"a.{ending}", scene(0, 0))
    assert not list(tmp_path.iterdir())


def test_a_codebook_is_near_and_covers_all():
    values = torch.randn(20000).numpy() ** 3
    book = codebook(values)
    assert (np.diff(book) >= 0).all() and book[0] == values.min() and book[-1] == values.max()
    found = book[nearest_codes(values, book)]
    assert np.allclose(abs(found - values), abs(values[:, None] - book).min(1), atol=1e-5)
    even = np.linspace(values.min(), values.max(), 256)
    assert ((found - values) ** 2).mean() < 0.1 * (abs(values[:, None] - even).min(1) ** 2).mean()
    few = np.array([3.0, 1, 3, 2], np.float32)
    assert (codebook(few)[nearest_codes(few, codebook(few))] == few).all()


def test_a_palette_finds_clusters(threads):
    centres = 4 * torch.randn(50, 9)
    vectors = centres.repeat(60, 1) + 0.01 * torch.randn(3000, 9)
    entries, labels = palette(vectors, 256)
    assert len(entries) <= 256 and (entries[labels] - vectors).norm(dim=1).mean() < 0.05
    for found, expected in threads(lambda: palette(vectors, 256)):
        assert torch.equal(found, expected)


def test_levels_of_detail_of_another_program(captures):
    with pytest.warns(RadfieldWarning, match=r"0_0/meta.json, 2_0/meta.json, .* are read from coarser|not there"):
        found = read_gaussians(captures / "gaussians/playcanvas/playbot/lod-meta.json")
    assert len(found) == 31000 and found.degree == 2  # the finest level whose files are there


def test_every_file_of_other_programs_is_read(captures):
    names = ("ply", "splat", "spz", "ksplat", "sog")
    files = [p for p in (captures / "gaussians").rglob("*") if p.suffix[1:] in names or p.name == "meta.json"]
    assert len(files) >= 15
    for path in files:
        assert len(read_gaussians(path)) > 0, path
