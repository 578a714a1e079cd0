"""report.html: one self-contained page about a run, with no script and nothing loaded from elsewhere.

Its parts: the figures with the conditions they were measured under, curves against seconds and steps, test views beside
the truth and their error, the time by stage, the configuration. Images are `[H, W, 3]`, sRGB in [0, 1] (tensors or
arrays); an error is |render - truth|, the mean over the three channels.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...atomic import write_text
from ...metrics import psnr
from ...training.run_folder import RunFolder
from .charts import Series, hue_of, line_chart, short_number, stacked_bar

View = tuple[str, Any, Any]

#: the error that gets the brightest colour; fixed, so that the reports of two runs can be compared
ERROR_SCALE = 0.2
_SHOWN_VIEWS = 12
_IMAGE_BYTES = 6_000_000
#: matplotlib's "inferno" (CC0), ten of its colours
_INFERNO = ("000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4")

_LABELS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "iou": "volume IoU",
    "chamfer": "Chamfer, of the diagonal",
    "color_space": "colour space",
    "samples_per_s": "samples per second",
    "training_seconds": "training time",
    "seconds": "time",
    "seconds_per_step": "per step",
    "memory_mb": "memory of training",
    "state_mb": "parameters and moments",
}
_TILES = (
    "iou",
    "chamfer",
    "psnr",
    "ssim",
    "training_seconds",
    "seconds",
    "steps",
    "samples_per_s",
    "seconds_per_step",
    "gaussians",
)
_TILES += ("memory_mb", "parameters")


def write_report(
    run: RunFolder | Path | str,
    metrics: Sequence[Mapping[str, Any]],
    views: Sequence[View],
    summary: Mapping[str, Any],
    timings: Mapping[str, float],
) -> Path:
    """Writes `report.html` of the run atomically and returns its path; the page stays below 10 MB.

    metrics: the lines of metrics.jsonl: "step", "seconds", "loss", "psnr" (of training rays), "val_psnr",
    "samples_per_s"; any of them may be missing. views: (name, render, truth) of held-out views. summary: the figures
    and the conditions they hold for: "name", "psnr", "ssim", "split", "views", "resolution" ("800 x 800" or (width,
    height)), "background", "color_space" (default sRGB), "steps", "training_seconds", "samples_per_s", "parameters";
    others are listed as they are. timings: seconds by stage.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(run)
    config = run.read_config() if run.config_path.exists() else {}
    summary = {**summary, "color_space": summary.get("color_space", "sRGB")}
    title = str(summary.pop("name", run.path.resolve().name))
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    sections = [
        _head(title, summary, config),
        _curves(metrics),
        _stages(timings),
        _views(views),
        _configuration(summary, config),
        "<footer>radfield</footer>",
    ]
    body = "\n".join(section for section in sections if section)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - radfield</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>\n{style}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )
    write_text(run.report_path, page)
    return run.report_path


def conditions(summary: Mapping[str, Any]) -> str:
    """The sentence that every reported PSNR needs: which views, how large, on what background, in what colours."""
    parts = []
    if "views" in summary or "split" in summary:
        parts.append(f"{show(summary.get('views', ''))} {summary.get('split', '')} views".strip().replace("  ", " "))
    if "resolution" in summary:
        parts.append(show(summary["resolution"], "resolution"))
    if "background" in summary:
        parts.append(f"{summary['background']} background")
    return ", ".join([*parts, f"{summary.get('color_space', 'sRGB')} in [0, 1]"])


def show(value: Any, name: str = "") -> str:
    """A figure as text; `name` chooses its unit and digits."""
    if name == "resolution" and not isinstance(value, str):
        return " x ".join(str(int(side)) for side in value)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return "none" if value is None else str(value)
    if name == "psnr" or name.endswith("_psnr"):
        return f"{value:.2f} dB"
    if name in ("ssim", "iou"):
        return f"{value:.4f}"
    if name == "chamfer":
        return f"{100 * value:.3g} %"
    if name == "seconds_per_step":
        return f"{1000 * value:.1f} ms"
    if name.endswith("_mb"):
        return f"{value:,.0f} MB"
    if name.endswith("seconds"):
        return f"{value:.1f} s"
    if name == "samples_per_s":
        return f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, (int, np.integer)) else f"{value:.4g}"


