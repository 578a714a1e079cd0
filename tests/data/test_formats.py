"""Readers of capture formats: files written here by hand in each form, the lies they may tell, and real captures."""

import io
import json
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from colmap_files import NAMES, PARAMS, as_text, cameras_bin, colmap, images_bin, points_bin, world_to_camera
from PIL import Image

from radfield.data import load
from radfield.data.array_files import read_npy, read_npz
from radfield.data.capture import ALL
from radfield.data.formats import FORMATS, read_capture
from radfield.data.neus import decompose
from radfield.errors import BadInput, RadfieldWarning


def images_of(capture):
    return capture.splits[ALL]


def test_colmap_binary(tmp_path):
    capture = read_capture(colmap(tmp_path))
    assert [image.name for image in images_of(capture)] == NAMES
    for i, image in enumerate(images_of(capture)):
        _, rotation, translation = world_to_camera(i)
        np.testing.assert_allclose(image.camera_to_world[:3, :3], rotation.T, atol=1e-12)
        np.testing.assert_allclose(image.camera_to_world[:3, 3], -rotation.T @ translation, atol=1e-12)
        assert (image.lens.focal, image.lens.principal) == ((20, 21), (8, 6))
    points = capture.points
    np.testing.assert_array_equal(points.position, [[0.1, 0.2, 0.3], [-0.1, 0, 0.5]])
    assert points.color.tolist() == [[255, 128, 0], [1, 2, 3]] and points.seen_start.tolist() == [0, 2, 2]
    assert [points.image_names[i] for i in points.seen_by] == [NAMES[0], NAMES[2]]


def test_colmap_text_is_the_same(tmp_path):
    folder = colmap(tmp_path)
    binary = read_capture(folder)
    text = read_capture(as_text(folder))
    for a, b in zip(images_of(binary), images_of(text), strict=True):
        assert (a.name, a.lens, a.path) == (b.name, b.lens, b.path)
        np.testing.assert_allclose(a.camera_to_world, b.camera_to_world, atol=1e-12)
    assert (binary.points.seen_by == text.points.seen_by).all() and (binary.points.color == text.points.color).all()


@pytest.mark.parametrize("model", PARAMS)
def test_every_colmap_lens(tmp_path, model):
    lens = images_of(read_capture(colmap(tmp_path, model)))[0].lens
    params = list(PARAMS[model])
    one_focal = model.startswith("SIMPLE") or model.startswith("RADIAL")
    assert lens.focal == ((20, 20) if one_focal else (20, 21)) and lens.principal == (8, 6)
    names = {"k1": 0, "k2": 1, "k3": 2, "k4": 3, "p1": 4, "p2": 5, "d1": 6, "d2": 7, "d3": 8}
    order = {
        "OPENCV": ("k1", "k2", "p1", "p2"),
        "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
        "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "d1", "d2", "d3"),
    }.get(model, ("k1", "k2"))
    given = params[3:] if one_focal else params[4:]
    expected = [0.0] * 9
    for name, value in zip(order, given, strict=False):
        expected[names[name]] = value
    assert list(lens.distortion) == expected
    assert lens.model == ("fisheye" if model.endswith("FISHEYE") else "perspective")
    scene = load(tmp_path, holdout=0)
    assert scene.train.cameras.model == lens.model


