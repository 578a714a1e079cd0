"""Rows as streams, and back."""

import pytest
import torch

from radfield.errors import BadInput
from radfield.rows import FEWEST_NUMBERS, streams_of, take_rows


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("some", [False, True])
def test_rows_are_taken_as_an_index_takes_them(channels, some):
    for count in (0, 1, 33, 3000):
        generator = torch.Generator().manual_seed(count)
        values = torch.randn(2 * count if some else count, channels, generator=generator).requires_grad_()
        rows = torch.randperm(len(values), generator=generator)[:count].sort()[0]
        taken, indexed = take_rows(values, rows if some else None), values[rows]
        assert torch.equal(taken, indexed)
        weights = torch.randn(count, channels, generator=generator)
        found = [torch.autograd.grad((pick * weights).sum(), values)[0] for pick in (taken, indexed)]
        assert torch.equal(*found)
    with pytest.raises(BadInput, match=r"values has dtype torch.float64"):
        take_rows(torch.zeros(3, channels, dtype=torch.float64), torch.tensor([0]))


@pytest.mark.parametrize("channels", [2, 3, 64, 70])
@pytest.mark.parametrize("by_rows", [False, True])
def test_streams_are_the_transposed_values(channels, by_rows):
    values = torch.randn(FEWEST_NUMBERS // 2, channels, requires_grad=True)
    if not by_rows:
        values = values.T.contiguous().T
    found = streams_of(values)
    assert found.is_contiguous() and not found.requires_grad and torch.equal(found, values.T)
    assert (found.data_ptr() == values.data_ptr()) is not by_rows
