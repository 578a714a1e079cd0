"""Fitting distance fields, pictures and volumes on a device, without needing a GPU: as on the CPU where kernels are
emulated, no host that waits within a step, and nothing made elsewhere."""

import numpy as np
import pytest
import torch
from checks import emulated, on_gpu
from device_replay import replays_of, tensors_in
from device_watch import Watch
from tracing_meshes import sphere

from radfield import backend
from radfield.apps.fit import device_step, picture, picture_compact, sdf, sdf_views, volume, volume_views
from radfield.apps.fit.training import FitTraining, train_step
from radfield.cuda import library
from radfield.data.picture_files import Picture, write_picture
from radfield.data.volume_files import cloud
from radfield.renderers import media, sphere_tracing
from radfield.sampling.random import Counted, stream
from radfield.tracing.cloud import Cloud
from radfield.tracing.surface import Surface
from radfield.training import device_steps
from radfield.training.run_folder import RunFolder

#: as small as emulated kernels, every access of which is checked, ask for
SMALL = {"levels": 3, "log2_size": 8, "base_resolution": 4, "finest_resolution": 32, "batch": 64}
KINDS = ("sdf", "unsigned", "picture", "volume")
KINDS_ONCE = ("sdf", pytest.param("unsigned", marks=pytest.mark.slow), "picture", "volume")


def ball() -> Surface:
    vertices, triangles = sphere(1)
    surface = Surface.of(0.4 * vertices + 0.5, triangles)
    with backend.use("cpu"):
        assert surface.rule == "pseudonormal"  # asked for once, by the host
    return surface


def of_surface(surface, unsigned, device, options):
    scene = {"transform": sdf.scene_of(surface), "size": sdf.size_of(surface), **sdf.kind_of(surface, unsigned)}
    return sdf.Training(sdf.build(sdf.Config(**SMALL | options), **scene, device=device), surface, 5)


def of_picture(values, device, options):
    target = Picture(values)
    scene = {**picture.scene_of(target), "size": target.size}
    return picture.Training(picture.build(picture.Config(**SMALL | options), **scene, device=device), target, 5)


def of_volume(device, options):
    model = volume.build(volume.Config(**SMALL | options), size=(12,) * 3, channels=1, peak=1.0, device=device)
    return volume.Training(model, volume.Lookup(cloud(12), 1.0, device), 5)


def pixels() -> np.ndarray:
    y, x = np.mgrid[:20, :24]
    return np.stack([10 * x, 12 * y, 5 * (x + y)], 2).astype(np.uint8)


def training_of(kind, device="cpu", **options) -> FitTraining:
    if kind == "cloud":
        points = ball().sample(80, torch.Generator().manual_seed(0)).double()
        return of_surface(Cloud.of(points), True, device, options)
    if kind in ("sdf", "unsigned"):
        return of_surface(ball(), kind == "unsigned", device, options)
    return of_picture(pixels(), device, options) if kind == "picture" else of_volume(device, options)


@pytest.fixture
def counted(monkeypatch):
    """The CPU draws a device's random numbers."""

    def source(training, seed):
        number = torch.tensor([stream(training.seed, training.step)]) if seed is None else seed.long()
        return Counted(number.to(training.model.device))

    monkeypatch.setattr(FitTraining, "source", source)


def losses(kind, device="cpu", steps=3, **options) -> torch.Tensor:
    """Of some steps. What a device keeps to itself for some steps is asked for after each."""
    training, found = training_of(kind, device, **options), []
    for i in range(steps):
        result = train_step(training, i / steps)
        told = training.device_steps() and training.device_steps().read()
        found.append(told["loss"] if told else result.loss)
    return torch.tensor(found)


@emulated
@pytest.mark.parametrize("kind", KINDS)
def test_emulated_kernels_fit_as_the_cpu_does(kind, counted, emulated_ops):
    expected = losses(kind)
    with backend.use(backend.EMULATED):
        found = losses(kind)
    own = {"sdf": {"mesh_distance"}, "unsigned": {"mesh_distance"}, "picture": {"picture_pixels"}, "volume": set()}
    assert emulated_ops >= {"hash_grid_forward", "hash_grid_adam", "mlp_backward", "adam_step"} | own[kind]
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)
    assert len(set(found.tolist())) == 3


@emulated
@pytest.mark.parametrize("kind", ["cloud", "volume"])
def test_steps_that_wait_fit_as_the_cpu_does(kind, counted, monkeypatch):
    said, options = [], {"encoding": "triplane"} if kind == "volume" else {}
    monkeypatch.setattr(device_step, "warn", said.append)
    expected = losses(kind, steps=2, **options)
    with backend.use(backend.EMULATED):
        found = losses(kind, steps=2, **options)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)
    reason = "a cloud of points" if kind == "cloud" else "encoding 'triplane'"
    assert said == [f"no CUDA graph of the training step ({reason}): the host waits for the device within each step"]


