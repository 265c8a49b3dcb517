"""The way to a cluster: an ssh that forwards two private sockets to the coordinator's ports.

ssh ends with this process, however this process ends, and is started again when it ends by itself.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import IO

from zmqmr.client.cluster import IDENTITY, KNOWN_HOSTS, Cluster
from zmqmr.errors import CoordinatorUnreachable
from zmqmr.worker.spawn import die_with_parent, python_running

CONNECT_SECONDS = 10
START_SECONDS = 30.0  # for ssh to connect and forward
RESTART_SECONDS = 1.0  # between two starts
_END_SECONDS = 5.0
_PLAIN = re.compile(r"[A-Za-z0-9/ ._+@=,~-]{1,50}")
_ANSWERED = re.compile(r"denied|verification|refused|install an ssh client")  # words of ssh that tell all
_PREFIX = "zmqmr-ssh-"  # of directories with sockets
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ControlMaster": "no",
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "LogLevel": "ERROR",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "2",
    "StreamLocalBindMask": "0177",
    "StreamLocalBindUnlink": "yes",
    "StrictHostKeyChecking": "yes",
}


class Tunnel:
    """Use as a context; `control` and `store` are endpoints that lead to the coordinator."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._started = 0.0

    def __enter__(self) -> "Tunnel":
        _remove_abandoned()
        self._directory, self._lock = _own_directory()
        self.control = f"ipc://{self._directory}/control"
        self.store = f"ipc://{self._directory}/store"
        try:
            self._start()
            self._await_sockets()
        except BaseException:
            self.__exit__()
            raise
        return self

    def check(self) -> str:
        """Start ssh again if it has ended; why it had, or ""."""
        if self._process is None or self._process.poll() is None:
            return ""
        reason = self._words() or "without a word"
        if time.monotonic() - self._started >= RESTART_SECONDS:
            self._start()
        return reason

    def _start(self) -> None:
        if self._said is not None:
            self._said.close()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  read when ssh has ended
        self._started = time.monotonic()
        # Not by preexec_fn: ZeroMQ's threads run. In a session of its own: an interrupt is not for ssh.
        self._process = subprocess.Popen(
            [*python_running("zmqmr.client.tunnel"), str(os.getpid()), *self._command()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,
        )

    def _command(self) -> list[str]:
        there = self._cluster.ssh
        assert there is not None
        options = _OPTIONS | self._own_files()
        forwards = ((self.control, there.control_port), (self.store, there.store_port))
        return [
            "ssh",
            "-N",
            "-T",
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *("-p", str(there.port)),
            *(
                word
                for endpoint, port in forwards
                for word in ("-L", f"{endpoint.removeprefix('ipc://')}:127.0.0.1:{port}")
            ),
            *("-l", there.user),
            "--",
            there.coordinator,
        ]

    def _own_files(self) -> dict[str, str]:
        """The key and the known hosts of the cluster's directory; what is not there is as the user has it."""
        options: dict[str, str] = {}
        known, identity = (os.path.join(self._cluster.directory, name) for name in (KNOWN_HOSTS, IDENTITY))
        if os.path.exists(known):
            options |= {"GlobalKnownHostsFile": "/dev/null", "UserKnownHostsFile": _quoted(known)}
        if os.path.exists(identity):
            options |= {"IdentitiesOnly": "yes", "IdentityFile": _quoted(identity)}
        return options

    def _await_sockets(self) -> None:
        paths = [endpoint.removeprefix("ipc://") for endpoint in (self.control, self.store)]
        deadline = time.monotonic() + START_SECONDS
        assert self._process is not None
        while not all(map(os.path.exists, paths)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._unreachable(self._words() or f"no answer for {START_SECONDS:.0f} seconds")
            time.sleep(0.02)

    def _unreachable(self, reason: str) -> CoordinatorUnreachable:
        there = self._cluster.ssh
        assert there is not None
        moved = there.region and not _ANSWERED.search(reason)
        hint = "; if it has moved, or ssh_from has not your address, run cluster.yml again" if moved else ""
        return CoordinatorUnreachable(
            f"cannot reach the cluster {self._cluster.name} by ssh at {there.coordinator}: {reason}{hint}"
        )

    def _words(self) -> str:
        """The last line that ssh said."""
        assert self._said is not None
        with suppress(OSError):
            self._said.seek(0)
            lines = self._said.read(100_000).decode(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._said is not None:
            self._said.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)


def _quoted(path: str) -> str:
    """A path as an option of ssh, which would take % for its own."""
    return '"' + path.replace("%", "%%") + '"'


def _own_directory() -> tuple[str, int]:
    """A new directory, and the descriptor that keeps it from being taken for an abandoned one."""
    while True:
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=_short_directory())
        with suppress(OSError):  # another client was quicker than the lock, and has removed it
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.isdir(directory):
                return directory, lock
            os.close(lock)


def _remove_abandoned() -> None:
    """Remove what clients that were killed have left: nobody has locked it any more."""
    for entry in os.scandir(_short_directory()):
        if not entry.name.startswith(_PREFIX):
            continue
        with suppress(OSError):  # somebody else's, or gone
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _short_directory() -> str:
    """Where a socket's path is short enough: Unix allows 107 bytes, and ssh adds 17 while it makes one. To
    ssh, colons, brackets, backslashes, % and $ in it mean something."""
    directory = tempfile.gettempdir()
    return directory if _PLAIN.fullmatch(directory) else "/tmp"


def main() -> None:
    """Become ssh, which the kernel ends when the parent ends. Arguments: the parent's pid, the command."""
    parent, *command = sys.argv[1:]
    die_with_parent(int(parent))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}; install an ssh client", file=sys.stderr)
        raise SystemExit(255) from None
