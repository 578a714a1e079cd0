"""`radfield export RUN FOLDER`: a page that a browser draws without a server, compared with the run's own pictures."""

import base64
import gzip
import json

import numpy as np
import pytest
import torch
from viewer.browser import PROGRAM, WEBGL, Browser

import radfield
from radfield.data import load
from radfield.metrics import psnr
from radfield.web.page import camera_of, packed

QUICK = ("--web.views", 12, "--web.size", 48, "--threads", 2, "--json")
NARROW = ("--web.light-field.width", 32, "--web.light-field.layers", 3, "--web.light-field.points", 4)
KINDS = {
    "light-field": ("--web.kind", "light-field", "--web.steps", 150, *NARROW),
    "mesh": ("--web.steps", 60, "--web.mesh.resolution", 48, "--web.mesh.texels", 3),
}


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """Makes a page of the tiny run once; its folder and figures."""
    made = {}

    def of(kind, command):
        if kind not in made:
            folder = tmp_path_factory.mktemp("pages") / kind
            options = (*QUICK, *KINDS[kind], "--density", 5)
            code, figures, _ = command("export", trained[0], folder, *options)
            assert code == 0
            made[kind] = folder, figures
        return made[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_four_files_with_all_that_it_draws(pages, kind, command):
    folder, figures = pages(kind, command)
    script = {"light-field": "light_field.js", "mesh": "baked_mesh.js"}[kind]
    assert {path.name for path in folder.iterdir()} == {"index.html", "data.js", "common.js", script}
    text = (folder / "data.js").read_text()
    assert text.startswith("const DATA = ") and figures["bytes"] == sum(p.stat().st_size for p in folder.iterdir())
    data = json.loads(text[len("const DATA = ") : -2])
    texels = np.frombuffer(gzip.decompress(base64.b64decode(data["weights"])), np.float16)
    assert len(texels) % 4 == 0 and np.isfinite(texels).all() and data["background"] == [1.0] * 3
    assert "http" not in (folder / "index.html").read_text()  # nothing is asked of any server
    assert figures["psnr_to_run"] > {"light-field": 11, "mesh": 18}[kind]


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here (Debian's package chromium)")
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_draws_what_was_measured(pages, kind, command, trained, tiny_capture):
    folder, figures = pages(kind, command)
    model, cameras = radfield.load(trained[0]), load(tiny_capture, split=()).val.cameras
    browser = Browser(*WEBGL, size=(300, 200))
    try:
        page = browser.page((folder / "index.html").resolve().as_uri())
        page.wait("window.radfield !== undefined")
        assert page.run("radfield.error") is None
        values = []
        for view in range(len(cameras)):
            width, height = cameras.size[view].tolist()
            data = base64.b64decode(page.run(f"radfield.pixels({json.dumps(camera_of(cameras, view))})"))
            shot = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(height, width, 4)[..., :3].copy()) / 255
            values.append(float(psnr(shot, model.render_view(cameras, view).color.clamp(0, 1))))
    finally:
        browser.close()
    # other views than those that were measured, and of the mesh with smooth edges
    assert sum(values) / len(values) > figures["psnr_to_run"] - 3


def test_the_same_seed_gives_the_same_page(trained, tmp_path, command):
    options = ("--web.kind", "light-field", "--web.light-field.width", 16)
    options += ("--web.views", 2, "--web.size", 16, "--web.steps", 3)
    for name, threads in (("a", 1), ("b", 2)):
        assert command("export", trained[0], tmp_path / name, *options, "--threads", threads)[0] == 0
    a, b = ((tmp_path / name / "data.js").read_text() for name in "ab")
    assert a == b
    assert command("export", trained[0], tmp_path / "a", *options, "--web.seed", 4)[0] == 0  # over a page of before
    assert (tmp_path / "a" / "data.js").read_text() != b


def test_bytes_go_through():
    values = torch.rand(7, 3)
    again = np.frombuffer(gzip.decompress(base64.b64decode(packed(values))), np.float32)
    assert np.array_equal(again.reshape(7, 3), values.numpy())


def test_bad_input(trained, tmp_path, refused):
    run, page = trained[0], tmp_path / "page"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    refused("export", run, tmp_path / "other", rule="holds 'thesis.txt', which is no part of a page")
    (tmp_path / "file").write_text("mine")
    refused("export", run, tmp_path / "file", rule="a page is a folder")
    refused("export", run, page, "--web.seconds", 0, rule="--web.seconds is 0.0; the rule: positive")
    refused("export", run, page, "--web.light-field.width", 20, rule="a multiple of 16")
    refused("export", run, page, "--web.mesh.texels", 0, rule="from 1 to 64")
    assert not page.exists()
