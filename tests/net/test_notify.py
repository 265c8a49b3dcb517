"""What systemd hears from a service."""

import socket
from pathlib import Path

from zmqmr.net.notify import Notifier


def test_systemd_hears_of_readiness_once_and_of_each_new_status(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.setblocking(False)
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})
        notifier.ready("2 workers")
        notifier.ready("2 workers")
        notifier.ready("3 workers")
        notifier.alive()
        notifier.alive()  # ten seconds too early
        notifier.stopping()
        heard = []
        while True:
            try:
                heard.append(systemd.recv(1000))
            except BlockingIOError:
                break
    expected = [b"READY=1\nSTATUS=2 workers", b"STATUS=3 workers", b"WATCHDOG=1", b"STOPPING=1"]
    assert heard == expected


def test_without_systemd_nothing_is_said_and_its_end_is_survived(tmp_path: Path) -> None:
    for notifier in (Notifier(), Notifier.from_environ({}), Notifier(str(tmp_path / "gone"), 0.001)):
        notifier.ready("x")
        notifier.alive()
        notifier.stopping()


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    assert Notifier.from_environ(environ)._interval == 0
