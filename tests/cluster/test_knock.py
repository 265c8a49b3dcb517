"""Which hosts answer as ssh servers do."""

import asyncio
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


@pytest.fixture
def mute() -> Iterator[int]:
    """A port where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        yield listening.getsockname()[1]


def test_only_what_says_that_it_is_an_ssh_server_answers(
    knocking: ModuleType, server: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, words = server
    monkeypatch.setattr(knocking, "_PORT", port)

    assert asyncio.run(knocking.knock_at_all(["127.0.0.1"], [0])) == [words.startswith(b"SSH-")]
    assert not asyncio.run(knocking.answers("")), "a host without an address is not this machine"


def test_an_address_where_nobody_is_is_silent(knocking: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setattr(knocking, "_PORT", nobody.getsockname()[1])

    assert not asyncio.run(knocking.answers("127.0.0.1"))


def test_many_silent_hosts_have_their_time_at_once_and_hide_none_that_answers(
    knocking: ModuleType, mute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knocking, "_PORT", mute)
    monkeypatch.setattr(knocking, "_AT_ONCE", 20)
    monkeypatch.setattr(knocking, "_ANSWER_SECONDS", 0.2)
    rounds = []
    pause = asyncio.sleep

    async def counted(seconds: float) -> None:
        rounds.append(seconds)
        await pause(0.01)

    monkeypatch.setattr(knocking.asyncio, "sleep", counted)

    heard = asyncio.run(knocking.knock_at_all(["127.0.0.1"] * 100, [1.5] * 100))

    assert heard == [False] * 100
    assert len(rounds) >= 100, "each was asked again in the same time as the others"


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
