"""`radfield edit`: a run of sparse voxels, edited, is a run."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import radfield
from radfield.apps import ngp
from radfield.apps.command_line import main
from radfield.apps.ngp.training import FieldTraining
from radfield.apps.run_files import scene_from
from radfield.data import load
from radfield.errors import RadfieldWarning
from radfield.fields.voxel_edits import Voxels, put, voxels_of
from radfield.fields.voxel_occupancy import update_occupancy
from radfield.training.checkpoint import load_checkpoint
from radfield.training.run_folder import RunFolder
from radfield.viewer import crop

EVERYTHING = ("-100", "-100", "-100", "100", "100", "100")


@pytest.fixture(scope="module")
def voxels(trained, tiny_capture, tmp_path_factory):
    """A run of sparse voxels: a coloured ball that is denser on top, in the scene of the tiny run; and its cameras."""
    run = tmp_path_factory.mktemp("runs") / "voxels"
    config = json.loads((trained[0] / "config.json").read_text())
    config["ngp"]["encoding"] = "sparse"
    folder = RunFolder.create(run)
    folder.start(config)
    model = ngp.build(ngp.config_from(config), **scene_from(folder))
    put(model.field, ball_of_voxels())
    model.grid.values.zero_()
    update_occupancy(model.grid, ball_of_voxels().select([]), ball_of_voxels())
    training = FieldTraining(model, seed=0)
    training.step = 60
    training.save(folder)
    return run, load(tiny_capture, split=()).val.cameras.scaled(0.5)


def ball_of_voxels(n=34):
    vertex = torch.arange(n**3)
    whole = Voxels(n, 1, "exp", vertex, torch.zeros(n**3), torch.zeros(n**3, 27))
    x = whole.positions().float()
    distance = (x - 0.5).norm(dim=1)
    value = torch.where(distance < 0.3, 3 + x[:, 2], -5.0)
    harmonics = 3 * torch.sin(5 * x[:, :1] + torch.linspace(0, 4, 27))
    return replace(whole, value=value, colors=harmonics).select(distance < 0.36)


def edit(run, output, *options):
    return main(["edit", str(run), "--output", str(output), *map(str, options)])


def same_model(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


def half_of(model):
    """Two boxes in the capture's units: the lower half of the scene's cube in x, and the cube's height."""
    back = model.transform.inverse()
    corners = back.points(torch.tensor([[-0.1, -0.1, -0.1], [0.5, 1.1, 1.1]], dtype=torch.float64))
    return [f"{v:.6f}" for v in torch.cat([corners.amin(0), corners.amax(0)]).tolist()]


def test_deleting_everything_leaves_the_background(voxels, tmp_path, command):
    run, cameras = voxels
    code, figures, _ = command("edit", run, "--output", tmp_path / "run", "--delete-box", *EVERYTHING, "--json")
    assert code == 0 and figures["voxels"] == 0 and figures["deleted"] > 1000
    model = radfield.load(tmp_path / "run")
    view = model.render_view(cameras, 0, torch.tensor([0.2, 0.5, 0.9]))
    assert (view.color == torch.tensor([0.2, 0.5, 0.9])).all() and (view.opacity == 0).all()
    assert radfield.load(run).render_view(cameras, 0).opacity.max() > 0.5


