"""The store's service: a thread with a socket of its own, so that bulk data never delays a heartbeat.

Memory is bounded by what it grants. A blob may come when fewer than `TRANSFERS` others do, each with a few
chunks on their way; and no more than `SENDING` chunks are on their way to all who get.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

import zmq

from zmqmr.coordinator.store import BlobStore
from zmqmr.errors import OutOfDisk, ProtocolError, SpillError, UsageError
from zmqmr.messages import Refused, decode, encode
from zmqmr.net.blobs import USERS, store_server
from zmqmr.net.endpoints import is_tcp
from zmqmr.net.gate import Door, Gate, bound
from zmqmr.net.sockets import waiting
from zmqmr.store_messages import (
    CHUNK_BYTES,
    MAX_WINDOW,
    Absent,
    Ask,
    Chunk,
    Denied,
    Doubt,
    Get,
    Got,
    Holds,
    Offer,
    Put,
    Release,
    Released,
    Taken,
    ToStore,
    Wait,
)

TRANSFERS = 64  # blobs on their way in at a time
RECEIVING = 128  # chunks on their way in, of all of them
SENDING = 128  # chunks on their way out
MESSAGES_A_TURN = 16  # taken before chunks are sent
QUEUED = 1024  # requests of one peer for chunks that are not sent yet
IDLE_SECONDS = 10.0  # a peer that has not said for so long that it took its chunks is gone
SWEEP_SECONDS = 10.0
POLL_MILLISECONDS = 200


class _Reader:
    """A peer that gets blobs: what it asked for, and what is on its way to it."""

    def __init__(self) -> None:
        self.requests: deque[Get] = deque()
        self.sent = 0
        self.received = 0
        self.heard = time.monotonic()

    @property
    def on_their_way(self) -> int:
        return self.sent - self.received

    def took(self, chunks: int) -> None:
        """It says how many chunks have arrived."""
        self.heard = time.monotonic()
        self.received = min(self.sent, max(self.received, chunks))


class StoreServer(threading.Thread):
    """Serves one BlobStore until `stop`. `running` is the ids of the jobs that run now; set it."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        endpoint: str,
        store: BlobStore,
        max_peers: int,
        gate: Gate | None = None,
    ):
        """`gate`: needed at an endpoint that is not private. UsageError when it cannot listen there, or not
        safely."""
        super().__init__(name="store", daemon=True)
        self.running: Collection[str] = ()
        self._store = store
        self._gate = gate if is_tcp(endpoint) else None
        self._socket = store_server(context, endpoint, self._gate)
        self._door = Door(self._socket, max_peers) if is_tcp(endpoint) else None
        self.endpoint = bound(self._socket) if is_tcp(endpoint) else endpoint
        self._stopping = threading.Event()
        self._readers: dict[bytes, _Reader] = {}
        self._doubted: dict[str, Iterator[None]] = {}  # blobs that are being looked at
        self._sweep_at = 0.0
        self._handlers: dict[type, Callable[[bytes, Any], Any]] = {
            Ask: self._ask,
            Offer: self._offer,
            Put: self._put,
            Get: self._get,
            Got: self._got,
            Release: self._release,
            Doubt: self._doubt,
        }

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        if self._door is not None:
            poller.register(self._door.signal, zmq.POLLIN)
        try:
            while not self._stopping.is_set():
                poller.poll(0 if self._doubted else POLL_MILLISECONDS)
                if self._door is not None:
                    self._door.turn()
                self._take()
                self._send_chunks()
                self._look()
                self._sweep()
        finally:
            if self._door is not None:
                self._door.close()
            self._socket.close(linger=0)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        self.join()

    def _take(self) -> None:
        for peer, frame, key in waiting(self._socket, self._gate is not None, MESSAGES_A_TURN):
            self._receive(peer, frame, key)

    def _receive(self, peer: bytes, frame: bytes, key: bytes) -> None:
        if self._gate is not None and not self._gate.keys.authorized.roles(key) & USERS:
            self._send(peer, Refused("this key is not authorized any longer; see authorized_keys there"))
            return
        try:
            message = decode(frame, ToStore)
            answer = self._handlers[type(message)](peer, message)
        except ProtocolError as error:
            answer = Refused(str(error))
        except OSError as error:  # of the drive: whoever asked is told, and the others are served
            print(f"zmqmr coordinator: the store's drive fails: {error}; it goes on", file=sys.stderr)
            answer = Refused(f"its drive fails: {error}")
        if answer is not None:
            self._send(peer, answer)

    def _send(self, peer: bytes, message: Any) -> None:
        try:
            self._socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # it is gone, or does not read: it asks again if it still wants to know
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    # --- requests ----------------------------------------------------------------------------

    def _ask(self, peer: bytes, message: Ask) -> Holds | Refused:
        try:
            return Holds(tuple(b.sha256 for b in message.blobs if self._store.claim(message.job, b)))
        except SpillError as error:
            return Refused(str(error))

    def _offer(self, peer: bytes, message: Offer) -> Taken | Wait | Denied:
        sha256 = message.blob.sha256
        if self._store.coming >= TRANSFERS and not self._store.is_coming(sha256):
            self._store.give_way()
            if self._store.coming >= TRANSFERS:
                return Wait(sha256)
        return self._taken(sha256, lambda: self._store.offer(message.job, message.blob))

    def _put(self, peer: bytes, message: Put) -> Taken | Wait | Denied:
        return self._taken(
            message.sha256,
            lambda: self._store.put(message.job, message.sha256, message.offset, message.data),
        )

    def _taken(self, sha256: str, take: Callable[[], int | None]) -> Taken | Wait | Denied:
        try:
            size = take()
        except (SpillError, UsageError) as error:
            return Denied(sha256, str(error), isinstance(error, OutOfDisk))
        if size is None:
            return Wait(sha256)  # this store has been started anew: offer it again
        window = RECEIVING // max(1, self._store.coming)
        return Taken(sha256, size, max(1, min(MAX_WINDOW, window)))

    def _release(self, peer: bytes, message: Release) -> Released:
        self._store.release(message.job, message.drop)
        return Released(message.job)

    def _doubt(self, peer: bytes, message: Doubt) -> None:
        if message.sha256 not in self._doubted and len(self._doubted) < TRANSFERS:
            self._doubted[message.sha256] = self._store.look(message.sha256)

    def _look(self) -> None:
        """At a part of a blob that somebody doubts: with a large one it takes long, and others wait."""
        for sha256 in list(self._doubted)[:1]:
            try:
                next(self._doubted[sha256])
            except StopIteration:
                del self._doubted[sha256]
            except OSError as error:
                del self._doubted[sha256]
                print(f"zmqmr coordinator: cannot look at {sha256}: {error}", file=sys.stderr)

    def _get(self, peer: bytes, message: Get) -> None:
        reader = self._readers.setdefault(peer, _Reader())
        reader.took(message.received)
        if len(reader.requests) < QUEUED:
            reader.requests.append(message)

    def _got(self, peer: bytes, message: Got) -> None:
        if reader := self._readers.get(peer):
            reader.took(message.received)

    # --- chunks ------------------------------------------------------------------------------

    def _send_chunks(self) -> None:
        """Send what was asked for, peer by peer, as far as it may be on its way."""
        room = SENDING - sum(reader.on_their_way for reader in self._readers.values())
        waiting = [(peer, reader) for peer, reader in self._readers.items() if reader.requests]
        while waiting and room > 0:
            for peer, reader in waiting:
                if room > 0 and reader.on_their_way < MAX_WINDOW:
                    self._send_chunk(peer, reader)
                    room -= 1
            waiting = [
                (peer, reader)
                for peer, reader in waiting
                if reader.requests and reader.on_their_way < MAX_WINDOW
            ]

    def _send_chunk(self, peer: bytes, reader: _Reader) -> None:
        request = reader.requests.popleft()
        try:
            data = self._store.read(request.sha256, request.offset, CHUNK_BYTES)
        except SpillError as error:
            self._send(peer, Refused(str(error)))
            return
        if data is None:
            self._send(peer, Absent(request.sha256))
            return
        reader.sent += 1
        self._send(peer, Chunk(request.sha256, request.offset, data))

    def _sweep(self) -> None:
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_SECONDS
        for peer in [p for p, reader in self._readers.items() if now - reader.heard > IDLE_SECONDS]:
            del self._readers[peer]
        try:
            self._store.sweep(self.running)
        except OSError as error:
            print(f"zmqmr coordinator: the store cannot tidy up: {error}; it goes on", file=sys.stderr)
