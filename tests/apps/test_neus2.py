"""The method neus2: training, figures, pictures, meshes, resuming, and what it refuses."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.apps import neus2
from radfield.apps.neus2.step import (
    BAND,
    EMPTY,
    area_gradient,
    curvature_gradient,
    extra_points,
    levels_in_use,
    mask_loss,
    point_gradient,
    smoothing,
    useful_levels,
)
from radfield.data import load
from radfield.data.synthetic.mesh import read_mesh
from radfield.errors import BadInput, RadfieldWarning
from radfield.fields import surface_passes
from radfield.renderers import surface_volume
from radfield.sampling.occupancy import UNSEEN
from radfield.sampling.occupancy_reference import cell_of, coordinates_of
from radfield.tracing.surface import Surface

TINY = (
    *("--method", "neus2", "--neus2.levels", 4, "--neus2.log2-size", 12, "--neus2.finest-resolution", 128),
    *("--neus2.batch-samples", 16384, "--neus2.uniform-cells", 65536, "--neus2.occupied-cells", 8192),
)
SMALL = neus2.Config(levels=4, log2_size=12, finest_resolution=128, batch_samples=4096, uniform_cells=65536)


@pytest.fixture(scope="module")
def scene(tiny_capture):
    return load(tiny_capture)


def training_of(scene, seed=0, **options):
    config = dataclasses.replace(SMALL, **options)
    neus2.check(config)
    place = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return neus2.Training(neus2.build(config, **place, seed=seed), scene, seed)


@pytest.fixture(scope="module")
def run(tiny_capture, tmp_path_factory):
    """A finished run and its figures."""
    from radfield.apps.command_line import main

    folder = tmp_path_factory.mktemp("neus2") / "run"
    arguments = ["train", tiny_capture, "--output", folder, "--steps", 150, "--json", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words, **options: printed.append(words))
        assert main([str(each) for each in arguments]) == 0
    return folder, json.loads(printed[-1][0])


def test_it_learns_what_the_views_show(run):
    folder, figures = run
    assert figures["psnr"] > 15.5 and figures["psnr_inside"] > 12
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    late = [line["loss"] for line in steps[-3:]]
    assert sum(late) / 3 < 0.8 * steps[0]["loss"]
    assert steps[-1]["sharpness"] > 20 and steps[-1]["eikonal"] < 0.2
    assert {"forward", "backward", "optimiser", "occupancy"} <= set(lines[-1]["summary"]["stages"])


def test_mesh_is_in_the_captures_units_and_near_the_solids(run, tmp_path, command):
    from radfield.data.synthetic import synthetic_scene
    from radfield.tracing.solids_reference import solid_distance

    code, figures, _ = command("export", run[0], tmp_path / "mesh.ply", "--resolution", 64, "--largest", "--json")
    assert code == 0 and figures["triangles"] > 500
    vertices, triangles, *_ = read_mesh(tmp_path / "mesh.ply")
    x = Surface.of(vertices, triangles).sample(2000, torch.Generator().manual_seed(0)).double()
    solids = synthetic_scene("solids").tables["opaque"]
    ends = zip(solids.first.tolist()[:-1], solids.first.tolist()[1:], strict=True)
    distance = torch.stack([solid_distance(solids, range(a, b), x)[0] for a, b in ends]).amin(0).abs()
    assert float(distance.median()) < 0.2  # of solids that are 1.8 across, after a training of seconds
    extent = (vertices.amax(0) - vertices.amin(0))[:2]
    assert bool(((extent > 1.3) & (extent < 2.4)).all())


def test_pictures_of_depth_and_normals(run, tmp_path, command):
    given = ("render", run[0], "--output", tmp_path / "views", "--views", 1, "--depth", "--normals", "--json")
    assert command(*given)[0] == 0
    names = sorted(path.name for path in (tmp_path / "views").iterdir())
    assert names == ["000.png", "000_depth.png", "000_normals.png"]
    with Image.open(tmp_path / "views" / "000_normals.png") as picture:
        normals = torch.tensor(np.array(picture)).view(-1, 3).float() / 127.5 - 1
    seen = normals[normals.norm(dim=1) < 1.1]
    assert len(seen) > 200 and float((seen.norm(dim=1) - 1).abs().max()) < 0.02


def test_eval_gives_the_figures_of_training(run, command):
    code, figures, _ = command("eval", run[0], "--json")
    assert code == 0
    assert math.isclose(figures["psnr_inside"], run[1]["psnr_inside"], abs_tol=1e-3)


def test_viewer_draws_what_render_does(run):
    from radfield.apps.runs import open_run
    from radfield.viewer.sources import Look, SurfaceSource, source_of

    _, model, scene = open_run(run[0], None)
    source = source_of(model)
    assert isinstance(source, SurfaceSource)
    camera = scene.val.cameras[0]
    width, height = camera.size[0].tolist()
    answer = source.ask(Look(), camera, torch.arange(width * height))
    expected = model.render_view(scene.val.cameras, 0)
    assert torch.allclose(answer.color, expected.color.view(-1, 3), atol=1e-5)


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(scene, tmp_path):
    from radfield.training.run_folder import RunFolder

    whole = training_of(scene)
    for step in range(12):
        neus2.train_step(whole, step / 12)
    first = training_of(scene)
    for step in range(6):
        neus2.train_step(first, step / 12)
    folder = RunFolder.create(tmp_path / "run")
    folder.start({"app": "neus2"})
    first.save(folder)
    second = training_of(scene, seed=0)
    second.load(folder)
    for step in range(6, 12):
        neus2.train_step(second, step / 12)
    ours, theirs = second.tensors(), whole.tensors()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_steps_do_not_depend_on_threads(scene, threads):
    def run():
        training = training_of(scene)
        for step in range(4):
            neus2.train_step(training, step / 4)
        return [value.clone() for value in training.model.tensors().values()]

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_levels_come_one_by_one():
    config = neus2.Config(levels=8, first_levels=0.4, all_levels=0.25)
    levels = [levels_in_use(config, progress / 100, 8) for progress in range(101)]
    assert levels[0] == 4 and levels[25] == levels[-1] == 8
    assert all(a <= b <= a + 1 for a, b in itertools.pairwise(levels))
    assert max(levels_in_use(config, progress / 100, 5) for progress in range(101)) == 5


def test_levels_finer_than_the_photographs_are_not_trained(scene):
    config = neus2.Config(levels=7, base_resolution=16, finest_resolution=1024)  # each twice as fine as the one before
    assert [useful_levels(config, pixels) for pixels in (1, 100, 128, 129, 1000, 5000)] == [2, 4, 4, 5, 7, 7]
    training = training_of(scene, cells_per_pixel=1e-3)  # two levels are enough
    x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        neus2.train_step(training, step / 3)
    field = training.model.field
    assert field.levels == 2
    few, field.levels = training.model.distance(x), SMALL.levels
    assert torch.equal(few, training.model.distance(x))  # a run that is loaded uses all: they count for nothing


def test_the_colors_grid_has_its_own_rate(scene):
    training = training_of(scene, color_rate=2.5)
    tables = {each.table.data_ptr(): k for k, each in enumerate(training.model.field.grids)}
    groups = {group["parameter"].data_ptr(): group["scale"] for group in training.optimizer.groups}
    assert [groups[pointer] for pointer in tables] == [1, 2.5]


def test_sharpness_is_held_back_at_first(scene):
    found = []
    for sharpen in (0.5, 0.0):
        training = training_of(scene, sharpen=sharpen)
        training.model.field.log_sharpness.data.fill_(0.6)
        neus2.train_step(training, 0.1)
        found.append(training.model.field.sharpness)
    assert math.isclose(found[0], 20 * 30**0.2, rel_tol=1e-4) and found[1] > 300


def test_sharpness_reaches_what_the_photographs_show(scene):
    training = training_of(scene, final_sharpness=2.0, sharpen=0.0)
    cameras = scene.train.cameras
    assert math.isclose(
        training.detail, float(cameras.project(*_unit_apart(cameras))[0].diff(dim=0).norm()), rel_tol=0.2
    )
    for progress, part in ((0.0, 0.0), (0.45, 0.5), (0.9, 1.0), (1.0, 1.0)):
        training.model.field.log_sharpness.data.fill_(math.log(20.0) / 10)
        neus2.train_step(training, progress)
        least = 20 * (2 * training.detail / 20) ** part
        assert 0.999 * least <= training.model.field.sharpness < 1.2 * least
    free = training_of(scene, final_sharpness=0.0)
    neus2.train_step(free, 1.0)
    assert free.model.field.sharpness < 25


def _unit_apart(cameras):
    """(views, points): two points of a scene unit's distance, across the first camera's view, around the middle."""
    right = cameras.camera_to_world[0, :3, 0]
    return torch.zeros(2, dtype=torch.long), 0.5 + torch.stack((-0.5 * right, 0.5 * right))


def test_curvature_is_the_gradient_of_a_smooth_length():
    bend = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    value = ((bend.square().sum(0) + 0.05**2).sqrt() - 0.05).mean()
    (grad,) = torch.autograd.grad(value, bend)
    assert torch.allclose(curvature_gradient(bend.detach()), grad)
    assert curvature_gradient(torch.zeros(3, 0)).shape == (3, 0)


def test_neighbours_are_as_far_as_the_surface_is_soft(scene):
    training = training_of(scene, neighbours=0.5, around=0.25, curvature=0.01)
    x = (0.2 + 0.6 * torch.rand(3, 1000, generator=torch.Generator().manual_seed(0))).T
    found = extra_points(training, x)
    assert len(found.partner) == 500 and len(found.x) == 500 + SMALL.batch_samples // 4
    distance = (found.x[:500] - x[found.partner]).norm(dim=1)
    assert torch.allclose(distance, torch.full((500,), 1 / training.model.field.sharpness), rtol=1e-4)
    training.model.field.log_sharpness.data.fill_(0.8)  # sharper than a pixel
    near = extra_points(training, x).x[:500] - x[found.partner]
    assert torch.allclose(near.norm(dim=1), torch.full((500,), 1 / training.detail), rtol=1e-4)
    training.model.field.log_sharpness.data.fill_(math.log(20.0) / 10)
    assert bool(((found.x >= 0) & (found.x <= 1)).all())
    again = extra_points(training, x)
    assert torch.equal(again.x, found.x) and torch.equal(again.partner, found.partner)
    training.step += 1
    assert not torch.equal(extra_points(training, x).x, found.x)


def test_normals_of_neighbours_become_alike(scene):
    generator, found = torch.Generator().manual_seed(0), []
    way = 0.05 * torch.nn.functional.normalize(torch.randn(20000, 3, generator=generator), dim=1)
    x = 0.1 + 0.8 * torch.rand(20000, 3, generator=generator)
    for weight in (0.0, 1.0):
        training = training_of(scene, curvature=weight, all_levels=0.0, final_sharpness=0.0)
        for _ in range(20):
            neus2.train_step(training, 0.75)
        at = training.model.distance(x).abs() < 0.03
        a, b = training.model.normals(x[at]), training.model.normals((x + way)[at])
        found.append(float((a - b).norm(dim=1).mean()))
    assert found[1] < 0.9 * found[0], found


def test_normals_are_smoothed_late():
    assert [smoothing(progress) for progress in (0.0, 0.4, 0.7, 1.0)] == [0, 0, 1, 1]
    assert math.isclose(smoothing(0.55), 0.5)


def test_area_is_what_the_mean_near_the_surface_says():
    f = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(0.05).requires_grad_()
    (grad,) = torch.autograd.grad((-f.abs() / BAND).exp().mean(), f)
    assert torch.allclose(area_gradient(f.detach()), grad)
    x = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = (-((x - 0.5).norm(dim=1) - 0.3).abs() / BAND).exp().mean()
    assert math.isclose(float(value) / (2 * BAND), 4 * math.pi * 0.3**2, rel_tol=0.02)


def test_a_surface_that_no_ray_meets_shrinks(scene):
    found = []
    for weight in (0.0, 1.0):
        training = training_of(scene, area=weight, final_sharpness=0.0)
        for _ in range(15):
            neus2.train_step(training, 0.7)
        x = torch.rand(50_000, 3, generator=torch.Generator().manual_seed(1))
        found.append(float((-training.model.distance(x).abs() / BAND).exp().mean()))
    assert found[1] < 0.97 * found[0], found


def test_the_surface_is_closed_at_the_cubes_faces_and_where_masks_show_nothing(scene):
    from radfield.meshing.level_set import mesh_of_distance
    from radfield.tracing.surface import count_open_edges

    training = training_of(scene, radius=0.5, visual_hull=True)  # with the corners of a cube of side 1
    model, side = training.model, training.model.grid.config.resolution
    network = model.field.sdf_network
    fan_in, fan_out, offset, _ = network.layers.table[-1].tolist()
    with torch.no_grad():  # inside everywhere
        network.weights[offset + fan_in * fan_out] = -10.0
    mesh = mesh_of_distance(model.distance, model.box, 48)
    assert len(mesh.triangles) > 500 and count_open_edges(mesh.triangles, len(mesh.vertices)) == 0
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    assert bool((low > 0.5 / side).all() and (high < 1 - 0.5 / side).all())
    volume = float((model.distance(torch.rand(100_000, 3)) < 0).float().mean())
    assert 0.02 < volume < 0.9  # the visual hull of the solids, not the cube


def test_cells_that_masks_say_are_empty_hold_nothing(scene):
    """Not one that the surface passes or that is inside is given up; most of those are that many views see."""
    from radfield.data.synthetic import synthetic_scene
    from radfield.tracing.solids_reference import solid_distance

    training = training_of(scene, visual_hull=True)
    side = training.model.grid.config.resolution
    cells = torch.arange(0, side**3, 16)
    x = (coordinates_of(cells, side)[1] + 0.5) / side
    solids = synthetic_scene("solids").tables["opaque"]
    world, ends = scene.transform.inverse().points(x.double()), itertools.pairwise(solids.first.tolist())
    distance = torch.stack([solid_distance(solids, range(a, b), world)[0] for a, b in ends]).amin(0)
    distance *= scene.transform.scale
    empty = training.empty[cells]
    met = distance < 0.5 * math.sqrt(3) / side
    assert int(met.sum()) > 5000 and not bool((empty & met).any())
    assert bool((training.model.grid.values[cells[empty]] == UNSEEN).all())
    middle = (x - 0.5).norm(dim=1) < 0.4
    assert float(empty[middle & (distance > 0.1)].float().mean()) > 0.6  # of 12 views


def test_there_is_an_outside_where_masks_leave_no_samples(scene):
    """Where all of the visual hull is inside, rays find colours and nothing else says that the inside ends: the surface
    would vanish from the hull's middle."""
    training = training_of(scene, visual_hull=True, radius=0.5)
    side = training.model.grid.config.resolution
    cells = torch.arange(0, side**3, 64)
    x, empty = (coordinates_of(cells, side)[1] + 0.5) / side, training.empty[cells]
    inside = lambda: surface_passes.distance(training.model.field, x)[empty] < 0  # noqa: E731
    assert float(inside().float().mean()) > 0.1
    for step in range(20):
        neus2.train_step(training, step / 100)
    assert float(inside().float().mean()) < 0.01