def test_colmap_scenes_stand_upright(tmp_path):
    scene = load(colmap(tmp_path), holdout=0)
    up = -scene.train.cameras.camera_to_world[:, :3, 1]
    torch.testing.assert_close(up, torch.tensor([[0.0, 0, 1]]).expand(3, 3), atol=1e-5, rtol=0)
    point = scene.transform.points(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    np.testing.assert_allclose(scene.points.position[0], point.numpy(), atol=1e-9)


@pytest.mark.parametrize(
    "files, rule",
    [
        (dict(images=None), r"lacks images.bin \(or images.txt\)"),
        (dict(cameras=None), r"lacks cameras.bin \(or cameras.txt\)"),
        (dict(images=images_bin()[:-20]), "images.bin (ends at byte|states 1 keypoints)"),
        (dict(images=images_bin()[:80]), "images.bin (ends|states 3 images)"),
        (dict(images=images_bin(count=2**60)), "images.bin states 1152921504606846976 images; .* are left"),
        (dict(images=images_bin(count=4)), "images.bin (ends|states)"),
        (dict(images=images_bin(camera=3)), "has camera 3, which the model lacks"),
        (dict(images=images_bin([])), "has no images"),
        (dict(images=images_bin(["../../etc/passwd", "b", "c"])), "leaves the capture's folder"),
        (dict(cameras=cameras_bin()[:30]), "cameras.bin"),
        (dict(cameras=cameras_bin(count=2**63)), "cameras.bin states 9223372036854775808 cameras"),
        (dict(cameras=cameras_bin("FOV")), "camera 7 has the model FOV; it must be one of SIMPLE_PINHOLE"),
        (dict(cameras=struct.pack("<QIiQQ", 1, 7, 99, 1, 1)), "has the model 99; known are 0 to"),
        (dict(cameras=cameras_bin(size=(2**40, 3))), "sides must be from 1 to"),
        (dict(points3D=points_bin(2**50)), "points3D.bin states"),
        (dict(points3D=points_bin()[:100]), "points3D.bin (ends|states)"),
    ],
)
def test_broken_colmap_models(tmp_path, files, rule):
    with pytest.raises(BadInput, match=rule) as error:
        read_capture(colmap(tmp_path, **files))
    assert "\n" not in str(error.value)


def test_colmap_files_cut_anywhere_are_bad_input(tmp_path):
    whole = images_bin()
    file = colmap(tmp_path) / "sparse/0/images.bin"
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        with pytest.raises(BadInput):
            read_capture(tmp_path)


def test_poses_with_nan(tmp_path):
    data = bytearray(images_bin())
    data[12:20] = struct.pack("<d", float("nan"))
    with pytest.raises(BadInput, match=r"image 'a view.png': its pose has NaN"):
        read_capture(colmap(tmp_path, images=bytes(data)))


def test_the_largest_of_several_models(tmp_path):
    folder = colmap(tmp_path)
    (folder / "sparse/1").mkdir()
    for name, data in (("cameras", cameras_bin()), ("images", images_bin(NAMES[:2])), ("points3D", points_bin())):
        (folder / f"sparse/1/{name}.bin").write_bytes(data)
    (folder / "sparse/0").rename(folder / "sparse/2")
    with pytest.warns(RadfieldWarning, match=r"of 2 models the one with most images is taken, 2: 3 \(1: 2\)"):
        assert len(images_of(read_capture(folder))) == 3


def test_missing_images_are_one_warning(tmp_path):
    folder = colmap(tmp_path)
    (folder / "images" / NAMES[1]).unlink()
    with pytest.warns(RadfieldWarning, match="1 of 3 images do not exist") as said:
        assert len(images_of(read_capture(folder))) == 2
    assert len(said) == 1
    for name in (NAMES[0], NAMES[2]):
        (folder / "images" / name).unlink()
    with pytest.raises(BadInput, match=r"none of the 3 images in .* exists"):
        read_capture(folder)


def test_the_models_folder_itself_is_a_capture(tmp_path):
    folder = colmap(tmp_path)
    assert [i.path for i in images_of(read_capture(folder / "sparse/0"))] == [
        i.path for i in images_of(read_capture(folder))
    ]


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def llff(folder, count=4, change=lambda rows: rows):
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(count):
        _, rotation, translation = world_to_camera(i)
        right, down, forward = rotation
        matrix = np.stack((down, right, -forward, -rotation.T @ translation, (12, 16, 20)), 1)
        rows.append(np.concatenate((matrix.ravel(), (1.0, 9.0))))
        Image.new("RGB", (16, 12)).save(folder / f"images/{i:03d}.png")
    (folder / "poses_bounds.npy").write_bytes(npy(change(np.array(rows))))
    return folder


def test_llff(tmp_path):
    capture = read_capture(llff(tmp_path))
    for i, image in enumerate(images_of(capture)):
        _, rotation, translation = world_to_camera(i)
        np.testing.assert_allclose(image.camera_to_world[:3, :3], rotation.T, atol=1e-12)
        np.testing.assert_allclose(image.camera_to_world[:3, 3], -rotation.T @ translation, atol=1e-12)
        assert (image.lens.focal, image.lens.principal, image.lens.size) == ((20, 20), (8, 6), (16, 12))


@pytest.mark.parametrize(
    "change, rule",
    [
        (lambda rows: rows[:, :16], "has the shape 4x16; it must be Vx17"),
        (lambda rows: rows[:3], "has 3 poses but images/ has 4 images"),
        (lambda rows: rows * np.nan, "000.png: .* has NaN or infinite entries"),
        (lambda rows: rows * 2, "scales by 2; a pose must be rigid"),
    ],
)
def test_broken_llff(tmp_path, change, rule):
    with pytest.raises(BadInput, match=rule):
        read_capture(llff(tmp_path, change=change))


@pytest.mark.parametrize(
    "data, rule",
    [
        (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "pickled Python objects, which are never loaded"),
        (npy(np.array(["text"])), "it must be an array of numbers"),
        (npy(np.ones((2, 17))).replace(b"(2, 17)", b"(9**9,)"), "damaged header|states"),
        (
            npy(np.ones((22, 17))).replace(b"(22, 17), ", b"(99999999,)"),
            r"states 99999999 numbers .* but holds 2993 bytes",
        ),
        (npy(np.ones((2, 17)))[:100], "header|states"),
        (npy(np.ones((2, 17)))[:-1], "states 34 numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "header of 65535 bytes"),
        (b"GIF89a" + bytes(40), "is not a .npy file"),
        (b"", "is not a .npy file"),
    ],
)
def test_arrays_that_lie(tmp_path, data, rule):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(BadInput, match=rule):
        read_npy(tmp_path / "x.npy")


def test_arrays_are_read_as_numpy_does(tmp_path):
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.float32([1, 2])):
        (tmp_path / "x.npy").write_bytes(npy(array))
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)


