"""Small charts as SVG text, for the report: lines over an axis, and one stacked bar. No script, no outside resource.

Colours and fonts come from the page's style sheet (report.css) through classes, so that charts follow its light and
dark scheme. Letters: data coordinates are x, y; picture coordinates (pixels, y downwards) are u, v.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 34
#: more points than this cannot be told apart in a chart of this width, and only make the file larger
_MAX_POINTS = 400


@dataclass(frozen=True)
class Series:
    """Points of one colour: "line" (drawn smoothed over its faint raw points) or "dots" (joined dots)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "line"
    hue: int = 1


@dataclass(frozen=True)
class Axis:
    """The map from data to picture on one axis, with the values to mark."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def line_chart(title: str, x_label: str, series: Sequence[Series], *, log: bool = False, zero: bool = False) -> str:
    """An SVG chart of the finite points of `series`. `log` gives a logarithmic y axis (positive values only), `zero`
    starts it at 0. A chart without points says so."""
    drawn = [(each, *_finite_points(each, log)) for each in series]
    drawn = [(each, x, y) for each, x, y in drawn if x]
    label = escape(f"{title} against {x_label}", quote=True)
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    if not drawn:
        return f'{head}<text x="{WIDTH / 2}" y="{HEIGHT / 2}" class="middle">no figures recorded</text></svg>'
    all_x, all_y = [v for _, x, _ in drawn for v in x], [v for _, _, y in drawn for v in y]
    to_u = linear_axis(min(0.0, *all_x), max(all_x), _LEFT, WIDTH - _RIGHT, tight=True)
    make = log_axis if log else linear_axis
    to_v = make(0.0 if zero else min(all_y), max(all_y), HEIGHT - _BOTTOM, _TOP)
    body = "".join(_draw(each, x, y, to_u, to_v) for each, x, y in drawn)
    return f"{head}{_frame(to_u, to_v, x_label)}{body}</svg>"


def stacked_bar(parts: Sequence[tuple[str, float]]) -> str:
    """One horizontal bar, its parts in order, each as wide as its share; hues 1 to 8, then grey."""
    total = sum(value for _, value in parts) or 1.0
    pieces, u = [], 0.0
    for index, (name, value) in enumerate(parts):
        width = 1000 * value / total
        tip = escape(f"{name}: {value:.3g} s, {100 * value / total:.1f} %")
        # A gap of one unit separates neighbours whatever their colours.
        pieces.append(
            f'<rect x="{u:.1f}" y="0" width="{max(width - 2, 0.5):.1f}" height="28" class="fill{hue_of(index)}">'
            f"<title>{tip}</title></rect>"
        )
        u += width
    label = escape("time by stage", quote=True)
    return (
        f'<svg class="bar" viewBox="0 0 1000 28" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{''.join(pieces)}</svg>"
    )


def hue_of(index: int) -> int:
    """The style sheet's hue of the part `index` of a bar: 1 to 8, and 0 (grey) for all further ones."""
    return index + 1 if index < 8 else 0


def linear_axis(low: float, high: float, start: float, end: float, tight: bool = False) -> Axis:
    """An axis with round ticks; unless `tight` it ends on them."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _round_step((high - low) / 4)
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, start, end, [index * step for index in range(first, last + 1)])


def log_axis(low: float, high: float, start: float, end: float) -> Axis:
    """A logarithmic axis with ticks at the decades, or at 1, 2, 5 where there are few of them."""
    low, high = low / 1.1, high * 1.1
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    ticks = [value for value in fine if low <= value <= high]
    if len(ticks) > 6:
        every = math.ceil(len(decades) / 6)
        ticks = [10.0**decade for decade in decades if low <= 10.0**decade <= high][::every]
    return Axis(low, high, start, end, ticks, logarithmic=True)


def short_number(value: float) -> str:
    """A number for a tick or a tile: 1500 -> "1.5k", 3.1e6 -> "3.1M", at most four digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.4g}"


def _round_step(step: float) -> float:
    decade = 10.0 ** math.floor(math.log10(step))
    return next(digit * decade for digit in (1, 2, 2.5, 5, 10) if digit * decade >= step * (1 - 1e-9))


def _finite_points(series: Series, positive: bool) -> tuple[list[float], list[float]]:
    points = [
        (float(x), float(y))
        for x, y in zip(series.x, series.y, strict=True)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y) and (y > 0 or not positive)
    ]
    return [x for x, _ in points], [y for _, y in points]


def _smoothed(values: list[float]) -> list[float]:
    """The mean over a centred window of about a fortieth of the curve (it shrinks at both ends), so that it neither
    lags behind nor starts from somewhere else."""
    reach = len(values) // 80
    sums = [0.0, *itertools.accumulate(values)]
    result = []
    for index in range(len(values)):
        side = min(reach, index, len(values) - 1 - index)
        result.append((sums[index + side + 1] - sums[index - side]) / (2 * side + 1))
    return result


def _thinned(values: list[float]) -> list[float]:
    """At most about `_MAX_POINTS` of the values, evenly spread, the last one among them."""
    every = math.ceil(len(values) / _MAX_POINTS)
    return values[:: -max(every, 1)][::-1]


def _draw(series: Series, x: list[float], y: list[float], to_u: Axis, to_v: Axis) -> str:
    tip = f"<title>{escape(series.name)}</title>"
    if series.kind == "dots" or len(x) == 1:
        marks = "".join(f'<circle cx="{to_u(a):.1f}" cy="{to_v(b):.1f}" r="3"/>' for a, b in zip(x, y, strict=True))
        return f'<g class="dots hue{series.hue}">{tip}{_path(x, y, to_u, to_v, "thin")}{marks}</g>'
    raw = _path(_thinned(x), _thinned(y), to_u, to_v, "raw")
    smooth = _path(_thinned(x), _thinned(_smoothed(y)), to_u, to_v, "smooth")
    return f'<g class="hue{series.hue}">{tip}{raw}{smooth}</g>'


def _path(x: list[float], y: list[float], to_u: Axis, to_v: Axis, kind: str) -> str:
    points = " ".join(f"{to_u(a):.1f},{to_v(b):.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _frame(to_u: Axis, to_v: Axis, x_label: str) -> str:
    lines = []
    for value in to_v.ticks:
        v = to_v(value)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{v:.1f}" y2="{v:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{v + 3.5:.1f}" class="end">{short_number(value)}</text>')
    floor = HEIGHT - _BOTTOM
    lines.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
    for value in to_u.ticks:
        u = to_u(value)
        lines.append(f'<line class="axis" x1="{u:.1f}" x2="{u:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        lines.append(f'<text x="{u:.1f}" y="{floor + 15}" class="middle">{short_number(value)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 3}" class="middle">{escape(x_label)}</text>')
    return "".join(lines)
