"""Progress on standard error, and interrupts that let a loop finish its step and save.

    with Progress("train lego", steps=None, seconds=45.0) as progress, interruptible() as interrupt:
        for step in ...:
            progress.update(step, seconds=trained_seconds, samples_per_s=rate, psnr=psnr)
            if interrupt:
                save(); raise Interrupted(f"{run}: the state after step {step} is saved; --resume continues it")

In a terminal `Progress` draws one live line, redrawn in the calling thread at most `_REFRESH` times a second: the cores
belong to the training, so there is no thread for it. In a pipe or a file it writes one line, at the end.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator

_REFRESH = 5.0


class Interrupted(KeyboardInterrupt):
    """Training was interrupted and its state is saved; the message is one line for the user. Exit code 130."""


class Interrupt:
    """True once the user (SIGINT) or the system (SIGTERM) asked the program to stop."""

    def __init__(self):
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Within the block a first SIGINT or SIGTERM sets a flag, which the loop checks once a step; a second raises
    `KeyboardInterrupt` at once. Outside the main thread, where Python lets nobody handle signals, the flag stays unset.
    """
    interrupt = Interrupt()

    def handle(number: int, frame: object) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """The progress of a loop that ends after `steps` steps or `seconds` seconds, whichever comes first.

    `seconds` are those the budget counts (training without evaluating and saving), as `update` is told them; without
    them the wall clock counts. With neither budget the bar has no end. A resumed loop tells the (step, seconds) it is
    resumed from, which count as done but not for the estimate of the time to go.
    """

    def __init__(
        self,
        title: str,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        resumed_from: tuple[int, float] = (0, 0.0),
    ):
        self.title, self.steps, self.seconds = title, steps, seconds
        self._origin = resumed_from
        self._step, self._elapsed = resumed_from
        self._began, self._next_refresh = time.monotonic(), 0.0
        self._figures: dict[str, float] = {}
        self._bar = _live_bar(title) if sys.stderr is not None and sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()
        elif sys.stderr is not None:
            print(self.line(), file=sys.stderr, flush=True)

    def update(self, step: int, *, seconds: float | None = None, **figures: float | None) -> None:
        """Tells the steps done so far, the seconds the budget counts, and figures to show: `samples_per_s`, `psnr`
        (dB), `loss`, or others. A figure stays on show until it is told again; None leaves it as it is."""
        self._step = step
        now = time.monotonic() - self._began
        self._elapsed = self._origin[1] + now if seconds is None else seconds
        self._figures.update({name: value for name, value in figures.items() if value is not None})
        if self._bar is not None and now >= self._next_refresh:
            self._next_refresh = now + 1 / _REFRESH
            self._draw()

    def fraction(self) -> float | None:
        """How much of the budget is used, from 0 to 1; None without a budget."""
        used = [self._step / self.steps] if self.steps else []
        used += [self._elapsed / self.seconds] if self.seconds else []
        return min(max(used), 1.0) if used else None

    def remaining(self) -> float | None:
        """Seconds still to go, by the budget that will end first; None as long as that cannot be told."""
        left = [max(self.seconds - self._elapsed, 0.0)] if self.seconds is not None else []
        done, spent = self._step - self._origin[0], self._elapsed - self._origin[1]
        if self.steps is not None and done > 0:
            left.append(max(self.steps - self._step, 0) * spent / done)
        return min(left) if left else None

    def line(self) -> str:
        """What a log keeps: title, steps, seconds and the last figures."""
        parts = [f"{self._step} steps", f"{self._elapsed:.1f} s"]
        return f"{self.title}: " + ", ".join(parts + [show_figure(*item) for item in self._figures.items()])

    def _draw(self) -> None:
        fraction, remaining = self.fraction(), self.remaining()
        step = f"{self._step}/{self.steps}" if self.steps else f"{self._step}"
        figures = "  ".join(show_figure(name, value) for name, value in self._figures.items())
        clock = show_clock(self._elapsed)
        if remaining is not None:
            clock += f" < {show_clock(remaining)}"
        self._bar.update(
            self._bar.task_ids[0],
            total=1.0 if fraction is not None else None,
            completed=fraction or 0.0,
            step=step,
            figures=figures,
            clock=clock,
        )
        self._bar.refresh()


def show_clock(seconds: float) -> str:
    """Seconds as minutes:seconds, with hours where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def show_figure(name: str, value: float) -> str:
    """A figure with its unit, as short as a live line needs it."""
    if name == "samples_per_s":
        return f"{value / 1e6:.2f} M samples/s"
    if name == "psnr":
        return f"PSNR {value:.2f} dB"
    return f"{name.replace('_', ' ')} {value:.4g}"


def _live_bar(title: str):
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("step {task.fields[step]}"),
        TextColumn("[cyan]{task.fields[figures]}"),
        TextColumn("{task.fields[clock]}"),
    ]
    bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False)
    bar.add_task(title, total=None, step="0", figures="", clock="")
    return bar
