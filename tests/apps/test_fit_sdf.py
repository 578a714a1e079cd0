"""`radfield fit-sdf`, what renders, measures and exports its runs; meshes of radiance fields; `radfield eval-mesh`."""

import json
import shutil

import pytest
import torch
from tracing_meshes import sphere

from radfield.apps.fit import fit_sdf, sdf, sdf_views
from radfield.data.synthetic.mesh import read_mesh
from radfield.errors import RadfieldWarning
from radfield.meshing import level_set
from radfield.meshing.files import write_mesh
from radfield.meshing.mesh import Mesh
from radfield.renderers import sphere_tracing
from radfield.tracing.surface import Surface
from radfield.training.checkpoint import load_checkpoint

TINY = (
    *("--sdf.levels", 4, "--sdf.log2-size", 15, "--sdf.finest-resolution", 32, "--sdf.batch", 4096),
    *("--sdf.learning-rate", 1e-2),
)
UNIT, PLACE = 1000.0, 5000.0  # a ball of radius 1 m in millimetres, far from the origin


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A fine ball's file."""
    path = tmp_path_factory.mktemp("mesh") / "ball.ply"
    vertices, triangles = sphere(4)
    write_mesh(path, Mesh(UNIT * vertices.double() + PLACE, triangles))
    return path


@pytest.fixture(scope="module")
def fitted(ball, tmp_path_factory):
    """A run of 150 steps, which other tests only read."""
    from radfield.apps.command_line import main

    run = tmp_path_factory.mktemp("runs") / "ball"
    arguments = ("fit-sdf", ball, "--output", run, "--steps", 150, "--no-evaluate", *TINY)
    assert main([str(a) for a in arguments]) == 0
    return run


@pytest.fixture
def small_pictures(monkeypatch):
    monkeypatch.setattr(fit_sdf, "REPORT_PIXELS", 64)
    monkeypatch.setattr(sdf_views, "OVERLAP_POINTS", 1 << 14)
    monkeypatch.setattr(sdf_views, "CHAMFER_RESOLUTION", 64)


def test_a_ball_is_fitted_and_measured(fitted, command, small_pictures):
    code, figures, _ = command("eval", fitted, "--json")
    assert code == 0
    assert figures["iou"] > 0.97 and figures["chamfer"] < 0.003
    assert figures["chamfer_in_units"] == pytest.approx(figures["chamfer"] * figures["diagonal_in_units"])
    assert figures["diagonal_in_units"] == pytest.approx(2 * 3**0.5 * UNIT, rel=1e-3)
    assert (fitted / "report.html").exists() and (fitted / "renders" / "003.png").exists()


def test_a_run_of_another_version_is_measured(fitted, tmp_path, command, small_pictures):
    """A transform that was computed with other last digits is that of the same mesh; another mesh's is not."""
    for factor, code in ((1 + 1e-8, 0), (1 + 1e-4, 2)):
        run = tmp_path / str(code)
        shutil.copytree(fitted, run)
        config = read_config(run)
        transform = config["scene"]["transform"]
        transform["scale"] *= factor
        transform["offset"] = [value * factor for value in transform["offset"]]
        del config["options"]["unsigned"]  # an option that came later
        (run / "config.json").write_text(json.dumps(config))
        assert command("eval", run)[0] == code


def test_the_mesh_is_in_the_files_own_units(fitted, ball, tmp_path, command):
    file = tmp_path / "mesh.ply"
    code, figures, _ = command("export", fitted, file, "--resolution", 64, "--largest", "--json")
    assert code == 0 and figures["open_edges"] == 0
    vertices, triangles = read_mesh(file)[:2]
    assert len(triangles) == figures["triangles"]
    radius = (vertices - PLACE).norm(dim=-1)
    assert (radius.mean() / UNIT - 1).abs() < 0.01
    code, found, _ = command("eval-mesh", file, ball, "--samples", 5000, "--json")
    assert code == 0 and found["chamfer"] < 0.01 * UNIT and found["f_score"] > 0.9


