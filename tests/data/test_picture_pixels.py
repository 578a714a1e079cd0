"""Pixels drawn from a picture: the kernels give the reference's, and every pixel comes as often as any other."""

import pytest
import torch
from checks import NATIVE_BACKENDS, on_backend

from radfield import backend
from radfield.data.picture_pixels import draw_pixels, draw_pixels_reference, lattice_of
from radfield.errors import BadInput


def picture(dtype, height=30, width=50, channels=3):
    values = torch.arange(height * width * channels) % 251
    return values.view(height, width, channels).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("whole_rows", [False, True])
@pytest.mark.parametrize(("shape", "lattice"), [((1, 1, 1), (7, 3)), ((30, 50, 3), (33, 31)), ((5, 700, 4), (40, 2))])
def test_agrees_with_reference(dtype, whole_rows, shape, lattice):
    values = picture(dtype, *shape)
    x, target = draw_pixels_reference(values, lattice, 7, 1 / 255, whole_rows=whole_rows)
    for name in NATIVE_BACKENDS:
        with backend.use(name):
            given = on_backend({"values": values}, name)
            found = draw_pixels(given["values"], lattice, 7, 1 / 255, whole_rows=whole_rows)
        torch.testing.assert_close(found[0].cpu(), x, rtol=1e-6, atol=0)
        torch.testing.assert_close(found[1].cpu(), target, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in NATIVE_BACKENDS if name != "cpu"])
def test_a_seed_on_the_device(name):
    given = on_backend({"values": picture(torch.uint8), "seed": torch.tensor([7.0], dtype=torch.float64)}, name)
    with backend.use(name):
        wanted = draw_pixels(given["values"], (9, 7), 7, 1.0)
        found = draw_pixels(given["values"], (9, 7), 0, 1.0, schedule=given["seed"])
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("whole_rows", [False, True])
def test_every_pixel_comes_as_often(whole_rows):
    values = torch.arange(1500, dtype=torch.float32).view(30, 50, 1)
    lattice, count = lattice_of((50, 30), 1500), torch.zeros(1500)
    for seed in range(40):
        x, drawn = draw_pixels(values, lattice, seed, 1.0, whole_rows=whole_rows)
        column, row = (x * 50).long().T
        assert torch.equal((row * 50 + column).float(), drawn[:, 0])
        count += torch.bincount(drawn[:, 0].long(), minlength=1500)
    assert abs(count.mean() - 40) < 2
    assert count.min() > 5


def test_threads_change_no_bit(threads):
    values = picture(torch.uint8, 300, 200)
    assert all(torch.equal(a, b) for a, b in threads(lambda: draw_pixels(values, (100, 150), 3, 1.0)))


def test_lattices_fit_the_picture():
    assert lattice_of((4320, 7680), 1 << 20) == (768, 1365)
    assert lattice_of((1, 1), 5) == (2, 2)
    assert lattice_of((100, 7), 1000, rows=256) == (142, 7)


def test_bad_input():
    with pytest.raises(BadInput, match=r"values have shape \[0, 5, 3\]"):
        draw_pixels(torch.zeros(0, 5, 3), (1, 1), 0, 1.0)
    with pytest.raises(BadInput, match="for CUDA kernels only"):
        draw_pixels(torch.zeros(5, 5, 3), (1, 1), 0, 1.0, schedule=torch.zeros(1, dtype=torch.float64))
    with pytest.raises(BadInput, match="lattice is"):
        draw_pixels(torch.zeros(5, 5, 3), (0, 1), 0, 1.0)
    with pytest.raises(BadInput, match="values has dtype"):
        draw_pixels(torch.zeros(5, 5, 3, dtype=torch.int64), (1, 1), 0, 1.0)
