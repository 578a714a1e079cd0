"""A running viewer: an exhibit, its worker and its web server."""

from __future__ import annotations

import sys
import traceback
import warnings

from . import server
from .exhibit import Exhibit
from .panel import Panel
from .plain import PlainPages
from .session import Session
from .training_panel import Live, TrainingPanel
from .worker import Worker


class Viewer:
    """Shows `exhibit` at `url` until `stop`. live: of a scene that trains, whose loop then calls `live.between_steps`;
    without it the viewer works in a thread of its own."""

    def __init__(
        self,
        exhibit: Exhibit,
        host: str = "127.0.0.1",
        port: int = server.FIRST_PORT,
        token: str | None = None,
        live: Live | None = None,
    ):
        self.exhibit, self.worker, self.live = exhibit, Worker(), live
        self.sessions: dict[int, Session] = {}
        self.worker.failed = self._failed
        # a client may leave at any time, also while something is written to it
        warnings.filterwarnings("ignore", "Queued a .* on a closed connection")
        server.import_viser()
        port = server.free_port(host, port)
        if token is None and not server.is_loopback(host):
            token = server.new_token()
        self.guard = server.Guard(token, port)
        if exhibit.source is not None:
            self.guard.pages |= PlainPages(self.worker, exhibit.source, exhibit.at).pages()
        self.server = server.start(host, port, self.guard)
        self.host, self.port = host, port
        self._set_scene()
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._left)
        if live is None:
            self.worker.start()
        else:
            live.attach(self.worker)

    @property
    def url(self) -> str:
        """Where to open it, with the token where there is one."""
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/" + (f"?token={self.guard.token}" if self.guard.token else "")

    def announce(self) -> None:
        """Says where it is, and warns of a host that others reach."""
        print(f"view {self.exhibit.title}: {self.url}", file=sys.stderr)
        if not server.is_loopback(self.host):
            print(
                f"radfield: warning: --host {self.host} can be reached by others, unencrypted: only who has the token "
                "above gets in; safer: leave --host away and forward the port, ssh -L",
                file=sys.stderr,
            )

    def _set_scene(self) -> None:
        position, aim, fov = self.exhibit.first_view()
        up = self.exhibit.up()
        if self.exhibit.mesh is not None and self.exhibit.source is None:
            up = up.new_tensor([0.0, 1.0, 0.0])  # as mesh files have it
        self.server.gui.configure_theme(show_share_button=False, show_logo=False, dark_mode=True)
        self.server.scene.set_up_direction(tuple(up.tolist()))
        self.server.initial_camera.position = tuple(position.tolist())
        self.server.initial_camera.look_at = tuple(aim.tolist())
        self.server.initial_camera.fov = fov
        self.server.initial_camera.near = 0.005

    async def _connected(self, client) -> None:
        # The first picture is asked for before the panel is built, which takes longer.
        session = Session(client, self.exhibit, self.worker, training=self.live is not None)
        self.sessions[client.client_id] = session
        session.ask()
        self.server._thread_executor.submit(self._build, session)

    def _build(self, session: Session) -> None:
        try:
            if self.live is not None:
                TrainingPanel(session, self.live)
            Panel(session)
        except Exception:
            if not session.gone:  # a client may leave while its panel is built
                traceback.print_exc()

    async def _left(self, client) -> None:
        session = self.sessions.pop(client.client_id, None)
        if session is not None:
            session.close()

    def _failed(self, error: Exception) -> None:
        traceback.print_exception(error)

    def stop(self) -> None:
        """Ends the web server and the worker."""
        self.worker.stop()
        with server.quiet():
            self.server.stop()
