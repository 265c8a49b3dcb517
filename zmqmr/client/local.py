"""A cluster on this machine, for one client: coordinator and agent are its children.

They hold the reading end of a pipe from the client. However the client ends, the pipe closes, and they
clean up and end. They are forked, which takes milliseconds, while this process has one thread; a process
with more threads may hold locks that a fork would keep locked for ever, so there they are executed.
"""

import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import zmq

from zmqmr import __version__
from zmqmr.client.endings import uninterrupted
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
    Refused,
    Submit,
    ToClient,
    decode,
    encode,
)
from zmqmr.net.sockets import CONTROL_BYTES
from zmqmr.settings import Settings
from zmqmr.worker.spawn import ended, python_running

log = logging.getLogger("mrjob.zeromq")

_GOODBYE = b"bye"  # down the pipe by a client that cleans up itself: one that was killed says nothing

_SOCKET_PATH_BYTES = 75  # of a directory: with a longer one, a socket's path exceeds what Unix allows, 107
_SUBMITS = 20  # of one job, to coordinators that were killed before they had it
_CANCEL_SECONDS = 15.0  # for a cancelled job to end
_QUIET_MILLISECONDS = 500  # without a message; then look whether the children live
_RESTARTS = 5  # of a child, for one client
_END_SECONDS = 10.0  # children that have not ended by then are killed


