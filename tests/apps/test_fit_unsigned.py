"""`radfield fit-sdf --unsigned`: open meshes and clouds of points, what renders, measures and exports their runs."""

import json

import numpy as np
import pytest
import torch
from tracing_meshes import sphere

from radfield.apps.fit import fit_sdf, level_sets, sdf, sdf_views
from radfield.data.synthetic.mesh import read_mesh
from radfield.errors import RadfieldWarning
from radfield.fields import distance
from radfield.meshing.files import write_mesh
from radfield.meshing.mesh import Mesh
from radfield.renderers import sphere_tracing
from radfield.tracing.cloud import Cloud
from radfield.tracing.surface import Surface

TINY = (
    *("--sdf.levels", 5, "--sdf.log2-size", 14, "--sdf.finest-resolution", 64, "--sdf.batch", 4096),
    *("--unsigned", "--no-evaluate", "--threads", 1),
)
RADIUS = 20.0


def half_sphere():
    """(vertices, triangles): z >= 0 of a sphere around (5, 5, 5)."""
    vertices, triangles = sphere(4)
    return RADIUS * vertices.double() + 5, triangles[(vertices[triangles][..., 2] >= 0).all(-1)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with bowl.ply, a mesh, and bowl.npy, points on it."""
    folder = tmp_path_factory.mktemp("bowls")
    vertices, triangles = half_sphere()
    write_mesh(folder / "bowl.ply", Mesh(vertices, triangles))
    points = Surface.of(vertices, triangles).sample(3000, torch.Generator().manual_seed(0))
    np.save(folder / "bowl.npy", points.numpy())
    return folder


def fit(path, run, steps, *more):
    from radfield.apps.command_line import main

    arguments = ("fit-sdf", path, "--output", run, "--steps", steps, "--up", "z", *TINY, *more)
    assert main([str(a) for a in arguments]) == 0
    return run


@pytest.fixture(scope="module")
def bowl(files, tmp_path_factory):
    """A run of the mesh, which tests only read."""
    return fit(files / "bowl.ply", tmp_path_factory.mktemp("runs") / "bowl", 200)


@pytest.fixture(scope="module")
def scan(files, tmp_path_factory):
    """A run of the points."""
    return fit(files / "bowl.npy", tmp_path_factory.mktemp("runs") / "scan", 120, "--sdf.batch", 8192)


@pytest.fixture
def small_pictures(monkeypatch):
    monkeypatch.setattr(sphere_tracing, "CELLS", 32)
    monkeypatch.setattr(fit_sdf, "REPORT_PIXELS", 64)
    monkeypatch.setattr(sdf_views, "OVERLAP_POINTS", 1 << 12)
    monkeypatch.setattr(sdf_views, "CHAMFER_RESOLUTION", 40)


@pytest.mark.parametrize("name", ["bowl", "scan"])
def test_an_open_sheet_is_fitted_and_measured(name, request, command, small_pictures):
    run = request.getfixturevalue(name)
    code, figures, _ = command("eval", run, "--json")
    assert code == 0
    assert "iou" not in figures and figures["distance_error"] < 0.02
    assert figures["chamfer"] < {"bowl": 0.006, "scan": 0.01}[name]
    assert figures["f_score"] > 0.5 and figures["uncovered"] < 0.05
    assert (run / "report.html").exists() and (run / "renders" / "003.png").exists()


def test_no_value_is_below_zero_and_no_sheet_past_the_rim(bowl):
    """The network keeps its sign on both sides of the sheet: it is not below 0 but where it is all but 0."""
    model = sdf.load(bowl)
    low, high = model.box
    x = (low + (high - low) * torch.rand(20000, 3, dtype=torch.float64)).float()
    f = model.distance(x)
    assert model.unsigned and f.min() >= 0
    with torch.no_grad():
        assert (model.field.value(x) < 0).float().mean() < 0.02


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb"])
def test_the_mesh_is_open_and_in_the_files_own_units(bowl, tmp_path, command, ending):
    file = tmp_path / f"mesh{ending}"
    code, figures, _ = command("export", bowl, file, "--resolution", 40, "--largest", "--json")
    assert code == 0 and figures["open_edges"] > 0
    vertices, triangles = read_mesh(file)[:2]
    assert len(triangles) == figures["triangles"]
    off = (vertices - 5).norm(dim=-1) / RADIUS - 1
    assert off.abs().median() < 0.02 and vertices[:, 2].min() > 5 - 0.15 * RADIUS


def test_pictures_and_the_viewer(bowl, tmp_path, command, small_pictures):
    from radfield.viewer import exhibit
    from radfield.viewer.sources import Look

    options = ("--output", tmp_path / "p", "--size", 48, "--views", 2, "--depth", "--json")
    assert len(command("render", bowl, *options)[1]["files"]) == 4
    shown = exhibit.of_run(bowl, capture=None, device="cpu")
    assert shown.about == "unsigned distance field"
    cameras = sdf_views.cameras_around(sdf.load(bowl).size, "z", 1, 32)
    answer = shown.source.ask(Look(), cameras, torch.arange(32 * 32))
    assert 0.2 < answer.opacity.mean() < 0.8 and answer.depth.max() > 1


def test_a_resumed_run_stays_unsigned(files, tmp_path, command, refused):
    run = fit(files / "bowl.ply", tmp_path / "run", 2)
    assert command("fit-sdf", "--output", run, "--resume", "--steps", 4, "--no-evaluate")[0] == 0
    assert json.loads((run / "config.json").read_text())["options"]["unsigned"] is True
    assert sdf.load(run).unsigned
    signed = tmp_path / "signed"
    few = [word for word in TINY if word != "--unsigned"]
    with pytest.warns(RadfieldWarning, match="winding number"):
        assert command("fit-sdf", files / "bowl.ply", "--output", signed, "--steps", 1, *few)[0] == 0
    refused(
        "fit-sdf", "--output", signed, "--resume", "--unsigned", "--steps", 2, rule="--resume keeps the run's False"
    )


def test_bad_input(files, bowl, tmp_path, refused, command):
    out = ("--output", tmp_path / "run", "--steps", 1, "--no-evaluate")
    refused("fit-sdf", files / "bowl.npy", *out, rule="has points and no faces; the rule: a mesh, or --unsigned")
    np.save(tmp_path / "few.npy", np.zeros((100, 3)))
    refused("fit-sdf", tmp_path / "few.npy", "--unsigned", *out, rule="it has 1 points (0 not finite, 99 repeated)")
    (tmp_path / "no.xyz").write_text("a b c\n")
    refused("fit-sdf", tmp_path / "no.xyz", "--unsigned", *out, rule="'a b c'; the rule: three numbers")
    refused("fit-sdf", tmp_path / "none.ply", "--unsigned", *out, rule="does not exist")
    assert not (tmp_path / "run").exists()
    config = json.loads((bowl / "config.json").read_text())
    for name, value in (("unsigned", 1), ("spacing", -1.0)):
        broken = tmp_path / name
        broken.mkdir()
        (broken / "checkpoint.safetensors").write_bytes((bowl / "checkpoint.safetensors").read_bytes())
        scene = config["scene"] | {name: value}
        (broken / "config.json").write_text(json.dumps(config | {"scene": scene}))
        refused("render", broken, "--output", tmp_path / "p", rule=f"{name} is {value}")
    points = np.load(files / "bowl.npy")
    points[5], points[6] = np.nan, points[7]
    np.save(tmp_path / "dirty.npy", points)
    with pytest.warns(RadfieldWarning) as said:
        assert command("fit-sdf", tmp_path / "dirty.npy", *out, *TINY)[0] == 0
    assert {"dirty.npy: 1 of 3000 points are not finite, and left out"} <= {str(each.message) for each in said}


class Exact(torch.nn.Module):
    """The distance to the plane z = 0.5 where |x - 0.5| and |y - 0.5| are below 0.3, times a factor that is learned."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def value(self, x):
        beyond = ((x[:, :2] - 0.5).abs() - 0.3).clamp_min(0)
        return self.factor * torch.cat((beyond, x[:, 2:] - 0.5), 1).norm(dim=-1)


def test_the_exact_distance_has_the_least_loss():
    """On points of a square: of all multiples of the distance, training prefers the distance itself."""
    points = torch.rand(20000, 3, dtype=torch.float64)
    cloud = Cloud.of(torch.cat((0.6 * points[:, :2] + 0.2, torch.full((20000, 1), 0.5, dtype=torch.float64)), 1))
    losses, slopes = [], []
    for factor in (0.7, 0.97, 1.03, 1.3):
        field = Exact(factor)
        loss = level_sets.loss(field, cloud, 20000, 0.5, torch.Generator().manual_seed(1))
        loss.backward()
        losses.append(loss.item()), slopes.append(float(field.factor.grad))
    assert losses[0] > losses[1] and losses[2] < losses[3]
    assert slopes[0] < 0 < slopes[3]
    assert min(losses[1:3]) < 0.5 * min(losses[0], losses[3])


def test_gradients_by_differences_are_those_of_a_plane():
    field = Exact(2.0)
    x = torch.tensor([[0.5, 0.5, 0.6], [0.4, 0.6, 0.3]])
    f, normal = level_sets.with_gradient(field, x, 0.01)
    assert torch.allclose(f, torch.tensor([0.2, 0.4])) and f.requires_grad
    assert torch.allclose(normal, torch.tensor([[0.0, 0, 1], [0, 0, -1]]), atol=1e-5)


def test_every_encoding_learns_a_cloud():
    surface = Surface.of(*half_sphere())
    cloud = Cloud.of(surface.sample(1500, torch.Generator().manual_seed(0)).double())
    transform = sdf.scene_of(cloud)
    cloud = Cloud(transform.points(cloud.points))
    sizes = {"levels": 3, "log2_size": 12, "finest_resolution": 32, "batch": 2048}
    for encoding in ("dense", "simplex"):
        config = sdf.Config(encoding=encoding, **sizes)
        model = sdf.build(config, transform=transform, size=sdf.size_of(cloud), **sdf.kind_of(cloud, True))
        training = sdf.Training(model, cloud, 0)
        losses = [sdf.train_step(training, step / 20).loss for step in range(20)]
        assert sum(losses[-4:]) < 0.8 * sum(losses[:4]), encoding


def test_an_unsigned_field_begins_above_zero():
    field = distance.DistanceField(distance.Config(unsigned=True))
    x = torch.rand(1000, 3)
    with torch.no_grad():
        assert (field.value(x) > 0).float().mean() > 0.5
        assert torch.equal(field.distance(x), field.value(x).abs())
