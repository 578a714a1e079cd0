"""Training, evaluating and rendering on a device: that nothing is made or left elsewhere, without needing a GPU.

Three nets: a training run on emulated CUDA kernels has the CPU's losses; while steps, renders and updates run, no
tensor is made without saying where; and what training is made of is on its device, here torch's "meta", which has no
memory.
"""

import dataclasses
import sys
import traceback
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

import radfield
from radfield import backend
from radfield.apps import ngp, runs
from radfield.cuda import library
from radfield.data import load
from radfield.errors import BadInput
from radfield.training import per_image

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
PACKAGE = Path(radfield.__file__).parent
FACTORIES = {
    *(torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.linspace, torch.eye),
    *(torch.tensor, torch.as_tensor, torch.rand, torch.randn, torch.randint, torch.randperm),
}
HOST_READS = {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__int__, torch.Tensor.__bool__, torch.Tensor.nonzero}


class Watch(TorchFunctionMode):
    """Notes what radfield's code does while it is entered: `stray`, the tensors made without a device, except by
    memory.py, which is for the CPU alone; `reads`, the places where the host waits for a value."""

    def __init__(self):
        super().__init__()
        self.stray, self.reads = [], []

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        frame = next(f for f in reversed(traceback.extract_stack(sys._getframe(1))) if "/torch/" not in f.filename)
        place = Path(frame.filename)
        if PACKAGE in place.parents:
            where = f"{place.relative_to(PACKAGE)}:{frame.name}"
            tensor = function in (torch.tensor, torch.as_tensor) and isinstance(arguments[0], torch.Tensor)
            if function in FACTORIES and options.get("device") is None and not tensor and place.name != "memory.py":
                self.stray.append(f"{where}: {function.__name__}")
            if function in HOST_READS:
                self.reads.append(where)
        return function(*arguments, **options)


@pytest.fixture(scope="module")
def scene(tiny_capture):
    return load(tiny_capture)


def training_of(scene, config=SMALL, device="cpu"):
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return ngp.Training(ngp.build(config, **where, device=device), scene, 3)


def losses(scene, config, steps, rays, device="cpu"):
    training = training_of(scene, config, device)
    found = []
    for i in range(steps):
        training.rays = rays
        found.append(ngp.train_step(training, i / steps).loss)
    return found


@pytest.mark.parametrize("precision", [pytest.param("f32", marks=pytest.mark.slow), "bf16"])
def test_emulated_kernels_train_as_the_cpu_does(scene, precision, monkeypatch):
    config = dataclasses.replace(SMALL, precision=precision)
    expected = losses(scene, config, 3, 24)
    ran, emulator = set(), backend.emulator
    monkeypatch.setattr(backend, "emulator", lambda op, *given: (ran.add(op.name), emulator(op, *given)))
    with backend.use(backend.EMULATED):
        found = losses(scene, config, 3, 24)
    backward = {f"{name}_backward" for name in ("hash_grid", "mlp", "composite")}
    assert ran >= backward | {"pixels_sample", "camera_rays", "march_fill", "adam_step", "occupancy_update"}
    tolerance = 1e-4 if precision == "f32" else 1e-2
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=tolerance, atol=0)
    assert len({round(loss, 6) for loss in found}) == 3


@pytest.mark.skipif(library.unavailable() is not None, reason="needs a GPU that CUDA kernels run on")
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_gpu_trains_as_the_cpu_does(scene, precision):
    config = dataclasses.replace(SMALL, precision=precision)
    found = losses(scene, config, 3, 24, backend.device("cuda")[0])
    tolerance = 1e-4 if precision == "f32" else 1e-2
    expected = torch.tensor(losses(scene, config, 3, 24))
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
    monkeypatch.setattr(ngp, "background_color", lambda name, device: made(name, None))
    training = training_of(scene, dataclasses.replace(SMALL, background="white"))
    with Watch() as watch:
        training.rays = 64
        ngp.train_step(training, 0.5)
    assert watch.stray == ["apps/ngp.py:background_color: full"]


def tensors_in(value, seen):
    """Every tensor that is reached from `value` through radfield's objects, dicts, lists and tuples."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, torch.Tensor):
        yield value
        return
    if isinstance(value, torch.nn.Module):
        yield from (*value.parameters(), *value.buffers())
    inside = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []
    if type(value).__module__.startswith("radfield"):
        inside += list(getattr(value, "__dict__", {}).values())
    for each in inside:
        yield from tensors_in(each, seen)


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


#: where the host waits for the GPU in a step: what a CUDA graph has to remove (ARCHITECTURE.md, CUDA, lists them)
WAITS = {
    "cameras.py:distorted",
    "camera_rays.py:camera_rays",
    "sampling/march.py:march",
    "renderers/composite.py:_intervals",
    "renderers/composite.py:_compact",
    "renderers/volume.py:_going_on",
    "renderers/volume.py:render_training",
    "apps/ngp.py:train_step",
    "training/adam.py:step",
}


def test_where_a_step_waits_for_the_device(scene):
    training = training_of(scene)
    with Watch() as watch:
        training.rays = 64
        ngp.train_step(training, 0.5)
    tables = {"encodings/hash_grid_adam.py:adam_step"}  # reads a table of the host
    assert set(watch.reads) - tables == WAITS
    assert len(watch.reads) == 27  # one of them of a table, one in the first step only
