"""Training Gaussians on a device, without needing a GPU: as on the CPU where kernels are emulated, and nothing is made
or left elsewhere."""

import dataclasses

import pytest
import torch
from checks import emulated, on_gpu
from device_replay import replays_of
from device_watch import Watch

from radfield import backend
from radfield.apps import splat
from radfield.apps.splat import device_step
from radfield.apps.splat import step as splat_step
from radfield.cuda import library
from radfield.errors import RadfieldWarning
from radfield.renderers.gaussian_tiles import EntryBudget

TINY = splat.Config(initial="random", initial_gaussians=120, refine_interval=1, sh_degree=1, coarse=1.0)


def training_of(scene, config=TINY, device="cpu"):
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return splat.Training(splat.build(config, **where, device=device), scene, 0)


def losses(scene, device="cpu", config=TINY):
    """Of three steps, on 12 and 24 pixels a side. What a device keeps to itself is asked for after each."""
    training, found = training_of(scene, config, device), []
    for progress in (0.0, 0.5, 0.6):
        result = splat.train_step(training, progress)
        told = training.device_steps() and training.device_steps().read()
        found.append(told["loss"] if told else result.loss)
    return found


@emulated
def test_emulated_kernels_train_as_the_cpu_does(scene, emulated_ops):
    expected = losses(scene)
    with backend.use(backend.EMULATED):
        found = losses(scene)
    passes = {"gaussian_project", "gaussian_color", "gaussian_raster"}
    assert emulated_ops >= {f"{name}_{way}" for name in passes for way in ("forward", "backward")}
    assert emulated_ops >= {"gaussian_sort", "gaussian_tiles_fill", "target_image", "image_loss", "adam_step"}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=0)
    assert len({round(loss, 6) for loss in found}) == 3


@emulated
@pytest.mark.parametrize("rays", [0, 96])
def test_emulated_rays_train_as_the_cpu_does(scene, emulated_ops, rays):
    """Of views whole, and of random pixels of all views."""
    config = dataclasses.replace(TINY, renderer="trace", initial_gaussians=60, rays=rays)

    def run():
        training = training_of(scene, config)
        return [splat.train_step(training, progress).loss for progress in (0.0, 0.1)]

    expected = run()
    with backend.use(backend.EMULATED), pytest.warns(RadfieldWarning, match="no CUDA graph .*ray tracing"):
        found = run()
    assert emulated_ops >= {f"gaussian_trace_{part}" for part in ("pack", "forward", "backward", "sort", "gather")}
    assert not rays or emulated_ops >= {"pixels_sample", "camera_rays"}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=0)


@emulated
def test_emulated_3dgut_trains_as_the_cpu_does(scene, emulated_ops):
    config = dataclasses.replace(TINY, renderer="3dgut-sorted", initial_gaussians=50)
    expected = losses(scene, config=config)
    with backend.use(backend.EMULATED):
        found = losses(scene, config=config)
    assert emulated_ops >= {f"gaussian_eval3d_{part}" for part in ("pack", "forward", "backward")}
    assert emulated_ops >= {"gaussian_unscented_forward", "gaussian_trace_gather"}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=0)
    assert len({round(loss, 6) for loss in found}) == 3


@on_gpu
@pytest.mark.filterwarnings("ignore:no CUDA graph")
@pytest.mark.parametrize("options", [{}, {"renderer": "trace", "rays": 512}])
def test_a_gpu_trains_as_the_cpu_does(scene, options):
    config = dataclasses.replace(TINY, **options)
    found, expected = losses(scene, backend.device("cuda")[0], config), losses(scene, config=config)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=0)


@emulated
@pytest.mark.parametrize("renderer", ("raster", "3dgut-sorted"))
def test_no_step_waits_for_the_device(scene, renderer):
    """But where Gaussians are added and removed, where room is made, and where figures are read."""
    config = dataclasses.replace(TINY, refine_interval=100, renderer=renderer)
    with backend.use(backend.EMULATED):
        training, places = training_of(scene, config), []
        for _ in range(3):
            with Watch() as watch:
                splat.train_step(training, 0.0)
            places.append(set(watch.reads))
        with Watch() as watch:
            read = training.device_steps().read()
    assert "apps/splat/device_step.py:_make" in places[0]
    # what cameras are made from, and random numbers, are the host's
    host = ("renderers/gaussian_camera.py:", "cameras.py:model_of", "apps/splat/step.py:")
    assert {place for place in places[1] | places[2] if not place.startswith(host)} == set()
    assert set(watch.reads) == {"training/device_steps.py:fetch"} and len(watch.reads) == 1
    assert read["steps"] == 3 and read["entries"] > 0