def heat_map(error: np.ndarray) -> np.ndarray:
    """An error `[H, W]` as colours `[H, W, 3]` uint8: black at 0, pale yellow from `ERROR_SCALE` on."""
    colors = np.array([list(bytes.fromhex(color)) for color in _INFERNO], dtype=np.float32)
    place = (np.clip(error / ERROR_SCALE, 0, 1) * (len(colors) - 1)).astype(np.float32)
    low = np.minimum(place.astype(np.int64), len(colors) - 2)
    share = (place - low)[..., None]
    return ((1 - share) * colors[low] + share * colors[low + 1] + 0.5).astype(np.uint8)


def _head(title: str, summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    tiles = []
    for name in _TILES:
        if summary.get(name) is not None:
            large = name in ("samples_per_s", "parameters", "gaussians")
            text = short_number(summary[name]) if large else show(summary[name], name)
            number, _, unit = text.partition(" ")
            unit = f" <small>{escape(unit)}</small>" if unit else ""
            tiles.append(f'<div class="tile"><b>{escape(number)}{unit}</b><span>{escape(_label(name))}</span></div>')
    app = f"radfield {config['app']}" if "app" in config else "radfield"
    return (
        f'<header><p class="note">{escape(app)}</p><h1>{escape(title)}</h1>'
        f'<div class="tiles">{"".join(tiles)}</div><p class="note">{escape(conditions(summary))}</p></header>'
    )


def _curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    panels = []
    for key, title, options in (
        ("loss", "Loss", {"log": True}),
        ("psnr", "PSNR, dB", {}),
        ("samples_per_s", "Samples per second", {"zero": True}),
        ("gaussians", "Gaussians", {"zero": True}),
    ):
        for x_key, x_label in (("seconds", "seconds"), ("step", "steps")):
            series = [_series(metrics, key, x_key, "training")]
            if key == "psnr" and any(record.get("val_psnr") is not None for record in metrics):
                series.append(_series(metrics, "val_psnr", x_key, "held-out views", kind="dots", hue=2))
            if not any(each.x for each in series):
                continue
            chart = line_chart(title, x_label, series, **options)
            panels.append(f"<figure><figcaption>{_caption(title, series)}</figcaption>{chart}</figure>")
    if not panels:
        return ""
    note = "Thin: as recorded; bold: smoothed. Seconds are those of training, without evaluating and saving."
    return f'<section><h2>Training</h2><p class="note">{note}</p><div class="charts">{"".join(panels)}</div></section>'


def _series(metrics: Sequence[Mapping[str, Any]], key: str, x_key: str, name: str, **style: Any) -> Series:
    kept = [record for record in metrics if record.get(key) is not None and record.get(x_key) is not None]
    return Series(name, [record[x_key] for record in kept], [record[key] for record in kept], **style)


def _caption(title: str, series: Sequence[Series]) -> str:
    if len(series) == 1:
        return escape(title)
    keys = (f'<i class="hue{each.hue}">&#9632;</i> <span>{escape(each.name)}</span>' for each in series)
    return f"{escape(title)} &nbsp; {' &nbsp; '.join(keys)}"


def _views(views: Sequence[View]) -> str:
    if not views:
        return ""
    pairs = [(name, _image(render), _image(truth)) for name, render, truth in views]
    quality = [_psnr(render, truth) for _, render, truth in pairs]
    chosen = _spread(quality, _SHOWN_VIEWS)
    width = 720
    while True:
        rows = [_view(*pairs[index], quality[index], width) for index in chosen]
        if sum(map(len, rows)) <= _IMAGE_BYTES or width <= 120:
            break
        width = width * 3 // 4
    ramp = ", ".join(f"#{color}" for color in _INFERNO)
    extent = f"All {len(views)} views" if len(chosen) == len(views) else f"{len(chosen)} of {len(views)} views"
    return (
        f'<section><h2>Views</h2><p class="note">{extent}; the least good one has {min(quality):.2f} dB. '
        f"Render, truth, and error: |render - truth|, mean of the channels.</p>"
        f'<div class="scale">error 0<i style="background: linear-gradient(90deg, {ramp})"></i>'
        f"{ERROR_SCALE} and above</div>{''.join(rows)}</section>"
    )


def _view(name: str, render: np.ndarray, truth: np.ndarray, quality: float, width: int) -> str:
    error = heat_map(_resized(np.abs(render - truth).mean(-1, keepdims=True), width)[..., 0])
    images = (("render", _resized(render, width)), ("truth", _resized(truth, width)), ("error", error))
    cells = "".join(
        f'<div><img{_small(image)} alt="{what} of {escape(name, quote=True)}" src="{_data_url(image)}">'
        f"<span>{what}</span></div>"
        for what, image in images
    )
    height, full = render.shape[:2]
    note = f"{full} x {height}, {quality:.2f} dB"
    return (
        f'<figure class="view"><figcaption><b>{escape(name)}</b> &nbsp; {note}</figcaption>'
        f'<div class="row">{cells}</div></figure>'
    )


def _spread(quality: Sequence[float], limit: int) -> list[int]:
    """Which views to show: all, or `limit` spread evenly with the least good one among them."""
    count = len(quality)
    if count <= limit:
        return list(range(count))
    chosen = [round(index * (count - 1) / (limit - 1)) for index in range(limit)]
    worst = int(np.argmin(quality))
    nearest = min(range(limit), key=lambda index: abs(chosen[index] - worst))
    chosen[nearest] = worst
    return chosen


def _stages(timings: Mapping[str, float]) -> str:
    parts = [(name, float(seconds)) for name, seconds in timings.items() if seconds and math.isfinite(seconds)]
    total = sum(seconds for _, seconds in parts)
    if not parts:
        return ""
    rows = "".join(
        f'<tr><td><svg class="key fill{hue_of(index)}" viewBox="0 0 1 1"><rect width="1" height="1"/></svg>'
        f'{escape(name.replace("_", " "))}</td><td class="number">{seconds:.2f} s</td>'
        f'<td class="number">{100 * seconds / total:.1f} %</td></tr>'
        for index, (name, seconds) in enumerate(parts)
    )
    return (
        f'<section><h2>Time by stage</h2><p class="note">{total:.1f} s in all.</p>{stacked_bar(parts)}'
        f'<div class="scroll"><table>{rows}</table></div></section>'
    )


def _configuration(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    figures = "".join(_row(_label(name), show(value, name)) for name, value in summary.items())
    options = "".join(_row(name, value) for name, value in _flat(config))
    page = f'<section><h2>Figures</h2><div class="scroll"><table>{figures}</table></div></section>'
    if options:
        page += (
            "<section><h2>Configuration</h2><details><summary>config.json</summary>"
            f'<div class="scroll"><table>{options}</table></div></details></section>'
        )
    return page


def _row(name: str, text: str) -> str:
    return f'<tr><th>{escape(name)}</th><td class="code">{escape(text)}</td></tr>'


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " "))


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested dicts as (dotted name, text) rows."""
    if isinstance(value, Mapping):
        return [row for key, item in value.items() for row in _flat(item, f"{name}.{key}" if name else str(key))]
    return [(name, "none" if value is None else str(value))]


def _image(image: Any) -> np.ndarray:
    """Any [H, W, 3] tensor or array as a float32 array in [0, 1]; what is not a number becomes 0."""
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    return np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0).clip(0, 1)


def _psnr(render: np.ndarray, truth: np.ndarray) -> float:
    return psnr(torch.from_numpy(render), torch.from_numpy(truth))


def _resized(image: np.ndarray, width: int) -> np.ndarray:
    """Each pixel the mean of those it stands for, channel by channel; never larger than it was."""
    from PIL import Image

    height, full = image.shape[:2]
    if full <= width:
        return image
    size = (width, max(1, round(height * width / full)))
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., channel])).resize(size, Image.Resampling.BOX))
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def _small(image: np.ndarray) -> str:
    return ' class="small"' if image.shape[1] < 160 else ""


def _data_url(image: np.ndarray) -> str:
    from PIL import Image

    if image.dtype != np.uint8:
        image = (image * 255 + 0.5).astype(np.uint8)
    # Small images are cheap to keep exact; a JPEG of one would show its blocks.
    kind, options = ("PNG", {}) if image.shape[1] < 160 else ("JPEG", {"quality": 90, "subsampling": 0})
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
