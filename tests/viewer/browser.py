"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from websockets.sync.client import connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
    *("--disable-extensions", "--hide-scrollbars", "--force-device-scale-factor=1", "--disable-dev-shm-usage"),
)
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # in software: there is no GPU
NO_WEBGL = ("--disable-3d-apis",)


class Browser:
    """One browser with an empty profile; `page` opens an address."""

    def __init__(self, *flags: str, size: tuple[int, int] = (1000, 800)):
        self.folder = Path(tempfile.mkdtemp(prefix="radfield-browser-"))
        where = [f"--user-data-dir={self.folder}", f"--window-size={size[0]},{size[1]}"]
        command = [PROGRAM, *_FLAGS, *flags, *where, "about:blank"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.pages: list[Page] = []
        port_file = self.folder / "DevToolsActivePort"
        until(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2, 60)
        self.port = int(port_file.read_text().splitlines()[0])
        self.size = size

    def page(self, url: str) -> Page:
        """A new page at the address."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            target = json.load(answer)
        page = Page(target["webSocketDebuggerUrl"], self.size)
        self.pages.append(page)
        page.call("Page.navigate", url=url)
        return page

    def close(self) -> None:
        """Ends the browser, and removes its profile."""
        for page in self.pages:
            page.socket.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Page:
    """A page of the browser."""

    def __init__(self, address: str, size: tuple[int, int]):
        self.socket = connect(address, max_size=None, open_timeout=60)
        self.numbers = itertools.count(1)
        self.call("Page.enable")
        self.call("Runtime.enable")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def call(self, method: str, seconds: float = 60.0, **parameters):
        """A call of the protocol, and its result."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        end = time.monotonic() + seconds
        while True:
            answer = json.loads(self.socket.recv(timeout=max(end - time.monotonic(), 0.001)))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str):
        """The value of a JavaScript expression."""
        answer = self._evaluate(script)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def _evaluate(self, script: str) -> dict:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)

    def wait(self, script: str, seconds: float = 120.0) -> None:
        """Waits until a JavaScript expression is true; one that fails, as of a page that has no body yet, is not."""
        until(lambda: self._evaluate(script)["result"].get("value") is True, seconds)

    def drag(self, start: tuple[int, int], end: tuple[int, int], steps: int = 10, pause: float = 0.03) -> None:
        """Drags the mouse with its left button."""
        self.mouse("mousePressed", start)
        for i in range(1, steps + 1):
            at = tuple(a + (b - a) * i / steps for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", at)
            time.sleep(pause)
        self.mouse("mouseReleased", end)

    def mouse(self, kind: str, at) -> None:
        """One event of the mouse."""
        held = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **held)

    def click(self, text: str) -> None:
        """Clicks the button or checkbox that has this text as its own, wherever it stands by then."""
        self.wait(f"""(() => {{
          const own = e => [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.textContent).join("").trim();
          const all = [...document.querySelectorAll("label, button, button span, p, div")];
          const found = all.filter(e => own(e) == {text!r} && e.getBoundingClientRect().width > 0);
          const seen = found.find(e => e.tagName == "LABEL") || found[0];  // the scene's tree repeats some texts
          if (seen) seen.click();
          return Boolean(seen); }})()""")

    def screenshot(self) -> np.ndarray:
        """[H, W, 3] uint8 of the page."""
        from PIL import Image

        data = self.call("Page.captureScreenshot", format="png")["data"]
        return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def until(ready, seconds: float):
    """Waits until ready() is true, and returns its value; fails where that takes longer than `seconds`."""
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, f"nothing came within {seconds} s"
        time.sleep(0.05)
    return value
