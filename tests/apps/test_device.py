"""Training, evaluating and rendering on a device: that nothing is made or left elsewhere, without needing a GPU.

Three nets: a training run on emulated CUDA kernels has the CPU's losses; while steps, renders and updates run, no tensor
is made without saying where; and what training is made of is on its device, here torch's "meta", which has no memory.
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
    getattr(torch, name)
    for name in ("zeros ones empty full arange tensor as_tensor eye linspace rand randn randint randperm").split()
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


def losses(scene, config, steps, rays):
    training = training_of(scene, config)
    found = []
    for i in range(steps):
        training.rays = rays
        found.append(ngp.train_step(training, i / steps).loss)
    return found


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_emulated_kernels_train_as_the_cpu_does(scene, precision):
    config = dataclasses.replace(SMALL, precision=precision)
    expected = losses(scene, config, 3, 24)
    with backend.use(backend.EMULATED):
        found = losses(scene, config, 3, 24)
    tolerance = 1e-4 if precision == "f32" else 1e-2
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=tolerance, atol=0)
    assert len({round(loss, 6) for loss in found}) == 3


@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize("background", ["random", "white"])
def test_no_tensor_is_made_without_a_device(scene, name, background):
    config = dataclasses.replace(SMALL, background=background, near=0.1, per_image=CORRECTIONS)
    with backend.use(name):
        training = training_of(scene, config)
        with Watch() as watch:
            for i in range(2):  # the second updates the occupancy grid
                training.rays = 64
                ngp.train_step(training, 0.5 + i / 4)
            cameras = scene.val.cameras.scaled(0.25)
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
