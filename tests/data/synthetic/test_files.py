"""Synthetic captures on disk: what is written, read and asked for agree."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.data import load
from radfield.data.synthetic import synthetic_cameras, synthetic_image, synthetic_scene, write_synthetic_capture
from radfield.data.synthetic.catalog import for_photographs
from radfield.errors import BadInput

SMALL = dict(views=5, val_views=2, size=(40, 32))


def digest(root) -> dict:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(
    ("format", "lens", "name"),
    [
        ("nerf-synthetic", "pinhole", "solids"),
        ("nerfstudio", "distorted", "carved"),
        ("nerfstudio", "fisheye", "courtyard"),
        ("instant-ngp", "distorted", "courtyard"),
        ("instant-ngp", "fisheye", "glossy"),
    ],
)
def test_a_capture_is_read_back_as_it_was_made(tmp_path, format, lens, name):
    write_synthetic_capture(tmp_path / "c", name, format=format, lens=lens, **SMALL)
    scene, made = load(tmp_path / "c"), synthetic_scene(name)
    assert scene.has_alpha != made.open_sky
    expected = synthetic_cameras(made, 5, (40, 32), lens=lens)
    if format == "instant-ngp":  # no held-out views of its own: the first of the eighths
        assert (len(scene.train), len(scene.val)) == (6, 1)
        expected = expected[1:]
        assert scene.cascades == (4 if made.open_sky else 1)
    else:
        assert (len(scene.train), len(scene.val)) == (5, 2)
    read = scene.transform.inverse().cameras(scene.train.cameras)
    for i in range(4):
        ours, theirs = expected.image_rays(i), read.image_rays(i)
        assert (ours.directions - theirs.directions).norm(dim=-1).max() < 1e-5
        torch.testing.assert_close(ours.origins, theirs.origins, atol=1e-5, rtol=0)
        image = synthetic_image(made, expected, i)
        assert torch.equal(scene.train.images[i], image[..., : scene.train.images.channels])


def test_truth_is_depth_along_the_ray_normals_and_masks(tmp_path):
    folder = write_synthetic_capture(tmp_path / "c", "glass", truth=True, **SMALL)
    made = synthetic_scene("glass")
    cameras = synthetic_cameras(made, 5, (40, 32))
    seen = made.surface(cameras.image_rays(3))
    with np.load(folder / "truth" / "train_r_003.npz", allow_pickle=False) as truth:
        depth, normal, mask, shape = (torch.from_numpy(truth[k]) for k in ("depth", "normal", "mask", "shape"))
    same = shape.view(-1) == seen.index
    assert same.float().mean() > 0.995 and depth.shape == (32, 40) and normal.shape == (32, 40, 3)
    hit = same & seen.depth.isfinite()
    assert (depth.view(-1) - seen.depth)[hit].abs().median() < 1e-5
    assert set(mask.unique().tolist()) == {0, 1, 2}
    assert torch.equal(mask.view(-1)[same] == 2, seen.clear[same])
    alpha = torch.from_numpy(np.array(Image.open(folder / "train" / "r_003.png")))[..., 3]
    assert (alpha[mask == 1] > 0).all()
    lens = json.loads((folder / "truth" / "cameras.json").read_text())
    assert (lens["w"], lens["h"], len(lens["frames"])) == (40, 32, 7)


def test_photographs_are_bare_and_know_their_focal_length(tmp_path):
    folder = write_synthetic_capture(tmp_path / "c", "carved", format="photographs", views=3, size=(60, 40))
    assert sorted(p.name for p in folder.iterdir()) == ["photo_0001.jpg", "photo_0002.jpg", "photo_0003.jpg"]
    scene = for_photographs(synthetic_scene("carved"))
    cameras = synthetic_cameras(scene, 3, (60, 40), walk=True)
    with Image.open(folder / "photo_0002.jpg") as picture:
        exif = picture.getexif()
        details = exif.get_ifd(0x8769)
        found = torch.from_numpy(np.array(picture)).float()
    assert (exif[0x010F], exif[0x0110]) == ("radfield", "synthetic")
    focal = float(cameras.focal[0, 0])
    assert float(details[0x920A]) / 23.5 * 60 == pytest.approx(focal, rel=1e-3)
    assert details[0xA405] / np.hypot(36, 24) * np.hypot(60, 40) == pytest.approx(focal, rel=0.02)
    assert (found - synthetic_image(scene, cameras, 1)[..., :3].float()).abs().mean() < 6


def test_the_same_arguments_give_the_same_files(tmp_path):
    options = dict(truth=True, **SMALL)
    first = digest(write_synthetic_capture(tmp_path / "a", "wires", **options))
    assert digest(write_synthetic_capture(tmp_path / "b", "wires", **options)) == first and len(first) == 17
    assert digest(write_synthetic_capture(tmp_path / "c", "wires", seed=1, **options)) != first


def test_an_older_capture_is_replaced_only_when_told_and_other_folders_never(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()  # an empty one is as good as none
    write_synthetic_capture(folder, **SMALL)
    with pytest.raises(BadInput, match="exists and is not empty; the rule: a new folder"):
        write_synthetic_capture(folder, **SMALL)
    write_synthetic_capture(folder, "wires", format="nerfstudio", overwrite=True, **SMALL)
    assert sorted(p.name for p in folder.iterdir()) == ["images", "transforms.json"]
    (folder / "thesis.txt").write_text("years")
    with pytest.raises(BadInput, match=r"has thesis\.txt, which no synthetic capture has"):
        write_synthetic_capture(folder, overwrite=True, **SMALL)
    assert (folder / "thesis.txt").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_nothing_is_left_of_an_interrupted_capture(tmp_path):
    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_capture(tmp_path / "c", progress=stop, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (dict(views=0), "views, val_views are 0, 6; the rule: at least 1, 0"),
        (dict(format="blend"), "format is 'blend'; the rule: one of nerf-synthetic"),
        (dict(lens="fisheye"), "lens is 'fisheye'; the rule: nerf-synthetic captures are pinhole"),
        (dict(scene="teapot"), "scene is 'teapot'; the rule: one of solids"),
        (dict(size=0), "size is 0x0"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path, options, rule):
    with pytest.raises(BadInput, match=rule):
        write_synthetic_capture(tmp_path / "c", **options)
    assert list(tmp_path.iterdir()) == []
