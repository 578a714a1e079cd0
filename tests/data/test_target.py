"""Training targets: agreement with pooling in torch on every size, and what ignored pixels mean."""

import pytest
import torch
from checks import NATIVE_BACKENDS, on_backend

from radfield import backend
from radfield.data.target import target_image, target_reference
from radfield.errors import BadInput


def photograph(rows, columns, channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (rows, columns, channels), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (33, 20), (64, 48)])
@pytest.mark.parametrize("part", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_reference(channels, shape, part, masked):
    pixels, background = photograph(*shape, channels), torch.tensor([0.2, 0.9, 0.5])
    mask = photograph(*shape, 1)[..., 0] // 180 if masked else None
    size = tuple(max(n // part, 1) for n in shape)
    expected, wanted = target_reference(pixels, background.double(), size, mask)
    for name in (*NATIVE_BACKENDS, "reference") if max(shape) < 30 else ("cpu", "reference"):
        with backend.use(name):
            given = on_backend({"pixels": pixels, "background": background, "mask": mask}, name)
            found, kept = target_image(**given, size=size)
        torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=1e-6)
        assert (kept is None) == (not masked) and (kept is None or torch.equal(kept.cpu(), wanted))


def test_ignored_pixels_do_not_leak_into_smaller_images():
    pixels, mask = torch.full((8, 8, 3), 255, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.uint8)
    pixels[3:, 1:], mask[3:, 1:] = 0, 0
    target, kept = target_image(pixels, torch.zeros(3), (2, 2), mask)
    assert kept.tolist() == [[1, 1], [1, 0]]
    assert torch.equal(target[kept.bool()], torch.ones(3, 3)) and not target[1, 1].any()


def test_transparent_pixels_are_background():
    pixels = photograph(5, 6, 4)
    pixels[..., 3] = 0
    background = torch.tensor([0.25, 0.5, 0.75])
    assert torch.equal(target_image(pixels, background, (5, 6))[0], background.expand(5, 6, 3))


def test_bad_input():
    with pytest.raises(BadInput, match=r"\[H, W, 3 or 4\]"):
        target_image(photograph(4, 4, 2), torch.zeros(3), (4, 4))
    with pytest.raises(BadInput, match="size is"):
        target_image(photograph(4, 4, 3), torch.zeros(3), (5, 4))
    with pytest.raises(BadInput, match="pixels has dtype"):
        target_image(photograph(4, 4, 3).int(), torch.zeros(3), (4, 4))
