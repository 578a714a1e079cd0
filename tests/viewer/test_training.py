"""A scene watched while it trains: it trains the same, stands still when asked to, and gives the viewer its share."""

import threading
import time
from pathlib import Path

import pytest
import torch
from viewer.client import Client
from viewer.conftest import TINY

from radfield.apps import view
from radfield.apps.command_line import main
from radfield.training.checkpoint import load_checkpoint
from radfield.viewer import training_panel
from radfield.viewer.training_panel import AT_REST, MOVING, Live


class Work:
    """A worker whose pieces take so many seconds each, without end."""

    def __init__(self, piece=0.004):
        self.piece, self.moving, self.done = piece, False, 0.0

    def waiting(self):
        return self.moving

    def refresh(self, older):
        pass

    def work(self):
        began = time.perf_counter()
        while time.perf_counter() - began < self.piece:
            pass
        self.done += time.perf_counter() - began
        return True


@pytest.mark.parametrize(("moving", "share"), [(False, AT_REST), (True, MOVING)])
def test_drawing_takes_its_share_of_the_time(moving, share):
    live, worker = Live(), Work()
    live.attach(worker)
    worker.moving = moving
    live.between_steps(0, False)
    worker.done, trained, told = 0.0, 0.0, 0.0
    for step in range(60):
        began = time.perf_counter()
        time.sleep(0.01)
        trained += time.perf_counter() - began
        told += live.between_steps(step, False)
    assert worker.done / (worker.done + trained) < 1.1 * share + 0.01
    assert worker.done / (worker.done + trained) > 0.5 * share
    assert told >= worker.done  # the loop does not count it as training


def test_pause_and_slower_steps():
    live, worker = Live(), Work()
    live.attach(worker)
    live.most_steps = 20
    live.between_steps(0, False)
    began = time.perf_counter()
    for step in range(5):
        live.between_steps(step, False)
    assert time.perf_counter() - began >= 0.24
    live.most_steps, live.paused = 0, True
    threading.Timer(0.3, lambda: setattr(live, "paused", False)).start()
    began = time.perf_counter()
    live.between_steps(6, False)
    assert time.perf_counter() - began >= 0.25
    live.paused = True
    live.between_steps(7, True)  # who asks the program to end is not kept waiting


def test_a_watched_training_gives_the_same_bits(capture, tmp_path, monkeypatch):
    seen, clients = {}, []

    def watch(port=18660):
        """A client that pauses the training, resumes it, and turns the camera."""
        while not clients:
            try:
                clients.append(Client(f"http://127.0.0.1:{port}/", 64, 64))
            except OSError:
                time.sleep(0.02)
        client = clients[0]
        client.move((1.5, 1.5, 1.0), (0.5, 0.5, 0.5))
        seen["picture"] = client.wait(lambda c: c.count > 0 and "pause" in c.gui)
        client.set("pause", True)
        for i in range(8):
            client.move((1.5, 1.5 - 0.1 * i, 1.0), (0.5, 0.5, 0.5))
            time.sleep(0.02)
        count = client.count
        seen["drawn while it stands still"] = client.wait(lambda c: c.count > count)
        client.set("pause", True)

    monkeypatch.setattr(view, "wait", lambda seconds: None)  # until Ctrl-C
    monkeypatch.setattr(training_panel, "REFRESH", 0.1)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    runs = [tmp_path / "watched", tmp_path / "alone"]
    options = ["train", str(capture), "--steps", "120", "--no-evaluate", *TINY]
    assert main([*options, "--output", str(runs[0]), "--viewer", "--port", "18660"]) == 0
    thread.join(120)
    assert main([*options, "--output", str(runs[1])]) == 0
    assert seen == {"picture": True, "drawn while it stands still": True}
    watched, alone = (load_checkpoint(Path(run) / "checkpoint.safetensors")[0] for run in runs)
    assert all(torch.equal(value, alone[name]) for name, value in watched.items())
    clients[0].close()
