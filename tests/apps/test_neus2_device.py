"""Training a surface on a device, without needing a GPU: as on the CPU where kernels are emulated, no host that waits
within a step, and nothing made elsewhere."""

import dataclasses

import pytest
import torch
from checks import emulated, on_gpu
from device_replay import replays_of
from device_watch import Watch

from radfield import backend
from radfield.apps import neus2
from radfield.apps.neus2 import device_step
from radfield.apps.neus2 import motion as neus2_motion
from radfield.apps.neus2.motion import Motion, find_motion
from radfield.errors import BadInput
from radfield.sampling.occupancy import OccupancyGrid
from radfield.training import device_steps

#: as small as emulated kernels, every access of which is checked, ask for
SMALL = neus2.Config(
    levels=3,
    features=2,
    log2_size=8,
    finest_resolution=64,
    batch_samples=256,
    uniform_cells=256,
    occupied_cells=64,
    occupancy_interval=3,
)
SEED = 22  # of whose first steps' two rays each some meet the object: what misses it says nothing


def training_of(scene, config=SMALL, device="cpu"):
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    training = neus2.Training(neus2.build(config, **where, device=device), scene, SEED)
    training.step = 3  # the first step evaluates every cell; this one some
    return training


def figures(scene, config=SMALL, device="cpu", rays=2):
    """Loss and eikonal term of steps at all stages of a budget, and the sharpness after each. What a device keeps to
    itself for some steps is asked for after each."""
    training, found = training_of(scene, config, device), []
    for progress in (0.0, 0.2, 0.8):
        training.rays = rays
        result = neus2.train_step(training, progress)
        told = training.device_steps() and training.device_steps().read()
        result = neus2.StepResult(**told) if told else result
        found += [result.loss, result.eikonal, training.model.field.sharpness]
    return torch.tensor(found)


@emulated
@pytest.mark.parametrize(
    "options",
    [
        {"mask": 0.1, "around": 1.0, "radius": 0.5},  # much of what masks say is empty is inside at first
        pytest.param({"precision": "f32", "anneal": 0.5}, marks=pytest.mark.slow),
        pytest.param({"visual_hull": False}, marks=pytest.mark.slow),
    ],
)
def test_emulated_kernels_train_as_the_cpu_does(scene, emulated_ops, options):
    config = dataclasses.replace(SMALL, **options)
    expected = figures(scene, config)
    with backend.use(backend.EMULATED):
        found = figures(scene, config)
    assert emulated_ops >= {"grid_jacobian_forward", "grid_jacobian_pull", "grid_jacobian_push", "slope_adam"}
    assert emulated_ops >= {"neus_alpha_forward", "neus_alpha_backward", "mlp_backward", "composite_backward"}
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-4)
    assert float(expected[::3].min()) > 1e-3  # rays meet the object at every step


@on_gpu
def test_a_gpu_trains_as_the_cpu_does(scene):
    found = figures(scene, device=backend.device("cuda")[0], rays=64)
    torch.testing.assert_close(found, figures(scene, rays=64), rtol=2e-2, atol=1e-4)


@emulated
def test_no_step_waits_for_the_device(scene):
    """But where the occupancy grid is updated, and where figures are read. The first asks what lenses there are."""
    with backend.use(backend.EMULATED):
        training, places = training_of(scene), []
        for _ in range(3):
            with Watch() as watch:
                training.rays = 2
                neus2.train_step(training, 0.8)
            places.append(set(watch.reads))
        with Watch() as watch:
            read = training.device_steps().read()
    own = ("sampling/occupancy", "apps/neus2/model.py", "fields/neural_surface.py:sharpness", "cameras.py:distorted")
    assert {place for place in places[0] if not place.startswith(own)} == set()
    assert places[1] == places[2] == set()
    assert set(watch.reads) == {"training/device_steps.py:fetch"} and len(watch.reads) == 1
    assert read["steps"] == 3 and read["live"] > 0


@emulated
def test_a_captured_step_is_the_same_steps(scene, monkeypatch):
    """Replays, which run none of the step's Python, train as steps do: seeds, rates, random points, the bounds of the
    sharpness and rays in use come from the device. A level more, and the curvature, make a new capture."""
    found = {}
    for captures in (False, True):
        with backend.use(backend.EMULATED), monkeypatch.context() as patch:
            training = training_of(scene, dataclasses.replace(SMALL, occupancy_interval=100))
            training.step, training.rays = 1, 2
            if captures:
                replays_of(training, patch)
            patch.setattr(device_steps, "READ_INTERVAL", 9)
            results, captured = [], []
            for progress in (0.3, 0.31, 0.32, 0.33, 0.8, 0.81, 0.82):
                training.rays = 2
                neus2.train_step(training, progress)
                results.append(training.device_steps().read())
                captured.append(training.device_steps().replayed.captured)
            assert captured == [captures and i in (2, 3, 6) for i in range(7)]
            found[captures] = results, training.model.field.sharpness, training.model.field.sdf_network.weights.detach()
    (once, s, weights), (again, s_again, weights_again) = found[False], found[True]
    assert [r["marched"] for r in once] == [r["marched"] for r in again] and abs(s - s_again) < 1e-3 * s
    for name, near in (("loss", 1e-2), ("eikonal", 1e-2)):
        torch.testing.assert_close(*(torch.tensor([r[name] for r in f]) for f in (once, again)), rtol=near, atol=0)
    torch.testing.assert_close(weights, weights_again, rtol=1e-2, atol=1e-3)
    assert len({r["loss"] for r in again}) >= 3  # two rays may both see nothing: masks say where they need not look


