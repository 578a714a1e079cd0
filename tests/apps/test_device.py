"""Training, evaluating and rendering on a device: that nothing is made or left elsewhere, without needing a GPU.

Three nets: a training run on emulated CUDA kernels has the CPU's losses; while steps, renders and updates run, no
tensor is made without saying where; and what training is made of is on its device, here torch's "meta", which has no
memory.
"""

import dataclasses
import json
import shutil

import pytest
import torch
from checks import on_gpu
from device_replay import replays_of, tensors_in
from device_watch import Watch

import radfield
from radfield import backend
from radfield.apps import ngp, runs
from radfield.apps.ngp import device_step
from radfield.apps.ngp import step as ngp_step
from radfield.cuda import library
from radfield.errors import BadInput, RadfieldWarning
from radfield.training import device_steps, graph, per_image

CORRECTIONS = per_image.Config(cameras=True, lenses=True, exposure=True, appearance=2)
#: as small as emulated kernels, every access of which is checked, ask for
SMALL = ngp.Config(
    levels=3,
    features=2,
    log2_size=8,
    finest_resolution=64,
    batch_samples=512,
    uniform_cells=256,
    occupied_cells=64,
    occupancy_interval=2,
)


def training_of(scene, config=SMALL, device="cpu"):
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return ngp.Training(ngp.build(config, **where, device=device), scene, 3)


def losses(scene, config, steps, rays, device="cpu"):
    """The loss of each step. What a device keeps to itself for some steps is asked for after each."""
    training = training_of(scene, config, device)
    found = []
    for i in range(steps):
        training.rays = rays
        result = ngp.train_step(training, i / steps)
        waiting = training.device_steps() and training.device_steps().read()
        found.append(waiting["loss"] if waiting else result.loss)
    return found


@pytest.mark.parametrize("precision", [pytest.param("f32", marks=pytest.mark.slow), "bf16"])
def test_emulated_kernels_train_as_the_cpu_does(scene, precision, emulated_ops):
    config = dataclasses.replace(SMALL, precision=precision)
    expected = losses(scene, config, 3, 3)
    with backend.use(backend.EMULATED):
        found = losses(scene, config, 3, 3)
    backward = {"hash_grid_adam", "mlp_backward", "composite_backward"}
    assert emulated_ops >= backward | {"pixels_sample", "camera_rays", "march_fill", "adam_step", "occupancy_update"}
    tolerance = 1e-4 if precision == "f32" else 1e-2
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=tolerance, atol=0)
    assert len({round(loss, 6) for loss in found}) == 3


def test_fp16_trains_on_a_device_with_a_scaled_loss(scene):
    """As fp32 does; and no gradient is lost: one step moves the table's entries that one in fp32 moves."""
    moved, seen = {}, {}
    for precision in ("f32", "f16"):
        config = dataclasses.replace(SMALL, precision=precision)
        with backend.use("cpu" if precision == "f32" else backend.EMULATED):
            training = training_of(scene, config)
            seen[precision] = training.model.render_view(scene.val.cameras.scaled(0.1), 0).color
            training.rays, before = 3, training.model.field.grid.table.detach().clone()
            ngp.train_step(training, 0.0)
            training.settle()
            moved[precision] = training.model.field.grid.table.detach() != before
            grid = training.model.field.grid
            assert precision == "f32" or torch.equal(grid.stored(), grid.table.half())
    assert float((moved["f16"] & moved["f32"]).sum()) > 0.99 * float(moved["f32"].sum()) > 0
    torch.testing.assert_close(seen["f16"], seen["f32"], rtol=0, atol=5e-3)
    config = dataclasses.replace(SMALL, precision="f16")
    with backend.use(backend.EMULATED):
        found = losses(scene, config, 3, 3)
        with pytest.raises(BadInput, match=r"f16; the rule: f32 or bf16 where .*corrections per image"):
            training_of(scene, dataclasses.replace(config, per_image=CORRECTIONS)).device_steps()
        with pytest.raises(BadInput, match=r"f16; the rule: f32 or bf16; f16 with hash and tiled grids alone"):
            training_of(scene, dataclasses.replace(config, encoding="simplex"))
    expected = losses(scene, dataclasses.replace(SMALL, precision="f32"), 3, 3)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-2, atol=0)
    with pytest.raises(BadInput, match="f16; the rule: f32 or bf16 on a CPU"):
        training_of(scene, config)


