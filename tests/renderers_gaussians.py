"""Random Gaussians before a camera, for the tests of their passes."""

import dataclasses

import torch

from radfield.renderers.gaussian_projection import Camera


def random_gaussians(count, generator=None, spread=0.6, size=-3.0):
    """The arguments of `project`, without the camera: some near, some far, some behind, needles among them."""
    scales = torch.exp(torch.randn(count, 3, generator=generator) * 0.8 + size)
    return {
        "means": torch.randn(count, 3, generator=generator) * spread,
        "quaternions": torch.randn(count, 4, generator=generator),
        "scales": scales,
        "opacities": torch.rand(count, generator=generator),
    }


def camera(width=75, height=50, distance=3.0):
    """Slightly turned, its principal point off the middle."""
    angle = torch.tensor(0.2)
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = angle.sin(), -angle.sin()
    pose[:3, 3] = torch.tensor([0.05, -0.02, distance])
    return Camera(pose, (80.0, 85.0), (width / 2 + 1, height / 2 - 2), width, height)


def differentiable(result):
    return result.mean2d, result.conic, result.depth, result.opacity


def of_camera(function):
    """`function` with the camera's tensors as arguments, so that gradients to them are compared as well."""

    def run(pose, focal, center, *, view, **values):
        view = dataclasses.replace(view, world_to_camera=pose, focal=focal, center=center)
        return function(camera=view, **values)

    return run