def test_rays_through_a_deleted_box_alone_see_the_background(voxels, tmp_path):
    run, _ = voxels
    model = radfield.load(run)
    assert edit(run, tmp_path / "run", "--delete-box", *half_of(model)) == 0
    cut = radfield.load(tmp_path / "run")
    origins = torch.rand(400, 3) * torch.tensor([0.45, 1.0, 0.0]) + torch.tensor([0.0, 0.0, -1.0])
    color, opacity = rays(cut, origins)
    assert (opacity < 1e-6).all() and torch.equal(color, torch.ones_like(color)) and rays(model, origins)[1].max() > 0.5
    origins[:, 0] += 0.52  # a voxel and more beside the box nothing has changed
    for ours, theirs in zip(rays(cut, origins), rays(model, origins), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def rays(model, origins):
    """Colour and opacity along +z, on white."""
    from radfield.rays import Rays
    from radfield.renderers.volume import render_rays

    directions = torch.tensor([0.0, 0.0, 1.0]).expand_as(origins).contiguous()
    return render_rays(model.field, model.grid, Rays(origins, directions), torch.ones(3), model.render)[:2]


def test_an_edited_run_is_a_run_like_any_other(voxels, tmp_path, command):
    run, _ = voxels
    box = half_of(radfield.load(run))
    assert edit(run, tmp_path / "run", "--recolor", 0.9, 0.1, 0.1, "--within", *box) == 0
    assert edit(tmp_path / "run", tmp_path / "twice", "--keep-box", *box) == 0
    edits = json.loads((tmp_path / "twice" / "config.json").read_text())["edits"]
    assert [sorted(each) for each in edits] == [["recolor", "run", "within"], ["keep_box", "run"]]
    assert command("eval", tmp_path / "twice", "--device", "cpu", "--json")[1]["psnr"] > 5
    more = ("train", "--output", tmp_path / "run", "--resume", "--steps", 62, "--no-evaluate")
    assert command(*more)[0] == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == "62"
    student = ("distill", tmp_path / "twice", "--to", "hash", "--steps", 3, "--batch-samples", 2048, "--device", "cpu")
    code, figures, _ = command(*student, "--output", tmp_path / "student", "--json")
    assert code == 0 and figures["psnr_to_teacher"] > 5


def test_moving_by_whole_voxels_moves_the_pictures(voxels, tmp_path):
    run, cameras = voxels
    model = radfield.load(run)
    spacing = voxels_of(model.field).spacing
    shift = [3 * spacing, 0.0, -2 * spacing]
    world = model.transform.inverse().directions(torch.tensor(shift, dtype=torch.float64)) / model.transform.scale
    assert edit(run, tmp_path / "run", "--move", *[f"{v:.9f}" for v in world.tolist()]) == 0
    there = radfield.load(tmp_path / "run")
    poses = cameras.camera_to_world.clone()
    poses[:, :3, 3] += torch.tensor(shift)
    moved = replace(cameras, camera_to_world=poses)
    ours, theirs = there.render_view(moved, 0).color, model.render_view(cameras, 0).color
    assert (ours - theirs).square().mean() < 1e-5
    assert (there.render_view(cameras, 0).color - theirs).square().mean() > 1e-4
    assert edit(tmp_path / "run", tmp_path / "back", "--move", *[f"{-v:.9f}" for v in world.tolist()]) == 0
    ours, theirs = (voxels_of(each.field) for each in (radfield.load(tmp_path / "back"), model))
    for name in ("vertex", "value", "colors"):
        assert torch.equal(getattr(ours.select(ours.solid), name), getattr(theirs.select(theirs.solid), name))


def test_merging_with_the_empty_scene_is_itself(voxels, tmp_path):
    run, _ = voxels
    assert edit(run, tmp_path / "empty", "--delete-box", *EVERYTHING) == 0
    with pytest.warns(RadfieldWarning, match="nothing was changed"):
        assert edit(run, tmp_path / "merged", "--merge", tmp_path / "empty") == 0
    assert same_model(radfield.load(tmp_path / "merged"), radfield.load(run))


def test_a_scene_merged_from_its_halves(voxels, tmp_path):
    run, cameras = voxels
    box = half_of(radfield.load(run))
    assert edit(run, tmp_path / "left", "--keep-box", *box) == 0
    assert edit(run, tmp_path / "right", "--delete-box", *box) == 0
    assert edit(tmp_path / "left", tmp_path / "whole", "--merge", tmp_path / "right") == 0
    whole, model = radfield.load(tmp_path / "whole"), radfield.load(run)
    assert (whole.render_view(cameras, 0).color - model.render_view(cameras, 0).color).square().mean() < 1e-5


def test_a_scene_of_another_box_is_merged_at_its_place_in_the_world(voxels, tmp_path):
    run, _ = voxels
    other, model = tmp_path / "other", radfield.load(run)
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    spacing = voxels_of(model.field).spacing
    config["scene"]["transform"]["offset"][0] += 4 * spacing  # the same voxels, elsewhere in the world
    (other / "config.json").write_text(json.dumps(config))
    assert edit(run, tmp_path / "empty", "--delete-box", *EVERYTHING) == 0
    assert edit(tmp_path / "empty", tmp_path / "merged", "--merge", other) == 0
    ours, theirs = voxels_of(radfield.load(tmp_path / "merged").field), voxels_of(model.field)
    inner = theirs.solid & (theirs.place[:, 0] >= 4)
    assert torch.equal(ours.select(ours.solid).vertex, theirs.vertex[inner] - 4)
    torch.testing.assert_close(ours.value[ours.solid], theirs.value[inner])


def test_the_viewers_box_is_taken(voxels, tmp_path, command, refused):
    run = tmp_path / "run"
    shutil.copytree(voxels[0], run)
    refused("edit", run, "--output", tmp_path / "no", "--delete-box", "saved", rule="save a box in `radfield view`")
    crop.save(run, crop.Box((0.0, 0.0, 0.0), (1.0, 0.5, 1.0)), radfield.load(run).transform)
    code, figures, _ = command("edit", run, "--output", tmp_path / "cut", "--delete-box", "saved", "--json")
    assert code == 0 and 0 < figures["voxels"] < figures["voxels_before"]


def test_bad_input(voxels, trained, tmp_path, refused, command):
    run, output = voxels[0], ("--output", tmp_path / "no")
    refused("edit", trained[0], *output, "--delete-box", *EVERYTHING, rule="`radfield distill --to sparse` makes")
    refused("edit", run, *output, rule="at least one of --delete-box")
    refused("edit", run, *output, "--delete-box", "1", "2", rule="six numbers, two corners, or saved")
    refused("edit", run, *output, "--delete-box", "1", "0", "0", "0", "1", "1", rule="every side has a length")
    refused("edit", run, *output, "--recolor", 2, 0, 0, rule="from 0 to 1")
    refused("edit", run, *output, "--move", "nan", 0, 0, rule="three finite lengths")
    refused("edit", run, *output, "--delete-box", *EVERYTHING, "--within", *EVERYTHING, rule="--within is given alone")
    refused("edit", run, *output, "--merge", trained[0], rule="sparse voxels")
    refused("edit", run, "--output", run, "--delete-box", *EVERYTHING, rule="another folder")
    assert not (tmp_path / "no").exists()
    with pytest.warns(RadfieldWarning, match="nothing was changed"):
        assert command("edit", run, *output, "--delete-box", 90, 90, 90, 91, 91, 91)[0] == 0
    with pytest.warns(RadfieldWarning, match="they are gone"):
        assert command("edit", run, "--output", tmp_path / "far", "--move", 99, 0, 0)[0] == 0
