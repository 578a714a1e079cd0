"""The cap on memory: what it counts is what training holds; what it allows stays below it; beyond it is one error."""

import errno

import pytest
import torch
from gaussians.test_ply import random_scene

from radfield.errors import BadInput
from radfield.gaussians.memory_cap import PER_ENTRY, MemoryCap, exhaustion
from radfield.gaussians.scene import see
from radfield.renderers.gaussian_projection import Camera, project
from radfield.renderers.gaussian_tiles import make_tiles


def test_entries_are_about_those_of_the_tiles():
    scene = random_scene(4000, 0)
    scene.log_scales[:] = scene.log_scales * 0.3 - 3
    pose = torch.eye(4)
    pose[2, 3] = 6
    camera = Camera(pose, (300.0, 300.0), (128.0, 96.0), 256, 192)
    values = scene.means.T, scene.quaternions.T, scene.log_scales.exp().T, scene.opacity_logits.sigmoid()
    projected = project(*values, camera)
    tiles, _ = make_tiles(projected, torch.zeros(3, 4000), 256, 192)
    cap = MemoryCap(1.0, 0, 256 * 192)
    cap.entries = 0.0
    cap.check(projected.radius, 256, 192)
    assert 0.8 * len(tiles.entries) < cap.entries * 4000 < 3 * len(tiles.entries)


def test_what_is_allowed_fits():
    cap = MemoryCap(0.1, 3, 800 * 800)
    most = cap.most(10**9)
    assert 1000 < most < 10**5 and cap.most(10) == 10
    cap.check(torch.full((most, 2), 0.5), 800, 800)
    assert cap.peak <= 1e8
    cap.entries = 100.0
    assert cap.most(10**9) < most


def test_beyond_the_limit():
    cap = MemoryCap(0.1, 3, 800 * 800)
    with pytest.raises(MemoryError, match=r"--splat\.memory-gb allows 0\.1") as caught:
        cap.check(torch.full((10**5, 2), 400.0), 800, 800)
    assert "\n" not in str(caught.value) and cap.peak > 10**5 * 50 * 50 * PER_ENTRY
    with pytest.raises(BadInput, match=r"--splat\.memory-gb is 0\.001; the rule: at least"):
        MemoryCap(0.001, 3, 800 * 800)
    scene = random_scene(50, 0)
    with pytest.raises(MemoryError):
        cap.limit = 10
        see(scene, Camera(torch.eye(4), (50.0, 50.0), (8.0, 8.0), 16, 16), cap=cap)


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "no"), RuntimeError("x: can't allocate memory: you tried")])
def test_exhaustion_of_the_machine(error):
    with pytest.raises(MemoryError, match="no memory left"), exhaustion():
        raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("else"), FloatingPointError("nan")])
def test_other_errors_stay(error):
    with pytest.raises(type(error), match=str(error).split("] ")[-1]), exhaustion():
        raise error


def test_a_gpu_without_memory_left():
    with pytest.raises(MemoryError, match="the GPU has no memory left"), exhaustion():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