def test_emptiness_is_the_gradient_of_what_is_inside_there(scene):
    training = training_of(scene, visual_hull=True)
    x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    side = training.model.grid.config.resolution
    empty = training.empty[cell_of(x, torch.zeros(500, dtype=torch.long), side)]
    f = torch.randn(500, generator=torch.Generator().manual_seed(1)).mul(0.05).requires_grad_()
    value = EMPTY * (f.neg().clamp_min(0) * empty).mean() / BAND
    (grad,) = torch.autograd.grad(value + 0.25 * (-f.abs() / BAND).exp().mean(), f, retain_graph=True)
    assert torch.allclose(point_gradient(training, x, f.detach(), 0.25), grad, atol=1e-7)
    (grad,) = torch.autograd.grad(value, f)
    assert torch.equal(point_gradient(training, x, f.detach(), 0.0) < 0, grad < 0) and bool((grad < 0).any())
    assert point_gradient(training_of(scene, visual_hull=False), x, f.detach(), 0.0) is None


def test_masks_gradient():
    # (W - m) / (W (1 - W)), where NeuS2's published code has (m - sigmoid(W)) W
    opacity = torch.tensor([0.2, 0.7, 0.5], requires_grad=True)
    alpha = torch.tensor([1.0, 0.0, 0.25])
    (grad,) = torch.autograd.grad(mask_loss(opacity, alpha), opacity)
    w = opacity.detach()
    assert torch.allclose(grad, (w - alpha) / (w * (1 - w)) / 3, rtol=1e-5)
    nothing = torch.zeros(1, requires_grad=True)
    (grad,) = torch.autograd.grad(mask_loss(nothing, torch.ones(1)), nothing)
    assert float(grad) < -100  # an opacity of 0 inside the mask is told to grow


