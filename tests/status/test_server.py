"""The status port, over real sockets."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from zmqmr.status.server import StatusServer

PORTS_TRIED = 21
STATE = {"jobs": [{"job": "<script>alert(1)</script>", "done": 3}]}


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that are free just now."""
    for first in range(20_000, 60_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


@pytest.fixture
def url() -> Iterator[str]:
    server = StatusServer(lambda: STATE, free_ports(PORTS_TRIED))
    yield server.start()
    server.stop()


def ask(
    url: str, path: str = "/", method: str = "GET", host: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    place = urlsplit(url).netloc
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.request(method, path, headers={"Host": place if host is None else host})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.mark.parametrize("path", ["/", "/api/state"])
def test_t6_the_state_is_shown_as_json(url: str, path: str) -> None:
    response, body = ask(url, path)
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("application/json")
    assert json.loads(body) == STATE


def test_each_request_shows_the_newest_state() -> None:
    states = iter([{"n": 1}, {"n": 2}])
    server = StatusServer(lambda: next(states), free_ports(PORTS_TRIED))
    url = server.start()
    try:
        assert [json.loads(ask(url)[1]) for _ in range(2)] == [{"n": 1}, {"n": 2}]
    finally:
        server.stop()


def test_head_answers_without_a_body(url: str) -> None:
    response, body = ask(url, method="HEAD")
    assert (response.status, body) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_t7_nothing_can_be_changed(url: str, method: str) -> None:
    response, _ = ask(url, method=method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:2680", "LOCALHOST", "[::1]:8080"])
def test_this_machine_may_ask_by_any_of_its_names(url: str, host: str) -> None:
    assert ask(url, host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:2680", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]"]
)
@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_t7_another_host_name_is_refused(url: str, host: str, path: str) -> None:
    response, body = ask(url, path, host=host)
    assert response.status == 403
    assert b"jobs" not in body


@pytest.mark.parametrize(
    ("path", "method", "host"),
    [("/", "GET", None), ("/nothing", "GET", None), ("/", "POST", None), ("/", "GET", "evil.example")],
)
def test_t6_every_answer_has_the_security_headers(url: str, path: str, method: str, host: str | None) -> None:
    headers = ask(url, path, method, host)[0].headers
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_an_unknown_page_is_not_found(url: str) -> None:
    assert ask(url, "/nothing")[0].status == 404


def test_t7_only_loopback_is_listened_on(url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    with socket.socket() as probe:  # refused if somebody had it on all addresses
        probe.bind(("127.0.0.2", port))


def test_a_failing_state_is_an_error_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def state() -> dict[str, object]:
        raise ValueError("a secret")

    server = StatusServer(state, free_ports(PORTS_TRIED))
    url = server.start()
    try:
        response, body = ask(url)
        assert response.status == 500
        assert b"secret" not in body
        assert ask(url, "/nothing")[0].status == 404, "the server goes on"
    finally:
        server.stop()


def test_a_busy_port_means_the_next_one() -> None:
    first = free_ports(PORTS_TRIED)
    with ExitStack() as stack:
        for port in (first, first + 1):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        server = StatusServer(lambda: STATE, first)
        url = server.start()
        try:
            assert urlsplit(url).port == first + 2
            assert ask(url)[0].status == 200
        finally:
            server.stop()


def test_no_free_port_means_no_page() -> None:
    first = free_ports(PORTS_TRIED)
    with ExitStack() as stack:
        for port in range(first, first + PORTS_TRIED):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        server = StatusServer(lambda: STATE, first)
        assert server.start() == ""
        server.stop()


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_cannot_be_means_no_page(port: int) -> None:
    assert StatusServer(lambda: STATE, port).start() == ""


def resources() -> tuple[set[str], int]:
    return set(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("use", [lambda url: None, lambda url: ask(url)])
def test_stop_leaves_nothing(use: Callable[[str], object]) -> None:
    StatusServer(lambda: STATE, 0).start()
    before = resources()
    for _ in range(3):
        server = StatusServer(lambda: STATE, free_ports(PORTS_TRIED))
        use(server.start())
        server.stop()
        server.stop()
    assert resources() == before


def test_stop_does_not_wait_for_an_open_connection() -> None:
    server = StatusServer(lambda: STATE, free_ports(PORTS_TRIED))
    url = server.start()
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        server.stop()
        while client.recv(65536):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port), timeout=20)


def test_garbage_does_not_end_the_server(url: str) -> None:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as client:
        client.sendall(b"\x16\x03\x01\x00\xff garbage\r\n\r\n" * 100)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass
    assert ask(url)[0].status == 200


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    code = (
        "import sys\n"
        "from zmqmr.status.server import StatusServer\n"
        f"server = StatusServer(dict, {free_ports(PORTS_TRIED)})\n"
        "assert server.start()\n"
        "server.stop()\n"
        "assert not {'tornado', 'asyncio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
