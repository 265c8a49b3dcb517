"""ZeroMQ sockets: every one is born here, with its limits and its keys.

An ipc socket is private by its directory. A TCP socket has CURVE, unless it is on the loopback interface of
a process without keys.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from zmqmr.errors import SpillError, UsageError
from zmqmr.net.curve import Keys
from zmqmr.net.endpoints import check_safe, is_tcp
from zmqmr.net.gate import FAILED, Gate, Watch
from zmqmr.settings import Settings
from zmqmr.words import counted

CONTROL_BYTES = 256 * 1024**2  # largest control message: a job of very many inputs
CONTROL_MESSAGES = 10_000  # high-water mark of a control connection
RECONNECT_MILLISECONDS = 2  # the first wait of a peer that came before the coordinator; it doubles
RECONNECT_MAX_MILLISECONDS = 100
FRAME_SLACK = 8 * 1024**2  # a shuffle frame may exceed the settings' size by what an attempt buffers

# Of TCP connections.
TCP_RECONNECT_MILLISECONDS = 100
TCP_RECONNECT_MAX_MILLISECONDS = 2000
TCP_CONNECT_MILLISECONDS = 3000  # for a host to answer at all
REFUSED_SEND_MILLISECONDS = 2000  # for a connection that was refused, which libzmq does not try again
HANDSHAKE_MILLISECONDS = 10_000  # for a peer to say who it is
KEEPALIVE_SECONDS = (30, 10, 3)  # idle, between probes; probes
# A shuffle connection may be slow, with seconds of records in front of a heartbeat: whether its peer lives is
# for the coordinator to say. It must only not stay half open for ever.
BULK_HEARTBEAT_SECONDS = 10.0
BULK_TIMEOUT_SECONDS = 60.0
BULK_BUFFER_BYTES = 1024**2  # of the kernel, in each direction: what a slow link has in front of a heartbeat

LOOK_SECONDS = 0.2  # between two looks at whether a wait is of any use

EVERYBODY = frozenset({"client", "worker", "coordinator"})
WORKERS = frozenset({"worker"})


@dataclass(frozen=True)
class Patience:
    """How long an attempt waits for an owner: `seconds`, or until `is_lost` says that it is gone for good."""

    seconds: float
    is_lost: Callable[[], bool]

    def slice(self, deadline: float) -> float:
        """Seconds to wait until the next look; 0 when the wait is over."""
        left = deadline - time.monotonic()
        return 0.0 if left <= 0 or self.is_lost() else min(left, LOOK_SECONDS)

    def over(self, endpoint: str) -> SpillError:
        """Why the wait is over."""
        if self.is_lost():
            return SpillError(f"the owner of a partition, at {endpoint}, was lost")
        return SpillError(
            f"the owner of a partition, at {endpoint}, has not answered for {counted(self.seconds, 'second')}"
        )


PATIENCE = Patience(Settings().answer_seconds, lambda: False)


def context() -> "zmq.Context[zmq.Socket[bytes]]":
    """A ZeroMQ context; one a process, made after the process was forked."""
    return zmq.Context(io_threads=1)


def _bounded(socket: "zmq.Socket[bytes]", messages: int, message_bytes: int) -> "zmq.Socket[bytes]":
    socket.set(zmq.SNDHWM, messages)
    socket.set(zmq.RCVHWM, messages)
    socket.set(zmq.MAXMSGSIZE, message_bytes)
    socket.set(zmq.LINGER, 0)
    return socket


def _over_tcp(socket: "zmq.Socket[bytes]", endpoint: str, interval: float, timeout: float) -> None:
    """Find out when the other host is gone. `interval`, `timeout`: of ZMTP's heartbeats, in seconds."""
    idle, between, probes = KEEPALIVE_SECONDS
    socket.set(zmq.IPV6, "[" in endpoint)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, idle)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, between)
    socket.set(zmq.TCP_KEEPALIVE_CNT, probes)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS)
    socket.set(zmq.HEARTBEAT_IVL, max(1, int(interval * 1000)))
    socket.set(zmq.HEARTBEAT_TIMEOUT, max(1, int(timeout * 1000)))
    socket.set(zmq.HEARTBEAT_TTL, min(6_000_000, max(100, int(timeout * 1000))))
    socket.set(zmq.TCP_MAXRT, max(1, int(2 * timeout * 1000)))
    socket.set(zmq.CONNECT_TIMEOUT, TCP_CONNECT_MILLISECONDS)


