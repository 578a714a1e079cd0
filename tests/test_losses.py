"""Losses of colours."""

import pytest
import torch

from radfield import losses
from radfield.errors import BadInput

ALL = [losses.mse, losses.l1, losses.huber, losses.charbonnier]


@pytest.mark.parametrize("loss", ALL)
def test_gradient_and_minimum(loss):
    target = torch.rand(20, 3, dtype=torch.float64)
    prediction = (target + torch.randn(20, 3) * 0.5).requires_grad_()
    torch.autograd.gradcheck(lambda p: loss(p, target), prediction)
    assert loss(target, target) <= 1e-3 < loss(prediction, target)
    assert torch.isclose(loss(prediction, target), loss(target, prediction))


@pytest.mark.parametrize("loss", ALL)
def test_gradient_is_finite_where_equal(loss):
    x = torch.rand(5, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(loss(x, x.detach()), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("delta", [0.1, 1.0])
def test_huber_is_that_of_torch(delta):
    a, b = torch.randn(100, 3), torch.randn(100, 3)
    assert torch.isclose(losses.huber(a, b, delta), torch.nn.functional.huber_loss(a, b, delta=delta))


def test_known_values():
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 1.0])
    assert losses.mse(a, b) == 4.5
    assert losses.l1(a, b) == 1.5
    assert losses.huber(a, b, 1.0) == 1.25
    assert torch.isclose(losses.charbonnier(a, b, 4.0), torch.tensor(4.5))


@pytest.mark.parametrize("loss", ALL)
def test_refuses_broadcasting(loss):
    with pytest.raises(BadInput, match="shapes"):
        loss(torch.rand(4, 3), torch.rand(4, 1))


def test_mape_counts_errors_in_parts_of_the_target():
    target = torch.tensor([0.0, 0.09, -0.99], dtype=torch.float64)
    assert torch.isclose(losses.mape(target + 0.01, target), torch.tensor((1 + 0.1 + 0.01) / 3).double())
    prediction = (target + 0.3).requires_grad_()
    torch.autograd.gradcheck(lambda p: losses.mape(p, target), prediction)
    with pytest.raises(BadInput, match="they are equal"):
        losses.mape(target[:, None], target)
