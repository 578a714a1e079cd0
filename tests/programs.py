"""What tests of whole programs share: a method small enough to train in seconds, and a process left as it was."""

import signal

import pytest
import torch

from radfield.cpu import library

#: a field and batches that train at hundreds of steps a second
TINY = (
    *("--device", "cpu"),  # bits are compared, which a GPU does not promise
    *("--ngp.levels", "6", "--ngp.log2-size", "14", "--ngp.finest-resolution", "256"),
    *("--ngp.batch-samples", "8192", "--ngp.uniform-cells", "65536", "--ngp.occupied-cells", "8192"),
)


@pytest.fixture(autouse=True)
def as_before():
    """Programs set threads and signals for their process; other tests must not notice."""
    ours, torchs = library.num_threads(), torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    library.set_num_threads(ours)
    torch.set_num_threads(torchs)
    for number, handler in handlers.items():
        assert signal.getsignal(number) is handler
