"""The executor: one process a job and host, with the job imported. It forks and watches the attempts.

User code runs in the attempts only: whatever one does to itself, the executor lives and says how it ended.
"""

import atexit
import gc
import os
import random
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from zmqmr.core.counters import count_all, count_said
from zmqmr.data.jobfile import load_job_class
from zmqmr.errors import ProtocolError, ZmqmrError
from zmqmr.messages import (
    AttemptDone,
    AttemptEnded,
    AttemptFailed,
    AttemptProgress,
    Begin,
    Counters,
    ExecutorBegun,
    ExecutorFailed,
    ExecutorReady,
    Failure,
    FromAttempt,
    JobSpec,
    Kill,
    Run,
    ToExecutor,
    decode,
    encode,
)
from zmqmr.net.channel import Receiver, send
from zmqmr.settings import Settings
from zmqmr.worker.attempt import run_attempt
from zmqmr.worker.explain import HUNG, excerpt
from zmqmr.worker.marker import read_marker
from zmqmr.worker.spawn import adopt_orphans, describe_status, fork, name_process
from zmqmr.worker.stack import read_stack
from zmqmr.worker.taskenv import task_env, with_environ

_REPORT = re.compile(rb"reporter:(?:counter:([^,]*),([^,]*),(-?\d{1,18})|status:(.*))$")
_READ_BYTES = 65536
_WORDS_CHARACTERS = 20_000  # of a task's standard error in its failure; a replay shows all of it
_LONGEST_LINE = 8192  # of standard error looked at for reports


class _StandardError:
    """What an attempt writes to standard error: reports are taken out, of the rest the end is kept."""

    def __init__(self, keep_bytes: int, max_counters: int):
        self.counters: Counters = {}
        self._most = max_counters
        self.status = ""
        self._keep_bytes = keep_bytes
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._partial = b""

    def feed(self, data: bytes) -> None:
        text = self._partial + data
        lines = text.split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > _LONGEST_LINE:
            lines.append(self._partial)
            self._partial = b""
        if b"reporter:" in text:
            lines = [line for line in lines if not self._take_report(line)]
        self._keep(b"".join(line + b"\n" for line in lines))

    def _take_report(self, line: bytes) -> bool:
        match = _REPORT.match(line.rstrip(b"\r"))
        if match is None:
            return False
        group, name, amount, status = match.groups()
        if status is not None:
            self.status = status.decode("utf-8", "replace")[:1000]
        else:
            count_said(self.counters, group, name, int(amount), self._most)
        return True

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) > self._keep_bytes:
            self._tail_bytes -= len(self._tail.popleft())

    def end(self) -> str:
        """No more will come; the last lines, as text."""
        if self._partial:
            self.feed(b"\n")
        return b"".join(self._tail)[-self._keep_bytes :].decode("utf-8", "replace")


class _Child:
    """A running attempt: its process and what it reports."""

    def __init__(self, run: Run, pid: int, result: int, stderr: int, settings: Settings):
        self.run = run
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.result = Receiver(result)
        self.stderr_fd = stderr
        self.stderr = _StandardError(settings.stderr_bytes, settings.max_counters)
        self.done: AttemptDone | None = None
        self.failure: Failure | None = None
        self.kill_at: float | None = None  # when TERM was not enough
        self.ordered = False  # by the agent, to end
        self.open = {result, stderr}  # ends that have not hung up

    def close(self) -> None:
        for descriptor in (self.pidfd, self.result.fd, self.stderr_fd):
            os.close(descriptor)