def _control_over_tcp(socket: "zmq.Socket[bytes]", endpoint: str, settings: Settings) -> None:
    _over_tcp(socket, endpoint, settings.heartbeat_seconds, settings.worker_timeout_seconds)


def _bulk_over_tcp(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    _over_tcp(socket, endpoint, BULK_HEARTBEAT_SECONDS, BULK_TIMEOUT_SECONDS)
    socket.set(zmq.SNDBUF, BULK_BUFFER_BYTES)
    socket.set(zmq.RCVBUF, BULK_BUFFER_BYTES)


def _listen(
    socket: "zmq.Socket[bytes]", endpoint: str, gate: Gate | None, name: str, roles: frozenset[str]
) -> "zmq.Socket[bytes]":
    """Guard and bind a socket, and prove that it is guarded."""
    try:
        check_safe(endpoint, gate is not None)
        guarded = gate if is_tcp(endpoint) else None
        if guarded is not None:
            guarded.guard(socket, name, roles)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise UsageError(
                f"cannot listen at {endpoint}: {error.strerror}; give an address of this host and a port that"
                " is free (is another coordinator or worker running here?)"
            ) from error
        if guarded is not None:
            guarded.check(socket)
    except BaseException:
        socket.close()
        raise
    return socket


def _reconnecting(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    if is_tcp(endpoint):
        socket.set(zmq.RECONNECT_IVL, TCP_RECONNECT_MILLISECONDS)
        socket.set(zmq.RECONNECT_IVL_MAX, TCP_RECONNECT_MAX_MILLISECONDS)
    else:
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MILLISECONDS)
        socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MILLISECONDS)


def _identify(socket: "zmq.Socket[bytes]", keys: Keys, server: bytes) -> None:
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    socket.curve_serverkey = server


def control_server(
    context: "zmq.Context[Any]", endpoint: str, settings: Settings | None = None, gate: Gate | None = None
) -> "zmq.Socket[bytes]":
    """The coordinator's socket. Sending to a peer that is gone raises EHOSTUNREACH, to one that
    does not read EAGAIN, instead of losing the message. UsageError when it cannot listen, or not safely."""
    socket = _bounded(context.socket(zmq.ROUTER), CONTROL_MESSAGES, CONTROL_BYTES)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    if is_tcp(endpoint):
        _control_over_tcp(socket, endpoint, settings or Settings())
    return _listen(socket, endpoint, gate, "control", EVERYBODY)


def sent(socket: "zmq.Socket[bytes]", frame: bytes) -> bool:
    """Send on a `control_client`; whether there was anybody to take it."""
    try:
        socket.send(frame)
    except zmq.Again:
        return False
    return True


def control_client(
    context: "zmq.Context[Any]",
    endpoint: str,
    identity: bytes,
    settings: Settings | None = None,
    keys: Keys | None = None,
) -> "zmq.Socket[bytes]":
    """An agent's or client's connection to the coordinator. `identity` is never used twice: two
    peers of one identity lose each other's messages silently.

    A coordinator that refuses the key ends the connection for good, and nothing is `sent` any more: ask a
    `Refusal`. Without an answer for long, whoever sends must assume that nobody is there."""
    check_safe(endpoint, keys is not None)
    socket = _bounded(context.socket(zmq.DEALER), CONTROL_MESSAGES, CONTROL_BYTES)
    socket.set(zmq.IDENTITY, identity)
    _reconnecting(socket, endpoint)
    if is_tcp(endpoint):
        _control_over_tcp(socket, endpoint, settings or Settings())
        socket.set(zmq.SNDTIMEO, REFUSED_SEND_MILLISECONDS)
    if keys is not None:  # at an ipc endpoint too: it may be the near end of a tunnel
        _identify(socket, keys, keys.of("coordinator"))
    socket.connect(endpoint)
    return socket


def worker_identity(worker: str, epoch: int) -> bytes:
    """The identity of a worker's control connection: another one each epoch, and known from the journal."""
    return f"{worker}:{epoch:x}".encode()


def shuffle_server(
    context: "zmq.Context[Any]", endpoint: str, frames: int, payload_bytes: int, gate: Gate | None = None
) -> "zmq.Socket[bytes]":
    """Where an agent takes frames. Bulk data has a socket of its own, so heartbeats never queue behind it."""
    socket = _bounded(context.socket(zmq.ROUTER), frames, payload_bytes + FRAME_SLACK)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    if is_tcp(endpoint):
        _bulk_over_tcp(socket, endpoint)
    return _listen(socket, endpoint, gate, "shuffle", WORKERS)


