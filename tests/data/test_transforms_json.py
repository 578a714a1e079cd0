"""transforms.json: three dialects read, and each kind of bad input refused in one line."""

import json

import numpy as np
import pytest

from radfield.data import load
from radfield.data.capture import ALL
from radfield.data.formats import read_capture as read_transforms
from radfield.errors import BadInput, RadfieldWarning


def names(images) -> list[str]:
    return [image.name for image in images]


def test_instant_ngp_box(capture):
    box = read_transforms(capture(aabb_scale=4)).box
    assert (box.transform.scale, box.transform.offset, box.cascades) == (0.33, (0.5, 0.5, 0.5), 3)
    box = read_transforms(capture(scale=0.5, offset=[0.1, 0.2, 0.3])).box
    assert (box.transform.scale, box.transform.offset, box.cascades) == (0.5, (0.1, 0.2, 0.3), 1)


def test_a_world_whose_axes_mean_nothing_says_so(capture):
    assert read_transforms(capture()).upright is True
    assert read_transforms(capture(upright=False)).upright is False
    for wrong in (0, "no", [False]):
        with pytest.raises(BadInput, match=r"upright is .*; it must be true or false"):
            read_transforms(capture(upright=wrong))


def test_stated_aabb_fills_the_unit_cube(capture):
    transform = read_transforms(capture(aabb=[[-1, 0, 0], [3, 2, 1]])).box.transform
    assert transform.scale == 0.25
    assert transform.offset == (0.5 - 0.25 * 1, 0.5 - 0.25 * 1, 0.5 - 0.25 * 0.5)


def test_without_box_keys_there_is_no_box(capture):
    assert read_transforms(capture()).box is None


@pytest.mark.parametrize("aabb_scale", [0, 3, 256, -4, 1.5, "4"])
def test_aabb_scale_is_a_power_of_two(capture, aabb_scale):
    with pytest.raises(BadInput, match=r"aabb_scale is .*; it must be a (power of two from 1 to 128|number)"):
        read_transforms(capture(aabb_scale=aabb_scale))


def test_poses_become_opencv(capture):
    pose = read_transforms(capture()).splits[ALL][2].camera_to_world
    np.testing.assert_allclose(pose, np.array(capture.pose(2)) * (1, -1, -1, 1), atol=1e-15)
    np.testing.assert_allclose(pose[:3, 2], -pose[:3, 3] / 4, atol=1e-15, err_msg="it looks at the origin")


def test_intrinsics_per_frame_with_sizes_of_their_own(capture):
    def change(content):
        content["frames"][1] |= {"w": 32, "h": 24, "fl_x": 40.0, "k1": 0.1}

    folder = capture(change=change, w=16, h=12)
    capture.image("images/001.png", size=(32, 24))
    first, second = read_transforms(folder).splits[ALL][:2]
    assert (first.lens.size, first.lens.focal) == ((16, 12), (20, 20))
    assert (second.lens.size, second.lens.focal, second.lens.distortion[0]) == ((32, 24), (40, 40), 0.1)


