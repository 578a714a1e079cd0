"""The viewer's web server: viser's, on one port, behind a guard.

- On loopback (the default) no token is needed, but the page must be asked for by a loopback name, and its websocket
  must come from the page: else any web site that a browser visits could talk to it (DNS rebinding, cross-site
  websockets).
- On any other host, or with a token given, every request must carry the token: `?token=...` once, which becomes a
  cookie, so that a reload needs none. It is compared in constant time.
- A port in use is named and the next free one taken.
- A browser without WebGL 2 is sent to a page that shows pictures of the server alone (`plain.py`).

viser is told how to answer a request (`process_request` of its websockets server) when it starts; that is the one place
where its inside is touched.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import http
import io
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from ..errors import BadInput, warn

FIRST_PORT, MOST_PORTS = 8080, 100
_patching = threading.Lock()


def is_loopback(host: str) -> bool:
    """Whether a name or address can be reached from this machine alone."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that can be listened on; says which are in use. Raises `BadInput` where the host is
    none of this machine, or there is no free port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadInput(f"--host is {host!r}; the rule: an address of this machine: {error}") from None
    for candidate in range(port, min(port + MOST_PORTS, 65536)):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], candidate, *address[2:]))
                return candidate
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    reason = (error.strerror or str(error)).lower()
                    raise BadInput(f"--host is {host!r}; the rule: an address of this machine: {reason}") from None
                what = "is in use" if error.errno == errno.EADDRINUSE else "is not allowed"
                warn(f"port {candidate} {what}; trying {candidate + 1}")
    raise BadInput(f"--port is {port}; the rule: a port with a free one among the {MOST_PORTS} from it on")


class Guard:
    """Who may talk to the server. token: None where everybody on this machine may."""

    def __init__(self, token: str | None, port: int):
        self.token, self.port = token, port
        self.cookie = f"radfield_{port}"
        #: further pages: path -> answer(query) -> (content type, bytes), awaited
        self.pages: dict[str, Callable] = {}

    def refusal(self, request) -> str | None:
        """Why a request is refused, None where it is not."""
        headers = request.headers
        if self.token is not None:
            if self._has_token(request):
                return None
            return "the token is missing or wrong: open the address that radfield printed, with ?token=..."
        name = urlsplit("//" + (headers.get("Host") or "")).hostname or ""
        if not is_loopback(name):
            return f"the host {name[:80]!r} is not a loopback name: open it as localhost, or give --token"
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
            return "the request comes from another web site"
        return None

    def _has_token(self, request) -> bool:
        given = parse_qs(urlsplit(request.path).query).get("token", [])
        for part in request.headers.get_all("Cookie"):
            given += [v for k, _, v in (c.strip().partition("=") for c in part.split(";")) if k == self.cookie]
        # every one is compared, in a time that does not depend on where they differ
        return any([hmac.compare_digest(each.encode(), self.token.encode()) for each in given])

    def first_visit(self, request) -> bool:
        """Whether the token is in the address, so that a cookie should take its place."""
        return self.token is not None and "token" in parse_qs(urlsplit(request.path).query)


def new_token() -> str:
    """A fresh token, 128 bits."""
    return secrets.token_urlsafe(16)


def start(host: str, port: int, guard: Guard):
    """A running `viser.ViserServer` on `host` and `port`, behind the guard."""
    viser = import_viser()
    import websockets.asyncio.server as of_websockets

    serve = of_websockets.serve

    def guarded(handler, *where, process_request, **options):
        return serve(handler, *where, process_request=_answering(guard, process_request), **options)

    with _patching:
        of_websockets.serve = guarded
        try:
            with quiet():
                server = viser.ViserServer(host=host, port=port, label="radfield", verbose=False)
        finally:
            of_websockets.serve = serve
    # viser would publish the server on the internet where a client asks it to
    server.request_share_url = lambda verbose=True: None
    if server.get_port() != port:
        server.stop()
        raise BadInput(f"port {port}: was taken by another program meanwhile; the rule: start again")
    return server


@contextlib.contextmanager
def quiet():
    """Within the block nothing reaches standard output: viser prints there when it starts and stops."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def import_viser():
    """The package viser. Raises `BadInput` where it is not installed."""
    try:
        import viser
    except ImportError as error:
        raise BadInput(f"the viewer needs viser ({error}); the rule: pip install 'radfield[viewer]'") from None
    return viser


def _answering(guard: Guard, of_viser):
    """`process_request` of the server: the guard, our own pages, then viser's."""
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    def response(status: http.HTTPStatus, kind: str, body: bytes, **headers) -> Response:
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store", **headers}
        return Response(status, status.phrase, Headers(fields), body)

    async def answer(connection, request):
        if why := guard.refusal(request):
            return response(http.HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", f"radfield: {why}\n".encode())
        if request.headers.get("Upgrade") == "websocket":
            return None
        path = urlsplit(request.path).path
        if guard.first_visit(request):
            cookie = f"{guard.cookie}={guard.token}; HttpOnly; SameSite=Strict; Path=/"
            where = {"Location": path if path.startswith("/") and not path.startswith("//") else "/"}
            return response(http.HTTPStatus.SEE_OTHER, "text/plain", b"", **{"Set-Cookie": cookie}, **where)
        if path in guard.pages:
            kind, body = await guard.pages[path](parse_qs(urlsplit(request.path).query))
            return response(http.HTTPStatus.OK if body else http.HTTPStatus.BAD_REQUEST, kind, body)
        return of_viser(connection, request)

    return answer