def shuffle_client(
    context: "zmq.Context[Any]",
    endpoint: str,
    frames: int,
    payload_bytes: int,
    keys: Keys | None = None,
    patience: Patience = PATIENCE,
) -> "zmq.Socket[bytes]":
    """An attempt's connection to an owner. Send with `send_frame`, and call `hand_over` before it is closed:
    libzmq drops what a receiver that is at its high-water mark has not read when the sender goes, whatever
    the sender's linger. SpillError when the owner does not answer."""
    check_safe(endpoint, keys is not None)
    deadline = time.monotonic() + patience.seconds
    for key in itertools.cycle(keys.candidates("worker") if keys is not None and is_tcp(endpoint) else [b""]):
        socket = _bounded(context.socket(zmq.DEALER), frames, payload_bytes + FRAME_SLACK)
        socket.set(zmq.SNDTIMEO, max(1, int(patience.seconds * 1000)))
        _reconnecting(socket, endpoint)
        if is_tcp(endpoint):
            _bulk_over_tcp(socket, endpoint)
        if keys is not None and key:
            _identify(socket, keys, key)
        try:
            if _greeted(socket, endpoint, patience, deadline, watched=bool(key)):
                return socket
        except BaseException:
            socket.close()
            raise
        socket.close()
        time.sleep(TCP_RECONNECT_MILLISECONDS / 1000)
    raise AssertionError("a cycle of one or more does not end")


def _greeted(
    socket: "zmq.Socket[bytes]", endpoint: str, patience: Patience, deadline: float, watched: bool
) -> bool:
    """Connect, and have the owner answer: it is connected then, whatever the job does to its descriptors
    later. False when the owner has another key. SpillError when it refuses ours, or does not answer."""
    watch = Watch(socket, FAILED) if watched else None
    try:
        socket.connect(endpoint)
        socket.send(b"")
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        if watch is not None:
            poller.register(watch.socket, zmq.POLLIN)
        ready: dict[Any, int] = {}
        while not ready and (seconds := patience.slice(deadline)):
            ready = dict(poller.poll(int(seconds * 1000) + 1))
        if socket in ready:
            socket.recv()
            return True
        if not ready:
            raise patience.over(endpoint)
        if watch is not None and watch.next() == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise SpillError(f"the owner of a partition, at {endpoint}, refuses this worker's key")
        return False
    finally:
        if watch is not None:
            watch.close()


def send_frame(
    socket: "zmq.Socket[bytes]", frame: Sequence[bytes], endpoint: str, patience: Patience = PATIENCE
) -> None:
    """Send a frame when the owner has room for it: backpressure. SpillError when it has none for too long."""
    deadline = 0.0
    while True:
        try:
            socket.send_multipart(frame, zmq.NOBLOCK, copy=False)
            return
        except zmq.Again:
            deadline = deadline or time.monotonic() + patience.seconds
        seconds = patience.slice(deadline)
        if not seconds:
            raise patience.over(endpoint)
        socket.poll(int(seconds * 1000) + 1, zmq.POLLOUT)


def hand_over(socket: "zmq.Socket[bytes]", endpoint: str, patience: Patience = PATIENCE) -> None:
    """Wait until the owner has taken every frame. SpillError when it does not answer."""
    send_frame(socket, [b""], endpoint, patience)
    deadline = time.monotonic() + patience.seconds
    while seconds := patience.slice(deadline):
        if socket.poll(int(seconds * 1000) + 1):
            socket.recv()
            return
    raise patience.over(endpoint)


def acknowledge(socket: "zmq.Socket[bytes]", peer: bytes) -> None:
    """Tell a sender that all it sent so far has been taken."""
    try:
        socket.send_multipart([peer, b""], zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):  # it was killed meanwhile
            raise


def receive(socket: "zmq.Socket[bytes]", guarded: bool) -> tuple[list[bytes], bytes]:
    """The parts of the next message and the public key of who sent it, b"" on a socket that is not guarded.
    zmq.Again when there is none."""
    if not guarded:
        return socket.recv_multipart(zmq.NOBLOCK), b""
    parts = socket.recv_multipart(zmq.NOBLOCK, copy=False)
    return [part.bytes for part in parts], str(parts[-1].get("User-Id")).encode()


def waiting(socket: "zmq.Socket[bytes]", guarded: bool, most: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Peer, frame and public key of messages that have come, at most so many; what is not one frame is left
    out."""
    for _ in range(most):
        try:
            parts, key = receive(socket, guarded)
        except zmq.Again:
            return
        if len(parts) == 2:
            yield parts[0], parts[1], key