@on_gpu
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_gpu_trains_as_the_cpu_does(scene, precision):
    config = dataclasses.replace(SMALL, precision=precision)
    found = losses(scene, config, 3, 3, backend.device("cuda")[0])
    tolerance = 1e-4 if precision == "f32" else 1e-2
    expected = torch.tensor(losses(scene, config, 3, 3))
    torch.testing.assert_close(torch.tensor(found), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    ("name", "background"),
    [("cpu", "random"), ("cpu", "white"), pytest.param("reference", "white", marks=pytest.mark.slow)],
)
def test_no_tensor_is_made_without_a_device(scene, name, background):
    config = dataclasses.replace(SMALL, background=background, near=0.1, per_image=CORRECTIONS)
    with backend.use(name):
        training = training_of(scene, config)
        with Watch() as watch:
            for i in range(2):  # the second updates the occupancy grid
                training.rays = 64
                ngp.train_step(training, 0.5 + i / 4)
            cameras = scene.val.cameras.scaled(0.2)
            training.model.render_view(cameras, 0)
            training.model.grid.occupied_fraction()
    assert training.step == 2 and watch.stray == []


def test_a_stray_tensor_is_found(scene, monkeypatch):
    made = ngp.background_color
    monkeypatch.setattr(ngp_step, "background_color", lambda name, device: made(name, None))
    training = training_of(scene, dataclasses.replace(SMALL, background="white"))
    with Watch() as watch:
        training.rays = 64
        ngp.train_step(training, 0.5)
    assert watch.stray == ["apps/ngp/config.py:background_color: full"]


def test_all_of_training_is_on_its_device(scene, monkeypatch):
    monkeypatch.setattr(backend, "backend_for", lambda tensor: backend.EMULATED)
    monkeypatch.setattr(backend, "runner", lambda device: lambda op, packed, device: None)
    config = dataclasses.replace(SMALL, precision="bf16", per_image=CORRECTIONS)
    training = training_of(scene, config, "meta")
    seen = {}
    found = [*tensors_in([training, training.model, training.images, training.per_image], seen)]
    tables = {id(t) for part in (training.model.field.grid.grid, *_layers(training.model.field)) for t in _tables(part)}
    elsewhere = [t for t in found if t.device.type != "meta" and id(t) not in tables]
    assert len(found) > 30 and elsewhere == []


def _layers(field):
    return field.density_network.layers, field.color_network.layers


def _tables(part):
    """The host's tables of a grid or network, which are copied to a device once (`tensors.on_device`)."""
    return [value for value in vars(part).values() if isinstance(value, torch.Tensor)]


