"""The viewer in a real browser: headless Chromium with WebGL in software. Skipped where there is none.

RADFIELD_VIEWER_PICTURE=FILE.png keeps a picture of the page, of the run in RADFIELD_VIEWER_RUN where that is given.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from viewer.browser import NO_WEBGL, PROGRAM, WEBGL, Browser, until

from radfield.metrics import psnr
from radfield.viewer.session import SERVER

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here (Debian's package chromium)")
SIZE = (1000, 640)
_PANEL = 380  # pixels of the page's right side that the panel and its shadow cover
_NOTE = 210  # rows that the note on software WebGL and its shadow take at the top
#: viser draws fewer pixels where the browser is slow, which moves them by up to one: not here
_ALL_PIXELS = "?fixedDpr=1"


@pytest.fixture(scope="module")
def browser():
    started = Browser(*WEBGL, size=SIZE)
    yield started
    started.close()


def whole(viewer, number=0):
    """The session's last picture and wish, once it is whole and nothing else is wanted; waits for it."""

    def ready():
        session = viewer.sessions.get(number)
        if session is None or session.last is None or viewer.worker.waiting():
            return None
        view, wish = session.last
        return session if tuple(view.depth.shape[::-1]) == tuple(wish.camera.size[0].tolist()) else None

    return until(ready, 120)


def test_the_page_shows_what_render_gives(trained, viewing, browser, monkeypatch):
    monkeypatch.setattr("radfield.viewer.session.FULL", 250)  # the scene is thin, hence slow: rays end nowhere
    run = Path(os.environ.get("RADFIELD_VIEWER_RUN", trained))
    viewer = viewing(run)
    page = browser.page(viewer.url + _ALL_PIXELS)
    session = whole(viewer)
    first = session.camera()
    page.drag((300, 300), (360, 280))
    until(lambda: not torch.allclose(session.camera().camera_to_world, first.camera_to_world), 120)
    page.click("Capture")
    page.click("cameras")
    until(lambda: page.run("document.body.innerText").find("go to camera") >= 0, 120)
    page.click("go to camera")
    pose = viewer.exhibit.cameras.camera_to_world[0]
    until(lambda: torch.allclose(session.camera().camera_to_world[0], pose, atol=1e-3), 120)
    page.click("cameras")  # away again: their frusta would stand in the picture
    until(lambda: session.last[1].camera.camera_to_world[0].allclose(session.camera().camera_to_world[0]), 120)
    whole(viewer)
    model, camera = viewer.exhibit.source.model, session.camera()
    expected = model.render_view(camera, 0).color.clamp(0, 1)
    planes = torch.nn.functional.interpolate(expected.permute(2, 0, 1)[None], SIZE[::-1], mode="bilinear")
    expected = planes[0].permute(1, 2, 0)[_NOTE:, : SIZE[0] - _PANEL]

    def like() -> bool:
        shot = torch.from_numpy(page.screenshot()).float() / 255
        return float(psnr(shot[_NOTE:, : SIZE[0] - _PANEL], expected)) >= 30

    until(like, 300)
    if keep := os.environ.get("RADFIELD_VIEWER_PICTURE"):
        _keep(page, viewer, Path(keep))


def _keep(page, viewer, path: Path) -> None:
    """A picture of the page with the capture's cameras, without the note on software WebGL."""
    import time

    from PIL import Image

    page.run("document.querySelectorAll('.mantine-Notification-root').forEach(e => e.remove())")
    page.click("photographs")
    time.sleep(5)
    away = viewer.exhibit.at(tilt=0.2, zoom=0.5)
    viewer.sessions[0].go_to(away.camera_to_world[0], viewer.exhibit.first_view()[2])
    time.sleep(2)
    whole(viewer)
    time.sleep(3)
    Image.fromarray(page.screenshot()).save(path)


@pytest.mark.slow
def test_a_page_loaded_again_and_a_second_one(trained, viewing, browser):
    viewer = viewing(trained)
    page = browser.page(viewer.url)
    whole(viewer)
    page.call("Page.reload")
    until(lambda: 0 not in viewer.sessions and viewer.sessions, 120)
    whole(viewer, 1)
    browser.page(viewer.url)
    whole(viewer, 2)
    assert len(viewer.sessions) == 2
    for each in browser.pages:
        each.call("Page.navigate", url="about:blank")
    until(lambda: not viewer.sessions, 120)


def test_gaussians_in_the_browser_are_those_of_the_server(tmp_path, viewing, browser):
    from radfield.gaussians.ply import write_ply
    from radfield.gaussians.scene import GaussianScene

    generator = torch.Generator().manual_seed(0)
    g = 300
    write_ply(
        tmp_path / "few.ply",
        GaussianScene(
            means=torch.rand(3, g, generator=generator),
            quaternions=torch.randn(4, g, generator=generator),
            log_scales=torch.rand(3, g, generator=generator) - 3.5,
            opacity_logits=torch.randn(g, generator=generator) + 2,
            base=torch.randn(3, g, generator=generator),
            rest=torch.zeros(0, g),
        ),
    )
    viewer = viewing(tmp_path / "few.ply")
    page = browser.page(viewer.url + _ALL_PIXELS)
    session = until(lambda: viewer.sessions.get(0), 120)
    until(lambda: "drawn by the browser, fixed colours" in page.run("document.body.innerText"), 120)
    seen = (slice(_NOTE, None), slice(0, SIZE[0] - _PANEL))

    def like() -> bool:  # the page is dark where nothing is, the server's background black
        shot = torch.from_numpy(page.screenshot()[seen]).float() / 255
        view = viewer.exhibit.source.model.render_view(session.camera(), 0)  # the page may have moved its camera
        planes = torch.nn.functional.interpolate(view.color.permute(2, 0, 1)[None], SIZE[::-1], mode="bilinear")
        return float(psnr(shot, planes[0].permute(1, 2, 0)[seen])) >= 20

    until(like, 300)
    session.change(drawn_by=SERVER)
    session.ask()
    whole(viewer)


def test_a_browser_without_webgl_is_drawn_for(trained, viewing):
    viewer = viewing(trained)
    browser = Browser(*NO_WEBGL, size=(400, 300))
    try:
        page = browser.page(viewer.url)
        page.wait("location.pathname == '/plain' && +document.body.dataset.frames >= 1")
        before = page.screenshot()
        page.drag((200, 150), (260, 150), steps=5)
        page.wait("+document.body.dataset.frames >= 3")
        assert np.abs(page.screenshot().astype(int) - before).mean() > 0.5
    finally:
        browser.close()
