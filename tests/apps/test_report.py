"""The report is one small self-contained page, well-formed, that says under which conditions its figures hold."""

import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.apps.report.charts import Series, line_chart, linear_axis, log_axis, short_number, stacked_bar
from radfield.apps.report.page import ERROR_SCALE, conditions, heat_map, show, write_report
from radfield.training.run_folder import RunFolder

SUMMARY = {
    "name": "lego",
    "psnr": 31.257,
    "ssim": 0.95123,
    "split": "val",
    "views": 2,
    "resolution": (800, 600),
    "background": "white",
    "training_seconds": 45.03,
    "steps": 550,
    "samples_per_s": 3.1e6,
}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder.create(tmp_path / "lego")
    run.start({"app": "ngp", "options": {"encoding": {"levels": 16}, "note": "<script>alert(1)</script>"}})
    return run


def metrics(count: int = 50) -> list[dict]:
    return [
        {"step": i, "seconds": i * 0.1, "loss": 1 / i, "psnr": 10 + i / 5, "samples_per_s": 3e6}
        for i in range(1, count)
    ]


def views(count: int, height: int = 30, width: int = 40) -> list:
    truth = np.random.default_rng(0).random((height, width, 3))
    return [(f"view {i}", torch.from_numpy(truth) + 0.01 * (i + 1), truth) for i in range(count)]


class Page(HTMLParser):
    """Checks that every element is closed, and collects addresses and text."""

    VOID = {"meta", "img"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.sources, self.text, self.tags = [], [], "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def images(page: Page) -> list[np.ndarray]:
    assert all(source.startswith("data:image/") for source in page.sources)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))) for source in page.sources]


