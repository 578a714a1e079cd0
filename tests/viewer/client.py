"""A client of the viewer without a browser: it speaks viser's websocket protocol, moves a camera and counts pictures.

A window from the server is [8 bytes length][8 bytes compressed length][zstd of msgpack][binary buffers].
"""

from __future__ import annotations

import io
import threading
import time

import msgspec
import numpy as np
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Client:
    """A connection. pictures: (time, bytes of the JPEG) in order; messages: how many of each type came;
    files: what was sent for download, once all of it is there."""

    def __init__(self, url: str, width: int = 800, height: int = 800, keep: bool = True, **options):
        self.width, self.height, self.keep = width, height, keep
        protocol = f"viser-v{viser.__version__}"
        address = url.replace("http", "ws", 1)
        self.socket = connect(address, subprotocols=[protocol], max_size=None, compression=None, **options)
        self.pictures: list[tuple[float, bytes]] = []
        self.messages: dict[str, int] = {}
        self.bytes, self.count = 0, 0
        self.gui: dict[str, dict] = {}
        self.incoming: dict[str, tuple[str, int, dict[int, bytes]]] = {}
        self.files: dict[str, bytes] = {}
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        unpack = zstandard.ZstdDecompressor()
        try:
            for window in self.socket:
                length, packed = np.frombuffer(window[:16], np.uint64).tolist()
                inner = msgspec.msgpack.decode(unpack.decompress(window[16 : 16 + packed], max_output_size=length))
                self._take(inner["messages"], len(window))
        except ConnectionClosed:
            pass

    def _take(self, messages, size: int) -> None:
        with self.news:
            self.bytes += size
            for message in messages:
                kind = message["type"]
                self.messages[kind] = self.messages.get(kind, 0) + 1
                if kind == "BackgroundImageMessage" and message["rgb_data"] is not None:
                    self.count += 1
                    self.pictures.append((time.monotonic(), message["rgb_data"]))
                    if not self.keep:
                        del self.pictures[:-1]
                elif kind == "FileTransferStartDownload":
                    self.incoming[message["transfer_uuid"]] = (message["filename"], message["size_bytes"], {})
                elif kind == "FileTransferPart":
                    self._take_part(message)
                elif kind.startswith("Gui") and "uuid" in message and "props" in message:
                    self.gui[message["props"].get("label") or message["uuid"]] = message
            self.news.notify_all()

    def _take_part(self, message) -> None:
        name, size, parts = self.incoming[message["transfer_uuid"]]
        parts[message["part_index"]] = message["content"]
        content = b"".join(parts[i] for i in sorted(parts))
        if len(content) == size:
            self.files[name] = content

    def move(self, position, look_at, up=(0.0, 0.0, 1.0), fov: float = 0.8) -> None:
        """Tells the server where the camera is."""
        position, look_at, up = (np.asarray(v, dtype=float) for v in (position, look_at, up))
        z = (look_at - position) / np.linalg.norm(look_at - position)
        x = np.cross(z, up)
        x /= np.linalg.norm(x)
        wxyz = viser.transforms.SO3.from_matrix(np.stack([x, np.cross(z, x), z], 1)).wxyz
        message = {
            "type": "ViewerCameraMessage",
            "wxyz": wxyz.tolist(),
            "position": position.tolist(),
            "fov": fov,
            "near": 0.01,
            "far": 1000.0,
            "image_height": self.height,
            "image_width": self.width,
            "look_at": look_at.tolist(),
            "up_direction": up.tolist(),
        }
        self.socket.send(msgspec.msgpack.encode(message))

    def set(self, label: str, value) -> None:
        """Changes a control by its label; True presses a button."""
        message = {"type": "GuiUpdateMessage", "uuid": self.gui[label]["uuid"], "updates": {"value": value}}
        self.socket.send(msgspec.msgpack.encode(message))

    def wait(self, done, seconds: float = 120.0) -> bool:
        """Waits until done(self) is true; whether it became so in time."""
        with self.news:
            return self.news.wait_for(lambda: done(self), seconds)

    def picture(self, index: int = -1) -> np.ndarray:
        """A picture that came, [H, W, 3] uint8."""
        from PIL import Image

        return np.array(Image.open(io.BytesIO(self.pictures[index][1])).convert("RGB"))

    def size(self) -> tuple[int, int]:
        """(width, height) of the last picture, (0, 0) before the first."""
        from PIL import Image

        return Image.open(io.BytesIO(self.pictures[-1][1])).size if self.pictures else (0, 0)

    def close(self) -> None:
        """Leaves in good order."""
        self.socket.close()
        self.reader.join(5)

    def vanish(self) -> None:
        """Leaves as a lost connection does."""
        self.socket.socket.close()