def test_archives_that_lie(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, a=np.array([None], dtype=object))
    with pytest.raises(BadInput, match="pickled Python objects"):
        read_npz(file)
    np.savez(file, a=np.eye(4))
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(BadInput, match=r"is not a whole .npz file"):
        read_npz(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(300 << 20))
    with pytest.raises(BadInput, match="unpacks to more than"):
        read_npz(file)


K = np.array([[20.0, 0, 7.5], [0, 21, 5.5], [0, 0, 1]])


def neus(folder, count=4, masks=True, change=lambda arrays: None):
    arrays = {}
    for i in range(count):
        _, rotation, translation = world_to_camera(i)
        world = np.eye(4)
        world[:3] = (-1) ** i * 3 * K @ np.column_stack((rotation, translation))  # homogeneous: any factor
        arrays[f"world_mat_{i}"], arrays[f"scale_mat_{i}"] = world, np.diag([2.0, 2, 2, 1])
        for name, mode in (("image", "RGB"), ("mask", "L")) if masks else (("image", "RGB"),):
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture = Image.new(mode, (16, 12), 255 if mode == "L" else (9, 9, 9))
            if mode == "L":
                picture.paste(0, (0, 0, 4, 12))
            picture.save(folder / name / f"{i:0{6 if mode == 'RGB' else 3}d}.png")
    change(arrays)
    np.savez(folder / "cameras_sphere.npz", **arrays)
    return folder


def test_neus(tmp_path):
    capture = read_capture(neus(tmp_path))
    for i, image in enumerate(images_of(capture)):
        _, rotation, translation = world_to_camera(i)
        np.testing.assert_allclose(image.camera_to_world[:3, :3], rotation.T, atol=1e-12)
        np.testing.assert_allclose(image.camera_to_world[:3, 3], -rotation.T @ translation, atol=1e-12)
        np.testing.assert_allclose(image.lens.focal + image.lens.principal, (20, 21, 8, 6), atol=1e-12)
    scene = load(tmp_path, holdout=0)
    assert scene.has_alpha and scene.cascades == 1 and scene.background == "white"
    assert scene.train.images[0][..., 3].tolist() == [[0] * 4 + [255] * 12] * 12
    assert scene.transform.scale == pytest.approx(0.25)
    assert scene.transform.points(torch.zeros(3)).tolist() == pytest.approx([0.5] * 3)


def test_neus_without_masks_keeps_the_surroundings(tmp_path):
    scene = load(neus(tmp_path, masks=False), holdout=0)
    assert not scene.has_alpha and scene.cascades == 5


def test_projections_are_taken_apart():
    generator = np.random.default_rng(0)
    for _ in range(20):
        rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
        rotation *= np.linalg.det(rotation)
        translation, factor = generator.normal(size=3), generator.normal()
        focal, principal, pose = decompose(factor * K @ np.column_stack((rotation, translation)), "here")
        np.testing.assert_allclose((*focal, *principal), (20, 21, 7.5, 5.5), rtol=1e-9)
        np.testing.assert_allclose(pose[:3, :3], rotation.T, atol=1e-9)
        np.testing.assert_allclose(pose[:3, 3], -rotation.T @ translation, atol=1e-9)


@pytest.mark.parametrize(
    "change, rule",
    [
        (lambda a: a.pop("world_mat_2"), "has 3 world_mat but image/ has 4 images"),
        (lambda a: a.update(world_mat_1=np.full((4, 4), np.nan)), "world_mat_1 has NaN"),
        (lambda a: a.update(world_mat_1=np.zeros((4, 4))), "world_mat_1 is singular"),
        (lambda a: a.update(world_mat_1=np.eye(3)), "world_mat_1 is 3x3"),
        (lambda a: a.update(scale_mat_0=np.zeros((4, 4))), "scale_mat_0 is singular"),
    ],
)
def test_broken_neus(tmp_path, change, rule):
    with pytest.raises(BadInput, match=rule):
        read_capture(neus(tmp_path, change=change))


def middlebury(folder, lines=3, change=lambda text: text):
    rows = [str(lines)]
    for i in range(3):
        _, rotation, translation = world_to_camera(i)
        name = f"view {i}.png"
        Image.new("RGB", (16, 12)).save(folder / name)
        rows.append(" ".join([name, *(repr(float(v)) for v in (*K.ravel(), *rotation.ravel(), *translation))]))
    (folder / "thing_par.txt").write_text(change("\n".join(rows)))
    return folder


