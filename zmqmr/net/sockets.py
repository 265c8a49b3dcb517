"""ZeroMQ sockets: every one is born here, with its limits."""

from typing import Any

import zmq

CONTROL_BYTES = 256 * 1024**2  # largest control message: a job of very many inputs
CONTROL_MESSAGES = 10_000  # high-water mark of a control connection
FRAME_SLACK = 1024**2  # a shuffle frame may exceed the settings' size by its last line, and header


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
    socket.connect(endpoint)
    return socket


def worker_identity(worker: str, epoch: int) -> bytes:
    """The identity of a worker's control connection: another one each epoch, and known from the journal."""
    return f"{worker}:{epoch:x}".encode()


def shuffle_server(
    context: "zmq.Context[Any]", endpoint: str, frames: int, frame_bytes: int
) -> "zmq.Socket[bytes]":
    """Where an agent takes frames. Bulk data has a socket of its own, so heartbeats never queue behind it."""
    socket = _bounded(context.socket(zmq.PULL), frames, frame_bytes + FRAME_SLACK)
    socket.bind(endpoint)
    return socket


def shuffle_client(
    context: "zmq.Context[Any]", endpoint: str, frames: int, frame_bytes: int
) -> "zmq.Socket[bytes]":
    """An attempt's connection to an owner. A full connection blocks the sender: backpressure.
    Closing waits until everything is handed over."""
    socket = _bounded(context.socket(zmq.PUSH), frames, frame_bytes + FRAME_SLACK)
    socket.set(zmq.LINGER, -1)
    socket.connect(endpoint)
    return socket