def test_devices_by_name(monkeypatch):
    assert backend.device("cpu")[0] == torch.device("cpu")
    for name in ("meta", "tpu", "cuda:x"):
        with pytest.raises(BadInput, match="the rule: auto, cpu or cuda"):
            backend.device(name)
    monkeypatch.setattr(library, "unavailable", lambda: "the driver is on holiday")
    assert backend.device("auto") == (torch.device("cpu"), "no GPU: the driver is on holiday")
    with pytest.raises(BadInput, match="auto or cpu here: the driver is on holiday"):
        backend.device("cuda")
    monkeypatch.setattr(library, "unavailable", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert backend.device("auto")[0] == backend.device("cuda")[0] == torch.device("cuda", 1)
    with pytest.raises(BadInput, match="below cuda:2"):
        backend.device("cuda:2")
    with backend.use("reference"):  # who asked for plain torch gets no GPU unasked
        assert backend.device("auto") == (torch.device("cpu"), "no GPU: the backend is forced to be 'reference'")


def test_what_is_said_of_a_gpu(monkeypatch):
    monkeypatch.setattr(library, "unavailable", lambda: None)
    monkeypatch.setattr(library, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert not [rule for _, _, holds, rule in runs.device_rules("cuda", None) if not holds]
    said = "cuda:0 (NVIDIA H200, sm_90; CUDA kernels run on this GPU)"
    assert runs.use_device("auto", 1) == (torch.device("cuda", 0), said)
    assert runs.use_device("cuda", 1)[1] == "cuda:0 (NVIDIA H200, sm_90)"


def test_a_run_is_loaded_on_any_device(trained, monkeypatch):
    assert radfield.load(trained[0], device="auto").device.type == ("cpu" if library.unavailable() else "cuda")
    if reason := library.unavailable():
        with pytest.raises(BadInput, match="device is 'cuda'") as refused:
            radfield.load(trained[0], device="cuda")
        assert reason in str(refused.value)
    placed = []
    monkeypatch.setattr(backend, "device", lambda name: (torch.device("meta"), "asked for"))
    monkeypatch.setattr(backend, "backend_for", lambda tensor: backend.EMULATED)
    monkeypatch.setattr(backend, "runner", lambda device: lambda op, packed, device: placed.append(device))
    model = radfield.load(trained[0], device="cuda")
    assert {t.device.type for t in model.tensors().values()} == {"meta"} and torch.device("meta") in placed


def test_a_run_in_fp16_is_computed_in_fp32_on_a_cpu(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["ngp"]["precision"] = "f16"
    (run / "config.json").write_text(json.dumps(config))
    with pytest.warns(RadfieldWarning, match="trained in fp16"):
        model = ngp.load(run)
    assert model.config.precision == "f32"
    assert torch.equal(model.field.grid.table, radfield.load(trained[0]).field.grid.table)


def test_no_step_waits_for_the_device(scene):
    """The host reads nothing within a step, but where the step is the last of those whose figures it waits for, and
    where the occupancy grid is updated. The first asks once what lenses there are."""
    config = dataclasses.replace(SMALL, occupancy_interval=3)
    with backend.use(backend.EMULATED):
        training = training_of(scene, config)
        places = []
        for _ in range(4):
            with Watch() as watch:
                ngp.train_step(training, 0.5)
            places.append(set(watch.reads))
        with Watch() as watch:
            read = training.device_steps().read()
    assert places[0] <= {"cameras.py:distorted"} and places[1] == places[3] == set()
    assert {place.split(":")[0] for place in places[2]} == {"sampling/occupancy.py"}
    assert set(watch.reads) == {"training/device_steps.py:fetch"} and len(watch.reads) == 1
    assert read["steps"] == 4 and read["live"] > 0


def test_a_captured_step_is_the_same_steps(scene, monkeypatch):
    """Replays, which run none of the step's Python, train as steps do: seeds, rates, steps along rays and rays in use
    come from the device."""
    figures = {}
    for captures in (False, True):
        with backend.use(backend.EMULATED), monkeypatch.context() as patch:
            training = training_of(scene, dataclasses.replace(SMALL, occupancy_interval=4))
            if captures:
                replays_of(training, patch)
            steps = training.device_steps()
            patch.setattr(device_steps, "READ_INTERVAL", 5)
            results = []
            for i in range(6):
                ngp.train_step(training, i / 6)
                results.append(steps.read() or results[-1])
            assert steps.replayed.captured == captures
            figures[captures] = [*results, training.rays, training.model.field.density_network.weights.detach().clone()]
    once, again = figures[False], figures[True]
    assert [r["live"] for r in once[:-2]] == [r["live"] for r in again[:-2]] and once[-2] == again[-2]
    torch.testing.assert_close(*[torch.tensor([r["loss"] for r in f[:-2]]) for f in (once, again)], rtol=1e-3, atol=0)
    torch.testing.assert_close(once[-1], again[-1], rtol=1e-2, atol=1e-3)
    assert len({r["loss"] for r in again[:-2]}) >= 5


def test_what_cannot_be_captured_runs_as_it_is(monkeypatch):
    class Refusing:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            raise RuntimeError("operation not permitted when stream is capturing\nsecond line")

        __exit__ = None

    calls = []
    replayed = graph.Replayed(lambda: calls.append(1), torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", Refusing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    replayed(), replayed()
    with pytest.warns(match=r"cannot be captured .*not permitted when stream is capturing\)"):
        replayed()
    replayed()
    assert len(calls) == 4 and not replayed.captured


def test_a_step_on_a_device_that_is_not_finite_changes_nothing(scene):
    with backend.use(backend.EMULATED):
        training = training_of(scene)
        ngp.train_step(training, 0.5)
        before = training.model.field.density_network.weights.detach().clone()
        training.model.field.color_network.weights.data.fill_(torch.nan)
        ngp.train_step(training, 0.5)
        ngp.train_step(training, 0.5)
        with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
            training.settle()
    assert training.step == 1 and torch.equal(training.model.field.density_network.weights, before)
    assert training.optimizer.steps == 1


def test_steps_that_have_to_wait_say_so(scene, monkeypatch):
    said = []
    monkeypatch.setattr(device_step, "warn", said.append)
    with backend.use(backend.EMULATED):
        training = training_of(scene, dataclasses.replace(SMALL, per_image=CORRECTIONS))
        assert training.device_steps() is None
    assert said == [
        "no CUDA graph of the training step (corrections per image): the host waits for the device within each step"
    ]