def test_middlebury(tmp_path):
    capture = read_capture(middlebury(tmp_path))
    for i, image in enumerate(images_of(capture)):
        _, rotation, _ = world_to_camera(i)
        assert image.name == f"view {i}.png" and image.lens.principal == (8, 6) and image.lens.focal == (20, 21)
        np.testing.assert_allclose(image.camera_to_world[:3, :3], rotation.T, atol=1e-12)


@pytest.mark.parametrize(
    "lines, change, rule",
    [
        (4, lambda text: text, "begins with '4' and has 3 cameras"),
        (3, lambda text: text.replace("21.0", "nan", 1), "it must be an image's name and 21 numbers"),
        (3, lambda text: text.replace("20.0", "-20.0", 1), "focal lengths must be positive"),
        (3, lambda text: text.replace("20.0", "", 1), "it must be an image's name and 21 numbers|stretches|scales"),
        (3, lambda text: "", "begins with ''"),
    ],
)
def test_broken_middlebury(tmp_path, lines, change, rule):
    with pytest.raises(BadInput, match=rule):
        read_capture(middlebury(tmp_path, lines, change))


def opensfm(folder, change=lambda content: None):
    (folder / "images").mkdir()
    camera = {"projection_type": "perspective", "width": 16, "height": 12, "focal": 1.25, "k1": 0.1, "k2": -0.05}
    content = {
        "cameras": {"c": camera},
        "shots": {},
        "points": {"5": {"coordinates": [1, 2, 3], "color": [1, 2.5, 300]}},
    }
    for i in range(3):
        Image.new("RGB", (16, 12)).save(folder / f"images/{i}.jpg")
        _, _, translation = world_to_camera(i)
        content["shots"][f"{i}.jpg"] = {
            "rotation": [0, 0.4 * i + 0.2, 0], "translation": translation.tolist(), "camera": "c"
        }  # fmt: skip
    change(content)
    (folder / "reconstruction.json").write_text(json.dumps([content]))
    return folder


def test_opensfm(tmp_path):
    capture = read_capture(opensfm(tmp_path))
    for i, image in enumerate(images_of(capture)):
        _, rotation, translation = world_to_camera(i)
        np.testing.assert_allclose(image.camera_to_world[:3, :3], rotation.T, atol=1e-12)
        np.testing.assert_allclose(image.camera_to_world[:3, 3], -rotation.T @ translation, atol=1e-12)
        assert (image.lens.focal, image.lens.principal) == ((20, 20), (8, 6)) and image.lens.distortion[:2] == (
            0.1,
            -0.05,
        )
    assert capture.points.position.tolist() == [[1, 2, 3]] and capture.points.color.tolist() == [[1, 2, 255]]


@pytest.mark.parametrize(
    "change, rule",
    [
        (lambda c: c.pop("shots"), "has no shots"),
        (lambda c: c["shots"]["1.jpg"].update(camera="x"), "has the camera 'x', which the file lacks"),
        (lambda c: c["shots"]["1.jpg"].update(rotation=[1, 2]), "it must be a list of 3 numbers"),
        (lambda c: c["shots"]["1.jpg"].update(translation=[1, 2, float("nan")]), "must be finite"),
        (lambda c: c["cameras"]["c"].update(projection_type="dual"), "projection_type 'dual'; it must be one of"),
        (lambda c: c["cameras"]["c"].pop("focal"), "has no focal length"),
    ],
)
def test_broken_opensfm(tmp_path, change, rule):
    with pytest.raises(BadInput, match=rule):
        read_capture(opensfm(tmp_path, change))


def test_what_was_looked_for_is_listed(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput) as error:
        read_capture(tmp_path)
    for part in (
        "transforms.json",
        "images.bin",
        "poses_bounds.npy",
        "cameras_sphere.npz",
        "_par.txt",
        "reconstruction",
    ):
        assert part in str(error.value)
    with pytest.raises(BadInput, match="format is 'blend'; it must be one of transforms, colmap"):
        read_capture(tmp_path, "blend")
    assert len(FORMATS) == 6


@pytest.mark.parametrize(
    "name, train, val, alpha",
    [
        ("fox", 43, 7, False),
        ("nerf_synthetic_lego", 100, 20, True),
        ("dtu_scan37_half", 42, 7, True),
        ("middlebury_templeRing_partial", 16, 3, False),
    ],
)
def test_real_captures(captures, name, train, val, alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RadfieldWarning)  # of images that are not there
        scene = load(captures / name, max_size=40)
    assert (len(scene.train), len(scene.val), scene.has_alpha) == (train, val, alpha)
