"""The status port: an HTTP server on 127.0.0.1, in a thread of its own.

It costs a job nothing that nobody watches: the thread sleeps until the first request, and only then
imports asyncio and tornado. Its failure never fails a job.
"""

import logging
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

PORTS_TRIED = 21  # the port asked for and the 20 after it
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


class StatusServer:
    """Shows `state()` as JSON at / and /api/state.

    `state` is called in the server's thread, once for each request; it must return an immutable
    snapshot, of JSON types, that the owner replaces and never changes. `port` 0 means no server.
    """

    def __init__(self, state: Callable[[], dict[str, Any]], port: int) -> None:
        self._state = state
        self._port = port
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None

    def start(self) -> str:
        """Listen, and return the URL; "" when there is no server. Never raises.

        When the port is taken, one of the next 20 is used. Call it after the process has done its
        forking, since a fork copies no thread.
        """
        listener = _listen(self._port)
        if listener is None:
            return ""
        try:
            waker, wake = socket.socketpair()
        except OSError as error:
            listener.close()
            log.warning("There is no status page: %s.", error)
            return ""
        port = listener.getsockname()[1]
        thread = threading.Thread(target=self._run, args=(listener, wake), name="status", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            for sock in (listener, waker, wake):
                sock.close()
            log.warning("There is no status page: %s.", error)
            return ""
        self._thread, self._waker = thread, waker
        return f"http://127.0.0.1:{port}/"

    def stop(self) -> None:
        """Close the port and end the thread; a second call does nothing."""
        if self._thread is None or self._waker is None:
            return
        self._waker.close()  # the other end becomes readable
        self._thread.join(STOP_SECONDS)
        self._thread = self._waker = None

    def _run(self, listener: socket.socket, wake: socket.socket) -> None:
        # Signals are the main thread's: it could sleep through one that arrived here.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with listener, wake:
            try:
                ready, _, _ = select.select([listener, wake], [], [])
                if wake in ready:
                    return
                import asyncio

                from zmqmr.status.handlers import serve

                asyncio.run(serve(listener, wake, self._state))
            except Exception:
                log.exception("The status page failed; jobs go on without it.")


def _listen(first: int) -> socket.socket | None:
    """A listening socket on the first free port from `first` on, or None."""
    for port in range(first, min(first + PORTS_TRIED, 65536)) if first else ():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            listener.close()
            continue
        listener.setblocking(False)
        return listener
    return None
