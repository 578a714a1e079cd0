"""Declared sizes against files."""

from pathlib import Path

import numpy as np
import pytest

from radfield.data.capture import PosedImage, fit_to_file
from radfield.data.images import Header
from radfield.data.lens import Lens
from radfield.errors import BadInput


def posed(declared, stored, upright=None) -> PosedImage:
    lens = Lens((100.0, 100.0), (declared[0] / 2, declared[1] / 2), declared, (0.0,) * 6, "perspective")
    return PosedImage("a.jpg", Path("a.jpg"), np.eye(4), lens, Header(stored, False, False, upright))


@pytest.mark.parametrize(
    "declared, stored, upright, size, turned",
    [
        ((40, 30), (40, 30), None, (40, 30), False),
        ((40, 30), (40, 30), (30, 40), (40, 30), False),  # poses were found on the pixels as stored
        ((30, 40), (40, 30), (30, 40), (30, 40), True),
        ((400, 300), (40, 30), None, (40, 30), False),
        ((1080, 1920), (540, 960), None, (540, 960), False),
        ((1079, 1919), (540, 960), None, (540, 960), False),  # half, rounded
        ((300, 400), (40, 30), (30, 40), (30, 40), True),
        ((20, 15), (40, 30), None, (40, 30), False),
    ],
)
def test_which_size_is_meant(declared, stored, upright, size, turned):
    image = fit_to_file(posed(declared, stored, upright))
    assert (image.lens.size, image.turned) == (size, turned)
    assert image.lens.focal == pytest.approx((100 * size[0] / declared[0], 100 * size[1] / declared[1]))


@pytest.mark.parametrize("declared, stored", [((40, 30), (30, 40)), ((40, 30), (40, 32)), ((100, 100), (100, 50))])
def test_other_shapes_are_refused(declared, stored):
    with pytest.raises(BadInput, match=r"a.jpg is .* is declared; an image must have the declared size or be"):
        fit_to_file(posed(declared, stored))