@on_gpu
@pytest.mark.filterwarnings("ignore:no CUDA graph")
@pytest.mark.parametrize("kind", (*KINDS, "cloud"))
def test_a_gpu_fits_as_the_cpu_does(kind, counted):
    found = losses(kind, backend.device("cuda")[0])
    torch.testing.assert_close(found, losses(kind), rtol=2e-2, atol=0)


@emulated
@pytest.mark.parametrize("kind", KINDS_ONCE)
def test_no_step_waits_for_the_device(kind):
    """But where figures are read; nor is anything made elsewhere. The first step makes the tree, on the host."""
    with backend.use(backend.EMULATED):
        training, places = training_of(kind), []
        for _ in range(3):
            with Watch() as watch:
                train_step(training, 0.5)
            places.append({*watch.reads, *watch.stray})
        with Watch() as watch:
            read = training.device_steps().read()
    assert {place for place in places[0] if not place.startswith("tracing/")} == set()
    assert places[1] == places[2] == set()
    assert set(watch.reads) == {"training/device_steps.py:fetch"} and len(watch.reads) == 1
    assert read["steps"] == 3 and read["loss"] > 0


@emulated
@pytest.mark.parametrize("kind", KINDS_ONCE)
def test_a_captured_step_is_the_same_steps(kind, monkeypatch):
    """Replays, which run none of the step's Python, fit as steps do: points and rates come from the device."""
    found = {}
    for captures in (False, True):
        with backend.use(backend.EMULATED), monkeypatch.context() as patch:
            training = training_of(kind)
            if captures:
                replays_of(training, patch)
            patch.setattr(device_steps, "READ_INTERVAL", 9)
            results, captured = [], []
            for i in range(5):
                train_step(training, i / 5)
                results.append(training.device_steps().read()["loss"])
                captured.append(training.device_steps().replayed.captured)
            assert captured == [captures and i >= 2 for i in range(5)]
            found[captures] = torch.tensor(results), training.model.field.network.weights.detach()
    (once, weights), (again, weights_again) = found[False], found[True]
    torch.testing.assert_close(once, again, rtol=1e-3, atol=0)
    torch.testing.assert_close(weights, weights_again, rtol=1e-2, atol=1e-3)
    assert len(set(again.tolist())) == 5


@emulated
def test_a_step_that_is_not_finite_changes_nothing():
    with backend.use(backend.EMULATED):
        training = training_of("picture")
        train_step(training, 0.2)
        field = training.model.field
        before = field.grid.table.detach().clone()
        field.network.weights.data.fill_(torch.nan)
        for _ in range(2):
            train_step(training, 0.9)
        with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
            training.settle()
    assert training.step == training.optimizer.steps == 1 and torch.equal(field.grid.table, before)


