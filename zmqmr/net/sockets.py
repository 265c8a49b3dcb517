"""ZeroMQ sockets: every one is born here, with its limits."""

from typing import Any

import zmq

from zmqmr.errors import SpillError

CONTROL_BYTES = 256 * 1024**2  # largest control message: a job of very many inputs
CONTROL_MESSAGES = 10_000  # high-water mark of a control connection
ANSWER_MILLISECONDS = 120_000  # for an owner to take what was sent, with its drives as slow as they may be
RECONNECT_MILLISECONDS = 2  # the first wait of a peer that came before the coordinator; it doubles
RECONNECT_MAX_MILLISECONDS = 100
FRAME_SLACK = 8 * 1024**2  # a shuffle frame may exceed the settings' size by what an attempt buffers


def context() -> "zmq.Context[zmq.Socket[bytes]]":
    """A ZeroMQ context; one a process, made after the process was forked."""
    return zmq.Context(io_threads=1)


def _bounded(socket: "zmq.Socket[bytes]", messages: int, message_bytes: int) -> "zmq.Socket[bytes]":
    socket.set(zmq.SNDHWM, messages)
    socket.set(zmq.RCVHWM, messages)
    socket.set(zmq.MAXMSGSIZE, message_bytes)
    socket.set(zmq.LINGER, 0)
    return socket


def control_server(context: "zmq.Context[Any]", endpoint: str) -> "zmq.Socket[bytes]":
    """The coordinator's socket. Sending to a peer that is gone raises EHOSTUNREACH, to one that
    does not read EAGAIN, instead of losing the message."""
    socket = _bounded(context.socket(zmq.ROUTER), CONTROL_MESSAGES, CONTROL_BYTES)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.bind(endpoint)
    return socket


def control_client(context: "zmq.Context[Any]", endpoint: str, identity: bytes) -> "zmq.Socket[bytes]":
    """An agent's or client's connection to the coordinator. `identity` is never used twice: two
    peers of one identity lose each other's messages silently."""
    socket = _bounded(context.socket(zmq.DEALER), CONTROL_MESSAGES, CONTROL_BYTES)
    socket.set(zmq.IDENTITY, identity)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MILLISECONDS)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MILLISECONDS)
    socket.connect(endpoint)
    return socket


def worker_identity(worker: str, epoch: int) -> bytes:
    """The identity of a worker's control connection: another one each epoch, and known from the journal."""
    return f"{worker}:{epoch:x}".encode()


def shuffle_server(
    context: "zmq.Context[Any]", endpoint: str, frames: int, payload_bytes: int
) -> "zmq.Socket[bytes]":
    """Where an agent takes frames. Bulk data has a socket of its own, so heartbeats never queue behind it."""
    socket = _bounded(context.socket(zmq.ROUTER), frames, payload_bytes + FRAME_SLACK)
    socket.bind(endpoint)
    return socket


def shuffle_client(
    context: "zmq.Context[Any]", endpoint: str, frames: int, payload_bytes: int
) -> "zmq.Socket[bytes]":
    """An attempt's connection to an owner. A full connection blocks the sender: backpressure.

    Call `hand_over` before it is closed: libzmq drops what a receiver that is at its high-water mark has
    not read when the sender goes, whatever the sender's linger."""
    socket = _bounded(context.socket(zmq.DEALER), frames, payload_bytes + FRAME_SLACK)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MILLISECONDS)
    socket.connect(endpoint)
    hand_over(socket)  # it is connected now, whatever the job does to its descriptors later
    return socket


def hand_over(socket: "zmq.Socket[bytes]") -> None:
    """Wait until the receiver has taken every frame. SpillError when it does not answer."""
    socket.send(b"")
    if not socket.poll(ANSWER_MILLISECONDS):
        raise SpillError(
            f"the owner of a partition has not answered for {ANSWER_MILLISECONDS // 1000} seconds"
        )
    socket.recv()


def acknowledge(socket: "zmq.Socket[bytes]", peer: bytes) -> None:
    """Tell a sender that all it sent so far has been taken."""
    try:
        socket.send_multipart([peer, b""], zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):  # it was killed meanwhile
            raise
