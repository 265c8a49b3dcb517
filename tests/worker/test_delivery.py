"""Attempts that send to an owner that is gone: they wait until that is known, and no longer."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import zmq
from core.strategies import MAP_REDUCE, make_spec, make_split

from zmqmr.messages import Launch, Run
from zmqmr.net.sockets import acknowledge, shuffle_server
from zmqmr.settings import Settings
from zmqmr.worker.attempt import Attempt
from zmqmr.worker.delivery import Delivery, note_lost_owner

FOREVER = 600.0  # longer than any test


class Owner:
    """An owner that answers so many questions and then takes nothing any more, as behind a cut cable."""

    def __init__(self, folder: Path, answers: int):
        self.endpoint = f"ipc://{folder}/owner"
        self.hangs = Event()
        self._listens, self._stopped = Event(), Event()
        self._thread = Thread(target=self._serve, args=[answers])
        self._thread.start()
        self._listens.wait()

    def _serve(self, answers: int) -> None:
        with zmq.Context() as context, shuffle_server(context, self.endpoint, 1, 10_000) as socket:
            self._listens.set()
            while answers:
                acknowledge(socket, socket.recv_multipart()[0])
                answers -= 1
            self.hangs.set()
            self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    """An attempt whose second partition is the owner's; the first is its own."""
    launch = Launch(
        "job", "map-0-00000", 1, 0, 0, ((0, "mapper"),), False, make_split(0), None, 2,
        ("", f"ipc://{tmp_path}/owner"), 1,
    )  # fmt: skip
    settings = Settings(answer_seconds=FOREVER, frames_in_flight=1)
    yield Attempt(Run(launch, 7, (), str(tmp_path), "", ""), make_spec(MAP_REDUCE), None, settings, -1)


def deliver(attempt: Attempt, frames: int) -> set[int]:
    """Send frames; the partitions that could not be delivered."""
    delivery = Delivery(attempt)
    for _ in range(frames):
        delivery.send(1, b"x" * 5000)
    delivery.finish()
    return delivery.undelivered


@pytest.mark.parametrize(("answers", "frames"), [(0, 0), (1, 0), (1, 500)], ids=["connect", "end", "no room"])
def test_f10_an_attempt_stops_waiting_for_an_owner_that_is_lost(
    attempt: Attempt, tmp_path: Path, answers: int, frames: int
) -> None:
    owner = Owner(tmp_path, answers)
    found: list[set[int]] = []
    sender = Thread(target=lambda: found.append(deliver(attempt, frames)))
    sender.start()
    try:
        owner.hangs.wait()
        note_lost_owner(str(tmp_path), "ipc://another")
        sender.join(0.5)
        assert sender.is_alive(), "another one is lost"
        note_lost_owner(str(tmp_path), owner.endpoint)
        sender.join(60)
        assert found == [{1}]
    finally:
        owner.stop()
        sender.join()
