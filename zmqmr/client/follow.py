"""One job, from its submission to its end, over a connection to its coordinator, wherever that is."""

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import mrjob

from zmqmr import __version__
from zmqmr.client.endings import Left, log
from zmqmr.client.texts import one_line
from zmqmr.errors import CoordinatorUnreachable, ProtocolError, UsageError
from zmqmr.messages import (
    Attach,
    AttemptReport,
    Cancel,
    FromClient,
    JobEnded,
    JobSpec,
    JobUnknown,
    JobUpdate,
    Notice,
    Refused,
    Submit,
    ToClient,
    decode,
    encode,
)
from zmqmr.net.sockets import CONTROL_BYTES, sent

_ASKED = 20  # times that the coordinator may not know the job
_ASK_SECONDS = 0.1  # until it is asked again for a job that another client submits
_ATTACH_SECONDS = 5.0  # between two words to a coordinator that is not silent: its client lives
_CANCEL_SECONDS = 15.0  # for a cancelled job to end
_ASK_AGAIN_SECONDS = 0.1  # to cancel a job that its coordinator does not know yet
_QUIET_MILLISECONDS = 500  # without a message; then look whether the coordinator lives

OnMessage = Callable[[JobUpdate | AttemptReport], None]


class Follower:
    """Submits a job, or attaches to one that runs, and follows it to its end."""

    def __init__(self, socket: Any, job: str, check: Callable[[], None], on_message: OnMessage):
        """`socket`: a control connection, the caller's to close. `check` is called twice a second while
        the coordinator is silent; it raises CoordinatorUnreachable when it is of no use to wait longer."""
        self.job = job
        self._socket = socket
        self._check = check
        self._on_message = on_message
        self._submit = b""  # sent again to a coordinator that does not know the job
        self._attach_seconds = _ATTACH_SECONDS
        self._attach_at = time.monotonic() + _ATTACH_SECONDS
        self._asked = 0  # coordinators that did not know the job

    def submit(self, spec: JobSpec, lease_seconds: float = 0.0) -> None:
        """Ask the coordinator to run a job, and to kill it when no client is heard for `lease_seconds`,
        unless that is 0. UsageError when no coordinator would take it."""
        self._submit = submission(spec, lease_seconds)
        if lease_seconds:
            self._attach_seconds = min(_ATTACH_SECONDS, lease_seconds / 3)
            self._attach_at = time.monotonic() + self._attach_seconds
        self._send(self._submit)

    def attach(self) -> None:
        """Ask for the news of a job that runs, or its end."""
        self._attach_at = time.monotonic() + self._attach_seconds
        self._send(encode(Attach(self.job)))

    def wait(self, *, cancels: bool = True) -> JobEnded:
        """Pass the job's messages on until it ends.

        If an interrupt `cancels` the job, its end is awaited before KeyboardInterrupt is raised again, and
        an interrupt that comes meanwhile raises Left at once. CoordinatorUnreachable when the coordinator
        refuses the job or, after `attach`, does not know it.
        """
        try:
            while True:
                if ended := self._next():
                    return ended
        except KeyboardInterrupt:
            if not cancels:
                raise
            try:
                log.info("killing the job %s; interrupt again to leave at once", self.job)
                self.cancel()
            except KeyboardInterrupt:
                raise Left(self.job) from None
            raise

    def cancel(self, may_be_new: bool = False) -> JobEnded | None:
        """Kill the job and wait for its end; None when it has not ended after 15 seconds, or is unknown.
        `may_be_new`: its own client may not have submitted it yet."""
        self._send(encode(Cancel(self.job)))
        deadline = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < deadline:
            if self._socket.poll(_QUIET_MILLISECONDS):
                message = self._receive()
                if isinstance(message, JobEnded):
                    return message
                if isinstance(message, JobUnknown):
                    if not may_be_new:
                        return None
                    self._check()
                    time.sleep(_ASK_AGAIN_SECONDS)
                    self._send(encode(Cancel(self.job)))
            else:
                self._check()
                self._send(encode(Cancel(self.job)))  # the first may have been lost
                self.attach()
        return None

    def _next(self) -> JobEnded | None:
        """Take one message; the job's end if that is what it was."""
        if time.monotonic() >= self._attach_at:
            self.attach()
        if not self._socket.poll(_QUIET_MILLISECONDS):
            self._check()
            self.attach()
            return None
        message = self._receive()
        if isinstance(message, JobEnded):
            if message.state == "succeeded":  # the end of the last stage comes with the job's
                self._on_message(JobUpdate(self.job, message.stages, 0, 0))
            return message
        if isinstance(message, Refused):
            raise CoordinatorUnreachable(f"the coordinator refused the job: {message.reason}")
        if isinstance(message, JobUnknown):
            self._ask_again()
        elif isinstance(message, Notice):
            log.warning("%s", one_line(message.text))
        elif isinstance(message, JobUpdate | AttemptReport):
            self._on_message(message)
        return None

    def _ask_again(self) -> None:
        """The coordinator was killed before it read what was submitted, or its journal is behind."""
        self._asked += 1
        if self._asked > _ASKED:
            raise CoordinatorUnreachable(f"the coordinator does not know the job {self.job}")
        if self._submit:
            self._send(self._submit)
        else:
            time.sleep(_ASK_SECONDS)
            self.attach()

    def _send(self, frame: bytes) -> None:
        """Send; what nobody takes is said again while its answer is awaited, unless it is of no use."""
        if not sent(self._socket, frame):
            self._check()

    def _receive(self) -> Any:
        return decode(self._socket.recv(), ToClient)


def client_identity() -> bytes:
    """A new identity for a client's control connection."""
    return b"client:" + os.urandom(8).hex().encode()


def greeting(job: str, *, runs: bool = True) -> Attach:
    """What a client says of itself before it pushes files for a job, or, if it `runs` none, asks for news."""
    return Attach(job, __version__, host=_host(), mrjob=mrjob.__version__ if runs else "")


def _host() -> str:
    return socket.gethostname()[:200]


def submission(spec: JobSpec, lease_seconds: float = 0.0) -> bytes:
    """The message that submits a job, if a coordinator takes it; UsageError otherwise."""
    try:
        submit = Submit(
            spec,
            __version__,
            host=_host(),
            mrjob=mrjob.__version__,
            python=".".join(map(str, sys.version_info[:3])),
            lease_seconds=lease_seconds,
        )
        frame = encode(submit)
        decode(frame, FromClient)
    except (UnicodeEncodeError, ProtocolError) as error:
        raise UsageError(f"the job cannot be submitted: {error}; check its switches and settings") from error
    if len(frame) > CONTROL_BYTES:
        raise UsageError(
            f"the description of the job has {len(frame)} bytes, {CONTROL_BYTES} fit; give fewer inputs"
        )
    return frame
