"""Random training pixels: the same bits as in torch, uniform, blended as the whole images are."""

import pytest
import torch

from radfield import backend
from radfield.cpu import library
from radfield.data.pixels import sample_pixels
from radfield.data.scene import Images
from radfield.errors import BadInput


def images_of(sizes, channels):
    images = Images.allocate(sizes, channels)
    images.pixels.copy_(torch.randint(256, images.pixels.shape, generator=torch.Generator().manual_seed(0)))
    return images


def same(a, b):
    for name, value in vars(a).items():
        assert torch.equal(value, getattr(b, name)), name


@pytest.mark.parametrize("n", [0, 1, 7, 300, 1001])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("sizes", [[(5, 3)], [(16, 8), (3, 50), (1, 1), (40, 30)]])
def test_gives_the_bits_of_the_reference(n, channels, sizes):
    images = images_of(sizes, channels)
    each = torch.rand(n, 3, generator=torch.Generator().manual_seed(n))
    for background in (None, (1.0, 1.0, 1.0), torch.tensor([0.2, 0.4, 0.6]), each):
        options = dict(seed=2**40 + 3, step=n, background=background)
        ours = sample_pixels(images, n, **options)
        with backend.use("reference"):
            same(ours, sample_pixels(images, n, **options))


def test_colors_are_those_of_the_images():
    images = images_of([(16, 8), (3, 50), (40, 30)], 4)
    found = sample_pixels(images, 500, seed=1, background=(0.2, 0.4, 0.6))
    column, row = (found.pixel - 0.5).long().unbind(-1)
    for i in range(3):
        of_view = found.view == i
        expected = images.composited(i, (0.2, 0.4, 0.6))[row[of_view], column[of_view]]
        assert torch.allclose(found.color[of_view], expected, atol=1e-6)
        assert torch.equal(found.alpha[of_view], images[i][row[of_view], column[of_view], 3] / 255)


def test_every_pixel_is_as_likely():
    images = images_of([(4, 3), (2, 10)], 3)
    found = sample_pixels(images, 64000, seed=4)
    column, row = (found.pixel - 0.5).long().unbind(-1)
    p = images.offset[found.view.long()] + row * images.size[found.view.long(), 0] + column
    counts = p.bincount(minlength=32)
    assert ((counts - 2000.0) ** 2 / 2000).sum() < 31 + 5 * (2 * 31) ** 0.5
    assert (found.alpha == 1).all()
    assert (found.background.mean(0) - 0.5).abs().max() < 0.01 and found.background.std() > 0.28


def test_steps_and_seeds_differ():
    images = images_of([(100, 100)], 3)
    draws = [sample_pixels(images, 50, seed=s, step=t).pixel for s in (0, 1) for t in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_any_number_of_threads_gives_the_same_bits():
    images, before = images_of([(100, 100)], 4), library.num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            library.set_num_threads(threads)
            found.append(sample_pixels(images, 3000, seed=3))
    finally:
        library.set_num_threads(before)
    same(found[0], found[1])
    same(found[0], found[2])


def test_bad_input():
    with pytest.raises(BadInput, match="background"):
        sample_pixels(images_of([(4, 4)], 3), 5, background=torch.zeros(4, 3))
    with pytest.raises(BadInput, match="0 pixels"):
        sample_pixels(images_of([], 3), 5)
