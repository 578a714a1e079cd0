"""The process that finds cameras: `python -m radfield.data.photographs.child JOB.json`.

It reads the job, does the stages in order, and writes one JSON object per line to its standard output:
{"stage", "done", "total"}, {"warning"}, and at the end {"result"} or {"failed": {"stage", "why", "advice"}}. What
pycolmap prints goes to standard error. It ends when its standard input does: with its parent, however that ended.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from .quality import StageFailed, names_of


class Child:
    """The job and what its stages have found so far."""

    def __init__(self, job: dict, send):
        self.job, self.send = job, send
        self.work, self.result = Path(job["work"]), Path(job["result"])
        self.photographs: list[dict] = job["photographs"]
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self.own_lenses = False  # a lens per photograph: where those taken for one camera's differ

    def run(self) -> dict:
        """All stages; returns the figures."""
        import pycolmap

        from .refine import lenses_differ

        pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
        pycolmap.set_random_seed(0)
        if self.job["videos"]:
            self.stage("frames", self.take_frames)
        self.stage("photographs", self.shrink)
        mapped = self.map_matches()
        if self.lens_is_guessed and lenses_differ(mapped.model, self.job["threads"]):
            self.own_lenses = True
            mapped = self.map_matches()
        return self.stage("refinement", lambda progress: self.finish(mapped, progress))

    def map_matches(self):
        """Features to cameras."""
        self.stage("features", self.find_features)
        self.stage("matching", self.match)
        return self.stage("mapping", self.map)

    def stage(self, name: str, work):
        """Does one stage, telling its progress and taking its time."""
        begun = time.perf_counter()
        self.send(stage=name, done=0, total=0)
        found = work(lambda done, total: self.send(stage=name, done=done, total=total))
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
        return found

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def take_frames(self, progress) -> None:
        from .frames import different_stems, write_frames

        folder = self.result / "images"
        folder.mkdir(parents=True, exist_ok=True)
        videos = [Path(video) for video in self.job["videos"]]
        for video, stem in zip(videos, different_stems(videos), strict=True):
            try:
                files = write_frames(video, folder, progress, stem)
            except ValueError as error:
                raise StageFailed("frames", str(error), "another video, or its frames as photographs") from None
            self.photographs += [_frame(file, video) for file in files]
        if len(self.photographs) < 3:
            raise StageFailed("frames", f"the video has {len(self.photographs)} frames", "a longer video")

    def shrink(self, progress) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from ..pillow import damage
        from .shrink import blurred, first_of_each, shrink

        folder, total = self.work / "images", len(self.photographs)
        folder.mkdir()

        def one(i: int):
            photograph = self.photographs[i]
            target = folder / f"{i:06d}.png"
            try:
                return shrink(
                    Path(photograph["path"]), target, turned=photograph["turned"], size=self.job["feature_size"]
                )
            except damage():  # a damaged file behind a sound header
                return None

        copies = []
        with ThreadPoolExecutor(self.job["threads"]) as pool:
            for copy in pool.map(one, range(total)):
                copies.append(copy)
                progress(len(copies), total)
        sound = self.keep([i for i, copy in enumerate(copies) if copy], copies, "cannot be decoded")
        distinct = first_of_each(sound)
        if len(distinct) < 3:
            raise StageFailed(
                "photographs",
                f"there are {len(distinct)} different pictures among the {total}; the rule: at least 3",
                "photographs from different places",
            )
        self.copies = self.keep(distinct, sound, "show the same picture as another")
        if soft := blurred(self.copies):
            names = names_of([self.photographs[i]["name"] for i in soft])
            self.warn(f"blurred: {len(soft)} photographs are far less sharp than the rest: {names}")

    def keep(self, kept: list[int], copies: list, why: str) -> list:
        """Leaves out all photographs but these, saying why; returns the copies that are kept."""
        gone = [self.photographs[i]["name"] for i in range(len(copies)) if i not in set(kept)]
        if gone:
            self.warn(f"{len(gone)} photographs {why} and are left out: {names_of(gone)}")
        self.photographs = [self.photographs[i] for i in kept]
        return [copies[i] for i in kept]

    def find_features(self, progress) -> None:
        from .matching import Matches
        from .quality import check_features

        names = [copy.name for copy in self.copies]
        (self.work / "database.db").unlink(missing_ok=True)
        self.matches = Matches(self.work / "database.db", self.work / "images", names, self.job["threads"])
        self.matches.find_features(self.cameras(), self.job["features"], progress)
        self.features = self.matches.features()
        check_features([len(scales) for _, scales in self.features])

    @property
    def lens_is_guessed(self) -> bool:
        """Whether nothing but its size says that two photographs are of one camera."""
        return any(photograph["focal"] is None for photograph in self.photographs)

    def cameras(self) -> list[dict]:
        """One per camera and zoom (and size of copy): size, focal in the copies' pixels, members."""
        groups: dict[tuple, list[int]] = {}
        for i, (photograph, copy) in enumerate(zip(self.photographs, self.copies, strict=True)):
            own = i if self.own_lenses else None
            groups.setdefault((photograph["camera"], copy.size, own), []).append(i)
        found = []
        for (_, size, _), members in groups.items():
            first = self.photographs[members[0]]
            focal = first["focal"] and first["focal"] * max(size) / max(first["size"])
            found.append({"size": size, "focal": focal, "members": members})
        return found

    def match(self, progress) -> None:
        from .pairs import all_pairs, choose_pairs
        from .quality import check_matches

        count = len(self.features)
        exhaustive = self.job["matching"] == "exhaustive"
        names = [photograph["name"] for photograph in self.photographs]
        pairs = all_pairs(count) if exhaustive else choose_pairs(self.features, names)
        self.matches.match(pairs, progress)
        self.two_views = self.matches.two_views()
        check_matches(self.two_views, count)

    def map(self, progress):
        from .mapping import go_on, map_cameras, missing
        from .quality import check_mapped

        count = len(self.photographs)
        mapped = map_cameras(self.matches, self.work, progress)
        lost = missing(self.matches, mapped.model) if mapped else []
        more = [(min(i, j), max(i, j)) for i in lost for j in range(count) if i != j]
        if lost and set(more) - self.matches.matched and len(more) <= self.job["most_more_pairs"]:
            self.matches.match(sorted(set(more)), lambda done, total: None)
            self.two_views = self.matches.two_views()
            mapped = go_on(self.matches, mapped, self.work, progress)
        check_mapped(mapped and mapped.model, self.two_views, count)
        return mapped

    def finish(self, mapped, progress) -> dict:
        import numpy as np

        from .output import enlarge, write_model
        from .quality import others_left_out, warnings
        from .refine import refine, reprojection_errors

        lost = [self.photographs[i]["name"] for i in self.lost(mapped.model)]
        model, tried = refine(mapped.model, self.job["threads"])
        model.extract_colors_for_all_images(self.work / "images")
        sizes = {copy.name: tuple(p["size"]) for copy, p in zip(self.copies, self.photographs, strict=True)}
        names = {copy.name: p["stored"] for copy, p in zip(self.copies, self.photographs, strict=True)}
        enlarge(model, sizes, names)
        errors = reprojection_errors(model)
        write_model(model, self.result)
        if mapped.others:
            self.warn(others_left_out(mapped.others))
        if lost:
            self.warn(f"{len(lost)} photographs have no camera and are left out: {names_of(lost)}")
        return {
            "registered": model.num_reg_images(),
            "images": self.job["listed"] or len(self.photographs),
            "reprojection_error_px": float(np.median(errors)),
            "points": model.num_points3D(),
            "pairs": len(self.matches.matched),
            "mapper": mapped.attempt,
            "merged_models": mapped.merged,
            "lens": next(iter(model.cameras.values())).model_name,
            "lenses_tried": tried,
            "left_out": lost,
            "warnings": self.warnings + warnings(model, errors),
            "stages": self.seconds,
        }

    def lost(self, model) -> list[int]:
        from .mapping import missing

        return missing(self.matches, model)


def _frame(file: Path, video: Path) -> dict:
    from PIL import Image

    with Image.open(file) as image:
        size = image.size
    return {
        "name": file.name,
        "stored": file.name,
        "path": str(file),
        "size": size,
        "turned": False,
        "focal": None,
        "camera": f"{size} {video}",
    }


def _messages():
    """A function that sends a message. Standard output becomes standard error for everything else."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(**message) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    return send


def _end_with_parent() -> None:
    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    send = _messages()
    _end_with_parent()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        send(result=Child(job, send).run())
    except StageFailed as failure:
        send(failed={"stage": failure.stage, "why": failure.why, "advice": failure.advice})
    # Without the interpreter's and pycolmap's tidying up, which takes a while and can only fail.
    shutil.rmtree(job["work"], ignore_errors=True)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