def test_a_whole_page(run):
    path = write_report(run, metrics(), views(2), SUMMARY, {"march": 2.0, "backward": 6.0})
    text = path.read_text()
    page = Page(text)
    assert path == run.report_path
    assert page.tags.count("polyline") == 12, "three curves, raw and smoothed, against seconds and steps"
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?:|@import|url\(", text)
    for expected in ("lego", "31.26", "0.9512", "2 val views, 800 x 600, white background, sRGB in [0, 1]"):
        assert expected in page.text
    assert "options.encoding.levels" in page.text and "<script>alert(1)</script>" in page.text
    assert "75.0 %" in page.text and "8.0 s in all" in page.text
    for picture in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(picture)


def test_views_are_shown_as_they_are(run):
    path = write_report(run, [], views(1), {}, {})
    shown, truth, error = images(Page(path.read_text()))
    assert shown.shape == truth.shape == error.shape == (30, 40, 3)
    expected = views(1)[0]
    assert np.abs(truth / 255 - expected[2]).max() <= 0.5 / 255 + 1e-6
    assert np.abs(shown / 255 - expected[1].numpy().clip(0, 1)).max() <= 0.5 / 255 + 1e-6
    assert "40.0" in path.read_text(), "the PSNR of a constant error of 0.01"


def test_the_heat_map_has_the_stated_scale():
    colors = heat_map(np.array([[0, ERROR_SCALE / 2, ERROR_SCALE, 1.0]], np.float32))[0].astype(int)
    assert colors[0].tolist() == [0, 0, 4]
    assert colors[2].tolist() == colors[3].tolist() == [252, 255, 164]
    assert colors[0].sum() < colors[1].sum() < colors[2].sum()


def test_many_large_views_stay_below_ten_megabytes(run):
    noise = np.random.default_rng(0).random((800, 800, 3)).astype(np.float32)
    many = [(f"view {i}", noise if i != 17 else 1 - noise, noise) for i in range(20)]
    path = write_report(run, metrics(5000), many, SUMMARY, {})
    assert path.stat().st_size < 10e6
    page = Page(path.read_text())
    assert len(page.sources) == 36
    assert "12 of 20 views" in page.text and "view 17" in page.text, "the least good view is among those shown"


def test_nothing_to_report_is_still_a_page(run, tmp_path):
    Page(write_report(run, [], [], {}, {}).read_text())
    (tmp_path / "bare").mkdir()
    Page(write_report(tmp_path / "bare", [{"step": 1}], [], {"psnr": None}, {"march": 0.0}).read_text())


def test_figures_that_are_not_numbers(run):
    broken = [{"step": 1, "seconds": 0.1, "loss": None, "psnr": math.nan}, {"step": 2, "seconds": 0.2, "loss": -1.0}]
    nan = np.full((12, 12, 3), np.nan, np.float32)
    text = write_report(
        run, broken, [("a", nan, np.zeros_like(nan))], {"psnr": math.nan, "ssim": math.inf}, {}
    ).read_text()
    Page(text)
    assert "NaN" not in text


def test_conditions_of_a_figure():
    assert conditions(SUMMARY) == "2 val views, 800 x 600, white background, sRGB in [0, 1]"
    assert conditions({"color_space": "linear"}) == "linear in [0, 1]"


def test_figures_with_their_units():
    assert [show(31.2568, "psnr"), show(0.95126, "ssim"), show(45.04, "seconds"), show(12196240, "parameters")] == [
        "31.26 dB",
        "0.9513",
        "45.0 s",
        "12,196,240",
    ]
    assert [show(None), show(True), show("white"), show((800, 600), "resolution")] == [
        "none",
        "True",
        "white",
        "800 x 600",
    ]


def points(chart: str, kind: str) -> np.ndarray:
    text = re.search(rf'class="{kind}" points="([^"]*)"', chart).group(1)
    return np.array([[float(number) for number in point.split(",")] for point in text.split()])


def test_a_line_is_drawn_where_its_points_are():
    chart = line_chart("a", "steps", [Series("a", [0, 5, 10], [1.0, 2.0, 3.0])])
    u, v = points(chart, "raw").T
    assert u[1] - u[0] == pytest.approx(u[2] - u[1], abs=0.11)
    assert v[0] - v[1] == pytest.approx(v[1] - v[2], abs=0.11) and v[0] > v[2]
    logarithmic = line_chart("a", "steps", [Series("a", [0, 5, 10], [0.1, 1.0, 10.0])], log=True)
    v = points(logarithmic, "raw")[:, 1]
    assert v[0] - v[1] == pytest.approx(v[1] - v[2], abs=0.11)


def test_long_curves_are_thinned_and_end_where_they_end():
    x = list(range(100_000))
    chart = line_chart("a", "steps", [Series("a", x, x)])
    line = points(chart, "smooth")
    assert 200 < len(line) <= 401
    assert line[-1].tolist() == points(chart, "raw")[-1].tolist()
    assert len(chart) < 20_000


def test_smoothing_keeps_a_straight_line():
    x = list(range(1000))
    chart = line_chart("a", "steps", [Series("a", x, [2.0 * value for value in x])])
    assert np.allclose(points(chart, "raw"), points(chart, "smooth"), atol=0.11)


@pytest.mark.parametrize(
    "low,high", [(0.0, 1.0), (-3.0, 17.0), (1e-9, 2e-9), (5.0, 5.0), (0.0, 0.0), (1e6, 1.0000001e6)]
)
def test_axes_hold_their_data_between_round_ticks(low, high):
    axis = linear_axis(low, high, 0, 100)
    assert axis.low <= low and high <= axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(-1e-6 <= axis(tick) <= 100 + 1e-6 for tick in axis.ticks)


@pytest.mark.parametrize("low,high", [(1e-6, 1.0), (0.002, 0.07), (1.0, 1.0), (1e-30, 1e30)])
def test_logarithmic_axes(low, high):
    axis = log_axis(low, high, 0, 100)
    assert axis.low < low and high < axis.high
    assert 1 <= len(axis.ticks) <= 8


def test_short_numbers():
    assert [short_number(value) for value in (0, 0.05, 1500, 3.15e6, 2e9, -2000)] == [
        "0",
        "0.05",
        "1.5k",
        "3.15M",
        "2G",
        "-2k",
    ]


def test_a_bar_fills_its_width():
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="28"', stacked_bar([("a", 1), ("b", 3)]))]
    assert widths == [248, 748]