def test_a_field_around_the_object_is_trained_where_there_is_room(scene):
    larger = dataclasses.replace(scene, cascades=2, has_alpha=False)
    training = training_of(larger)
    before = [p.detach().clone() for p in training.model.outside.parameters()]
    training.step = 1  # no update of the grid, whose 4 million cells take a while
    neus2.train_step(training, 0.0)
    assert any(not torch.equal(a, b) for a, b in zip(before, training.model.outside.parameters(), strict=True))
    rays, model = scene.val.cameras.image_rays(0)[1000:1032], training.model
    given = (rays, torch.ones(3), model.render)
    color, opacity, _, normal = surface_volume.render_rays(model.field, model.outside, model.grid, *given)
    assert bool(color.isfinite().all() & normal.isfinite().all()) and float(opacity.max()) > 0.1
    assert training_of(larger, outside="none").model.outside is None
    with pytest.raises(BadInput, match="outside is field; the rule: none or auto"):
        training_of(scene, outside="field")


def test_the_cube_reaches_nearly_to_the_cameras_where_there_are_surroundings(scene):
    assert neus2.arranged(scene, SMALL) is scene
    larger = dataclasses.replace(scene, cascades=3, has_alpha=False)
    assert neus2.arranged(larger, dataclasses.replace(SMALL, outside="none")) is larger
    wide = neus2.arranged(larger, SMALL)
    reach = (wide.train.cameras.camera_to_world[:, :3, 3] - 0.5).abs().amax(-1)
    zoom = scene.transform.scale / wide.transform.scale
    assert 1 < zoom <= 2 and (zoom == 2 or math.isclose(float(reach.quantile(0.1)), 0.5 / 0.9, rel_tol=1e-4))
    middle = torch.full((1, 3), 0.5, dtype=torch.float64)
    assert torch.allclose(scene.transform.inverse().points(middle), wide.transform.inverse().points(middle))
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).double()
    views = torch.zeros(20, dtype=torch.long)
    given = [s.train.cameras.project(views, s.transform.points(x).float())[0] for s in (scene, wide)]
    assert torch.allclose(*given, atol=0.02)
    assert neus2.arranged(wide, SMALL) is wide or zoom == 2


