"""`radfield render`: views, depth and videos of a trained run."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from .runs import check, device_rules, open_run, use_device, write_picture


@dataclass(frozen=True)
class Options:
    """Render views, depth and videos of a trained run."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run
    output: Path  # folder for the pictures
    what: Literal["views", "orbit", "spiral"] = "views"  # the capture's views, or a video along a path
    path: Path | None = None  # a camera path saved in the viewer: a video along it, instead of --what
    split: Literal["train", "val", "test"] = "val"  # with views: which ones
    views: int | None = None  # with views: the first so many only
    frames: int | None = None  # of a video; 60, with --path as many as it says
    fps: int | None = None  # of a video, frames per second; 30, with --path as it says
    size: int | None = None  # longer side of the pictures in pixels; the capture's by default
    # with runs of Gaussians: how they are drawn (see --splat.renderer of radfield train); run: as the run was trained
    renderer: Literal["run", "raster", "trace", "3dgut", "3dgut-sorted"] = "run"
    tracer: bool = False  # the same as --renderer trace
    # with --renderer: the capture's lens, a fisheye's circle of 180 degrees, or the whole sphere, by trace alone
    lens: Literal["capture", "fisheye", "equirectangular"] = "capture"
    depth: bool = False  # also write depth, near bright and far dark, as a picture or a second video
    normals: bool = False  # with views: also write normals, each component from -1 to 1 as 0 to 255
    capture: Path | None = None  # where the run's capture is now, if it has moved
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Renders, and returns what was written and how long a picture took."""
    _check(options)
    if options.tracer:
        options = replace(options, renderer="trace")
    path = _path(options)
    options = replace(options, frames=options.frames or (path.frames if path else 60))
    auto = "cpu" if options.renderer.startswith("3dgut") else "auto"
    device, about = use_device(auto if options.device == "auto" else options.device, options.threads)
    method = RunFolder.open(options.run).read_config()["app"]
    if options.renderer != "run" and method != "splat":
        found = f"--renderer {options.renderer} with a run of the method {method}"
        raise BadInput(f"{found}; the rule: one of Gaussians, of the method splat")
    if method == "sdf":
        return _sdf(options, path, device, about)
    folder, model, scene = open_run(options.run, None, capture=options.capture, device=device)
    cameras = path.cameras(model.transform, options.frames) if path else _cameras(options, scene)
    cameras = _sized(cameras, options.size)
    if options.renderer != "run":
        from ..renderers.traced_view import with_lens
        from .splat import with_renderer

        model, cameras = with_renderer(model, options.renderer), with_lens(cameras, options.lens)
    _make_folder(options.output)
    name = "path" if path else options.what
    print(f"render {folder.path.resolve().name}: {name}, {about}", file=sys.stderr)
    if name == "views":
        return _write_views(options, model, cameras)
    return _write_video(options, model, cameras, name, options.fps or (path.fps if path else 30))


def _sdf(options: Options, path, device, about: str) -> dict:
    """Pictures or an orbit from around a signed distance field, whose run has no capture."""
    from .fit import sdf, sdf_views
    from .fit.fit_sdf import FitSdf

    folder = RunFolder.open(options.run)
    if options.what == "spiral":
        raise BadInput("--what is spiral; the rule: views or orbit for a signed distance field")
    model, up = sdf.load(folder.path, device), FitSdf().saved_options(folder)["up"]
    if path:
        cameras = _sized(path.cameras(model.transform, options.frames), options.size)
    else:
        count = options.frames if options.what == "orbit" else options.views or 4
        cameras = sdf_views.cameras_around(model.size, up, count, options.size or 800)
    _make_folder(options.output)
    print(f"render {folder.path.resolve().name}: {'path' if path else options.what}, {about}", file=sys.stderr)
    assert model.space is not None  # made once, before pictures are timed
    if options.what == "views" and not path:
        return _write_views(options, model, cameras)
    return _write_video(options, model, cameras, "path" if path else "orbit", options.fps or (path.fps if path else 30))


def _path(options: Options):
    """The camera path of --path, None without."""
    if options.path is None:
        return None
    if options.what != "views":
        raise BadInput(f"--path and --what {options.what} are both given; the rule: one of them")
    from .path_file import read_path

    return read_path(options.path)


def _make_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path}: is a file; the rule: a folder for the pictures")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: could not be made a folder: {(error.strerror or str(error)).lower()}") from error


def _cameras(options: Options, scene):
    if options.what == "views":
        cameras = scene.split(options.split).cameras
        return cameras[: options.views] if options.views else cameras
    from .camera_paths import orbit, spiral

    seen = scene.train.cameras
    path = (orbit if options.what == "orbit" else spiral)(seen.camera_to_world, options.frames)
    one = seen[[0] * options.frames]
    return replace(one, camera_to_world=path.to(one.camera_to_world))


def _sized(cameras, size: int | None):
    """Cameras whose longer side has `size` pixels (None: as they are)."""
    if size is None:
        return cameras
    return cameras.scaled(size / int(cameras.size.max()))


def _write_views(options: Options, model, cameras) -> dict:
    import torch

    from ..viewer.pictures import NORMALS, picture_of

    files, seconds = [], 0.0
    for i, (view, took) in enumerate(_rendered(options, model, cameras)):
        seconds += took
        files.append(options.output / f"{i:03d}.png")
        write_picture(files[-1], view.color)
        if options.depth:
            files.append(options.output / f"{i:03d}_depth.png")
            write_picture(files[-1], depth_picture(view))
        if options.normals:
            files.append(options.output / f"{i:03d}_normals.png")
            write_picture(files[-1], torch.from_numpy(picture_of(view, NORMALS, cameras[i])))
    return {"files": [str(f) for f in files], "views": len(cameras), "seconds_per_view": seconds / len(cameras)}


def _write_video(options: Options, model, cameras, name: str, fps: float) -> dict:
    from .video import write_video

    seconds, depths = [], []

    def frames():
        for view, took in _rendered(options, model, cameras):
            seconds.append(took)
            if options.depth:
                depths.append(depth_picture(view))
            yield _bytes(view.color).numpy()

    files = [options.output / f"{name}.mp4"]
    write_video(files[0], frames(), fps)
    if options.depth:
        files.append(options.output / f"{name}_depth.mp4")
        write_video(files[1], (d.numpy() for d in depths), fps)
    return {
        "files": [str(f) for f in files],
        "frames": len(seconds),
        "seconds_per_view": sum(seconds) / len(seconds),
    }


def _rendered(options: Options, model, cameras):
    """Yields every view with the seconds it took, showing progress."""
    import time

    from ..training.progress import Progress

    with Progress(f"render {'path' if options.path else options.what}", steps=len(cameras)) as progress:
        for i in range(len(cameras)):
            began = time.perf_counter()
            view = model.render_view(cameras, i).cpu()  # waits for a GPU to be done
            took = time.perf_counter() - began
            progress.update(i + 1)
            yield view, took


def _bytes(color):
    return (color.clamp(0, 1) * 255).round().byte()


def depth_picture(view):
    """Depth as grey [H, W, 3] uint8: the nearest per mille white, the farthest dark, black where nothing is."""
    import torch

    seen = view.opacity > 0.5
    if not bool(seen.any()):
        return torch.zeros(*view.depth.shape, 3, dtype=torch.uint8)
    inverse = 1 / view.depth.clamp(min=1e-3)
    low, high = torch.quantile(inverse[seen][:: max(1, int(seen.sum()) // 100_000)], torch.tensor([0.001, 0.999]))
    grey = 0.15 + 0.85 * ((inverse - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return _bytes((grey * seen)[..., None].expand(-1, -1, 3))


def _check(options: Options) -> None:
    check(
        [
            ("views", options.views, options.views is None or options.views > 0, "at least 1"),
            ("frames", options.frames, options.frames is None or 0 < options.frames <= 100_000, "from 1 to 100000"),
            ("fps", options.fps, options.fps is None or 0 < options.fps <= 240, "from 1 to 240"),
            ("size", options.size, options.size is None or 8 <= options.size <= 16384, "from 8 to 16384 pixels"),
            *device_rules(options.device, options.threads),
        ]
    )
    if options.tracer and options.renderer not in ("run", "trace"):
        raise BadInput(f"--tracer and --renderer {options.renderer} are both given; the rule: one of them")
    if options.lens != "capture" and options.renderer == "run" and not options.tracer:
        rule = "the capture's, but for --tracer, which takes any, or another --renderer"
        raise BadInput(f"--lens is {options.lens}; the rule: {rule}")
    if options.lens == "equirectangular" and options.renderer not in ("run", "trace"):
        found = f"--lens is equirectangular with --renderer {options.renderer}"
        raise BadInput(f"{found}; the rule: the whole sphere by --renderer trace alone")
    if (options.what != "views" or options.path) and options.views is not None:
        raise BadInput(f"--views is {options.views}; the rule: none with a video, whose pictures --frames counts")
