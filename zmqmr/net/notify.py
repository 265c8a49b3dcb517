"""What a service tells systemd: that it is ready, what it does, that it lives. Silent without systemd."""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Speaks sd_notify's protocol. Made without arguments it is silent."""

    def __init__(self, path: str = "", watchdog_seconds: float = 0.0):
        """`path`: of systemd's socket. `watchdog_seconds`: silence after which systemd kills the service."""
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._interval = watchdog_seconds / 3
        self._alive_at = 0.0
        self._status = ""
        self._ready = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Notifier":
        """What systemd asks of this process, and not of the one that started it."""
        meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "0")
        seconds = int(microseconds) / 1e6 if meant and microseconds.isdigit() else 0.0
        return cls(environ.get("NOTIFY_SOCKET", ""), seconds)

    def ready(self, status: str) -> None:
        """The service does what it is for. Repeated calls only change the status."""
        self._send(f"STATUS={status}" if self._ready else f"READY=1\nSTATUS={status}", status)
        self._ready = True

    def stopping(self) -> None:
        self._send("STOPPING=1", "stopping")

    def alive(self) -> None:
        """The main loop turns. Call it in each turn, at least every second."""
        now = time.monotonic()
        if self._interval and now >= self._alive_at:
            self._alive_at = now + self._interval
            self._send("WATCHDOG=1", "")

    def _send(self, text: str, status: str) -> None:
        if not self._path or (status and status == self._status):
            return
        self._status = status or self._status
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto(text.encode(), self._path)
            except OSError:
                pass  # it asks again, or kills us: nothing else can be done about it
