"""What `radfield fit-sdf`, `fit-image` and `fit-volume` share: a field fitted to one source, as a run that can be
continued and measured again.

The budget: loop.py. Evaluating and saving are not counted. The state of training: training.py.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Literal

from ...errors import BadInput
from ...training.run_folder import RunFolder
from ..loop import budget_of, budget_rules, take_steps, with_budget
from ..runs import check, device_rules, use_device
from .training import FitTraining

_NONE = type(None)


@dataclass(frozen=True)
class FitOptions:
    """The options of all three; each program adds its source, its own, and those of its method."""

    output: Path | None = None  # folder of the run
    seconds: float | None = None  # stop after this much training (evaluating and saving not counted)
    steps: int | None = None  # stop after this many steps
    seed: int = 0  # with --steps, the same seed gives the same bits, whatever the number of threads
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # continue the run in the output folder from its checkpoint, to its budget or a new one
    overwrite: bool = False  # replace the run in the output folder
    checkpoint_seconds: float = 60.0  # save the state this often
    evaluate: bool = True  # measure, draw and report at the end
    json: bool = False  # print the figures as one JSON object


class Fit(ABC):
    """One of the programs. Its options are a `FitOptions` that has the source under the name `source`, and the method's
    Config under the method's name."""

    command: ClassVar[str]  # of radfield
    name: ClassVar[str]  # of the method, in config.json and before its options
    method: ClassVar[ModuleType]
    options: ClassVar[type[FitOptions]]
    source: ClassVar[str]  # the option that says what is fitted
    noun: ClassVar[str]  # what errors call that
    default_seconds: ClassVar[float] = 60.0
    #: options that a continued run keeps, and what config.json has of them
    kept: ClassVar[dict[str, tuple]] = {"seed": (int,)}
    #: what runs have in place of options that came later
    before: ClassVar[dict[str, object]] = {}
    shown: ClassVar[tuple[str, ...]] = ("loss", "samples_per_s")  # figures on the way

    @abstractmethod
    def open(self, options: FitOptions, folder: RunFolder):
        """The source, read. Raises `BadInput`."""

    @abstractmethod
    def scene_of(self, target) -> dict:
        """What config.json keeps of the source: what `build` needs, and what tells it from another."""

    @abstractmethod
    def training_of(self, options: FitOptions, target, device="cpu") -> FitTraining:
        """Training at its beginning, on `device`."""

    @abstractmethod
    def described(self, target) -> str:
        """What the source is, for the first line of output."""

    @abstractmethod
    def evaluate(self, folder: RunFolder, model, target, figures: dict, stages: dict) -> dict:
        """Measures where the model is, writes pictures and the report, and returns what was found. figures, stages: of
        the training."""

    def rules(self, options: FitOptions) -> list[tuple[str, object, bool, str]]:
        """The rules of the program's own options, for `runs.check`."""
        return []

    def run(self, options: FitOptions) -> dict:
        """Fits, and returns the figures of the run."""
        self._check(options)
        folder = RunFolder.create(options.output, resume=options.resume, overwrite=options.overwrite)
        options = self._resumed(folder, options) if options.resume else with_budget(options, self.default_seconds)
        device, about = use_device(options.device, options.threads)
        target = self.open(options, folder)
        training = self.training_of(options, target, device)
        config = self.config_of(options, target)
        if options.resume:
            self._check_same(folder, config["scene"], getattr(options, self.source))
            training.load(folder)
            folder.resume(training.step)
            folder.write_config(config)
        else:
            folder.start(config)
        print(f"fit {self._title(options)}: {self.described(target)}, {about}", file=sys.stderr)
        self._loop(options, training, folder)
        figures = {"steps": training.step, "training_seconds": training.seconds}
        figures["samples_per_s"] = training.step * training.batch / max(training.seconds, 1e-9)
        figures["parameters"] = sum(p.numel() for p in training.model.field.parameters())
        stages = dict(training.stages.seconds)
        folder.append_metrics(step=training.step, summary={**figures, "stages": stages})
        if options.evaluate:
            figures |= self.evaluate(folder, training.model, target, figures, stages)
        return {"run": str(folder.path), **figures}

    def evaluate_run(
        self, folder: RunFolder, source: Path | None, device, about: str, figures: dict, stages: dict
    ) -> dict:
        """`evaluate` of a run, on its source. source: where that is now, if it moved; about: the device in words."""
        saved = self.saved_options(folder)
        place = source or Path(saved[self.source])
        kept = {name: saved[name] for name in self.kept}
        target = self.open(self.options(**{self.source: place}, **kept), folder)
        self._check_same(folder, self.scene_of(target), place)
        model = self.method.load(folder.path, device)
        print(f"eval {folder.path.resolve().name}: against its {self.noun}, {about}", file=sys.stderr)
        return self.evaluate(folder, model, target, figures, stages)

    def saved_options(self, folder: RunFolder) -> dict:
        """The options of a run. Raises `BadInput` where config.json does not have them."""
        options = folder.read_config().get("options")
        options = self.before | options if isinstance(options, dict) else options
        kinds = {self.source: (str,), "steps": (int, _NONE), "seconds": (int, float, _NONE), **self.kept}
        if not isinstance(options, dict) or not all(k in options and type(options[k]) in v for k, v in kinds.items()):
            raise BadInput(f"{folder.config_path}: has no options; the rule: a run that `radfield {self.command}` made")
        return options

    def config_of(self, options: FitOptions, target) -> dict:
        """config.json of the run; a file's path is absolute, so that the run can be opened from any folder."""
        values = json.loads(json.dumps(dataclasses.asdict(options), default=str))
        method = values.pop(self.name)
        if Path(values[self.source]).is_file():
            values[self.source] = os.path.abspath(values[self.source])
        return {"app": self.name, "options": values, self.name: method, "scene": self.scene_of(target)}

    def _title(self, options: FitOptions) -> str:
        return Path(getattr(options, self.source)).name

    def _check(self, options: FitOptions) -> None:
        check([*budget_rules(options), *self.rules(options), *device_rules(options.device, options.threads)])
        self.method.check(getattr(options, self.name))
        rule = f"the rule: `radfield {self.command} FILE --output RUN`"
        if not getattr(options, self.source) and not options.resume:
            raise BadInput(f"no {self.noun} is given; {rule}")
        if options.output is None:
            raise BadInput(f"--output is not given; {rule}")

    def _check_same(self, folder: RunFolder, scene: dict, place) -> None:
        if not alike(folder.read_config().get("scene"), scene):
            raise BadInput(f"{place}: is not the {self.noun} that {folder.path} was fitted to")

    def _loop(self, options: FitOptions, training: FitTraining, folder: RunFolder) -> None:
        """Steps until the budget is used; saves now and then, when interrupted, and at the end."""
        step = functools.partial(self.method.train_step, training)
        try:
            take_steps(options, training, folder, f"fit {self._title(options)}", step, shown=self.shown)
        except FloatingPointError as error:
            training.save(folder)
            option = f"--{self.name}.learning-rate"
            raise BadInput(f"{error}; {folder.path} keeps the state before it; try {option}") from None

    def _resumed(self, folder: RunFolder, options: FitOptions) -> FitOptions:
        """The options of the run that is continued; a new budget replaces the old one, a source given is where it is
        now."""
        method, saved = self.method.config_from(folder.read_config()), self.saved_options(folder)
        if getattr(options, self.name) not in (type(method)(), method):
            rule = "--resume keeps them"
            raise BadInput(f"{folder.path}: the --{self.name} options differ from those of the run; the rule: {rule}")
        changes = {self.name: method, self.source: getattr(options, self.source) or Path(saved[self.source])}
        for name in self.kept:
            given = getattr(options, name)
            if given not in (getattr(self.options, name), saved[name]):
                raise BadInput(f"--{name} is {given}; the rule: --resume keeps the run's {saved[name]}")
            changes[name] = saved[name]
        return with_budget(dataclasses.replace(options, **changes, **budget_of(options, saved)), self.default_seconds)


def alike(a, b, size: float = 0.0) -> bool:
    """Whether two values of JSON are the same but for a millionth in floats, those of a transform that another version
    computed; in a list, a millionth of its largest number. size: that of the list that they are of."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        size = max((abs(value) for value in (*a, *b) if isinstance(value, float)), default=0.0)
        return len(a) == len(b) and all(alike(one, other, size) for one, other in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6 * size)
    return a == b
