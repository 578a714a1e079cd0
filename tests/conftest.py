"""Fixtures that several tests use."""

from pathlib import Path

import pytest
import torch
from checks import NATIVE_BACKENDS
from cuda_emulator.backend import SCHEDULES, emulator

from radfield import backend
from radfield.cpu import library


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(
    params=[(name, order) for name in NATIVE_BACKENDS for order in (SCHEDULES if name == backend.EMULATED else (0,))],
    ids=lambda each: each[0] if each[0] != backend.EMULATED else f"{each[0]}-{each[1]}",
)
def each_backend(request):
    """The test runs on each native backend whose tensors are on the CPU, emulated CUDA in each of its schedules; the
    name of the backend."""
    name, emulator.order = request.param
    if name == "cuda":
        pytest.skip("the tensors of this test are on the CPU")
    with backend.use(name):
        yield name


@pytest.fixture
def threads():
    """Runs a function with 1, 2 and 5 threads; returns the results with 2 and 5 paired with those of 1."""
    before = library.num_threads()

    def run(function):
        results = []
        for count in (1, 2, 5):
            library.set_num_threads(count)
            results.append(function())
        return [pair for other in results[1:] for pair in zip(other, results[0], strict=True)]

    yield run
    library.set_num_threads(before)


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real captures beside the checkout; tests that need one skip without it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real captures beside this checkout (../shared/data)")
    return folder
