"""The image loss: agreement with convolutions on every size, and the laws of structural similarity."""

import pytest
import torch
from checks import OpCase, check_op

from radfield import backend, metrics
from radfield.errors import BadInput
from radfield.image_loss import image_loss, image_loss_reference, ssim_reference


def pair(shape, generator=None):
    """A smooth image and a disturbed one."""
    rows, columns, channels = shape
    y, x, c = torch.meshgrid(*(torch.arange(float(n)) for n in (rows, columns, channels)), indexing="ij")
    target = 0.5 + 0.4 * torch.sin(0.13 * x + 0.07 * y + c)
    return (target + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1), target


@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
def test_agrees_with_reference(ssim_weight):
    def inputs(size, generator):
        image, target = pair((size + 3, 2 * size + 1, 3), generator)
        return {"image": image, "target": target, "ssim_weight": ssim_weight}

    options = {"gradients": ("image",), "sizes": (0, 1, 7, 33), "most_emulated": 15, "atol": 2e-7}
    check_op(OpCase(image_loss, image_loss_reference, inputs, wrong_dtype=("image", "target"), **options))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 40, 3), (40, 1, 3), (70, 5, 2), (129, 131, 3), (64, 128, 3), (65, 259, 1)]
)
@pytest.mark.parametrize("upstream", [1.0, -2.5])
def test_borders_of_tiles_and_images(shape, upstream):
    image, target = pair(shape)
    gradients = []
    for function, kind in ((image_loss, torch.float32), (image_loss_reference, torch.float64)):
        x = image.to(kind).requires_grad_()
        loss = function(x, target.to(kind))
        gradients.append(torch.autograd.grad(upstream * loss, x)[0].double())
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5 * gradients[1].abs().max().item())


@pytest.mark.parametrize("channels", [1, 4, 17, 400])
def test_any_number_of_channels(channels):
    image, target = pair((20, 30, channels))
    expected = image_loss_reference(image.double(), target.double(), 0.5)
    assert torch.isclose(image_loss(image, target, 0.5).double(), expected, rtol=1e-5)


def test_equal_images_have_no_loss_and_no_gradient():
    image = pair((50, 60, 3))[0].requires_grad_()
    loss = image_loss(image, image.detach(), 1.0)
    (grad,) = torch.autograd.grad(loss, image)
    assert loss.abs() < 1e-6
    assert grad.abs().max() < 1e-4 / image.numel()


def test_inner_pixels_have_the_similarity_that_is_reported():
    image, target = pair((40, 50, 3))
    inner = ssim_reference(image.double(), target.double())[5:-5, 5:-5]
    assert abs(inner.mean().item() - metrics.ssim(image, target)) < 1e-6


def test_gradient_descent_reaches_the_target():
    image, target = pair((30, 30, 3))
    image = image.requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.02)
    before = image_loss(image, target).item()
    for _ in range(100):
        optimiser.zero_grad()
        image_loss(image, target).backward()
        optimiser.step()
    assert image_loss(image, target).item() < 0.1 * before


def test_same_loss_with_and_without_gradient():
    image, target = pair((100, 300, 3))
    assert torch.equal(image_loss(image, target), image_loss(image.clone().requires_grad_(), target).detach())


def test_same_bits_with_any_number_of_threads(threads):
    image, target = pair((200, 300, 3))
    image.requires_grad_()

    def run():
        loss = image_loss(image, target)
        return loss, *torch.autograd.grad(loss, image)

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_not_a_number_is_seen(name):
    image, target = pair((20, 20, 3))
    image[3, 4, 1] = float("nan")
    with backend.use(name):
        assert image_loss(image, target).isnan()


@pytest.mark.parametrize(
    ("image", "target", "weight", "words"),
    [
        (torch.rand(4, 4), torch.rand(4, 4), 0.2, "image has shape"),
        (torch.rand(0, 4, 3), torch.rand(0, 4, 3), 0.2, "image has shape"),
        (torch.rand(4, 4, 3), torch.rand(4, 5, 3), 0.2, "target has shape"),
        (torch.rand(4, 4, 3), torch.rand(4, 4, 3, requires_grad=True), 0.2, "target requires a gradient"),
        (torch.rand(4, 4, 3), torch.rand(4, 4, 3), 1.2, "ssim_weight"),
    ],
)
def test_refuses(image, target, weight, words):
    with pytest.raises(BadInput, match=words):
        image_loss(image, target, weight)
