"""The child process from its parent's side: starting it, telling its progress, and ending it whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ...errors import BadInput

CHILD = (sys.executable, "-m", "radfield.data.photographs.child")
_TRY_SMALLER = "a smaller --feature-size or fewer --features, or fewer photographs, need less memory"


def run_child(job: dict, folder: Path) -> dict:
    """Runs the job and returns its figures; `BadInput` with the stage that failed and what to try."""
    file, log = folder / "job.json", folder / "log.txt"
    file.write_text(json.dumps(job), encoding="utf-8")
    threads = str(job["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    with open(log, "wb") as errors, Stages() as stages:
        process = subprocess.Popen(
            [*CHILD, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
        )
        try:
            last = _listen(process, stages)
            process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
    if "result" in last:
        return last["result"]
    if "failed" in last:
        failed = last["failed"]
        raise BadInput(f"{job['source']}: cameras failed at {failed['stage']}: {failed['why']}; try {failed['advice']}")
    raise BadInput(_crashed(job, stages.name, process.returncode, log))


def _listen(process: subprocess.Popen, stages: Stages) -> dict:
    last: dict = {}
    for line in process.stdout:
        try:
            last = json.loads(line)
        except ValueError:  # cut short by a crash, of which the exit code tells
            break
        if "stage" in last:
            stages.update(last["stage"], last["done"], last["total"])
    return last


def _crashed(job: dict, stage: str, code: int, log: Path) -> str:
    if code in (-9, 137):
        return (
            f"{job['source']}: cameras failed at {stage}: the process was killed, likely for its memory; {_TRY_SMALLER}"
        )
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = f": {lines[-1].strip():.200}" if lines else ""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{job['source']}: cameras failed at {stage}: pycolmap's process ended with {how}{said}; {_TRY_SMALLER}"


class Stages:
    """Progress of the stages on standard error: a live bar in a terminal, a line per finished stage elsewhere."""

    def __init__(self):
        self.name, self._done, self._begun = "start", 0, time.monotonic()
        self._bar = _live_bar() if sys.stderr is not None and sys.stderr.isatty() else None

    def __enter__(self) -> Stages:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._finish()
        if self._bar is not None:
            self._bar.stop()

    def update(self, name: str, done: int, total: int) -> None:
        if name != self.name:
            self._finish()
            self.name, self._begun = name, time.monotonic()
        self._done = done
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"cameras: {name}", completed=done, total=total or None)
            self._bar.refresh()

    def _finish(self) -> None:
        if self.name == "start":
            return
        counted = f" {self._done}," if self._done else ""
        line = f"cameras: {self.name}{counted} {time.monotonic() - self._begun:.1f} s"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        elif sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)


def _live_bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()]
    bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
    bar.add_task("cameras", total=None)
    return bar
