"""The stand-in places parameters on a GPU where torch has one: tests on the CPU hide it."""

import pytest
import torch

GPU = torch.cuda.is_available()


@pytest.fixture
def gpu():
    """The test runs where there is a GPU."""
    if not GPU:
        pytest.skip("torch has no GPU here")


@pytest.fixture(autouse=True)
def on_the_cpu(request, monkeypatch):
    """Tests without the fixture `gpu` see none."""
    if "gpu" not in request.fixturenames:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
