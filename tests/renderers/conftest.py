"""Small tensors in their thousands: torch's own threads would only wait for one another."""

import pytest

from radfield.cpu.library import one_torch_thread


@pytest.fixture(autouse=True)
def one_thread():
    """torch computes on one thread."""
    with one_torch_thread():
        yield
