"""Which hosts answer as ssh servers do."""

import socket
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from types import ModuleType

import pytest
from cluster.test_static import module

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.fixture
def knocking() -> ModuleType:
    return module("roles/ec2_cluster/library/ssh_knock.py")


@pytest.fixture(params=[b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n", b""])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, bytes]]:
    """A port of this machine where something says these words, or hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(request.param)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], request.param
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_only_what_says_that_it_is_an_ssh_server_answers(
    knocking: ModuleType, server: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, words = server
    monkeypatch.setattr(knocking, "_PORT", port)

    assert knocking.knock("127.0.0.1", 0) is words.startswith(b"SSH-")
    assert not knocking.answers(""), "a host without an address is not this machine"


def test_an_address_where_nobody_is_is_silent(knocking: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setattr(knocking, "_PORT", nobody.getsockname()[1])

    assert not knocking.answers("127.0.0.1")


@pytest.mark.parametrize(
    ("launched", "seconds"),
    [
        ("2026-05-01T11:59:00+00:00", 240),  # it has 300 to boot
        ("2026-05-01T11:59:00Z", 240),
        ("2026-05-01T11:59:00.500Z", 240.5),
        ("2026-05-01T10:00:00+00:00", 120),
    ],
)
def test_a_host_has_its_time_to_boot_and_later_less(
    knocking: ModuleType, launched: str, seconds: float
) -> None:
    assert knocking.patience(launched, 300, 120, NOW) == seconds