@emulated
def test_a_step_that_is_not_finite_changes_nothing(scene):
    with backend.use(backend.EMULATED):
        training = training_of(scene, dataclasses.replace(SMALL, occupancy_interval=100))
        training.rays = 2
        neus2.train_step(training, 0.2)
        field = training.model.field
        before = [each.detach().clone() for each in (field.grid.table, field.sdf_network.weights, field.log_sharpness)]
        field.color_network.weights.data.fill_(torch.nan)
        for _ in range(2):
            neus2.train_step(training, 0.9)
        with pytest.raises(FloatingPointError, match="the loss of step 4 is nan"):
            training.settle()
    after = field.grid.table, field.sdf_network.weights, field.log_sharpness
    assert training.step == 4 and training.optimizer.steps == 1
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@emulated
def test_a_surface_that_vanished_is_told(scene):
    with backend.use(backend.EMULATED):
        training = training_of(scene, dataclasses.replace(SMALL, occupancy_interval=100))
        training.model.grid.bitfield.zero_(), training.model.grid.near_blocks.zero_()
        neus2.train_step(training, 0.2)
        with pytest.raises(BadInput, match="the surface vanished"):
            training.settle()


@emulated
def test_steps_that_have_to_wait_say_so(scene, monkeypatch):
    said = []
    monkeypatch.setattr(device_step, "warn", said.append)
    with backend.use(backend.EMULATED):
        larger = dataclasses.replace(scene, cascades=2, has_alpha=False)
        assert training_of(larger, dataclasses.replace(SMALL, outside="field")).device_steps() is None
        assert training_of(scene, dataclasses.replace(SMALL, encoding="simplex")).device_steps() is None
    assert [line.split("(")[1].split(")")[0] for line in said] == ["a field around the surface", "encoding 'simplex'"]


@pytest.mark.parametrize("outside", ["none", "field"])
def test_no_tensor_is_made_without_a_device(scene, outside):
    larger = scene if outside == "none" else dataclasses.replace(scene, cascades=2, has_alpha=False)
    config = dataclasses.replace(SMALL, outside=outside, background="white", near=0.1)
    training = training_of(larger, config)
    with Watch() as watch:
        for progress in (0.0, 0.6):
            training.rays = 64
            neus2.train_step(training, progress)
        training.model.render_view(scene.val.cameras.scaled(0.1), 0)
    assert training.step == 5 and watch.stray == []


@emulated
def test_no_tensor_of_a_device_step_is_made_without_a_device(scene):
    with backend.use(backend.EMULATED):
        training = training_of(scene, dataclasses.replace(SMALL, background="white"))
        with Watch() as watch:
            training.rays = 2
            neus2.train_step(training, 0.8)
    assert watch.stray == []


@pytest.fixture
def few_rays(monkeypatch):
    """Three rays look for a motion, and all cells count as occupied: asking for each is long where it is emulated."""
    monkeypatch.setattr(neus2_motion, "SAMPLES", 256)
    monkeypatch.setattr(neus2_motion, "FEWEST_RAYS", 3)
    monkeypatch.setattr(OccupancyGrid, "update", lambda grid, *given, **more: None)


def motion_of(scene, device="cpu"):
    """What two steps find of a frame's motion, and their losses."""
    training = training_of(scene, dataclasses.replace(SMALL, visual_hull=False), device)
    training.rays, motion = 3, Motion().to(device)
    losses = find_motion(training, motion, 2)
    assert motion.turn.device.type == motion.shift.device.type == torch.device(device).type
    assert motion.transform().scale == 1
    return torch.tensor([*motion.turn.tolist(), *motion.shift.tolist()]), torch.tensor(losses)


@emulated
def test_emulated_kernels_find_a_motion_as_the_cpu_does(scene, few_rays, emulated_ops):
    expected, losses = motion_of(scene)
    with backend.use(backend.EMULATED):
        found, again = motion_of(scene)
    assert emulated_ops >= {"grid_jacobian_forward", "neus_alpha_backward", "mlp_backward", "adam_step", "march_fill"}
    torch.testing.assert_close(again, losses, rtol=2e-2, atol=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    assert (found - torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0, 0])).abs().max() > 1e-3


@on_gpu
def test_a_gpu_finds_a_motion_as_the_cpu_does(scene, few_rays):
    found, losses = motion_of(scene, backend.device("cuda")[0])
    expected, again = motion_of(scene)
    torch.testing.assert_close(losses, again, rtol=2e-2, atol=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_no_tensor_of_a_motion_is_made_without_a_device(scene, few_rays):
    training, motion = training_of(scene, dataclasses.replace(SMALL, visual_hull=False)), Motion()
    with Watch() as watch:
        find_motion(training, motion, 2)
    assert watch.stray == [] and motion.shift.abs().max() > 0
