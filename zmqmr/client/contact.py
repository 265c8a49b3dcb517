"""Reaching the coordinator of a job that another client of this machine runs."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from zmqmr.client.follow import Follower, OnMessage, client_identity
from zmqmr.client.records import Record, Records, living, settled
from zmqmr.errors import CoordinatorUnreachable
from zmqmr.messages import Attach, JobEnded, JobUpdate, ToClient, decode, encode

_POLL_SECONDS = 0.05
_LOOK_MILLISECONDS = 1000  # for a coordinator to say how far a job is


class Gone(CoordinatorUnreachable):
    """The job's coordinator is of no use any more: the job is over, one way or another."""


@contextlib.contextmanager
def connection(record: Record) -> Iterator[Any]:
    """A control connection to the coordinator of a job."""
    from zmqmr.net.sockets import context, control_client

    zmq_context = context()
    socket = control_client(zmq_context, record.endpoint, client_identity())
    try:
        yield socket
    finally:
        socket.close()
        zmq_context.term()


def progress(record: Record) -> JobUpdate | None:
    """How far a running job is, if its coordinator answers within a second."""
    with connection(record) as socket:
        socket.send(encode(Attach(record.job)))
        if socket.poll(_LOOK_MILLISECONDS):
            message = decode(socket.recv(), ToClient)
            return message if isinstance(message, JobUpdate) else None
    return None


def follow(record: Record, records: Records, on_message: OnMessage) -> None:
    """Pass a running job's messages on until it has ended; an interrupt ends only this."""
    with connection(record) as socket, contextlib.suppress(Gone):
        follower = Follower(socket, record.job, lambda: check(record, records), on_message)
        follower.attach()
        follower.wait(cancels=False)


def cancel(record: Record, records: Records) -> JobEnded | None:
    """Kill a running job; None when its coordinator does not say that it ended."""
    with connection(record) as socket, contextlib.suppress(Gone):
        return Follower(socket, record.job, lambda: check(record, records), lambda message: None).cancel(
            may_be_new=True
        )
    return None


def check(record: Record, records: Records) -> None:
    """Raise Gone when the job is over."""
    now = records.read(record.job)
    if now is None or settled(now).state != "running":
        raise Gone(f"the job {record.job} is over")


def await_end(record: Record, records: Records, seconds: float) -> Record:
    """The record once its job is over and its client has ended, or after so many seconds as it is then."""
    deadline = time.monotonic() + seconds
    while True:
        now = settled(records.read(record.job) or record)
        if (now.state != "running" and not living(now)) or time.monotonic() > deadline:
            return now
        time.sleep(_POLL_SECONDS)