class Executor:
    """The loop: orders from the agent, reports from attempts."""

    def __init__(self, channel: int, settings: Settings):
        self._channel = Receiver(channel)
        self._settings = settings
        self._children: dict[tuple[str, int], _Child] = {}
        self._spec: JobSpec | None = None
        self._work = ""
        self._job_class: Any = None
        self._seeded: Any = None  # the random generator's state, when the job seeded it while it was loaded

    def serve(self) -> None:
        """Until the agent closes the channel; then kill what runs."""
        try:
            while not self._channel.closed:
                self._turn()
        finally:
            self._kill_everything()

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._channel.fd, select.POLLIN)
        by_descriptor = {}
        for child in self._children.values():
            for descriptor in (*child.open, child.pidfd):
                poll.register(descriptor, select.POLLIN)
                by_descriptor[descriptor] = child
        for descriptor, events in poll.poll(self._timeout()):
            if descriptor == self._channel.fd:
                for frame in self._channel.receive():
                    self._obey(decode(frame, ToExecutor))
            elif self._is_running(by_descriptor[descriptor]):
                self._listen(by_descriptor[descriptor], descriptor, events)
        self._kill_the_stubborn()

    def _is_running(self, child: _Child) -> bool:
        launch = child.run.launch
        return self._children.get((launch.task, launch.attempt)) is child

    def _timeout(self) -> float | None:
        deadlines = [child.kill_at for child in self._children.values() if child.kill_at is not None]
        return max(0.0, (min(deadlines) - time.monotonic()) * 1000) if deadlines else None

    # --- orders ------------------------------------------------------------------------------

    def _obey(self, message: Begin | Run | Kill) -> None:
        if isinstance(message, Begin):
            self._begin(message)
        elif isinstance(message, Run):
            self._fork(message)
        elif child := self._children.get((message.task, message.attempt)):
            _signal_group(child.pid, signal.SIGTERM)
            child.ordered = True
            child.kill_at = time.monotonic() + self._settings.kill_seconds

    def _begin(self, begin: Begin) -> None:
        self._spec, self._work = begin.spec, begin.work
        try:
            self._job_class, self._seeded = _load(begin)
        except ZmqmrError as error:
            self._tell(ExecutorFailed(Failure(f"a worker cannot load the job: {error}", fatal=True)))
        else:
            gc.collect()
            gc.freeze()  # what is there now is shared by all attempts: never write to it to look for garbage
            self._tell(ExecutorReady(os.getpid()))

    def _fork(self, run: Run) -> None:
        assert self._spec is not None
        spec = self._spec
        result, result_end = os.pipe()
        stderr, stderr_end = os.pipe()
        closed = [result, stderr, self._channel.fd]
        for child in self._children.values():
            closed += [child.result.fd, child.stderr_fd, child.pidfd]

        def main() -> None:
            if self._seeded is not None:
                random.setstate(self._seeded)
            run_attempt(run, spec, self._work, self._job_class, self._settings, result_end, stderr_end)

        pid = fork(main, close=closed)
        os.close(result_end)
        os.close(stderr_end)
        os.set_blocking(result, False)
        os.set_blocking(stderr, False)
        key = run.launch.task, run.launch.attempt
        self._children[key] = _Child(run, pid, result, stderr, self._settings)

    # --- attempts ----------------------------------------------------------------------------

    def _listen(self, child: _Child, descriptor: int, events: int) -> None:
        if descriptor == child.stderr_fd:
            self._read_stderr(child)
        elif descriptor == child.result.fd:
            self._read_result(child, child.result.receive)
        else:
            self._ended(child)
        if events & select.POLLHUP and not events & select.POLLIN:
            child.open.discard(descriptor)

    def _read_stderr(self, child: _Child) -> bool:
        try:
            data = os.read(child.stderr_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        before = child.stderr.status
        child.stderr.feed(data)
        if child.stderr.status != before:
            launch = child.run.launch
            self._tell(
                AttemptProgress(
                    launch.job, launch.task, launch.attempt, child.run.epoch, 0, 0, child.stderr.status
                )
            )
        return bool(data)

    def _read_result(self, child: _Child, read: Callable[[], list[bytes]]) -> None:
        """Take what an attempt reports. A job that writes into descriptors it did not open fails itself."""
        try:
            for message in [decode(frame, FromAttempt) for frame in read()]:
                if isinstance(message, AttemptProgress):
                    self._tell(message)
                elif isinstance(message, AttemptDone):
                    child.done = message
                elif isinstance(message, AttemptFailed):
                    child.failure = message.failure
        except ProtocolError as error:
            child.failure = Failure(f"the job wrote into a descriptor that is not its own: {error}")
            child.open.discard(child.result.fd)

    def _ended(self, child: _Child) -> None:
        """Collect what an attempt left, end what it started, and report."""
        status = _reap(child)
        self._kill_strays(child)
        self._read_result(child, child.result.drain)
        for _ in range(1024):  # a grandchild that left the group may write for ever
            if not self._read_stderr(child):
                break
        launch = child.run.launch
        del self._children[launch.task, launch.attempt]
        child.close()
        words = child.stderr.end()
        if child.done is not None and status == 0 and child.failure is None:
            self._tell(AttemptEnded(launch.task, launch.attempt, _with_counters(child), None))
        else:
            failure = child.failure or self._crash(child, status)
            failure = msgspec.structs.replace(failure, stderr=_end_of(words))
            self._tell(AttemptEnded(launch.task, launch.attempt, None, failure))

    def _crash(self, child: _Child, status: int) -> Failure:
        """An attempt ended without a word; the marker of a careful one knows the record, and of one that was
        killed there may be a stack."""
        directory = child.run.directory
        reason, stack = _unexplained(status), ""
        if child.ordered:
            reason, stack = HUNG, read_stack(directory, self._work)
        failure = Failure(reason, stack, path=_input_path(child.run), crashed=True)
        noted = read_marker(directory)
        if noted is None:
            return failure
        record = excerpt(noted.record)
        return msgspec.structs.replace(failure, path=noted.path, offset=noted.offset, record=record)

    def _kill_strays(self, ended: _Child) -> None:
        """End what an ended attempt started in sessions of its own. A running attempt keeps its orphans, so
        whatever child we have beside attempts was left by one that ended."""
        attempts = {child.pid for child in self._children.values() if child is not ended}
        while strays := [pid for pid in _children() if pid not in attempts]:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)  # a child keeps its number until it is waited for
                os.waitpid(pid, 0)

    def _kill_the_stubborn(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.kill_at is not None and now >= child.kill_at:
                _signal_group(child.pid, signal.SIGKILL)
                child.kill_at = None

    def _kill_everything(self) -> None:
        """The job is over: no attempt, and nothing an attempt started, survives."""
        for child in self._children.values():
            _signal_group(child.pid, signal.SIGKILL)
        while children := _children():
            for pid in children:
                os.kill(pid, signal.SIGKILL)  # a child keeps its number until it is waited for
                os.waitpid(pid, 0)

    def _tell(self, message: Any) -> None:
        try:
            send(self._channel.fd, encode(message))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent is gone; the closed channel ends the loop


def _load(begin: Begin) -> tuple[Any, Any]:
    """The job's class, and the random generator's state if loading the job seeded it."""
    os.chdir(begin.work)
    # Job files may look at their settings while they are imported.
    variables = task_env(begin.spec, 0, "mapper", 0, 1, begin.work, None)
    os.environ.update(with_environ(os.environ, variables))
    paths = [os.path.join(begin.work, name) for name in begin.spec.python_path]
    if paths:
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(paths + ([inherited] if inherited else []))
        sys.path[1:1] = paths
    atexit._clear()  # handlers of whoever forked us are not ours to run
    stock_seed, seeded = random.seed, []

    def seed(*args: Any, **kwargs: Any) -> None:
        seeded.append(True)
        stock_seed(*args, **kwargs)

    random.seed = seed
    try:
        argv = ["--step-num=0", "--mapper", *begin.spec.task_args]
        job_class = (
            None if begin.spec.task_python else load_job_class(begin.spec.script, argv, begin.spec.job_class)
        )
    finally:
        random.seed = stock_seed
    return job_class, random.getstate() if seeded else None


def _reap(child: _Child) -> int:
    """Wait for an attempt that has ended or is about to; its wait status. Its process group ends with it."""
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    _signal_group(child.pid, signal.SIGKILL)  # while the zombie keeps the group's number taken
    return os.waitpid(child.pid, 0)[1]


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(pid, number)  # it has not become a group's leader yet
        except ProcessLookupError:
            pass


def _children() -> list[int]:
    """This process's children: attempts, and what attempts left behind, which it has adopted."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _input_path(run: Run) -> str:
    """The file that an attempt read, if it read one only."""
    paths = {piece.file.path for piece in run.launch.split.pieces} if run.launch.split else set()
    return paths.pop() if len(paths) == 1 else ""


def _end_of(words: str) -> str:
    """As much of a task's last words as a failure has room for: whole lines, if there is more than one."""
    if len(words) <= _WORDS_CHARACTERS:
        return words
    end = words[-_WORDS_CHARACTERS:]
    return end.partition("\n")[2] or end


def _unexplained(status: int) -> str:
    how = describe_status(status)
    if status == 0:
        return "the task ended with exit code 0 before the end of its input (os._exit in the job?)"
    return f"the task's process ended: {how}"


def _with_counters(child: _Child) -> AttemptDone:
    """The attempt's report with the counters that it wrote to standard error added to its first step's."""
    assert child.done is not None
    if not child.stderr.counters:
        return child.done
    links = child.run.launch.links
    step = str(links[0][0] if links else 0)
    counters = {
        number: {group: dict(names) for group, names in groups.items()}
        for number, groups in child.done.counters.items()
    }
    count_all(counters.setdefault(step, {}), child.stderr.counters)
    return msgspec.structs.replace(child.done, counters=counters)


def serve(channel: int) -> None:
    """The main function of an executor's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    name_process("zmqmr-executor")
    sys.stdout.flush()
    os.dup2(2, 1)  # what a job file prints while it is imported is no data
    adopt_orphans()
    Executor(channel, Settings.from_environ()).serve()


def main() -> None:
    """The main function when it is executed: the channel's descriptor is the argument."""
    import mrjob.job  # noqa: F401  import it before a job asks for it

    channel = int(sys.argv[1])
    send(channel, encode(ExecutorBegun()))
    serve(channel)
