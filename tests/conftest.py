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


def _runs(schedules):
    """(backend, schedule) of the native backends whose tensors are on the CPU."""
    names = [name for name in NATIVE_BACKENDS if name != "cuda"]
    runs = [(name, order) for name in names for order in (schedules if name == backend.EMULATED else (0,))]
    return {"params": runs, "ids": [name if name == "cpu" else f"{name}-{order}" for name, order in runs]}


@pytest.fixture(**_runs(SCHEDULES))
def each_backend(request):
    """The test runs on each native backend, emulated CUDA in each of its schedules; the name of the backend."""
    name, emulator.order = request.param
    with backend.use(name):
        yield name


@pytest.fixture(**_runs(SCHEDULES[-1:]))
def each_backend_once(request):
    """As `each_backend`, in one schedule, for tests that take long."""
    name, emulator.order = request.param
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