@emulated
def test_a_run_goes_from_a_device_to_the_cpu_and_back(tmp_path):
    """Loaded, continued and measured anywhere, whatever it was fitted on."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with backend.use(backend.EMULATED):
        ours = training_of("picture")
        for i in range(3):
            train_step(ours, i / 6)
        ours.save(folder)
        shown = ours.model.pixels((24, 20), (0, 0, 24, 20))
    theirs = training_of("picture")
    theirs.load(folder)
    assert (theirs.step, theirs.optimizer.steps) == (3, 3)
    assert all(torch.equal(value, theirs.tensors()[name]) for name, value in ours.tensors().items())
    torch.testing.assert_close(theirs.model.pixels((24, 20), (0, 0, 24, 20)), shown, rtol=0, atol=1e-2)
    result = train_step(theirs, 0.5)
    theirs.save(folder)
    with backend.use(backend.EMULATED):
        ours.load(folder)
        train_step(ours, 0.7)
        told = ours.device_steps().read()
    assert (ours.step, told["steps"]) == (5, 1) and abs(told["loss"] / result.loss - 1) < 0.5


@pytest.mark.parametrize("kind", (*KINDS, "cloud"))
def test_no_tensor_is_made_without_a_device(kind, monkeypatch):
    """Neither in steps nor in pictures."""
    monkeypatch.setattr(sphere_tracing, "CELLS", 8)
    training = training_of(kind)
    model = training.model
    with Watch() as watch:
        for progress in (0.0, 0.6):
            train_step(training, progress)
    # the CPU's own numbers come from a generator there; trees over points are made there, wherever these are
    assert {place for place in watch.stray if not place.startswith(("tracing/", "sampling/random.py"))} == set()
    if kind == "volume":
        cameras = volume_views.cameras_around(model.box, 1, 4)
        few = {"steps": 2, "light_directions": 2, "light_steps": 1}
        with Watch() as watch:
            rays = cameras.image_rays(0)
            for medium in (model.medium, training.lookup.medium):
                given = model.box, rays, media.Environment()
                assert media.march(medium, *given, **few).shape == (16, 3)
                assert media.delta_track(medium, 5.0, *given, most_scatterings=1).shape == (16, 3)
    elif kind != "picture":
        cameras = sdf_views.cameras_around(model.size, "y", 1, 8)
        with Watch() as watch:
            assert model.render_view(cameras, 0).color.shape == (8, 8, 3)
    # what tells of no data is made on the host, then moved
    host = ("renderers/media.py:sphere_directions", "renderers/media.py:table")
    assert {place for place in watch.stray if not place.startswith(host)} == set() or kind == "cloud"


@pytest.mark.parametrize("kind", ["sdf", "picture"])
def test_all_of_a_training_is_on_its_device(kind, monkeypatch):
    surface = ball()
    monkeypatch.setattr(backend, "backend_for", lambda tensor: backend.EMULATED)
    monkeypatch.setattr(backend, "runner", lambda device: lambda op, packed, device: None)
    training = of_surface(surface, False, "meta", {}) if kind == "sdf" else training_of(kind, "meta")
    field, seen = training.model.field, {}
    parts = [field, training.optimizer, getattr(training, "values", field.grid.table)]
    found = list(tensors_in(parts, seen))
    own = {id(t) for part in (field.grid.grid, field.network.layers) for t in vars(part).values()}
    elsewhere = [t for t in found if t.device.type != "meta" and id(t) not in own]
    assert len(found) > 6 and elsewhere == [] and training.model.device.type == "meta"


def test_a_picture_that_a_gpu_cannot_hold_stays_in_memory(monkeypatch):
    monkeypatch.setattr(picture, "_fits", lambda values, device: False)
    monkeypatch.setattr(backend, "backend_for", lambda tensor: backend.EMULATED)
    training = training_of("picture", "meta")
    assert training.values.device.type == "cpu" and "GPU's memory" in device_step.obstacle(training)


@pytest.mark.skipif(library.unavailable() is None, reason="for machines without a GPU")
def test_a_gpu_that_is_not_there(refused, tmp_path):
    rule = "--device is cuda; the rule: auto or cpu here: torch"
    out = "--device", "cuda", "--output", tmp_path / "run"
    for program, source in (("fit-sdf", "a.ply"), ("fit-image", "a.png"), ("fit-volume", "cloud:8")):
        refused(program, source, *out, rule=rule)
    refused("train-frames", tmp_path, *out, rule=rule)
    refused("decode", tmp_path, tmp_path / "a.png", "--device", "cuda", rule=rule)
    refused("export", tmp_path, tmp_path / "a.ply", "--device", "cuda", rule=rule)
    assert list(tmp_path.iterdir()) == []


def test_what_auto_takes_is_said_once(command, tmp_path):
    """By fitting, measuring and decoding; a compact file is read on any device."""
    write_picture(tmp_path / "a.png", pixels())
    tiny = ("--picture.levels", 3, "--picture.log2-size", 8, "--picture.batch", 256, "--no-evaluate")
    code, _, said = command("fit-image", tmp_path / "a.png", "--output", tmp_path / "run", "--steps", 2, *tiny)
    again, _, more = command("decode", tmp_path / "run", tmp_path / "b.png")
    chosen = "CUDA kernels run on this GPU" if library.unavailable() is None else "no GPU: "
    assert code == again == 0 and [sum(chosen in line for line in lines) for lines in (said, more)] == [1, 1]
    model = picture.load(tmp_path / "run")
    picture_compact.write_compact(tmp_path / "small.safetensors", model)
    read = picture_compact.read_compact(tmp_path / "small.safetensors", torch.device("cpu"))
    assert torch.equal(read.field.grid.stored(), model.field.grid.stored())


def test_what_nothing_is_computed_of_on_a_gpu(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "no_cuda", lambda: None)
    (tmp_path / "config.json").write_text('{"version": 1, "app": "splat"}')
    for file, what in (("page", "a page is"), ("a.ply", "Gaussians are")):
        refused("export", tmp_path, tmp_path / file, "--device", "cuda", rule=f"auto or cpu where {what} written")
