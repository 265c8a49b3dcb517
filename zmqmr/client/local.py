"""A cluster on this machine, for one client: coordinator and agent are its children.

They hold the reading end of a pipe from the client. However the client ends, the pipe closes, and they
clean up and end. They are forked, which takes milliseconds, while this process has one thread; a process
with more threads may hold locks that a fork would keep locked for ever, so there they are executed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import zmq

from zmqmr import __version__
from zmqmr.errors import CoordinatorUnreachable
from zmqmr.messages import (
    AttemptReport,
    Cancel,
    JobEnded,
    JobSpec,
    JobUpdate,
    Refused,
    Submit,
    ToClient,
    decode,
    encode,
)
from zmqmr.settings import Settings

_SOCKET_PATH_BYTES = 90  # a longer path to a directory leaves no room for a socket's name
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
        self._lifeline = -1

    def __enter__(self) -> "LocalCluster":
        base = self._parent_directory
        if len(os.path.abspath(base).encode()) > _SOCKET_PATH_BYTES:
            base = tempfile.gettempdir()
        self._sockets = tempfile.mkdtemp(
            prefix="zmqmr-", dir=base if base != self._parent_directory else None
        )
        self._data = tempfile.mkdtemp(prefix="zmqmr-data-", dir=self._parent_directory)
        self._endpoint = f"ipc://{self._sockets}/coordinator"
        reading, self._lifeline = os.pipe()
        try:
            self._start(reading)
        except BaseException:
            self.__exit__()
            raise
        finally:
            os.close(reading)
        return self

    def _start(self, lifeline: int) -> None:
        status, status_end = os.pipe()
        coordinator = {
            "endpoint": self._endpoint,
            "settings": self.settings,
            "lifeline": lifeline,
            "status_line": status_end,
        }
        agent = {
            "name": "local",
            "coordinator": self._endpoint,
            "shuffle": f"ipc://{self._sockets}/shuffle",
            "directory": self._data,
            "slots": self.slots,
            "settings": self.settings,
            "lifeline": lifeline,
            "client": os.getpid(),
            "leftovers": [self._sockets, self._parent_directory],
        }
        launch = self._fork if _has_one_thread() else self._execute
        launch("coordinator", coordinator, [self._lifeline, status])
        launch("agent", agent, [self._lifeline, status, status_end])
        os.close(status_end)
        with os.fdopen(status, "rb") as file:
            self.status_url = file.read(1000).decode()

    def _fork(self, what: str, arguments: dict[str, Any], close: list[int]) -> None:
        from zmqmr.client.children import MAINS
        from zmqmr.worker.spawn import fork

        self._children[fork(lambda: MAINS[what](arguments), close, outlives=True)] = what

    def _execute(self, what: str, arguments: dict[str, Any], close: list[int]) -> None:
        from zmqmr.client.children import to_argument

        inherited = [value for key, value in arguments.items() if key in ("lifeline", "status_line")]
        process = subprocess.Popen(
            [sys.executable, "-m", "zmqmr.client.children", what, to_argument(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=inherited,
        )
        process.returncode = 0  # reaped in __exit__, not by subprocess
        self._children[process.pid] = what

    # --- one job -----------------------------------------------------------------------------

    def run(self, spec: JobSpec, on_message: Callable[[JobUpdate | AttemptReport], None]) -> JobEnded:
        """Submit a job and wait for its end. KeyboardInterrupt kills the job first.

        CoordinatorUnreachable when the coordinator or the agent has ended.
        """
        from zmqmr.net.sockets import context, control_client

        zmq_context = context()
        socket = control_client(zmq_context, self._endpoint, b"client:" + os.urandom(8).hex().encode())
        try:
            socket.send(encode(Submit(spec, __version__)))
            try:
                return self._follow(socket, on_message)
            except KeyboardInterrupt:
                socket.send(encode(Cancel(spec.job)))
                self._follow(socket, lambda message: None)
                raise
        finally:
            socket.close()
            zmq_context.term()

    def _follow(self, socket: Any, on_message: Callable[[JobUpdate | AttemptReport], None]) -> JobEnded:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        while True:
            if not poller.poll(500):
                self._check_children()
                continue
            message = decode(socket.recv(), ToClient)
            if isinstance(message, JobEnded):
                return message
            if isinstance(message, Refused):
                raise CoordinatorUnreachable(f"the coordinator refused the job: {message.reason}")
            on_message(message)

    def _check_children(self) -> None:
        """CoordinatorUnreachable when a child has ended, which it never does by itself."""
        for pid, what in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._children[pid]
                code = os.waitstatus_to_exitcode(status)
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                raise CoordinatorUnreachable(f"the {what} process ended ({how}); run the job again")

    def __exit__(self, *_: object) -> None:
        """Close the pipe, wait for the children, remove what is left."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        deadline = time.monotonic() + _END_SECONDS
        while self._children:
            for pid in list(self._children):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self._children[pid]
            if self._children and time.monotonic() > deadline:
                for pid in self._children:
                    os.kill(pid, signal.SIGKILL)
                deadline = float("inf")
            if self._children:
                time.sleep(0.002)
        for directory in (self._data, self._sockets):
            shutil.rmtree(directory, ignore_errors=True)


def _has_one_thread() -> bool:
    return len(os.listdir("/proc/self/task")) == 1
