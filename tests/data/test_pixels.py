"""Random training pixels: the same bits as in torch, uniform, blended as the whole images are."""

import dataclasses

import pytest
import torch

from radfield import backend
from radfield.cpu import library
from radfield.data.masks import spans_of
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


@pytest.mark.usefixtures("each_backend")
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


@pytest.mark.usefixtures("each_backend")
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


def with_spans(images, share=0.5):
    """The images with about a share of the pixels ignored, in runs; all of the second image."""
    generator = torch.Generator().manual_seed(5)
    kept = (
        torch.rand(len(images.pixels) // 3 + 1, generator=generator).repeat_interleave(3)[: len(images.pixels)] > share
    )
    kept[images.offset[1] : images.offset[2]] = False
    spans = torch.from_numpy(spans_of(kept.numpy()))
    return dataclasses.replace(images, spans=spans), kept


@pytest.mark.parametrize("n", [0, 1, 300, 1001])
def test_ignored_pixels_are_never_drawn(n):
    images, kept = with_spans(images_of([(16, 8), (3, 50), (1, 1), (40, 30)], 4))
    ours = sample_pixels(images, n, seed=7, step=n)
    with backend.use("reference"):
        same(ours, sample_pixels(images, n, seed=7, step=n))
    column, row = (ours.pixel - 0.5).long().unbind(-1)
    p = images.offset[ours.view.long()] + row * images.size[ours.view.long(), 0] + column
    assert kept[p].all()
    for i in range(4):
        part = kept[images.offset[i] : images.offset[i + 1]]
        assert torch.equal(images.kept(i).flatten(), part)


def test_kept_pixels_are_as_likely():
    images, kept = with_spans(images_of([(4, 3), (2, 10), (5, 5)], 3))
    found = sample_pixels(images, 64000, seed=4)
    column, row = (found.pixel - 0.5).long().unbind(-1)
    p = images.offset[found.view.long()] + row * images.size[found.view.long(), 0] + column
    counts, each = p.bincount(minlength=57)[kept], 64000 / int(kept.sum())
    assert ((counts - each) ** 2 / each).sum() < len(counts) - 1 + 5 * (2 * len(counts)) ** 0.5


def test_everything_ignored_is_refused():
    images = dataclasses.replace(images_of([(4, 4)], 3), spans=torch.zeros(0, 2, dtype=torch.int64))
    with pytest.raises(BadInput, match="0 pixels that are not ignored"):
        sample_pixels(images, 5)


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
