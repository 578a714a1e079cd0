"""Training Gaussians on a device, without needing a GPU: as on the CPU where kernels are emulated, and nothing is made
or left elsewhere."""

import dataclasses

import pytest
import torch
from checks import EMULATES
from device_watch import Watch

from radfield import backend
from radfield.apps import splat
from radfield.cuda import library

TINY = splat.Config(initial="random", initial_gaussians=120, refine_interval=1, sh_degree=1, coarse=1.0)


def training_of(scene, config=TINY, device="cpu"):
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return splat.Training(splat.build(config, **where, device=device), scene, 0)


def losses(scene, device="cpu"):
    """Of three steps, on 12 and 24 pixels a side."""
    training = training_of(scene, device=device)
    return [splat.train_step(training, progress).loss for progress in (0.0, 0.5, 0.6)]


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
def test_emulated_kernels_train_as_the_cpu_does(scene, emulated_ops):
    expected = losses(scene)
    with backend.use(backend.EMULATED):
        found = losses(scene)
    passes = {"gaussian_project", "gaussian_color", "gaussian_raster"}
    assert emulated_ops >= {f"{name}_{way}" for name in passes for way in ("forward", "backward")}
    assert emulated_ops >= {"gaussian_sort", "gaussian_tiles_fill", "target_image", "image_loss", "adam_step"}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=0)
    assert len({round(loss, 6) for loss in found}) == 3


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
def test_emulated_rays_train_as_the_cpu_does(scene, emulated_ops):
    config = dataclasses.replace(TINY, renderer="trace", initial_gaussians=60)

    def run():
        training = training_of(scene, config)
        return [splat.train_step(training, progress).loss for progress in (0.0, 0.1)]

    expected = run()
    with backend.use(backend.EMULATED):
        found = run()
    assert emulated_ops >= {f"gaussian_trace_{part}" for part in ("pack", "forward", "backward", "sort", "gather")}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=0)


@pytest.mark.skipif(library.unavailable() is not None, reason="needs a GPU that CUDA kernels run on")
def test_a_gpu_trains_as_the_cpu_does(scene):
    found = losses(scene, backend.device("cuda")[0])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses(scene)), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("densification", "renderer"), [("default", "raster"), ("mcmc", "raster"), ("mcmc", "trace")])
def test_no_tensor_is_made_without_a_device(scene, densification, renderer):
    """Also where Gaussians are added, moved and removed, and their opacities reset."""
    refined = {"cameras": True, "exposure": True} if renderer == "raster" else {}
    options = {"densification": densification, "renderer": renderer, "reset_interval": 7, **refined}
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
