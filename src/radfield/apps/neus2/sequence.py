"""`radfield train-frames`: a surface that moves, from a folder of captures, one per frame (NeuS2, sec. 3.5).

The first frame is trained as `radfield train --method neus2` does. Every later one starts from the surface of the one
before: first the rigid motion between the two is found with the surface as it is, then the surface is trained on. Each
frame is a run of its own in frames/NNN, which render, eval, view and export take; sequence.json has the motions, and
meshes/NNN.ply the surfaces, all in the first frame's coordinates of the world. A sequence that was interrupted goes on,
with --resume, at the first frame that is not there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput
from ...training.run_folder import RunFolder
from .. import neus2
from ..loop import budget_rules, take_steps, with_budget
from ..runs import check, device_rules, use_device

NAME = "sequence.json"
#: of the learning rate, for later frames: Adam's first steps at all of it destroy a sharp surface (NeuS2 has 1e-3)
LATER_RATE = 0.1


@dataclass(frozen=True)
class Options:
    """Train a moving surface from a folder of captures, one per frame, and write a run and a mesh of each."""

    folder: Annotated[Path, tyro.conf.Positional]  # folder whose folders are captures, in the order of their names
    output: Path  # folder for the frames' runs, meshes and sequence.json
    seconds: float | None = None  # budget of the first frame; without --seconds and --steps: 120 seconds
    steps: int | None = None  # budget of the first frame in steps
    later: float = 0.13  # budget of each later frame, in parts of the first one's
    motion_steps: int = 100  # steps that find a later frame's motion, on top of its budget
    restart_levels: bool = False  # begin each later frame with the coarse levels again (NeuS2)
    meshes: bool = True  # write meshes/NNN.ply
    resolution: int = 256  # of the meshes: cells along the scene's side
    seed: int = 0  # with --steps, the same seed gives the same bits
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    resume: bool = False  # go on at the first frame that is not there
    holdout: int = 8  # every so many-th image is held out, where a capture names no split
    max_size: int | None = None  # shrink images whose longer side has more pixels
    masks: Literal["auto", "ignore", "transparent", "none"] = "auto"  # what masks mean
    checkpoint_seconds: float = 60.0  # save the state this often
    json: bool = False  # print the figures as one JSON object
    neus2: neus2.Config = field(default_factory=neus2.Config)  # options of the method


def run(options: Options) -> dict:
    """Trains all frames; returns their motions and times."""
    check(
        [
            *budget_rules(options),
            ("later", options.later, 0 < options.later <= 10, "above 0, at most 10"),
            ("motion-steps", options.motion_steps, 1 <= options.motion_steps <= 100_000, "from 1 to 100000"),
            ("resolution", options.resolution, 8 <= options.resolution <= 2048, "from 8 to 2048"),
            *device_rules(options.device, options.threads),
        ]
    )
    neus2.check(options.neus2)
    options, captures = with_budget(options, 120.0), _captures(options.folder)
    device, about = use_device(options.device, options.threads)
    frames = _begin(options, captures)
    print(f"train-frames {options.folder.resolve().name}: {len(captures)} frames, {about}", file=sys.stderr)
    sequence = _Sequence(options, frames, device)
    for index in range(len(frames), len(captures)):
        try:
            sequence.frame(index, captures[index])
        except (BadInput, FloatingPointError) as error:
            raise BadInput(_failed(options, captures[index], index, error)) from error
    return {"run": str(options.output), "frames": sequence.frames}


def _failed(options: Options, capture: Path, index: int, error: Exception) -> str:
    """What is said of a frame that could not be trained, and of those before it."""
    kept = "" if index == 0 else f"; the {index} before it are whole in {options.output}: --resume goes on with it"
    return f"frame {index} ({capture.name}): {error}{kept}"


def _captures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f"{folder}: is no folder; the rule: a folder of captures, one per frame")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise BadInput(f"{folder}: has no folders; the rule: a folder of captures, one per frame")
    return found


def _begin(options: Options, captures: list[Path]) -> list[dict]:
    """The frames that are there already, of a sequence that goes on."""
    path = options.output / NAME
    if path.exists() and not options.resume:
        raise BadInput(f"{options.output}: holds a sequence; the rule: --resume goes on with it, or another --output")
    if not path.exists():
        options.output.mkdir(parents=True, exist_ok=True)
        return []
    try:
        frames = json.loads(path.read_text())["frames"]
        names = [str(frame["name"]) for frame in frames]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read: {error!r:.80}; the rule: what `radfield train-frames` wrote") from None
    if names != [capture.name for capture in captures[: len(names)]]:
        raise BadInput(f"{path}: its frames are not the first of {options.folder}; the rule: --resume keeps the folder")
    return frames


class _Sequence:
    """The state between frames: the model on `device`, the first frame's transform, the motion so far."""

    def __init__(self, options: Options, frames: list[dict], device):
        from ...geometry import SceneTransform

        self.options, self.frames, self.device = options, frames, device
        self.model, self.transform = None, None
        self.change = SceneTransform()  # from the first frame's scene coordinates to those of the surface
        if frames:
            last = RunFolder.open(self._folder(len(frames) - 1))
            self.model = neus2.load(last.path, device)
            self.transform = SceneTransform.from_dict(_value(frames[0], "transform"))
            self.change = SceneTransform.from_dict(_value(frames[-1], "scene_motion"))

    def _folder(self, index: int) -> Path:
        return self.options.output / "frames" / f"{index:03d}"

    def frame(self, index: int, capture: Path) -> None:
        """Trains a frame, and writes its run, its mesh and its line of sequence.json."""
        from ...data import load
        from .motion import Motion, composed, find_motion, in_transform

        options, began = self.options, time.perf_counter()
        scene = load(capture, holdout=options.holdout, max_size=options.max_size, masks=options.masks)
        first = self.model is None
        if first:
            self.transform = scene.transform
            background = neus2.report_background(options.neus2, scene)
            place = {"cascades": scene.cascades, "transform": scene.transform, "background": background}
            self.model = neus2.build(options.neus2, **place, seed=options.seed, device=self.device)
        if self.model.outside is not None:
            raise BadInput(f"{capture}: has no masks; the rule: frames with masks, or --neus2.outside none")
        scene, loss = in_transform(scene, composed(self.change, self.transform)), None
        if not first:
            training, motion = self._training(scene, index, still=False), Motion().to(self.device)
            with _shown(f"motion {capture.name}", options.motion_steps) as shown:
                losses = find_motion(training, motion, options.motion_steps, shown)
            loss = sum(losses[-10:]) / len(losses[-10:])
            self.change = composed(motion.transform(), self.change)
        self.model.transform = composed(self.change, self.transform)
        scene = in_transform(scene, self.model.transform)
        folder = RunFolder.create(self._folder(index), overwrite=True)
        training = self._training(scene, index)
        folder.start(self._config(scene, folder))
        self._train(training, folder, capture.name, first)
        self._record(index, capture, loss, time.perf_counter() - began)

    def _training(self, scene, index: int, still: bool = True):
        """A training of the model as it is, with an occupancy grid that knows nothing yet; still: of a surface that is
        where the cameras see it."""
        from ...sampling.occupancy import OccupancyGrid

        self.model.grid = OccupancyGrid(self.model.grid.config, self.device)
        self.model.__dict__.pop("_unseen", None)  # of the cameras before
        return neus2.Training(self.model, scene, self.options.seed + index, still=still)

    def _train(self, training, folder: RunFolder, name: str, first: bool) -> None:
        options, part = self.options, 1.0 if first else self.options.later
        budget = {
            "seconds": None if options.seconds is None else options.seconds * part,
            "steps": None if options.steps is None else max(round(options.steps * part), 1),
        }
        if not first:  # the surface is there, and sharp
            levels = {} if options.restart_levels else {"first_levels": 1.0}
            rate = LATER_RATE * options.neus2.learning_rate
            self.model.config = dataclasses.replace(options.neus2, sharpen=0.0, learning_rate=rate, **levels)
        step = lambda progress: neus2.train_step(training, progress)  # noqa: E731
        shown = {"shown": neus2.SHOWN}
        take_steps(dataclasses.replace(options, **budget), training, folder, f"train {name}", step, **shown)
        self.model.config = options.neus2

    def _config(self, scene, folder: RunFolder) -> dict:
        options = json.loads(json.dumps(dataclasses.asdict(self.options), default=str))
        method = options.pop("neus2")
        capture = os.path.abspath(scene.path)
        kept = {name: options[name] for name in ("seed", "holdout", "max_size", "masks", "steps", "seconds")}
        return {
            "app": "neus2",
            "options": {**kept, "method": "neus2", "capture": capture},
            "neus2": method,
            "scene": {
                "capture": capture,
                "name": scene.name,
                "transform": self.model.transform.to_dict(),
                "moved": True,
                "cascades": scene.cascades,
                "background": self.model.background,
            },
        }

    def _record(self, index: int, capture: Path, loss: float | None, seconds: float) -> None:
        """Appends the frame to sequence.json, and writes its mesh."""
        from ...atomic import replacing
        from .motion import composed

        # x of this frame's world to that of the first frame
        world = composed(self.transform.inverse(), composed(self.change, self.transform))
        entry = {
            "name": capture.name,
            "run": os.path.relpath(self._folder(index), self.options.output),
            "transform": self.transform.to_dict(),
            "scene_motion": self.change.to_dict(),
            "to_first_frame": {"rotation": world.to_dict()["rotation"], "translation": list(world.offset)},
            "motion_loss": loss,
            "seconds": round(seconds, 3),
        }
        if self.options.meshes:
            entry["mesh"] = self._write_mesh(index)
        self.frames.append(entry)
        with replacing(self.options.output / NAME) as temporary:
            temporary.write_text(json.dumps({"frames": self.frames}, indent=1) + "\n")

    def _write_mesh(self, index: int) -> str | None:
        """The surface in this frame's world; None, with a warning, where there is none."""
        from ...errors import warn
        from ...meshing.files import write_mesh
        from ...meshing.level_set import from_host, mesh_of_distance

        distance = from_host(self.model.distance, self.device)
        mesh = mesh_of_distance(distance, self.model.box, self.options.resolution)
        if not len(mesh.triangles):
            warn(f"{self._folder(index)}: {self.model.empty}")
            return None
        path = self.options.output / "meshes" / f"{index:03d}.ply"
        path.parent.mkdir(exist_ok=True)
        write_mesh(path, mesh.largest().transformed(self.model.transform.inverse()))
        print(f"frame {index}: {path}", file=sys.stderr)
        return os.path.relpath(path, self.options.output)


def _value(frame: dict, name: str) -> dict:
    if not isinstance(frame.get(name), dict):
        raise BadInput(f"{NAME}: {name} is {frame.get(name)!r:.80}; the rule: what `radfield train-frames` wrote")
    return frame[name]


def _shown(title: str, steps: int):
    """A progress bar as a function of the steps that are done."""
    import contextlib

    from ...training.progress import Progress

    @contextlib.contextmanager
    def opened():
        with Progress(title, steps=steps) as progress:
            yield progress.update

    return opened()
