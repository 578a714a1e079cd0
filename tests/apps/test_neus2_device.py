"""Training a surface on a device, without needing a GPU: as on the CPU where kernels are emulated, and nothing is made
elsewhere."""

import dataclasses

import pytest
import torch
from checks import EMULATES
from device_watch import Watch

from radfield import backend
from radfield.apps import neus2
from radfield.cuda import library
from radfield.data import load

#: as small as emulated kernels, every access of which is checked, ask for
SMALL = neus2.Config(
    levels=3,
    features=2,
    log2_size=8,
    finest_resolution=64,
    batch_samples=512,
    uniform_cells=256,
    occupied_cells=64,
    occupancy_interval=3,
)


@pytest.fixture(scope="module")
def scene(tiny_capture):
    return load(tiny_capture)


def training_of(scene, config=SMALL, device="cpu"):
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    training = neus2.Training(neus2.build(config, **where, device=device), scene, 3)
    training.step = 3  # the first step evaluates every cell; this one some
    return training


def losses(scene, device="cpu"):
    training, found = training_of(scene, device=device), []
    for progress in (0.0, 0.1, 0.2):
        training.rays = 2
        result = neus2.train_step(training, progress)
        found += [result.loss, result.eikonal]
    return found


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
def test_emulated_kernels_train_as_the_cpu_does(scene, monkeypatch):
    expected = losses(scene)
    ran, emulator = set(), backend.emulator
    monkeypatch.setattr(backend, "emulator", lambda op, *given: (ran.add(op.name), emulator(op, *given)))
    with backend.use(backend.EMULATED):
        found = losses(scene)
    assert ran >= {"grid_jacobian_forward", "grid_jacobian_pull", "grid_jacobian_push", "slope_adam"}
    assert ran >= {"neus_alpha_forward", "neus_alpha_backward", "mlp_backward", "composite_backward"}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=2e-2, atol=1e-4)
    assert len({round(loss, 6) for loss in found}) == 6


@pytest.mark.skipif(library.unavailable() is not None, reason="needs a GPU that CUDA kernels run on")
def test_a_gpu_trains_as_the_cpu_does(scene):
    found = losses(scene, backend.device("cuda")[0])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses(scene)), rtol=2e-2, atol=1e-4)


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
