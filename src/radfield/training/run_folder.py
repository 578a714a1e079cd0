"""A run is a folder: config.json, checkpoint.safetensors, metrics.jsonl, renders/, report.html; capture/ where it was
trained on bare photographs.

Where images do not fit into memory there is also cache/, which may be removed when no training is to be continued.

metrics.jsonl holds one JSON object per line, each with its "step" (steps done so far). A line is lost or cut short when
the process is killed while it writes; reading skips such a line. Everything else is written atomically.

    run = RunFolder.create(path, resume=options.resume, overwrite=options.overwrite)   # checks, writes nothing
    run.start(config)             # a new run: makes the folder and config.json, clears an overwritten run
    run.resume(step)              # or a resumed one: forgets the metrics after the checkpoint's step
    run.append_metrics(step=100, seconds=2.5, loss=0.01)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..atomic import DISK_ERRORS, finite, foreign, is_temporary, replacing_file, write_json
from ..errors import BadInput

VERSION = 1


class RunFolder:
    """The paths of a run and what is read from and written to them; `create` for training, `open` for what reads."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    config_path = property(lambda self: self.path / "config.json")
    checkpoint_path = property(lambda self: self.path / "checkpoint.safetensors")
    metrics_path = property(lambda self: self.path / "metrics.jsonl")
    report_path = property(lambda self: self.path / "report.html")
    renders = property(lambda self: self.path / "renders")
    #: cameras found for bare photographs, kept for the next training in this folder
    capture = property(lambda self: self.path / "capture")
    cache = property(lambda self: self.path / "cache")

    @classmethod
    def create(cls, path: Path | str, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
        """The folder a training run will write to, checked but not yet touched, so that a later error loses nothing.

        Raises `BadInput` unless the folder is new or empty, or holds a run and `resume` or `overwrite` is given. A
        folder of anything else is never written to.
        """
        run = cls(path)
        if resume and overwrite:
            raise BadInput("--resume and --overwrite are both given; the rule: at most one of them")
        if run.path.exists() and not run.path.is_dir():
            raise BadInput(f"{path}: is a file; the rule: a run is a folder")
        if resume:
            run._check_resumable()
        elif not run._is_vacant():
            if not run.is_run():
                raise BadInput(f"{path}: holds files that are no run; the rule: a new or empty folder, or a run")
            if not overwrite:
                raise BadInput(f"{path}: holds a run already; --resume continues it, --overwrite replaces it")
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """An existing run. Raises `BadInput` when `path` holds none."""
        run = cls(path)
        if not run.path.is_dir():
            what = "is a file" if run.path.exists() else "there is no such folder"
            raise BadInput(f"{path}: {what}; the rule: the folder of a run")
        if not run.config_path.exists():
            raise BadInput(f"{path}: holds no run: it has no config.json")
        run.read_config()
        return run

    def is_run(self) -> bool:
        """Whether the folder holds a run that this version can read."""
        try:
            self.read_config()
        except BadInput:
            return False
        return True

    def start(self, config: dict[str, Any]) -> None:
        """Makes the folder of a new run with its config.json; what an overwritten run left is removed."""
        try:
            for path in (self.checkpoint_path, self.metrics_path, self.report_path):
                path.unlink(missing_ok=True)
            if self.renders.is_dir():
                shutil.rmtree(self.renders)
            self.renders.mkdir(parents=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"{self.path}: could not be made the folder of a run: {reason}") from error
        self.write_config(config)

    def resume(self, step: int) -> None:
        """Forgets what metrics.jsonl says after `step`: the steps since the checkpoint are done again."""
        self.renders.mkdir(exist_ok=True)
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        with replacing_file(self.metrics_path) as file:
            file.writelines(_line(record).encode() for record in kept)

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes config.json: the caller's `config` (app, options, scene) with the version of its form."""
        write_json(self.config_path, {**config, "version": VERSION})

    def read_config(self) -> dict[str, Any]:
        """config.json. Raises `BadInput` when it is missing, is no JSON object, or has another version."""
        path = self.config_path
        try:
            config = json.loads(path.read_bytes().decode())
        except FileNotFoundError:
            raise BadInput(f"{path}: there is no such file") from None
        except OSError as error:
            raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from error
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: is not JSON: {error}") from None
        if not isinstance(config, dict) or "app" not in config:
            raise BadInput(f"{path}: is not a run's configuration: it names no app")
        if config.get("version") != VERSION:
            raise BadInput(f"{path}: has version {config.get('version')!r}; the rule: this program reads {VERSION}")
        return config

    def append_metrics(self, *, step: int, **figures: Any) -> None:
        """Adds one line to metrics.jsonl, on its way to the disk before this returns."""
        try:
            with open(self.metrics_path, "a", encoding="utf-8") as file:
                file.write(_line({"step": step, **figures}))
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"{self.metrics_path}: could not be written: {reason}") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl in order; none when there is no such file. A line cut short is skipped."""
        try:
            text = self.metrics_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [record for record in map(_record, text.splitlines()) if record is not None]

    def _is_vacant(self) -> bool:
        """Whether nothing would be lost: no folder, or one with at most the leftovers of an interrupted write, and
        cameras found or images decoded for a training that then did not start."""
        if not self.path.exists():
            return True
        made = (is_temporary(path) or path == self.cache or self._is_capture(path) for path in self.path.iterdir())
        return all(made)

    def _is_capture(self, path: Path) -> bool:
        return path == self.capture and path.is_dir() and all(map(_is_found, path.iterdir()))

    def _check_resumable(self) -> None:
        if not self.config_path.exists():
            raise BadInput(f"{self.path}: holds no run to --resume: it has no config.json")
        self.read_config()
        if not self.checkpoint_path.exists():
            raise BadInput(f"{self.path}: has no checkpoint to --resume from; --overwrite starts the run again")


def _is_found(capture: Path) -> bool:
    # whole, or the leftover of a search for cameras that was killed
    return (capture / "poses.json").exists() or is_temporary(capture) or not foreign(capture)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(finite(record), allow_nan=False) + "\n"


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
