"""Blobs over the wire: the store's socket, and the conversation of a peer that puts and gets.

Nothing is sent that was not asked for, so neither side's memory grows with a blob. A request without an
answer is sent again on a new connection; the store says how far the blob is.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import zmq

from zmqmr.errors import CoordinatorUnreachable, Corrupt, OutOfDisk, ProtocolError, SpillError
from zmqmr.messages import Refused, decode, encode
from zmqmr.net.curve import Keys
from zmqmr.net.endpoints import check_safe, is_tcp
from zmqmr.net.gate import Gate
from zmqmr.net.sockets import _bounded, _bulk_over_tcp, _identify, _listen, _reconnecting
from zmqmr.store_messages import (
    ASK_BLOBS,
    CHUNK_BYTES,
    MAX_WINDOW,
    Absent,
    Ask,
    Blob,
    Chunk,
    Denied,
    Doubt,
    FromStore,
    Get,
    Got,
    Holds,
    Offer,
    Put,
    Release,
    Released,
    Taken,
    Wait,
)
from zmqmr.words import counted

Item = TypeVar("Item")

MESSAGES = 2 * MAX_WINDOW  # high-water mark of a store connection
MESSAGE_BYTES = CHUNK_BYTES + 256 * 1024
SILENT_SECONDS = 5.0  # without an answer; then the request is sent again
WAIT_SECONDS = 0.2  # before a blob is offered again
TURN_MILLISECONDS = 100  # between two looks whether to give up
_LAST_WORD_MILLISECONDS = 200  # for what was sent before the connection is closed
USERS = frozenset({"client", "worker"})  # the roles whose keys the store lets in
ATTEMPTS = 3  # to put a blob that arrives damaged


class BlobLost(Corrupt):
    """The store does not hold a blob."""


class Stopped(Exception):
    """The transfer was told to stop."""


def store_server(context: "zmq.Context[Any]", endpoint: str, gate: Gate | None = None) -> "zmq.Socket[bytes]":
    """The store's socket, for clients and workers. UsageError when it cannot listen, or not safely."""
    socket = _bounded(context.socket(zmq.ROUTER), MESSAGES, MESSAGE_BYTES)
    if is_tcp(endpoint):
        _bulk_over_tcp(socket, endpoint)
    return _listen(socket, endpoint, gate, "store", USERS)


def store_client(context: "zmq.Context[Any]", endpoint: str, keys: Keys | None = None) -> "zmq.Socket[bytes]":
    """A connection to the store."""
    check_safe(endpoint, keys is not None)
    socket = _bounded(context.socket(zmq.DEALER), MESSAGES, MESSAGE_BYTES)
    _reconnecting(socket, endpoint)
    if is_tcp(endpoint):
        _bulk_over_tcp(socket, endpoint)
    if keys is not None:
        _identify(socket, keys, keys.of("coordinator"))
    socket.connect(endpoint)
    return socket