def test_a_run_of_an_older_version_is_read_as_what_it_was(run):
    """Without options that came later, and with what they stand for now."""
    values = json.loads((run[0] / "config.json").read_text())
    older = dict(values["neus2"])
    for name in ("color_levels", "color_finest_resolution", "area", "visual_hull", "cells_per_pixel"):
        del older[name]
    config = neus2.config_from(values | {"neus2": older})
    assert config.color_levels == 0 and config.area == 0 and config.visual_hull is False
    assert config.levels == 4 and useful_levels(config, 10.0) == 4
    del older["radius"]
    with pytest.raises(BadInput, match=r"config.json has no option radius; the rule: "):
        neus2.config_from(values | {"neus2": older})
    with pytest.raises(BadInput, match=r"config.json has an unknown option fine_step; the rule: "):
        neus2.config_from(values | {"neus2": values["neus2"] | {"fine_step": 1.0}})


def test_masks_that_show_nothing_are_refused(scene):
    pixels = scene.train.images.pixels.clone()
    pixels[:, 3] = 0
    images = dataclasses.replace(scene.train.images, pixels=pixels)
    black = dataclasses.replace(scene, train=dataclasses.replace(scene.train, images=images))
    with pytest.raises(BadInput, match="masks of all training views are black"):
        training_of(black)


