"""A cluster on this machine, for one client: coordinator and agent are its children.

They hold the reading end of a pipe from the client. However the client ends, the pipe closes, and they
clean up and end. They are forked, which takes milliseconds, while this process has one thread; a process
with more threads may hold locks that a fork would keep locked for ever, so there they are executed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

from zmqmr.client.endings import Left, log, uninterrupted
from zmqmr.client.progress import LOCAL_WORKER
from zmqmr.data import places
from zmqmr.errors import CoordinatorUnreachable, UsageError
from zmqmr.messages import AttemptReport, JobEnded, JobSpec, JobUpdate
from zmqmr.settings import Settings
from zmqmr.worker.spawn import ended, python_running

_GOODBYE = b"bye"  # down the pipe by a client that cleans up itself: one that was killed says nothing

Started = Callable[[str, dict[str, int]], None]

_SOCKET_PATH_BYTES = 75  # of a directory: with a longer one, a socket's path exceeds what Unix allows, 107
_RESTARTS = 5  # of a child, for one client
_END_SECONDS = 10.0  # children that have not ended by then are killed


class LocalCluster:
    """Coordinator and agent as children of this process; gone when the block is left."""

    def __init__(self, settings: Settings, slots: int, data: str, started: Started | None = None):
        """`slots`: attempts at a time. `data`: the job's directory, made by `places.make`. `started` is told
        the coordinator's endpoint and the processes, by what they are, whenever one has been started."""
        self.settings = settings
        self.slots = slots
        self.status_url = ""
        self.ended = True  # whether this process, and not the agent, has to clean up
        self._data = data
        self._job = ""
        self._started = started
        self._children: dict[int, str] = {}  # pid -> what it is
        self._restarts: dict[str, int] = {}
        self._lives = 0  # of agents
        self._joined = False  # the agent that there is has been a worker
        self._alone_since: float | None = None  # when the coordinator gave it up
        self._lifeline = self._lifeline_end = -1  # the pipe that children watch, and its other end

    def __enter__(self) -> "LocalCluster":
        self._sockets = tempfile.mkdtemp(prefix="zmqmr-", dir=_short_directory())
        self._endpoint = f"ipc://{self._sockets}/coordinator"
        self._lifeline, self._lifeline_end = os.pipe()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.ended = False
        status, status_end = os.pipe()
        launch = self._fork if _has_one_thread() else self._execute
        launch("coordinator", {"status_line": status_end}, [self._lifeline_end, status])
        launch("agent", {}, [self._lifeline_end, status, status_end])
        os.close(status_end)
        self._tell_started()
        with os.fdopen(status, "rb") as file:
            self.status_url = file.read(1000).decode()

    def _tell_started(self) -> None:
        if self._started is not None:
            self._started(self._endpoint, {what: pid for pid, what in self._children.items()})

    def _arguments(self, what: str) -> dict[str, Any]:
        """What a child's main function is called with."""
        common = {"settings": self.settings, "lifeline": self._lifeline}
        if what == "coordinator":
            journal = os.path.join(self._data, places.SESSION, "journal")
            return {**common, "endpoint": self._endpoint, "journal": journal, "status_line": None}
        self._lives += 1
        return {
            **common,
            "name": LOCAL_WORKER,
            "coordinator": self._endpoint,
            "shuffle": f"ipc://{self._sockets}/shuffle-{self._lives}",
            "directory": os.path.join(self._data, places.AGENT),
            "slots": self.slots,
            "leftovers": [self._sockets],
            "data": self._data,
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
        from zmqmr.client.follow import Follower, client_identity
        from zmqmr.net.sockets import context, control_client

        def watched(message: JobUpdate | AttemptReport) -> None:
            if isinstance(message, JobUpdate):
                self._watch_agent(message.workers)
            on_message(message)

        self._job = spec.job
        zmq_context = context()
        socket = control_client(zmq_context, self._endpoint, client_identity())
        try:
            follower = Follower(socket, spec.job, self._check_children, watched)
            follower.submit(spec)
            return follower.wait()
        finally:
            socket.close()
            zmq_context.term()

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
            self._tell_started()

    def __exit__(self, _kind: object = None, error: object = None, _traceback: object = None) -> None:
        """End the children, wait for them, remove the sockets.

        After an interrupt they clean up alone, as after a client's death, so that another one can end the
        waiting: it raises Left. Otherwise an interrupt waits.
        """
        if isinstance(error, Left):
            self._close_lifeline(b"")
        elif isinstance(error, KeyboardInterrupt):
            self._close_lifeline(b"")
            try:
                if isinstance(error.__context__, KeyboardInterrupt):  # it came while another one was handled
                    raise error
                self._await_children()
            except KeyboardInterrupt:
                raise Left(self._job) from None
        else:
            uninterrupted(self._end)

    def _end(self) -> None:
        self._close_lifeline(_GOODBYE)
        self._await_children()

    def _close_lifeline(self, word: bytes) -> None:
        if self._lifeline >= 0:
            os.write(self._lifeline_end, word)
            os.close(self._lifeline)
            os.close(self._lifeline_end)
            self._lifeline = -1

    def _await_children(self) -> None:
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
        shutil.rmtree(self._sockets, ignore_errors=True)
        self.ended = True


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
