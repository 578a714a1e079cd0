"""Rows as streams, and back."""

import pytest
import torch
from checks import NATIVE_BACKENDS, on_backend

from radfield import backend
from radfield.errors import BadInput
from radfield.rows import FEWEST_NUMBERS, streams_of, take_rows


@pytest.mark.parametrize("name", NATIVE_BACKENDS)
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("some", [False, True])
def test_rows_are_taken_as_an_index_takes_them(channels, some, name):
    for count in (0, 1, 33, 300 if name == backend.EMULATED else 3000):
        generator = torch.Generator().manual_seed(count)
        values = torch.randn(2 * count if some else count, channels, generator=generator)
        rows = torch.randperm(len(values), generator=generator)[:count].sort()[0]
        weights = torch.randn(count, channels, generator=generator)
        values, rows, weights = on_backend(dict(enumerate((values, rows, weights))), name).values()
        values.requires_grad_()
        with backend.use(name):
            taken, indexed = take_rows(values, rows if some else None), values[rows]
            assert torch.equal(taken, indexed)
            found = [torch.autograd.grad((pick * weights).sum(), values)[0] for pick in (taken, indexed)]
        assert torch.equal(*found)
    with backend.use(name), pytest.raises(BadInput, match=r"values has dtype torch.float64"):
        wrong = {"values": torch.zeros(3, channels, dtype=torch.float64), "rows": torch.tensor([0])}
        take_rows(**on_backend(wrong, name))


@pytest.mark.usefixtures("each_backend_once")
@pytest.mark.parametrize("channels", [2, 3, 64, 70])
@pytest.mark.parametrize("by_rows", [False, True])
def test_streams_are_the_transposed_values(channels, by_rows):
    values = torch.randn(FEWEST_NUMBERS // channels + 1, channels, requires_grad=True)
    if not by_rows:
        values = values.T.contiguous().T
    found = streams_of(values)
    assert found.is_contiguous() and not found.requires_grad and torch.equal(found, values.T)
    assert (found.data_ptr() == values.data_ptr()) is not by_rows
