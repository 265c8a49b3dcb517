"""Peers of a coordinator that the tests play."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq
from netns.services import Cluster

from zmqmr.messages import ListWorkers, ToAgent, ToClient, ToOperator, decode, encode
from zmqmr.net.curve import Keys
from zmqmr.net.gate import Refusal
from zmqmr.net.sockets import context, control_client

PATIENCE_MILLISECONDS = 10_000
EVERYTHING = ToClient | ToOperator | ToAgent


@contextmanager
def connected(endpoint: str, keys: Keys | None, identity: bytes = b"") -> Iterator["zmq.Socket[bytes]"]:
    """A peer of the coordinator, whatever keys it has."""
    zmq_context = context()
    socket = control_client(
        zmq_context, endpoint, identity or b"client:" + os.urandom(8).hex().encode(), None, keys
    )
    try:
        yield socket
    finally:
        socket.close()
        zmq_context.term()


def answer(cluster: Cluster, keys: Keys | None, message: Any, identity: bytes = b"") -> Any:
    """What the coordinator answers to one message, or to bytes."""
    with connected(cluster.endpoint, keys, identity) as socket:
        socket.send(message if isinstance(message, bytes) else encode(message))
        assert socket.poll(PATIENCE_MILLISECONDS), cluster.story()
        return decode(socket.recv(), EVERYTHING)


def refused_at_the_gate(endpoint: str, keys: Keys | None) -> str:
    """Why a peer does not even get a connection."""
    with connected(endpoint, keys) as socket:
        refusal = Refusal(socket)
        socket.send(encode(ListWorkers()))
        try:
            for _ in range(PATIENCE_MILLISECONDS // 100):
                assert not socket.poll(100), "it was let in"
                if reason := refusal.seen():
                    return reason
        finally:
            refusal.close()
    raise AssertionError("it was neither let in nor refused")
