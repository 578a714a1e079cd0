"""A scene that trains, watched: the training's loop calls `Live.between_steps` after each step.

All drawing is done there, in the training's thread, so that no field is asked while it changes and no two threads use
the same buffers. While a camera moves, or its picture is not whole yet, drawing may take up to the part MOVING of the
time, else AT_REST, by which pictures follow the training. Time spent here is no training time: a budget of seconds
trains as much as without a viewer.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque

import numpy as np

from .worker import Worker

MOVING, AT_REST = 0.6, 0.05
REFRESH = 2.0  # seconds between two pictures of a scene that trains, at least
_POINTS = 400  # of a curve


class Live:
    """What panels and the training's loop have in common."""

    def __init__(self):
        self.worker: Worker | None = None
        self.paused = False
        self.most_steps = 0.0  # a second; 0: as many as there are
        self.curves: deque[tuple[float, float, float]] = deque(maxlen=4 * _POINTS)  # seconds, PSNR, loss
        self.panels: list[TrainingPanel] = []
        self.step, self.lock = 0, threading.Lock()
        self._owed, self._before, self._last_plot = 0.0, time.perf_counter(), 0.0

    def attach(self, worker: Worker) -> None:
        """The worker whose pieces are done between the steps."""
        self.worker = worker

    def between_steps(self, step: int, leaving) -> float:
        """Draws what the time allows, waits where training is paused or slowed down, and returns the seconds that
        took. leaving: true where the loop is asked to end."""
        began = time.perf_counter()
        self.step = step
        trained = began - self._before
        busy = self.worker.waiting()
        part = MOVING if busy else AT_REST
        # time saved up is worth a quick picture at most, so that idle minutes do not stop a training later
        self._owed = min(self._owed + trained * part / (1 - part), 0.25 if busy else 0.1)
        if not busy:
            self.worker.refresh(REFRESH)
        while self._owed > 0:
            at = time.perf_counter()
            if not self.worker.work():
                break
            self._owed -= time.perf_counter() - at
        until = self._before + 1 / self.most_steps if self.most_steps > 0 else 0.0
        while not leaving and (self.paused or time.perf_counter() < until):
            if not self.worker.work():
                time.sleep(0.005)
        self._before = time.perf_counter()
        return self._before - began

    def log(self, figures: dict) -> None:
        """Adds the training's figures to the curves, and shows them at most once in two seconds."""
        with self.lock:
            self.curves.append((figures["seconds"], figures["psnr"], figures["loss"]))
            now = time.monotonic()
            if now - self._last_plot < 2.0 or not self.panels:
                return
            self._last_plot = now
            panels = list(self.panels)
        for panel in panels:
            panel.show()

    def go_on(self) -> None:
        """Training has ended: the viewer goes on by itself, until Ctrl-C."""
        from ..apps.view import wait

        for panel in self.panels:
            panel.status.content = f"training has ended after {self.step} steps"
        self.worker.start()
        print("training has ended; the viewer goes on, Ctrl-C ends it", file=sys.stderr)
        wait(None)


class TrainingPanel:
    """The folder "Training" of a client's panel."""

    def __init__(self, session, live: Live):
        self.session, self.live = session, live
        gui = session.client.gui
        with gui.add_folder("Training"):
            self.status = gui.add_markdown("")
            self.pause = gui.add_button("pause")
            self.pause.on_click(lambda _: self._pause())
            self.rate = gui.add_slider("steps a second", 0, 100, 1, 0, hint="at most; 0: as many as there are")
            self.rate.on_update(lambda _: setattr(live, "most_steps", float(self.rate.value)))
            empty = np.zeros(1)
            line = {"stroke": "#4dabf7", "width": 2}
            scales = {"x": {"time": False}}
            series = [({"label": "s"}, {"label": name, **line}) for name in ("PSNR, dB", "log10 loss")]
            options = {"scales": scales, "height": 130}
            self.plots = [gui.add_uplot((empty, empty), each, **options) for each in series]
        with live.lock:
            live.panels.append(self)
        self.show()

    def _pause(self) -> None:
        self.live.paused = not self.live.paused
        for panel in self.live.panels:
            panel.pause.label = "resume" if self.live.paused else "pause"

    def show(self) -> None:
        """Sends the curves."""
        if self.session.gone:
            with self.live.lock:
                if self in self.live.panels:
                    self.live.panels.remove(self)
            return
        curves = list(self.live.curves)
        if not curves:
            return
        seconds, psnr, loss = np.array(curves[:: max(1, len(curves) // _POINTS)]).T
        self.plots[0].data = (seconds, psnr)
        self.plots[1].data = (seconds, np.log10(np.maximum(loss, 1e-12)))
        self.status.content = f"step {self.live.step}, {curves[-1][0]:.0f} s, PSNR {curves[-1][1]:.2f} dB"
