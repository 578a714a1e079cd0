"""The loop of every program that trains: steps until the budget is used, with progress, saves and interruption.

A budget is steps, seconds, or both (what ends first): the options `steps` and `seconds` of a program, and
`checkpoint_seconds` between saves. Progress in it sets the learning rate, so that a run that was interrupted equals an
uninterrupted one bit for bit if it is continued with the budget it began with.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

from ..training.progress import Interrupted, Progress, interruptible
from ..training.run_folder import RunFolder

LOG_INTERVAL = 16  # steps between two lines of metrics.jsonl


def budget_rules(options) -> list[tuple[str, object, bool, str]]:
    """The rules of the options of a budget and of the seed, for `runs.check`."""
    return [
        ("seconds", options.seconds, options.seconds is None or 0 < options.seconds < math.inf, "positive"),
        ("steps", options.steps, options.steps is None or options.steps > 0, "positive"),
        ("seed", options.seed, 0 <= options.seed < 2**31, "from 0 to 2^31 - 1"),
        ("checkpoint-seconds", options.checkpoint_seconds, options.checkpoint_seconds > 0, "positive"),
    ]


def with_budget(options, seconds: float):
    """The options, with these seconds where they have no budget."""
    if options.steps is None and options.seconds is None:
        return dataclasses.replace(options, seconds=seconds)
    return options


def budget_of(options, saved: dict) -> dict:
    """The budget of a run that is continued, by name: the one given, else the run's, which `saved` has."""
    given = {name: getattr(options, name) for name in ("steps", "seconds")}
    return given if any(value is not None for value in given.values()) else {name: saved[name] for name in given}


def used(options, training) -> float:
    """The part of the budget that is used; 1 or more where it is used up."""
    parts = [training.step / options.steps] if options.steps is not None else []
    parts += [training.seconds / options.seconds] if options.seconds is not None else []
    return max(parts)


def take_steps(
    options,
    training,
    folder: RunFolder,
    title: str,
    step: Callable[[float], object],
    *,
    shown: tuple[str, ...],
    live=None,
) -> None:
    """Calls `step` with the part of the budget that is used until that is 1, and saves now and then and at the end.

    training: has `step` and `seconds`; `count(result, seconds)` adds a step's result to its figures, `log(folder)`
    appends them to metrics.jsonl and returns them, of which `shown` are on show; `save(folder)`. live: of a viewer that
    shows the scene (`viewer/training_panel.py`). Raises `Interrupted`, with all saved, where the user asked to stop.
    """
    begun = training.step, training.seconds
    logged, saved = begun
    budget = {"steps": options.steps, "seconds": options.seconds}
    with Progress(title, **budget, resumed_from=begun) as progress, interruptible() as interrupt:
        clock = time.perf_counter()
        while (part := used(options, training)) < 1:
            result = step(part)
            # Everything between the steps counts as training, except saving.
            clock, before = time.perf_counter(), clock
            training.count(result, clock - before)
            if training.step % LOG_INTERVAL == 0:
                logged, figures = training.step, training.log(folder)
                progress.update(training.step, seconds=training.seconds, **{name: figures[name] for name in shown})
                if live is not None:
                    live.log(figures)
            if live is not None:
                clock += live.between_steps(training.step, interrupt)  # no training time
            if interrupt:
                training.save(folder)
                kept = f"the state after step {training.step} is saved; --resume continues it"
                raise Interrupted(f"{folder.path}: {kept}")
            if training.seconds - saved > options.checkpoint_seconds:
                training.save(folder)
                saved, clock = training.seconds, time.perf_counter()
        if training.step > logged:
            training.log(folder)
        progress.update(training.step, seconds=training.seconds)
    training.save(folder)
