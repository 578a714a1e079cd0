"""A small run and its capture, and a running viewer."""

import contextlib
import socket

import pytest
from programs import TINY, as_before  # noqa: F401

from radfield.apps.command_line import main
from radfield.data.synthetic import write_synthetic_capture


@pytest.fixture(scope="session")
def capture(tmp_path_factory):
    """8 training and 2 held-out views of 48 x 48 pixels."""
    return write_synthetic_capture(tmp_path_factory.mktemp("viewer"), views=8, val_views=2, size=48)


@pytest.fixture(scope="session")
def trained(capture, tmp_path_factory):
    """A finished run."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["train", str(capture), "--output", str(run), "--steps", "150", "--json", *TINY]) == 0
    return run


def unused_port() -> int:
    """One that nobody listens on: tests run side by side."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def viewing():
    """viewing(what, **options of Viewer): a running viewer of a run, a file or a capture; ends with the test."""
    from radfield.apps.view import Options, open_exhibit
    from radfield.viewer.viewer import Viewer

    with contextlib.ExitStack() as stack:

        def start(what, other=None, **options):
            exhibit, _ = open_exhibit(Options(what, other, device="cpu"))
            viewer = Viewer(exhibit, **{"port": unused_port(), **options})
            stack.callback(viewer.stop)
            return viewer

        yield start
