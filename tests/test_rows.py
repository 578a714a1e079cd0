"""Rows as streams, and back."""

import pytest
import torch
from checks import NATIVE_BACKENDS, on_backend

from radfield import backend
from radfield.errors import BadInput
from radfield.rows import FEWEST_NUMBERS, columns_of, rows_above_zero, streams_of, take_rows


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


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_that_lie_together_are_taken_as_others_are(channels):
    """Runs of rows of every length around a vector's, at every place."""
    kept = torch.cat([torch.arange(length + 1) < length for length in range(70)])
    values = torch.randn(len(kept), channels).requires_grad_()
    rows = kept.nonzero()[:, 0]
    taken = take_rows(values, rows)
    assert torch.equal(taken, values[rows])
    (found,) = torch.autograd.grad(taken.sum(), values)
    assert torch.equal(found, kept[:, None].float().expand(-1, channels))


@pytest.mark.usefixtures("each_backend_once")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.97, 1.0])
def test_those_above_zero_are_found_and_their_columns_taken(share):
    for count in (0, 1, 33, 3000):
        generator = torch.Generator().manual_seed(count)
        values = torch.rand(5, count, generator=generator) - (1 - share)
        values[0, ::7] = torch.nan
        rows = rows_above_zero(values[0])
        assert torch.equal(rows, (values[0] > 0).nonzero()[:, 0])
        assert torch.equal(columns_of(values[1:], rows), values[1:, rows])


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
