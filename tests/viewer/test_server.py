"""Who gets in: loopback names, one's own page, the token; and the port."""

import hmac
import socket
import urllib.error
import urllib.request

import pytest
from viewer.client import Client
from websockets.exceptions import InvalidStatus

from radfield.errors import BadInput, RadfieldWarning
from radfield.viewer import server

TOKEN = "correct-horse-battery-staple"


def get(url, **headers):
    """(status, headers, body) of a GET; redirects are not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *arguments):
            return None

    request = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        *[("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("127.8.9.1", True)],
        *[("0.0.0.0", False), ("192.168.1.2", False), ("example.org", False), ("127.0.0.1.example.org", False)],
    ],
)
def test_loopback(host, is_one):
    assert server.is_loopback(host) == is_one


def test_a_port_in_use_is_named_and_the_next_one_taken():
    with socket.create_server(("127.0.0.1", 18700)), pytest.warns(RadfieldWarning, match="port 18700 is in use; try"):
        assert server.free_port("127.0.0.1", 18700) == 18701


def test_a_host_that_is_not_here():
    with pytest.raises(BadInput, match=r"--host is '203\.0\.113\.7'; the rule: an address of this machine"):
        server.free_port("203.0.113.7", 18700)


def test_loopback_lets_in_its_own_page_alone(trained, viewing):
    viewer = viewing(trained, port=18510)
    here = f"127.0.0.1:{viewer.port}"
    assert viewer.url == f"http://{here}/"
    assert get(viewer.url)[0] == 200
    status, _, body = get(viewer.url, Host="attacker.example")
    assert (status, b"not a loopback name" in body) == (403, True)
    Client(viewer.url, origin=f"http://{here}").close()
    with pytest.raises(InvalidStatus, match="403"):
        Client(viewer.url, origin="http://attacker.example")


def test_a_token_is_asked_for_once_and_then_a_cookie(trained, viewing, monkeypatch):
    compared = []
    digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or digest(a, b))
    viewer = viewing(trained, port=18520, token=TOKEN)
    bare = f"http://127.0.0.1:{viewer.port}/"
    assert viewer.url == bare + f"?token={TOKEN}"
    for wrong in ("", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}"):
        status, _, body = get(bare + wrong)
        assert status == 403
        assert TOKEN.encode() not in body
    with pytest.raises(InvalidStatus, match="403"):
        Client(bare)
    with pytest.raises(InvalidStatus, match="403"):
        Client(bare, additional_headers={"Cookie": f"radfield_{viewer.port}=wrong"})
    status, headers, _ = get(viewer.url)
    assert (status, headers["Location"]) == (303, "/")  # the token leaves the address
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    mine = cookie.split(";")[0]
    assert get(bare, Cookie=mine)[0] == 200
    Client(bare, additional_headers={"Cookie": mine}).close()
    assert TOKEN.encode() in compared  # in constant time


def test_another_host_gets_a_token_and_a_warning(trained, viewing, capsys):
    viewer = viewing(trained, port=18530, host="0.0.0.0")
    assert len(viewer.guard.token) >= 20
    assert get(f"http://127.0.0.1:{viewer.port}/")[0] == 403
    viewer.announce()
    said = capsys.readouterr().err
    assert viewer.guard.token in said
    assert "radfield: warning: --host 0.0.0.0 can be reached by others" in said


def test_no_client_can_publish_the_server(trained, viewing):
    viewer = viewing(trained, port=18540)
    assert viewer.server.request_share_url() is None


def test_the_plain_page_draws_without_webgl(trained, viewing):
    import io

    from PIL import Image

    viewer = viewing(trained, port=18550)
    assert b'getContext("webgl2")' in get(viewer.url)[2]
    assert b"no WebGL 2" in get(viewer.url + "plain")[2]
    query = "plain/frame.jpg?turn={}&tilt=0.2&zoom=-0.1&x=0&y=0&moving=0&w=64&h=48"
    status, headers, body = get(viewer.url + query.format("0.3"))
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(body)).size == (64, 48)
    assert get(viewer.url + query.format("nan"))[0] == 400
    assert get(viewer.url + "plain/frame.jpg?turn=1")[0] == 400
    assert get(viewer.url + "../../etc/passwd")[0] == 404
    assert viewer.worker.clients() == 0
