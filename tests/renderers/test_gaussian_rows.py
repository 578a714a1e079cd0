"""Gaussians whose parameters lie one after another: colours and packed projection."""

import dataclasses

import pytest
import torch
from checks import EMULATES, OpCase, check_op, combine
from renderers_gaussians import camera, differentiable, random_gaussians

from radfield import backend
from radfield.errors import BadInput
from radfield.renderers.gaussian_color_rows import gaussian_color_rows, gaussian_color_rows_reference
from radfield.renderers.gaussian_packed import project_packed
from radfield.renderers.gaussian_projection import project


@pytest.mark.parametrize(("degree", "coefficients"), [(0, 1), (1, 16), (2, 9), (3, 16), (4, 25)])
@pytest.mark.parametrize("some", [False, True])
def test_colors_agree_with_reference(degree, coefficients, some):
    def inputs(size, generator):
        rows = torch.randperm(2 * size, generator=generator)[:size].sort()[0] if some else None
        held = 2 * size if some else size
        radius = torch.ones(size, 2)
        radius[::5] = 0
        return {
            "means": torch.randn(held, 3, generator=generator),
            "coefficients": torch.randn(held, coefficients, 3, generator=generator) * 0.3,
            "radius": radius,
            "position": torch.tensor([0.3, -3.0, 0.5]),
            "degree": degree,
            "rows": rows,
        }

    functions = gaussian_color_rows, gaussian_color_rows_reference
    gradients = "means", "coefficients", "position"
    options = {"wrong_dtype": gradients[:2], "most_emulated": 140 if degree == 3 else 33}
    check_op(OpCase(*functions, inputs, gradients, **options))


def test_coefficients_that_do_not_fit_are_refused():
    means, radius, eye = torch.zeros(4, 3), torch.ones(4, 2), torch.zeros(3)
    with pytest.raises(BadInput, match=r"coefficients has shape \[4, 8, 3\]; the rule: \[N, 9 or more, 3\]"):
        gaussian_color_rows(means, torch.zeros(4, 8, 3), radius, eye, degree=2)
    with pytest.raises(BadInput, match=r"means is \[4, 3\] without rows; the rule: \[2, 3\]"):
        gaussian_color_rows(means, torch.zeros(4, 9, 3), radius[:2], eye, degree=2)


def as_streams(values):
    """The same, each component one after another."""
    return {name: value.mT.contiguous().mT if value.ndim == 2 else value for name, value in values.items()}


def outputs_and_gradients(function, values, pose):
    """The differentiable outputs, and the gradients by the parameters and the pose."""
    values = {name: value.clone().requires_grad_() for name, value in values.items()}
    pose = pose.clone().requires_grad_()
    found = function(values, dataclasses.replace(camera(), world_to_camera=pose))
    scalar = sum(combine(value, i) for i, value in enumerate(found))
    return [v.detach() for v in found], torch.autograd.grad(scalar, [*values.values(), pose])


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("count", "clip"), [(1, 0.0), (500, 0.0), (2500, 0.0), (500, 12.0)])
def test_packed_is_what_is_seen_of_all(streams, count, clip):
    values = random_gaussians(count, torch.Generator().manual_seed(count))
    if count > 1:
        values["means"][: count // 3, 2] -= 6
    if streams:
        values = as_streams(values)
    with torch.no_grad():
        radius = project(**values, camera=camera(), antialiased=True).radius
    expected = ((radius > 0).all(1) & (radius.ceil() > clip).any(1)).nonzero()[:, 0]
    assert count == 1 or 0 < len(expected) < count

    def packed(given, view):
        found, rows = project_packed(**given, camera=view, antialiased=True, radius_clip=clip)
        assert torch.equal(rows, expected) and torch.equal(found.radius, radius[expected])
        return differentiable(found)

    def selected(given, view):
        return [value[expected] for value in differentiable(project(**given, camera=view, antialiased=True))]

    ours, by_ours = outputs_and_gradients(packed, values, camera().world_to_camera)
    theirs, by_theirs = outputs_and_gradients(selected, values, camera().world_to_camera)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(by_ours[:-1], by_theirs[:-1], strict=True))
    torch.testing.assert_close(by_ours[-1], by_theirs[-1], rtol=1e-4, atol=1e-4)  # sums over other parts


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize("count", [1, 70])
def test_packed_is_what_is_seen_of_all_emulated(count):
    with backend.use(backend.EMULATED):
        test_packed_is_what_is_seen_of_all(False, count, 0.0)


@pytest.mark.usefixtures("each_backend_once")
def test_packed_of_nothing_has_no_rows_and_gradients_of_0():
    values = {name: value.requires_grad_() for name, value in random_gaussians(20).items()}
    behind = dataclasses.replace(camera(), far=1e-3, near=1e-4)
    found, rows = project_packed(**values, camera=behind)
    assert len(rows) == 0 and found.mean2d.shape == (0, 2)
    (found.mean2d.sum() + found.opacity.sum()).backward()
    assert all(torch.equal(value.grad, torch.zeros_like(value)) for value in values.values())


def test_packed_runs_on_the_reference():
    values = random_gaussians(60)
    ours, rows = project_packed(**values, camera=camera())
    with backend.use("reference"):
        theirs, others = project_packed(**{k: v.double() for k, v in values.items()}, camera=camera())
    assert torch.equal(rows, others)
    torch.testing.assert_close(ours.mean2d.double(), theirs.mean2d, rtol=1e-4, atol=1e-3)


def test_rows_and_streams_are_the_same_bits(threads):
    values = random_gaussians(5000, torch.Generator().manual_seed(3))

    def run():
        return outputs_and_gradients(
            lambda v, c: differentiable(project(**v, camera=c)), values, camera().world_to_camera
        )

    def flat(found):
        return [*found[0], *found[1]]

    for found, alone in threads(lambda: flat(run())):
        assert torch.equal(found, alone)
    by_rows = flat(run())
    values = as_streams(values)
    assert all(torch.equal(a, b) for a, b in zip(by_rows, flat(run()), strict=True))