def test_rays_meet_the_ball_where_it_is(fitted):
    """Depth, silhouette and normals of the sphere-traced picture against the ball's equation."""
    model = sdf.load(fitted)
    cameras = sdf_views.cameras_around(torch.full((3,), 2 * 0.48), "y", 1, 96)
    rays = cameras.image_rays(0)
    with torch.no_grad():
        depth = sphere_tracing.trace(model.distance, model.space, rays, model.box)
    radius = model.transform.scale * UNIT
    centre = model.transform.points(torch.full((3,), PLACE))
    b = ((rays.origins - centre) * rays.directions).sum(-1)
    beside = b.square() - (rays.origins - centre).square().sum(-1) + radius**2
    sure = beside.abs() > 0.02 * radius**2
    assert (depth.isfinite()[sure] == (beside[sure] > 0)).float().mean() > 0.995
    met = depth.isfinite() & sure & (beside > 0)
    exact = -b - beside.clamp_min(0).sqrt()
    assert (depth[met] - exact[met]).abs().median() < 2e-3
    x = rays.at(depth)[met]
    normal = sphere_tracing.normals(model.distance, x)
    assert ((normal * (x - centre)).sum(-1) / radius).median() > 0.99
    assert 0.4 * 96 < model.render_view(cameras, 0).opacity.any(1).sum() < 0.6 * 96, "it fills half of the height"


def test_free_space_changes_no_picture():
    """Rays through cells that need no asking end where rays that always ask do."""

    def distance(x):
        return (x - 0.5).norm(dim=-1) - 0.3

    rays = sdf_views.cameras_around(torch.full((3,), 0.6), "z", 1, 48).image_rays(0)
    space, box = sphere_tracing.FreeSpace.of(distance), (torch.zeros(3), torch.ones(3))
    none = sphere_tracing.FreeSpace(torch.zeros_like(space.free))
    asked = []

    def counted(x):
        asked.append(len(x))
        return distance(x)

    fast = sphere_tracing.trace(counted, space, rays, box)
    few, asked[:] = sum(asked), []
    slow = sphere_tracing.trace(counted, none, rays, box)
    assert torch.equal(fast.isfinite(), slow.isfinite())
    both = fast.isfinite()
    assert (fast[both] - slow[both]).abs().max() < 20 * sphere_tracing.HIT
    assert few < 0.5 * sum(asked)


def test_resumed_equals_uninterrupted(ball, tmp_path, command):
    tiny = (*TINY, "--sdf.batch", 1024, "--no-evaluate")
    assert command("fit-sdf", ball, "--output", tmp_path / "a", "--steps", 6, "--threads", 1, *tiny)[0] == 0
    assert command("fit-sdf", ball, "--output", tmp_path / "b", "--steps", 6, "--threads", 2, *tiny)[0] == 0
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in "ab")
    for name, value in one.items():
        assert torch.equal(value, two[name]), f"{name} depends on the number of threads"
    # as if it had been stopped after the third step of six
    config, fit = sdf.config_from(read_config(tmp_path / "a")), fit_sdf.FitSdf()
    options = fit_sdf.Options(mesh=ball, output=tmp_path / "c", steps=6, sdf=config)
    folder = fit_sdf.RunFolder.create(options.output)
    target = fit.open(options, folder)
    training = fit.training_of(options, target)
    folder.start(fit.config_of(options, target))
    for step in range(3):
        sdf.train_step(training, step / 6)
    training.save(folder)
    assert command("fit-sdf", "--output", tmp_path / "c", "--resume", "--no-evaluate")[0] == 0
    resumed = load_checkpoint(tmp_path / "c" / "checkpoint.safetensors")[0]
    for name, value in one.items():
        assert torch.equal(value, resumed[name]), name


def read_config(run):
    return json.loads((run / "config.json").read_text())


