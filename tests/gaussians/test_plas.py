"""Sorting onto a grid: the native exchange equals its reference, nothing is lost, neighbours become alike."""

import math

import pytest
import torch
from gaussians.mutations import scene

from radfield import backend
from radfield.errors import BadInput
from radfield.gaussians import organise, plas
from radfield.gaussians.optimizer import GaussianAdam
from radfield.gaussians.order import grid_width


def whole_numbers(count, wide=16):
    """[count, wide] small whole numbers, whose dot products are exact."""
    return torch.randint(-4, 5, (count, wide)).float()


@pytest.mark.parametrize(("count", "wide"), [(4, 16), (37, 16), (300, 32)])
def test_the_native_exchange_is_the_reference(count, wide, each_backend):
    cells, target = whole_numbers(count, wide), whole_numbers(count, wide)
    groups = torch.randperm(count)[: count // 4 * 4].view(-1, 4).int()
    order = torch.arange(count, dtype=torch.int32)
    gain, expected_order, expected_cells = plas.exchange_reference(order, cells, target, groups)
    moved, features = order.clone(), cells.clone()
    found = plas.exchange(moved, features, target, groups)
    assert torch.equal(found, gain) and torch.equal(moved, expected_order) and torch.equal(features, expected_cells)
    before, after = ((each - target).square().sum() for each in (cells, features))
    assert before - after == found.sum() and torch.equal(features, cells[moved.long()])
    assert torch.equal(plas.exchange(moved, features, target, groups), torch.zeros(count // 4)), "the best there is"


def test_the_best_order_of_four_is_found():
    target, cells = torch.zeros(4, 16), torch.zeros(4, 16)
    target[:, 0], cells[:, 0] = torch.tensor([1.0, 2, 3, 4]), torch.tensor([3.0, 1, 4, 2])
    order = torch.arange(4, dtype=torch.int32)
    plas.exchange(order, cells, target, torch.arange(4, dtype=torch.int32)[None])
    assert cells[:, 0].tolist() == [1, 2, 3, 4] and order.tolist() == [1, 3, 0, 2]


def test_wrong_arguments_are_named():
    order, cells = torch.arange(4, dtype=torch.int32), torch.zeros(4, 16)
    with pytest.raises(BadInput, match="groups has shape"):
        plas.exchange(order, cells, cells.clone(), torch.zeros(1, 3, dtype=torch.int32))


@pytest.mark.parametrize(("count", "width", "radius"), [(1, 4, 1), (50, 8, 1), (50, 8, 3), (47, 12, 30)])
def test_blurring_is_the_mean_of_what_is_near(count, width, radius):
    cells = torch.randn(count, 3)
    at = torch.arange(count)
    row, column = at // width, at % width
    near = ((row[:, None] - row).abs() <= radius) & ((column[:, None] - column).abs() <= radius)
    expected = near.float() @ cells / near.sum(1, keepdim=True)
    torch.testing.assert_close(plas.blurred(cells, width, radius), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [4, 61, 1000])
def test_groups_share_no_cell(count):
    groups = plas.groups_of(count, grid_width(count), 16, torch.Generator().manual_seed(0)).reshape(-1)
    assert len(groups.unique()) == len(groups) > count - 4 and groups.min() >= 0 and groups.max() < count


def test_sorting_keeps_all_and_brings_the_like_together(threads):
    colors = torch.rand(1600, 3)
    for found, expected in threads(lambda: (plas.plas_sort(colors, 40),)):
        assert torch.equal(found, expected)
    assert torch.equal(found.sort().values, torch.arange(1600))
    # random colours on a square: neighbours of what PLAS sorts are about a fifth to an eighth as far apart as of chance
    assert plas.neighbour_distance(colors[found], 40) < 0.2 * plas.neighbour_distance(colors, 40)
    assert torch.equal(plas.plas_sort(colors, 40, seed=0), found)


def test_what_lies_on_a_surface_is_unrolled():
    """Points of a plane, shuffled, become a grid of about their own spacing."""
    x, y = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    points = torch.stack([x, y], -1).view(-1, 2)[torch.randperm(1024)]
    order = plas.plas_sort(points, 32)
    assert plas.neighbour_distance(points[order], 32) < 1.6 and plas.neighbour_distance(points, 32) > 15


def test_the_reference_sorts_as_well():
    colors = torch.rand(144, 3)
    ours = plas.plas_sort(colors, 12)
    with backend.use("reference"):
        theirs = plas.plas_sort(colors, 12)
    ratio = plas.neighbour_distance(colors[ours], 12) / plas.neighbour_distance(colors[theirs], 12)
    assert 0.9 < ratio < 1.1


def test_few_gaussians_and_equal_ones():
    for count in (1, 2, 3, 5):
        assert torch.equal(plas.plas_order(scene(count, 0)).sort().values, torch.arange(count))
    equal = scene(50, 0).map(lambda value: torch.ones_like(value))
    assert torch.equal(plas.plas_order(equal).sort().values, torch.arange(50))


def test_the_neighbours_term_is_its_gradient():
    found = scene(60, 1).map(lambda value: (0.1 * value).double())
    grads = {name: torch.zeros_like(value) for name, value in found.tensors().items()}
    value = organise.regularise(grads, found, 3.0)
    assert all(not grads[name].any() for name in grads if name != "quaternions"), "nothing else is drawn"
    quaternions = found.quaternions.clone().requires_grad_()
    fixed = plas.blurred(found.quaternions.T, grid_width(60), 2).T  # it moves with a cell, which is left out
    expected = 3 * 2 * torch.nn.functional.huber_loss(quaternions, fixed)
    assert value == pytest.approx(expected.item())
    torch.testing.assert_close(grads["quaternions"], torch.autograd.grad(expected, quaternions)[0])


def test_organising_turns_quaternions_round_with_their_moments():
    found = scene(40, 0)
    adam = GaussianAdam(found)
    adam.m["quaternions"].copy_(found.quaternions)
    before = torch.nn.functional.normalize(found.quaternions, dim=0)
    order = organise.organise(found, adam, first=True)
    assert (order.quaternions[0] >= 0).all()
    torch.testing.assert_close(order.quaternions.norm(dim=0), torch.ones(40))
    assert (adam.m["quaternions"] * order.quaternions > -1e-6).all(), "a moment points as before, along its parameter"
    cosine = (before.T @ order.quaternions).abs().amax(0)
    torch.testing.assert_close(cosine, torch.ones(40), rtol=1e-5, atol=1e-5)
    assert math.isclose(float(order.means.sum()), float(found.means.sum()), rel_tol=1e-4)
