"""Starting processes so that they never outlive what started them."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from zmqmr.messages import Begin, JobSpec, encode
from zmqmr.net.channel import Receiver, channel_pair, send
from zmqmr.worker.taskenv import with_environ

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_END_SECONDS = 5.0  # an executor told to end that has not by then is killed

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends. `parent`: the pid it must still have."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def python_running(module: str) -> list[str]:
    """The command that runs `module`.main(), with the interpreter's directory where the current one would be
    among the places to import from: that is the user's, and may hold a file named like a library."""
    code = (
        f"import os, sys; sys.path[0] = sys.path[0] or os.path.dirname(sys.executable);"
        f" from {module} import main; main()"
    )
    return [sys.executable, "-c", code]


def ended(pid: int) -> int | None:
    """The wait status of a child that has ended, None while it runs. 0 when nobody can tell: a program
    that ignores SIGCHLD has its children's statuses thrown away."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if found else None


def name_process(name: str) -> None:
    """What ps and top call this process; the first 15 characters count."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none escapes."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def fork(main: Callable[[], Any], close: Sequence[int] = (), outlives: bool = False) -> int:
    """Run `main` in a forked child and return the child's pid. The child ends with `main`: code 0, or
    1 with the traceback on standard error; it never returns into the caller's code. It is killed
    when its parent ends, unless it `outlives` it to clean up."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if not outlives:
            die_with_parent(parent)
        for descriptor in close:
            os.close(descriptor)
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


class ExecutorProcess:
    """The agent's end of an executor: a channel and a pid."""

    def __init__(self, channel: socket.socket, pid: int):
        self._channel = channel
        self.fd = channel.fileno()
        self.pid = pid
        self._receiver = Receiver(self.fd)

    @classmethod
    def fork(cls, close: Sequence[int] = ()) -> "ExecutorProcess":
        """Fork an executor from this process, which must have one thread and no ZeroMQ context."""
        ours, theirs = channel_pair()
        from zmqmr.worker.executor import serve

        pid = fork(lambda: serve(theirs.fileno()), close=[ours.fileno(), *close])
        theirs.close()
        return cls(ours, pid)

    @classmethod
    def execute(cls, spec: JobSpec, work: str) -> "ExecutorProcess":
        """Start an executor as a program of its own, through the job's setup script if it has one."""
        ours, theirs = channel_pair()
        command = [*python_running("zmqmr.worker.executor"), str(theirs.fileno())]
        if spec.setup_script:
            command = [*spec.sh, spec.setup_script, *command]
        environment = with_environ(os.environ, spec.cmdenv)
        with open(os.path.join(os.path.dirname(work), "executor.stderr"), "wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        process.returncode = 0  # reaped in close(), not by subprocess
        return cls(ours, process.pid)

    def begin(self, spec: JobSpec, work: str) -> None:
        """Hand over the job; answered by ExecutorReady or ExecutorFailed."""
        self.send(Begin(spec, work))

    def send(self, message: Any) -> None:
        """Send a message; when the executor is gone, its closed channel tells soon enough."""
        try:
            send(self.fd, encode(message))
        except (BrokenPipeError, ConnectionResetError):
            pass

    @property
    def closed(self) -> bool:
        return self._receiver.closed

    def receive(self) -> list[bytes]:
        return self._receiver.receive()

    def kill(self) -> None:
        """Kill the executor and its attempts; the closed channel tells."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> str:
        """End the executor and its attempts, wait, and say how it ended."""
        self._channel.close()  # the executor takes that as the order to end
        deadline = time.monotonic() + _END_SECONDS
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return describe_status(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.001)


def describe_status(status: int) -> str:
    """How a process ended, from its wait status, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"killed by {signal.Signals(-code).name} (signal {-code})"
    return f"exit code {code}"
