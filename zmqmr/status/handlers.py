"""What the status port answers. Imports tornado, so server.py imports it when it is first needed."""

import asyncio
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

# A page of another site cannot make a browser send one of these names; it can make its own name
# resolve to 127.0.0.1. Any port is right: the page may be seen through `ssh -L`.
_OUR_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_METHODS = ("GET", "HEAD")


class _Handler(RequestHandler):
    """Checks that a request may be answered, and makes the headers that every answer has."""

    SUPPORTED_METHODS = _METHODS

    def initialize(self, state: Callable[[], dict[str, Any]]) -> None:
        self.state = state

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        if not _OUR_HOST.fullmatch(self.request.host):
            raise HTTPError(HTTPStatus.FORBIDDEN)

    def write_error(self, status_code: int, **_: Any) -> None:
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(_METHODS))
        self.finish({"error": f"{status_code} {HTTPStatus(status_code).phrase}"})


class _State(_Handler):
    def get(self) -> None:
        self.write(self.state())

    head = get


class _NotFound(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(HTTPStatus.NOT_FOUND)


def application(state: Callable[[], dict[str, Any]]) -> Application:
    """The web application that shows `state()`, JSON types only."""
    arguments = {"state": state}
    return Application(
        [("/", _State, arguments), ("/api/state", _State, arguments)],
        default_handler_class=_NotFound,
        default_handler_args=arguments,
        log_function=lambda handler: None,
    )


async def serve(listener: socket.socket, wake: socket.socket, state: Callable[[], dict[str, Any]]) -> None:
    """Answer on `listener` until `wake` is readable; closes all connections."""
    server = HTTPServer(
        application(state),
        idle_connection_timeout=60,
        body_timeout=5,
        max_header_size=16 * 1024,
        max_body_size=1024,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(wake, stopping.set)
    server.add_sockets([listener])
    await stopping.wait()
    loop.remove_reader(wake)
    server.stop()
    await server.close_all_connections()