@emulated
@pytest.mark.parametrize(
    ("renderer", "progress", "replayed"),
    # the fifth step adds and removes some; the sixth has larger images
    [("raster", (0.0,) * 5 + (0.7,) * 4, (2, 3, 4, 7, 8)), ("3dgut", (0.0,) * 4, (2, 3))],
)
def test_a_captured_step_is_the_same_steps(scene, monkeypatch, renderer, progress, replayed):
    """Replays, which run none of the step's Python, train as steps do: views, backgrounds and rates come from the
    device; after a refinement all is captured anew. Bits are the same, since no sum is by atomics."""
    config = dataclasses.replace(TINY, refine_interval=1, background="random", renderer=renderer)
    found = {}
    for captures in (False, True):
        with backend.use(backend.EMULATED), monkeypatch.context() as patch:
            training = training_of(scene, config)
            if captures:
                replays_of(training, patch)
            results, captured = [], []
            for at in progress:
                splat.train_step(training, at)
                results += training.device_steps().read() or (), len(training.model.gaussians)
                captured.append(any(graph.captured for graph in training.device_steps().graphs.values()))
            assert captured == [captures and i in replayed for i in range(len(progress))]
            found[captures] = results, training.model.gaussians
    (once, ours), (again, theirs) = found[False], found[True]
    assert once == again and (len(set(once[1::2])) > 1) == (renderer == "raster")
    assert all(torch.equal(a, b) for a, b in zip(ours.tensors().values(), theirs.tensors().values(), strict=True))


@emulated
def test_a_view_that_does_not_fit_moves_nothing(scene):
    with backend.use(backend.EMULATED):
        training = training_of(scene, dataclasses.replace(TINY, refine_interval=100))
        splat.train_step(training, 0.0)
        steps = training.device_steps()
        steps.read()
        before, room = training.model.gaussians.map(torch.clone), steps.budget.capacity
        steps.budget = EntryBudget(7, steps.device)
        splat.train_step(training, 0.0)
        with pytest.warns(RadfieldWarning, match="moved nothing"):
            told = steps.read()
        assert told["entries"] > 7 and steps.budget.capacity >= room > 7
        assert all(torch.equal(a, b) for a, b in zip(before.tensors().values(), _values(training), strict=True))
        assert float(training.statistics.views.max()) <= 1
        splat.train_step(training, 0.0)
    assert not all(torch.equal(a, b) for a, b in zip(before.tensors().values(), _values(training), strict=True))


def _values(training):
    return training.model.gaussians.tensors().values()


@emulated
def test_a_step_that_is_not_finite_changes_nothing(scene, monkeypatch):
    with backend.use(backend.EMULATED):
        training = training_of(scene, dataclasses.replace(TINY, refine_interval=100))
        splat.train_step(training, 0.0)
        before, statistics = training.model.gaussians.map(torch.clone), training.statistics.gradient.clone()
        monkeypatch.setattr(splat_step, "background_of", lambda training: (float("nan"),) * 3)
        for _ in range(2):
            splat.train_step(training, 0.0)
        with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
            training.settle()
    assert training.step == training.adam.steps == 1 and torch.equal(training.statistics.gradient, statistics)
    assert all(torch.equal(a, b) for a, b in zip(before.tensors().values(), _values(training), strict=True))


@emulated
def test_steps_that_have_to_wait_say_so(scene, monkeypatch):
    said = []
    monkeypatch.setattr(device_step, "warn", said.append)
    with backend.use(backend.EMULATED):
        for options in ({"densification": "mcmc"}, {"exposure": True}, {"renderer": "trace"}):
            assert training_of(scene, dataclasses.replace(TINY, **options)).device_steps() is None
    reasons = [line.split("(")[1].split(")")[0] for line in said]
    assert reasons == ["densification 'mcmc'", "corrections per image", "ray tracing"]


@pytest.mark.parametrize(
    ("densification", "renderer", "rays"),
    [
        ("default", "raster", 0),
        ("mcmc", "raster", 0),
        ("mcmc", "trace", 0),
        ("mcmc", "3dgut-sorted", 0),
        ("default", "trace", 64),
    ],
)
def test_no_tensor_is_made_without_a_device(scene, densification, renderer, rays):
    """Also where Gaussians are added, moved and removed, and their opacities reset."""
    refined = {"cameras": True, "exposure": True} if renderer == "raster" else {}
    options = {"densification": densification, "renderer": renderer, "rays": rays, "reset_interval": 7, **refined}
    training = training_of(scene, dataclasses.replace(TINY, **options))
    training.begin()
    training.step = 1  # the first Gaussians are made on the CPU, then moved
    count = len(training.model.gaussians)
    with Watch() as watch:
        for _ in range(8):
            splat.train_step(training, 0.4)
        training.model.render_view(scene.val.cameras.scaled(0.2), 0)
    assert len(training.model.gaussians) != count and watch.stray == []


def test_training_is_on_its_device(scene):
    training = training_of(scene, dataclasses.replace(TINY, initial_gaussians=50), "meta")
    training.begin()
    camera, (pixels, _) = training.camera(0, 2), training.views(0, 1)
    statistics = training.statistics.gradient, training.statistics.views
    kept = [*training.model.gaussians.tensors().values(), *training.adam.tensors().values(), *statistics]
    assert len(training.model.gaussians) == 50
    assert {v.device.type for v in (*kept, camera.world_to_camera, camera.position, pixels)} == {"meta"}


@pytest.mark.skipif(library.unavailable() is None, reason="for machines without a GPU")
def test_a_gpu_that_is_not_there(command, tiny_capture, tmp_path):
    code, _, said = command(
        "train", tiny_capture, "--method", "splat", "--device", "cuda", "--output", tmp_path / "run"
    )
    assert code == 2 and "--device is cuda; the rule: auto or cpu here: torch" in said[-1]
    assert not (tmp_path / "run").exists()