class StoreClient:
    """Puts and gets blobs, one at a time; for one thread. `close` it.

    Every method raises CoordinatorUnreachable when the store does not answer for `patience_seconds`,
    SpillError when it cannot do what is asked, and whatever `check` raises, which is called several times a
    second.
    """

    def __init__(
        self,
        connect: Callable[[], "zmq.Socket[bytes]"],
        job: str,
        patience_seconds: float,
        check: Callable[[], None] = lambda: None,
    ):
        """`connect` makes a connection to the store."""
        self._connect = connect
        self._job = job
        self._patience_seconds = patience_seconds
        self._check = check
        self._socket = connect()
        self._received = 0  # chunks on this connection
        self._answered = time.monotonic()
        self.moved = 0  # bytes, of all blobs

    def close(self) -> None:
        self._socket.close(linger=_LAST_WORD_MILLISECONDS)

    # --- questions ---------------------------------------------------------------------------

    def missing(self, blobs: Iterable[Blob]) -> list[Blob]:
        """Those that the store does not hold; those that it holds are kept for the job from now on."""
        unique = {blob.sha256: blob for blob in blobs}
        return [blob for some in _batches(unique.values(), ASK_BLOBS) for blob in self._missing(some)]

    def _missing(self, blobs: tuple[Blob, ...]) -> list[Blob]:
        question = Ask(self._job, blobs)
        self._send(question)
        while True:
            answer = self._next(lambda: self._send(question))
            if isinstance(answer, Holds):
                held = set(answer.blobs)
                return [blob for blob in blobs if blob.sha256 not in held]

    def release(self, drop: Iterable[str] = ()) -> None:
        """Tell the store that the job's blobs are not needed any longer; those of `drop` go at once."""
        for some in _batches(drop, ASK_BLOBS) or [()]:
            message = Release(self._job, some)
            self._send(message)
            while not isinstance(self._next(partial(self._send, message)), Released):
                pass

    # --- put ---------------------------------------------------------------------------------

    def put(self, blob: Blob, read: Callable[[int, int], bytes]) -> None:
        """Have the store hold a blob. `read(offset, length)` gives bytes of it."""
        for _ in range(ATTEMPTS - 1):
            denied = self._put(blob, read)
            if denied is None:
                return
        denied = self._put(blob, read)
        if denied is not None:
            raise (OutOfDisk if denied.full else SpillError)(denied.reason)

    def _put(self, blob: Blob, read: Callable[[int, int], bytes]) -> Denied | None:
        """One try; why the store does not take it, or None when it has it all."""
        offer = Offer(self._job, blob)
        taken = sent = window = 0
        again = True  # offer it, and go on where the store is
        while True:
            if again:
                self._send(offer)
                again, window = False, 0
            while window and sent < blob.size and sent - taken < window * CHUNK_BYTES:
                data = read(sent, min(CHUNK_BYTES, blob.size - sent))
                if not data:
                    return Denied(blob.sha256, "it has become shorter while it was sent")
                self._send(Put(self._job, blob.sha256, sent, data))
                sent += len(data)
            answer = self._next(None)
            if answer is None:
                again = True
            elif isinstance(answer, Taken | Wait | Denied) and answer.sha256 == blob.sha256:
                if isinstance(answer, Denied):
                    return answer
                if isinstance(answer, Wait):
                    self._pause()
                    again = True
                    continue
                if answer.bytes >= blob.size:
                    self.moved += answer.bytes - taken
                    return None
                if not window or answer.bytes < taken:  # the first word, or it has begun anew
                    sent = answer.bytes
                self.moved += max(0, answer.bytes - taken) if window else 0
                taken, window = answer.bytes, answer.window
                sent = max(sent, taken)  # somebody else puts the same

    def _pause(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            self._check()
            time.sleep(WAIT_SECONDS / 4)

    # --- get ---------------------------------------------------------------------------------

    def get(self, blob: Blob) -> Iterator[bytes]:
        """The bytes of a blob, in chunks; the caller checks the digest. BlobLost, Corrupt when it is gone."""
        offset = asked = 0
        waiting: dict[int, bytes] = {}  # chunks that came before their turn
        while offset < blob.size:
            while asked < blob.size and asked - offset < MAX_WINDOW * CHUNK_BYTES:
                self._send(Get(blob.sha256, asked, self._received))
                asked += CHUNK_BYTES
            answer = self._next(None)
            if answer is None:
                asked, waiting = offset, {}
            elif isinstance(answer, Absent) and answer.sha256 == blob.sha256:
                raise BlobLost(f"the coordinator's store has lost the blob {blob.sha256}; run the job again")
            elif isinstance(answer, Chunk):
                self._received += 1
                if asked >= blob.size:  # else the next request says it
                    self._send(Got(self._received))
                if answer.sha256 == blob.sha256 and answer.offset >= offset:
                    waiting[answer.offset] = answer.data
                while (data := waiting.pop(offset, None)) is not None:
                    if len(data) != min(CHUNK_BYTES, blob.size - offset):
                        self.doubt(blob)
                        raise Corrupt(
                            f"the coordinator's store holds less of {blob.sha256} than it took;"
                            " run the job again"
                        )
                    offset += len(data)
                    self.moved += len(data)
                    yield data
                    self._answered = time.monotonic()  # whoever takes the bytes may take long

    def doubt(self, blob: Blob) -> None:
        """What `get` gave has another digest: have the store look at the blob, and drop it if it is damaged,
        so that it can be put again."""
        self._send(Doubt(blob.sha256))

    # --- the connection ----------------------------------------------------------------------

    def _send(self, message: Any) -> None:
        try:
            self._socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            pass  # not connected, and its queue full: it is sent again when no answer comes

    def _next(self, again: Callable[[], None] | None) -> Any:
        """The next answer. After a silence: on a new connection, `again` is called, or None is returned."""
        silent = time.monotonic() + SILENT_SECONDS
        while True:
            self._check()
            if self._socket.poll(TURN_MILLISECONDS):
                try:
                    answer = decode(self._socket.recv(), FromStore)
                except ProtocolError:
                    continue
                self._answered = time.monotonic()
                if isinstance(answer, Refused):
                    raise SpillError(f"the coordinator's store refuses us: {answer.reason}")
                return answer
            now = time.monotonic()
            if now - self._answered > self._patience_seconds:
                patience = counted(self._patience_seconds, "second")
                raise CoordinatorUnreachable(f"the coordinator's store has not answered for {patience}")
            if now > silent:
                self.close()
                self._socket = self._connect()
                self._received = 0
                if again is None:
                    return None
                again()
                silent = now + SILENT_SECONDS


def _batches(items: Iterable[Item], size: int) -> list[tuple[Item, ...]]:
    everything = tuple(items)
    return [everything[at : at + size] for at in range(0, len(everything), size)]