@pytest.mark.parametrize("encoding", [name for name in sdf.ENCODINGS if name != "hash"])
def test_every_encoding_learns(encoding):
    vertices, triangles = sphere(2)
    surface = Surface.of(0.4 * vertices + 0.5, triangles)
    sizes = {"levels": 4, "log2_size": 14, "finest_resolution": 128, "batch": 2048, "learning_rate": 1e-2}
    model = sdf.build(
        sdf.Config(encoding=encoding, **sizes), transform=sdf.scene_of(surface), size=sdf.size_of(surface)
    )
    training = sdf.Training(model, surface, 0)
    losses = [sdf.train_step(training, step / 30).loss for step in range(30)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_pictures_and_video(fitted, tmp_path, command):
    code, said, _ = command(
        "render", fitted, "--output", tmp_path / "p", "--size", 48, "--views", 2, "--depth", "--json"
    )
    assert code == 0 and len(said["files"]) == 4
    orbit = ("--what", "orbit", "--frames", 3, "--size", 48, "--output", tmp_path / "v", "--json")
    assert command("render", fitted, *orbit)[1]["frames"] == 3


def test_a_mesh_of_a_radiance_field(trained, tmp_path, command):
    file = tmp_path / "mesh.glb"
    code, figures, _ = command("export", trained[0], file, "--resolution", 48, "--json")
    assert code == 0 and figures["triangles"] > 100
    assert {"holes", "hole_length", "longest_hole", "components", "left_out"} <= set(figures)
    colors = read_mesh(file)[4]
    assert colors is not None and colors.std() > 0.01
    code, _, said = command("export", trained[0], file, "--density", 1e9, "--resolution", 16)
    assert code == 2 and "its surface is empty: no density is above 1e+09; the rule: a lower --density" in said[-1]
    assert file.exists()


def test_a_mesh_is_simplified_textured_and_cut_to_what_cameras_see(trained, tiny_capture, tmp_path, command):
    file, options = tmp_path / "mesh.obj", ("--resolution", 32, "--json")
    whole = command("export", trained[0], tmp_path / "all.ply", *options)[1]
    few = ("--triangles", 400, "--texture", 64, "--visible", "only", "--capture", tiny_capture)
    code, figures, said = command("export", trained[0], file, *few, *options)
    assert code == 0 and 300 < figures["triangles"] <= 400 < whole["triangles"]
    assert any("of the triangles are seen by a camera" in line for line in said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.ply", "mesh.mtl", "mesh.obj", "mesh.png"]
    _, triangles, uv, image, _ = read_mesh(file)
    assert len(triangles) == figures["triangles"] and uv is not None and image.std() > 0.01


def test_bad_options_of_a_mesh(trained, fitted, tmp_path, refused):
    file = tmp_path / "mesh.glb"
    refused("export", trained[0], file, "--cascades", 9, rule="from 1 to 8")
    refused("export", trained[0], file, "--smallest", 2, rule="from 0 to 1")
    refused("export", trained[0], file, "--triangles", 3, rule="4 or more")
    refused("export", trained[0], file, "--texture", 8, rule="from 16 to 8192")
    refused("export", trained[0], file, "--texture", 64, "--triangles", 600_000, rule="at most 500000 --triangles")
    refused("export", trained[0], tmp_path / "mesh.ply", "--texture", 64, rule="one of .obj, .glb")
    refused("export", trained[0], tmp_path / "a mesh.obj", "--texture", 64, rule="a space in its name")
    refused("export", trained[0], file, "--visible", "only", "--capture", tmp_path / "no", rule="--capture says where")
    refused("export", fitted, file, "--visible", "only", rule="a run that `radfield train` made")
    assert not list(tmp_path.iterdir())


def test_blocks_are_kept_around_occupied_cells():
    cells = torch.zeros(16, 16, 16, dtype=torch.bool)
    cells[3, 8, 15] = True
    for reach in (0, 2, 40):
        near = torch.cartesian_prod(*[torch.arange(16)] * 3) - torch.tensor([3, 8, 15])
        assert torch.equal(level_set.grown(cells, reach).view(-1), near.abs().amax(-1) <= reach)


def test_an_open_mesh_is_announced(tmp_path, command):
    vertices, triangles = sphere(2)
    write_mesh(tmp_path / "open.obj", Mesh(vertices.double(), triangles[10:]))
    with pytest.warns(RadfieldWarning, match="winding number"):
        code = command(
            "fit-sdf", tmp_path / "open.obj", "--output", tmp_path / "run", "--steps", 1, *TINY, "--no-evaluate"
        )
    assert code[0] == 0


def test_bad_input(ball, fitted, trained, tmp_path, refused):
    out = ("--output", tmp_path / "run")
    refused("fit-sdf", rule="no mesh is given")
    refused("fit-sdf", ball, rule="--output is not given")
    refused("fit-sdf", ball, *out, "--encoding", "sparse", rule="one of hash")
    refused("fit-sdf", ball, *out, "--sdf.batch", 1, rule="from 2^8 to 2^22")
    refused("fit-sdf", tmp_path / "no.obj", *out, rule="does not exist")
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    refused("fit-sdf", tmp_path / "points.obj", *out, rule="points.obj")
    (tmp_path / "nan.obj").write_text("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    refused("fit-sdf", tmp_path / "nan.obj", *out, rule="1 of its 3 points are not finite")
    assert not (tmp_path / "run").exists()
    refused("fit-sdf", ball, "--output", fitted, rule="holds a run already")
    refused("export", fitted, tmp_path / "mesh.stl", rule="one of .ply, .obj, .glb")
    refused("export", fitted, tmp_path / "mesh.ply", "--resolution", 1, rule="from 8 to 2048")
    refused("render", fitted, "--output", tmp_path / "p", "--what", "spiral", rule="views or orbit")
    refused("train", "--output", fitted, "--resume", rule="a run that `radfield train` made")
    refused("eval-mesh", ball, ball, "--samples", 1, rule="from 100")
    refused("eval-mesh", ball, tmp_path / "points.obj", rule="points.obj")


def test_a_mesh_of_rendered_depth(trained, tiny_capture, tmp_path, command, refused):
    file = tmp_path / "mesh.ply"
    options = ("--tsdf", "--resolution", 32, "--capture", tiny_capture, "--json")
    code, figures, _ = command("export", trained[0], file, *options)
    assert code == 0 and figures["triangles"] > 100
    assert read_mesh(file)[4].std() > 0.01
    refused("export", trained[0], file, "--tsdf", "--capture", tmp_path / "no", rule="--capture says where it is")


def test_a_mesh_is_cut_by_the_saved_crop_box(fitted, tmp_path, command):
    from radfield.viewer import crop

    transform = sdf.load(fitted).transform
    try:
        crop.save(fitted, crop.Box((0.0, 0.0, 0.0), (1.0, 1.0, 0.5)), transform)
        code, _, said = command("export", fitted, tmp_path / "half.ply", "--resolution", 32, "--json")
        assert code == 0 and any("crop.json" in line for line in said)
        half = transform.points(read_mesh(tmp_path / "half.ply")[0])
        assert half[:, 2].max() < 0.5 + 2 / 32 and half[:, 2].min() < 0.3
        crop.save(fitted, crop.Box((0.0, 0.0, 0.0), (0.01, 0.01, 0.01)), transform)
        code, _, said = command("export", fitted, tmp_path / "none.ply", "--resolution", 32)
        assert code == 2 and "holds no surface" in said[-1] and not (tmp_path / "none.ply").exists()
        assert command("export", fitted, tmp_path / "all.ply", "--resolution", 32, "--crop", "none")[0] == 0
    finally:
        crop.save(fitted, None, transform)