class LocalCluster:
    """Coordinator and agent as children of this process; gone when the block is left."""

    def __init__(self, settings: Settings, slots: int, directory: str):
        """`slots`: attempts at a time. `directory`: where the session's own directory, with all
        intermediate data, is made."""
        self.settings = settings
        self.slots = slots
        self.status_url = ""
        self._parent_directory = directory
        self._children: dict[int, str] = {}  # pid -> what it is
        self._restarts: dict[str, int] = {}
        self._lives = 0  # of agents
        self._joined = False  # the agent that there is has been a worker
        self._alone_since: float | None = None  # when the coordinator gave it up
        self._lifeline = self._lifeline_end = -1  # the pipe that children watch, and its other end

    def __enter__(self) -> "LocalCluster":
        self._sockets = tempfile.mkdtemp(prefix="zmqmr-", dir=_short_directory())
        self._data = tempfile.mkdtemp(prefix="zmqmr-data-", dir=self._parent_directory)
        self._endpoint = f"ipc://{self._sockets}/coordinator"
        self._lifeline, self._lifeline_end = os.pipe()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        status, status_end = os.pipe()
        launch = self._fork if _has_one_thread() else self._execute
        launch("coordinator", {"status_line": status_end}, [self._lifeline_end, status])
        launch("agent", {}, [self._lifeline_end, status, status_end])
        os.close(status_end)
        with os.fdopen(status, "rb") as file:
            self.status_url = file.read(1000).decode()

    def _arguments(self, what: str) -> dict[str, Any]:
        """What a child's main function is called with."""
        common = {"settings": self.settings, "lifeline": self._lifeline}
        if what == "coordinator":
            journal = os.path.join(self._data, "journal")
            return {**common, "endpoint": self._endpoint, "journal": journal, "status_line": None}
        self._lives += 1
        return {
            **common,
            "name": "local",
            "coordinator": self._endpoint,
            "shuffle": f"ipc://{self._sockets}/shuffle-{self._lives}",
            "directory": os.path.join(self._data, f"agent-{self._lives}"),
            "slots": self.slots,
            "leftovers": [self._sockets, self._parent_directory],
        }

    def _fork(self, what: str, more: dict[str, Any], close: list[int]) -> None:
        from zmqmr.client.children import MAINS
        from zmqmr.worker.spawn import fork

        arguments = self._arguments(what) | more
        self._children[fork(lambda: MAINS[what](arguments), close, outlives=True)] = what

    def _execute(self, what: str, more: dict[str, Any], close: list[int]) -> None:
        from zmqmr.client.children import to_argument

        arguments = self._arguments(what) | more
        inherited = [arguments[key] for key in ("lifeline", "status_line") if arguments.get(key) is not None]
        process = subprocess.Popen(
            [*python_running("zmqmr.client.children"), what, to_argument(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=inherited,
        )
        process.returncode = 0  # reaped here, not by subprocess
        self._children[process.pid] = what

    # --- one job -----------------------------------------------------------------------------

    def run(self, spec: JobSpec, on_message: Callable[[JobUpdate | AttemptReport], None]) -> JobEnded:
        """Submit a job and wait for its end. KeyboardInterrupt kills the job first.

        A coordinator or agent that ends is started again: the journal and the other workers carry the job
        on. CoordinatorUnreachable when that happens too often.
        """
        from zmqmr.net.sockets import context, control_client

        zmq_context = context()
        socket = control_client(zmq_context, self._endpoint, b"client:" + os.urandom(8).hex().encode())
        try:
            submit = checked(Submit(spec, __version__))
            socket.send(submit)
            try:
                return self._follow(socket, spec.job, submit, on_message)
            except KeyboardInterrupt:
                socket.send(encode(Cancel(spec.job)))
                self._await_end(socket)
                raise
        finally:
            socket.close()
            zmq_context.term()

    def _follow(
        self,
        socket: Any,
        job: str,
        submit: bytes,
        on_message: Callable[[JobUpdate | AttemptReport], None],
    ) -> JobEnded:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        submits = 1
        while True:
            if not poller.poll(_QUIET_MILLISECONDS):
                self._check_children()
                socket.send(encode(Attach(job)))
                continue
            message = decode(socket.recv(), ToClient)
            if isinstance(message, JobEnded):
                return message
            if isinstance(message, Refused):
                raise CoordinatorUnreachable(f"the coordinator refused the job: {message.reason}")
            if isinstance(message, JobUnknown):  # it was killed before it read the first
                submits += 1
                if submits > _SUBMITS:
                    raise CoordinatorUnreachable(f"{_SUBMITS} coordinators did not take the job")
                socket.send(submit)
            else:
                if isinstance(message, JobUpdate):
                    self._watch_agent(message.workers)
                on_message(message)

    def _watch_agent(self, workers: int) -> None:
        """End an agent that was given up and neither goes on nor ends: it hangs. Another takes its place."""
        now = time.monotonic()
        if workers:
            self._joined, self._alone_since = True, None
        elif self._joined and self._alone_since is None:
            self._alone_since = now
        elif self._alone_since is not None and now - self._alone_since > self.settings.worker_timeout_seconds:
            log.warning("the agent process does not answer and is ended")
            for pid in [pid for pid, what in self._children.items() if what == "agent"]:
                os.kill(pid, signal.SIGKILL)
            self._joined, self._alone_since = False, None

    def _await_end(self, socket: Any) -> None:
        """Give a cancelled job time to end; what is left after that is killed with the children."""
        deadline = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < deadline:
            if socket.poll(_QUIET_MILLISECONDS):
                if isinstance(decode(socket.recv(), ToClient), JobEnded | JobUnknown):
                    return
            else:
                self._check_children()

    def _check_children(self) -> None:
        """Start a child that has ended again; CoordinatorUnreachable when it ends too often."""
        for pid, what in list(self._children.items()):
            status = ended(pid)
            if status is None:
                continue
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._restarts[what] = self._restarts.get(what, 0) + 1
            if self._restarts[what] > _RESTARTS:
                times = self._restarts[what]
                raise CoordinatorUnreachable(
                    f"the {what} process ended {times} times, last with {how}; run the job again"
                )
            log.warning("the %s process ended (%s) and is started again", what, how)
            self._execute(what, {}, [])

    def __exit__(self, *_: object) -> None:
        """Close the pipe, wait for the children, remove what is left. Another interrupt waits for that."""
        uninterrupted(self._end)

    def _end(self) -> None:
        if self._lifeline >= 0:
            os.write(self._lifeline_end, _GOODBYE)
            os.close(self._lifeline)
            os.close(self._lifeline_end)
            self._lifeline = -1
        deadline = time.monotonic() + _END_SECONDS
        while self._children:
            for pid in list(self._children):
                if ended(pid) is not None:
                    del self._children[pid]
            if self._children and time.monotonic() > deadline:
                for pid in self._children:
                    os.kill(pid, signal.SIGKILL)
                deadline = float("inf")
            if self._children:
                time.sleep(0.002)
        for directory in (self._data, self._sockets):
            shutil.rmtree(directory, ignore_errors=True)


def checked(submit: Submit) -> bytes:
    """The message as bytes, if a coordinator takes it; UsageError otherwise."""
    try:
        frame = encode(submit)
        decode(frame, FromClient)
    except (UnicodeEncodeError, ProtocolError) as error:
        raise UsageError(f"the job cannot be submitted: {error}; check its switches and settings") from error
    if len(frame) > CONTROL_BYTES:
        raise UsageError(
            f"the description of the job has {len(frame)} bytes, {CONTROL_BYTES} fit; give fewer inputs"
        )
    return frame


def _short_directory() -> str:
    """A directory whose path leaves room for the name of a socket."""
    for directory in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(os.path.abspath(directory).encode()) <= _SOCKET_PATH_BYTES and os.access(directory, os.W_OK):
            return directory
    raise UsageError(
        f"TMPDIR is longer than {_SOCKET_PATH_BYTES} bytes and /tmp cannot be written; set TMPDIR"
    )


def _has_one_thread() -> bool:
    return len(os.listdir("/proc/self/task")) == 1
