"""What the programs share: the device they compute on, and opening a run with the capture it was trained on.

A run's config.json holds `options` (those of `radfield train`, but for the method's) and `scene` (path of the capture,
transform, cascades, background); both are checked here before anything relies on them.
"""

from __future__ import annotations

from pathlib import Path

from .. import backend
from ..errors import BadInput
from ..training.run_folder import RunFolder

_NONE = type(None)
#: what the options in config.json are, for those that are used again
_TYPES = {
    "seed": (int,),
    "holdout": (int,),
    "max_size": (int, _NONE),
    "steps": (int, _NONE),
    "seconds": (int, float, _NONE),
}


def check(rules: list[tuple[str, object, bool, str]]) -> None:
    """Raises `BadInput` for the first option (name, value, whether its rule holds, the rule) that breaks its rule."""
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"--{name} is {value}; the rule: {rule}")


def device_rules(device: str, threads: int | None) -> list[tuple[str, object, bool, str]]:
    """The rules of --device and --threads, for `check`."""
    why = backend.no_cuda() if device == "cuda" else None
    return [
        ("threads", threads, threads is None or 1 <= threads <= 1024, "from 1 to 1024"),
        ("device", device, not why, f"auto or cpu here: {why}"),
    ]


def use_device(device: str, threads: int | None):
    """Sets the number of threads (None: all); returns the torch.device, and what there is to announce: device,
    instruction set or architecture, threads, and why it was taken where that was left to us ("auto")."""
    import torch

    from ..cpu import library

    library.set_num_threads(threads or library.default_num_threads())
    torch.set_num_threads(1)  # torch's own threads would compete with ours for the same cores
    where, why = backend.device(device)
    reason = f"; {why}" if device == "auto" else ""
    if where.type == "cuda":
        from ..cuda.library import architecture

        return where, f"{where} ({torch.cuda.get_device_name(where)}, {architecture(where)}{reason})"
    count = library.num_threads()
    return where, f"cpu ({library.choose_isa() or 'plain torch'}, {count} thread{'s' if count > 1 else ''}{reason})"


def free_memory(device) -> int:
    """Bytes of a GPU's memory that are free."""
    import torch

    return torch.cuda.mem_get_info(device)[0]


def saved_options(folder: RunFolder) -> dict:
    """The options that the run was trained with, and `capture`, the path of its capture. Raises `BadInput` where
    config.json does not have them."""
    config = folder.read_config()
    options, scene = config.get("options"), config.get("scene")
    if not isinstance(options, dict) or not isinstance(scene, dict) or not isinstance(scene.get("capture"), str):
        raise BadInput(
            f"{folder.config_path}: has no options or no capture; the rule: a run that `radfield train` made"
        )
    for name, types in _TYPES.items():
        if name not in options or type(options[name]) not in types:
            rule = " or ".join("null" if each is _NONE else each.__name__ for each in types)
            raise BadInput(f"{folder.config_path}: {name} is {options.get(name)!r:.80}; the rule: {rule}")
    return {**options, "capture": folder.path / scene["capture"]}  # absolute, or within the run


def open_run(path: Path, split: str | None, *, capture: Path | None = None, device="cpu"):
    """A run's folder, its model on `device`, and its scene with the images of `split` (None: cameras alone).
    `capture`: where the capture is now, if it has moved. Raises `BadInput` where one of them cannot be read, or they do
    not fit together."""
    from ..data import load
    from .methods import load as load_model

    folder = RunFolder.open(path)
    options = saved_options(folder)
    model = load_model(path, device)
    place = capture or options["capture"]
    if not place.exists():
        raise BadInput(f"{place}: the run's capture is not there; the rule: --capture says where it is")
    wanted = () if split is None else split
    reading = {"holdout": options["holdout"], "max_size": options["max_size"], "masks": options.get("masks", "auto")}
    scene = load(place, **reading, split=wanted)
    if folder.read_config()["scene"].get("moved") is True:  # a frame of a sequence, or a method's own place
        from .neus2.motion import in_transform

        scene = in_transform(scene, model.transform)
    check_fits(scene, model.transform, model.cascades, folder)
    return folder, model, scene


def check_fits(scene, transform, cascades: int, folder: RunFolder) -> None:
    """Raises `BadInput` where the capture's scene coordinates are not those that the run was trained in."""
    import torch

    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    ours, theirs = (each.inverse().points(corners) for each in (transform, scene.transform))
    if scene.cascades != cascades or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 / transform.scale):
        raise BadInput(f"{scene.path}: its cameras are not those that {folder.path} was trained with")


def write_picture(path: Path, image) -> None:
    """Writes [H, W, 3] uint8, or sRGB floats in [0, 1], as a PNG file, atomically."""
    from ..atomic import replacing
    from ..data.images import write_png

    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().byte()
    with replacing(path) as temporary:
        write_png(temporary, image)
