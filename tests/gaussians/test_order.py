"""The Morton order: a permutation that keeps neighbours together, whatever the means are."""

import torch

from radfield.gaussians.order import _spread, morton_order


def test_bits_are_spread():
    values = torch.arange(1024)
    expected = sum((values >> bit & 1) << 3 * bit for bit in range(10))
    assert torch.equal(_spread(values), expected)


def test_neighbours_stay_together():
    means = torch.rand(3, 5000, generator=torch.Generator().manual_seed(0))
    order = morton_order(means)
    assert torch.equal(order.sort().values, torch.arange(5000))
    steps = (means[:, order].diff().norm(dim=0).mean(), means.diff().norm(dim=0).mean())
    assert steps[0] < 0.2 * steps[1]


def test_degenerate_means():
    for means in (torch.zeros(3, 0), torch.zeros(3, 1), torch.ones(3, 7), torch.full((3, 5), float("nan"))):
        order = morton_order(means)
        assert torch.equal(order.sort().values, torch.arange(means.shape[1]))
    means = torch.rand(3, 1000)
    means[:, 3] = 1e30  # one far away does not flatten the curve of the others
    assert len(morton_order(means)) == 1000 and int(morton_order(means)[-1]) != 0
