"""`load`: splits, held-out views, reduced images, and the two development captures."""

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.data import load
from radfield.errors import BadInput, RadfieldWarning


def test_every_eighth_image_by_name_is_held_out(capture):
    scene = load(capture(17, change=lambda content: content["frames"].reverse()))
    assert scene.val.names == ["images/000.png", "images/008.png", "images/016.png"]
    assert len(scene.train) == 14 and scene.test is None
    assert scene.train.names == sorted(scene.train.names) and not set(scene.train.names) & set(scene.val.names)


def test_cameras_and_images_stay_together(capture):
    scene = load(capture(9, change=lambda content: content["frames"].reverse()))
    for views in (scene.train, scene.val):
        for i, name in enumerate(views.names):
            number = int(name[7:10])
            assert views.images[i][0, 0].tolist() == [10 * number, 100, 200]
            origin = scene.transform.inverse().points(views.cameras.camera_to_world[i, :3, 3])
            expected = [4 * np.cos(number), 4 * np.sin(number), 0]
            assert origin.tolist() == pytest.approx(expected, abs=1e-5)


def test_holdout_does_not_move_the_scene(capture):
    folder = capture(9)
    scenes = [load(folder, holdout=holdout) for holdout in (0, 2, 8)]
    assert len({scene.transform for scene in scenes}) == 1
    assert scenes[0].val is None and len(scenes[0].train) == 9 and len(scenes[1].val) == 5


def test_photographs_are_surroundings_on_black(capture):
    scene = load(capture(9))
    assert (scene.cascades, scene.background, scene.has_alpha) == (5, "black", False)
    distance = (scene.train.cameras.camera_to_world[:, :3, 3] - 0.5).norm(dim=-1)
    torch.testing.assert_close(distance, torch.full((7,), 1.32))


def test_alpha_makes_an_object_on_white(capture):
    scene = load(capture(9, mode="RGBA"))
    assert (scene.cascades, scene.background, scene.has_alpha) == (1, "white", True)
    assert scene.train.images[0][0, 0].tolist() == [10, 100, 200, 128]


def test_an_opaque_alpha_channel_is_none(capture):
    folder = capture(4)
    for i in range(4):
        Image.new("RGBA", (16, 12), (1, 2, 3, 255)).save(folder / f"images/00{i}.png")
    scene = load(folder)
    assert not scene.has_alpha and scene.train.images.channels == 3


def test_mixed_alpha_is_opaque_where_absent(capture):
    folder = capture(4, mode="RGBA")
    capture.image("images/001.png", mode="RGB")
    scene = load(folder)
    assert scene.train.images[0][0, 0, 3] == 255 and scene.train.images[1][0, 0, 3] == 128


def test_only_the_wanted_split_is_decoded(capture):
    folder = capture(9)
    (folder / "images/003.png").write_bytes((folder / "images/003.png").read_bytes()[:48])
    scene = load(folder, split="val")
    assert scene.train.images is None and len(scene.train.cameras) == 7
    assert len(scene.val.images) == 2
    with pytest.raises(BadInput, match=r"images/003.png cannot be read as an image"):
        load(folder)


def test_max_size_reduces_images_and_cameras_together(capture):
    scene = load(capture(4, size=(16, 12), cx=7.0), max_size=8)
    cameras = scene.train.cameras
    assert cameras.size[0].tolist() == [8, 6] == scene.train.images.size[0].tolist()
    assert cameras.focal[0].tolist() == [10, 10] and cameras.principal[0].tolist() == [3.5, 3]
    assert load(capture.folder, max_size=100).train.cameras.size[0].tolist() == [16, 12]


def test_two_images_are_enough_and_one_is_not(capture):
    scene = load(capture(2))
    assert len(scene.train) == len(scene.val) == 1
    with pytest.raises(BadInput, match="has one image; at least two are needed"):
        load(capture(1))


def test_sixteen_bits_are_announced(capture):
    folder = capture(3)
    Image.fromarray(np.full((12, 16), 257 * 9, dtype=np.uint16)).save(folder / "images/001.png")
    with pytest.warns(RadfieldWarning, match=r"1 images have 16 bits per channel .* \(first: images/001.png\)"):
        scene = load(folder)
    assert scene.train.images[0][0, 0].tolist() == [9, 9, 9]


def test_a_lens_that_folds_inside_the_image_is_announced(capture):
    with pytest.warns(RadfieldWarning, match=r"no direction reaches \d+ % of the image's border"):
        load(capture(3, k1=-2.0))


def test_lens_models_may_differ_from_view_to_view(capture):
    one = load(capture(4), holdout=0).train.cameras
    folder = capture(4, change=lambda content: content["frames"][2].update(is_fisheye=True))
    mixed = load(folder, holdout=0).train.cameras
    assert mixed.model == ("perspective", "perspective", "fisheye", "perspective")
    same, fisheye = one.image_rays(0), mixed.image_rays(2)
    assert torch.equal(mixed.image_rays(0).directions, same.directions)
    # A fisheye's ray is r / f from its axis, a pinhole's atan(r / f).
    axis = mixed.camera_to_world[2, :3, 2]
    corner = (mixed.pixel_centres(2)[0] - mixed.principal[2]) / mixed.focal[2]
    assert torch.acos(fisheye.directions[0] @ axis).item() == pytest.approx(corner.norm().item(), rel=1e-4)


def test_positions_out_of_range_are_refused(capture):
    def change(content):
        content["frames"][2]["transform_matrix"][0][3] = 1e200

    with pytest.raises(BadInput, match="its camera is out of range"):
        load(capture(4, change=change, aabb_scale=1))


@pytest.mark.parametrize(
    "options, rule",
    [
        (dict(holdout=1), "holdout is 1; it must be 0"),
        (dict(holdout=-2), "holdout is -2"),
        (dict(max_size=0), "max_size is 0; it must be at least 1"),
        (dict(split="valid"), "split is 'valid'; it must be one of train, val, test"),
        (dict(split="test"), "has no test views; it has train, val"),
    ],
)
def test_bad_options(capture, options, rule):
    with pytest.raises(BadInput, match=rule):
        load(capture(4), **options)


def test_lego(captures):
    scene = load(captures / "nerf_synthetic_lego", max_size=100)
    assert (len(scene.train), len(scene.val), scene.test) == (100, 20, None)
    assert (scene.cascades, scene.background, scene.name) == (1, "white", "nerf_synthetic_lego")
    corner = scene.transform.inverse().points(torch.ones(3))
    torch.testing.assert_close(corner, torch.full((3,), 1.5), atol=0.02, rtol=0)
    assert scene.train.cameras.focal[0, 0].item() == pytest.approx(138.8889, abs=1e-3)


def test_fox(captures):
    with pytest.warns(RadfieldWarning, match="17 of 67 images"):
        scene = load(captures / "fox", split="val", max_size=240)
    assert scene.val.names[:2] == ["images/0001.jpg", "images/0012.jpg"]
    assert (len(scene.train), len(scene.val), scene.cascades) == (43, 7, 3)
    assert scene.val.images[0].shape == (240, 135, 3)