def test_nerf_synthetic_splits_and_names_without_extension(capture):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        content = {
            "camera_angle_x": 0.7,
            "frames": [{"file_path": f"./{split}/r_{i}", "transform_matrix": capture.pose(i)} for i in range(count)],
        }
        for i in range(count):
            capture.image(f"{split}/r_{i}.png", mode="RGBA")
        folder = capture.json(content, f"transforms_{split}.json")
    splits = read_transforms(folder).splits
    assert {k: len(v) for k, v in splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert names(splits["train"]) == ["train/r_0", "train/r_1", "train/r_2"]
    assert splits["train"][0].lens.focal[0] == pytest.approx(8 / np.tan(0.35))


def test_nerfstudio_filenames(capture):
    train = [f"images/00{i}.png" for i in (0, 1, 2)]
    folder = capture(
        train_filenames=train,
        val_filenames=["./images/003.png"],
        test_filenames=["images/005.png"],
        camera_model="OPENCV",
        applied_transform=[[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]],
        orientation_override="none",
    )
    splits = read_transforms(folder).splits
    assert names(splits["train"]) == train
    assert (names(splits["val"]), names(splits["test"])) == (["images/003.png"], ["images/005.png"])


def test_without_train_filenames_the_rest_is_for_training(capture):
    splits = read_transforms(capture(3, test_filenames=["images/001.png"])).splits
    assert names(splits["train"]) == ["images/000.png", "images/002.png"]


def test_missing_images_are_skipped_with_one_warning(capture):
    folder = capture(6)
    for i in (1, 2, 4, 5):
        (folder / f"images/00{i}.png").unlink()
    message = r"^4 of 6 images do not exist and are skipped: images/001.png, images/002.png, images/004.png, \.\.\.$"
    with pytest.warns(RadfieldWarning, match=message) as record:
        assert names(read_transforms(folder).splits[ALL]) == ["images/000.png", "images/003.png"]
    assert len(record) == 1


def test_uniformly_reduced_images_scale_their_intrinsics(capture):
    folder = capture(w=160, h=120, fl_x=200.0, cx=90, cy=60)
    with pytest.warns(RadfieldWarning, match=r"6 images are scaled .*first: 16x12 for 160x120"):
        lens = read_transforms(folder).splits[ALL][0].lens
    assert (lens.size, lens.focal, lens.principal) == ((16, 12), (20, 20), (9, 6))


def test_masks_are_found_where_the_frame_says(capture):
    def change(content):
        content["frames"][0]["mask_path"] = "stencils/0.png"

    with pytest.raises(BadInput, match=r"its mask stencils/0.png does not exist"):
        read_transforms(capture(change=change))
    capture.image("stencils/0.png", mode="L")
    images = read_transforms(capture.folder).splits[ALL]
    assert images[0].mask.path.name == "0.png" and not images[0].mask.transparent and images[1].mask is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/000.png", "images/../../x.png", "..", "..\\x.png"])
def test_images_outside_the_capture_are_refused(capture, name):
    (capture.folder.parent / "other").mkdir()
    capture.image("../other/000.png")

    def change(content):
        content["frames"][3]["file_path"] = name

    with pytest.raises(BadInput, match=r"frame 3 .*: file_path leaves the capture's folder; images must lie inside"):
        read_transforms(capture(change=change))


def test_a_way_out_and_back_in_stays_inside(capture):
    def change(content):
        content["frames"][0]["file_path"] = "elsewhere/../images/000.png"

    assert names(read_transforms(capture(change=change)).splits[ALL])[0] == "images/000.png"


def set_frame(**values):
    return lambda content: content["frames"][1].update(values)


def drop(key):
    return lambda content: content["frames"][1].pop(key)


@pytest.mark.parametrize(
    "change, rule",
    [
        (lambda c: c.pop("frames"), "has no frames"),
        (lambda c: c.update(frames=[]), "has no frames"),
        (lambda c: c.update(frames={"a": 1}), "has no frames"),
        (lambda c: c.update(frames=[1, 2]), "frame 0 is a int; it must be an object"),
        (lambda c: c.pop("fl_x"), r"frame 0 \(images/000.png\) has no intrinsics"),
        (lambda c: c.update(fl_x=0), "fl_x is 0; it must be positive"),
        (lambda c: c.update(from_mitsuba=True), "from_mitsuba is not supported"),
        (lambda c: c.update(w=20, h=12), "000.png is 16x12 but 20x12 is declared"),
        (lambda c: c.update(w=12, h=16), "000.png is 16x12 but 12x16 is declared"),
        (lambda c: c.update(train_filenames="all"), "train_filenames must be a list"),
        (lambda c: c.update(train_filenames=["none.png"]), "training needs at least one"),
        (lambda c: c.update(scale=1, offset=[0, 1]), "offset is .*; it must be a list of 3 numbers"),
        (lambda c: c.update(aabb=[[0, 0, 0], [0, 0, 0]]), "its second corner must lie above"),
        (set_frame(transform_matrix=np.eye(4)[:3].tolist()), r"frame 1 \(images/001.png\): .* is 3x4; it must be 4x4"),
        (set_frame(transform_matrix=np.diag([2, 2, 2, 1]).tolist()), "scales by 2; a pose must be rigid"),
        (set_frame(transform_matrix=[[float("nan")] * 4] * 4), "NaN or infinite"),
        (drop("transform_matrix"), r"frame 1 \(images/001.png\) has no transform_matrix"),
        (drop("file_path"), "frame 1: file_path is None; it must be a file path"),
        (set_frame(file_path=7), "frame 1: file_path is 7"),
        (set_frame(camera_model="ORTHOPHOTO"), "camera_model is 'ORTHOPHOTO'"),
    ],
)
def test_bad_json_content(capture, change, rule):
    with pytest.raises(BadInput, match=rule) as error:
        load(capture(change=change))
    assert "\n" not in str(error.value)


def test_names_that_no_file_can_have_count_as_missing(capture):
    for name in ("a\0b", "x" * 5000):
        with pytest.warns(RadfieldWarning, match=r"1 of 6 images"):
            read_transforms(capture(change=set_frame(file_path=name)))


def test_images_of_different_sizes(capture):
    folder = capture()
    capture.image("images/004.png", size=(20, 15))
    with pytest.raises(BadInput, match=r"images differ in size: images/000.png is 16x12, images/004.png is 20x15"):
        read_transforms(folder)


def test_all_images_missing(capture):
    with pytest.raises(BadInput, match=r"none of the 6 images in transforms.json exists \(first: images/000.png\)"):
        read_transforms(capture.json(capture.content()))


@pytest.mark.parametrize("text", ["", "{", "not JSON", "\xff", '{"frames": [}'])
def test_json_that_is_none(capture, text):
    with pytest.raises(BadInput, match=r"transforms.json is not valid JSON"):
        read_transforms(capture.json(text))


def test_json_of_another_kind(capture):
    with pytest.raises(BadInput, match=r"holds a list; it must be a JSON object"):
        read_transforms(capture.json("[]"))


def test_paths_that_are_no_capture(capture):
    with pytest.raises(BadInput, match=r"absent does not exist; a capture is a folder with transforms.json"):
        read_transforms(capture.folder / "absent")
    with pytest.raises(BadInput, match=r"is empty; a capture is"):
        read_transforms(capture.folder)
    (capture.folder / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match=r"has no transforms.json or transforms_train.json"):
        read_transforms(capture.folder)
    with pytest.raises(BadInput, match=r"notes.txt is a file; a capture is a folder"):
        read_transforms(capture.folder / "notes.txt")


@pytest.mark.parametrize("inside", ["", "images/"])
def test_bare_photographs_need_poses(capture, inside):
    for i in range(3):
        capture.image(f"{inside}{i}.jpg")
    with pytest.raises(BadInput, match=r"has 3 photographs but no transforms.json.*poses are needed"):
        read_transforms(capture.folder)


def test_one_json_file_can_be_given(capture):
    folder = capture()
    (folder / "other.json").write_text(json.dumps(capture.content(2)))
    found = read_transforms(folder / "other.json")
    assert found.path == folder and len(found.splits[ALL]) == 2


def test_fox(captures):
    with pytest.warns(RadfieldWarning, match=r"17 of 67 images do not exist and are skipped: images/0005.jpg"):
        found = read_transforms(captures / "fox")
    assert len(found.splits[ALL]) == 50 and found.box.cascades == 3
    lens = found.splits[ALL][0].lens
    assert (lens.focal, lens.principal, lens.size) == ((1375.52, 1374.49), (554.558, 965.268), (1080, 1920))
    assert lens.distortion == (0.0578421, -0.0805099, 0, 0, -0.000980296, 0.00015575)