def test_a_surface_that_vanished_is_said(scene, tmp_path):
    training = training_of(scene)
    network = training.model.field.sdf_network
    fan_in, fan_out, offset, _ = network.layers.table[-1].tolist()
    with torch.no_grad():  # far outside everywhere
        network.weights[offset + fan_in * fan_out] = 100.0
    with pytest.warns(RadfieldWarning, match="the surface vanished"):
        training.figures()
    training.model.grid.values.fill_(-1.0)
    training.model.grid.refresh()
    training.step = 1  # no update of the grid
    with pytest.raises(BadInput, match="the surface vanished"):
        neus2.train_step(training, 0.5)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--neus2.encoding", "triplane", "one with second derivatives, which normals need"),
        ("--neus2.radius", 0.9, "--neus2.radius is 0.9; the rule: from 0.01 to 0.5"),
        ("--neus2.color-levels", 40, "--neus2.color-levels is 40; the rule: from 0 to 32"),
        ("--neus2.area", -1, "--neus2.area is -1.0; the rule: not negative"),
        ("--neus2.eikonal", -1, "--neus2.eikonal is -1.0; the rule: not negative"),
        ("--neus2.precision", "f16", "the rule: f32 or bf16"),
    ],
)
def test_options_out_of_range_are_refused(option, value, rule, tiny_capture, tmp_path, refused):
    refused("train", tiny_capture, "--method", "neus2", "--output", tmp_path / "run", option, value, rule=rule)


def test_rays_that_all_miss_are_followed_by_more(scene):
    training = training_of(scene)
    neus2.train_step(training, 0.0)
    training.rays = 256
    keep, training.cameras = (
        training.cameras,
        dataclasses.replace(training.cameras, principal=training.cameras.principal + 1e4),
    )
    neus2.train_step(training, 0.0)
    assert training.rays == 512
    training.rays, training.step = 1 << 14, training.step + 1
    with pytest.raises(BadInput, match="the surface vanished"):
        neus2.train_step(training, 0.0)
    training.cameras = keep
    assert neus2.train_step(training, 0.0).live > 0
