"""Records of an attempt on their way to partitions that other hosts own."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from zmqmr.data.spools import Part, Spool
from zmqmr.errors import SpillError
from zmqmr.messages import FrameCount
from zmqmr.net.curve import load_keys
from zmqmr.net.frames import largest_payload, pack
from zmqmr.net.sockets import Patience, context, hand_over, send_frame, shuffle_client

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt

_LOST = "lost-owners"  # in an attempt's directory: endpoints, one a line


def note_lost_owner(directory: str, endpoint: str) -> None:
    """Let the attempt with that directory know that the owner at an endpoint is gone for good: it need not
    wait any longer. A file, because a job may close whatever its process was given to listen to."""
    with suppress(OSError), open(os.path.join(directory, _LOST), "a") as file:
        file.write(endpoint + "\n")


def _is_lost(directory: str, endpoint: str) -> bool:
    try:
        with open(os.path.join(directory, _LOST)) as file:
            return f"{endpoint}\n" in file.readlines()
    except OSError:
        return False


class Delivery:
    """Frames of an attempt on their way to partitions that other hosts own."""

    def __init__(self, attempt: "Attempt"):
        self._attempt = attempt
        launch, own = attempt.launch, attempt.run.shuffle
        self._endpoints = {
            partition: endpoint
            for partition, endpoint in enumerate(launch.owners)
            if endpoint and endpoint != own
        }
        self.frames = dict.fromkeys(self._endpoints, 0)
        self.undelivered: set[int] = set()  # partitions whose owner could not be reached
        self._sockets: dict[str, Any] = {}
        self._context: Any = context() if self._endpoints else None
        for endpoint in sorted(
            set(self._endpoints.values())
        ):  # before the job's code: it may close descriptors
            try:
                self._sockets[endpoint] = self._connect(endpoint)
            except SpillError as error:
                self._give_up(endpoint, error)

    def _connect(self, endpoint: str) -> Any:
        settings = self._attempt.settings
        return shuffle_client(
            self._context,
            endpoint,
            settings.frames_in_flight,
            largest_payload(settings),
            load_keys(settings.keys, "worker", settings.authorized_keys) if settings.keys else None,
            self._patience(endpoint),
        )

    def _patience(self, endpoint: str) -> Patience:
        """How long to wait for an owner."""
        directory = self._attempt.directory
        return Patience(self._attempt.settings.answer_seconds, lambda: _is_lost(directory, endpoint))

    def _give_up(self, endpoint: str, error: SpillError) -> None:
        """The spool keeps what cannot be delivered; the coordinator finds another way, or another owner."""
        print(f"zmqmr: {error}; it goes on without", file=sys.stderr)
        self.undelivered |= {number for number, owner in self._endpoints.items() if owner == endpoint}

    def send(self, partition: int, payload: bytes) -> None:
        """Send a frame, if the partition is another host's. Blocks while its owner has no room."""
        endpoint = self._endpoints.get(partition)
        if endpoint is None or partition in self.undelivered:
            return
        launch, number = self._attempt.launch, self.frames[partition]
        whose = launch.job, launch.stage, launch.task, launch.attempt, launch.version
        frame = pack(*whose, partition, number, payload)
        try:
            send_frame(self._sockets[endpoint], frame, endpoint, self._patience(endpoint))
            self.frames[partition] += 1
        except SpillError as error:
            self._give_up(endpoint, error)

    def finish(self) -> None:
        """Wait until everything is handed over."""
        for endpoint, socket in self._sockets.items():
            if endpoint in {self._endpoints[number] for number in self.undelivered}:
                continue
            try:
                hand_over(socket, endpoint, self._patience(endpoint))
            except SpillError as error:
                self._give_up(endpoint, error)
        for socket in self._sockets.values():
            socket.close()
        if self._context is not None:
            self._context.term()

    def counts(self, parts: Iterable[Part]) -> tuple[FrameCount, ...]:
        """What an attempt yielded, and how much of it was sent."""
        return tuple(
            FrameCount(part.partition, self.frames.get(part.partition, 0), part.bytes, part.crc32)
            for part in parts
        )


def deliver(attempt: "Attempt", path: str) -> tuple[FrameCount, ...]:
    """Send what a kept spool holds to the owners on other hosts. Corrupt when it is damaged."""
    spool, delivery = Spool(path), Delivery(attempt)
    for partition in delivery.frames:
        for block in spool.blocks(partition):
            delivery.send(partition, block)
            attempt.output_bytes += len(block)
    delivery.finish()
    attempt.undelivered = tuple(sorted(delivery.undelivered))
    return delivery.counts(spool.parts.values())
