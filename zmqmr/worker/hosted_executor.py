"""A job's executor as its agent sees it: runs wait until it has loaded the job, and one that is killed is
replaced."""

import os
from dataclasses import dataclass
from typing import Any

from zmqmr.messages import AttemptEnded, ExecutorReady, FromExecutor, JobSpec, Kill, Run, decode
from zmqmr.worker.spawn import ExecutorProcess

LOADS = 4  # of a job whose executor is killed while it loads it

Key = tuple[str, int]  # task, attempt


@dataclass(frozen=True)
class Ended:
    """The end of an executor."""

    how: str
    may_be_replaced: bool  # it had loaded the job, or was killed by somebody while it did
    running: tuple[Key, ...]  # the attempts that ended with it


class HostedExecutor:
    """The executor of one job. It has none before `start`, and after one has ended."""

    def __init__(self, spec: JobSpec, work: str, spare: ExecutorProcess | None):
        """`work`: the job's working directory. `spare`: one that was started ahead, or None."""
        self._spec, self._work, self._spare = spec, work, spare
        self._process: ExecutorProcess | None = None
        self._loads = 0  # how often the job was loaded
        self._ready = False
        self._waiting: dict[Key, Run] = {}  # until it is ready
        self._running: set[Key] = set()  # attempts that it was given

    def start(self) -> None:
        """Start one and have it load the job. OSError when it cannot be started."""
        spare, self._spare = self._spare, None
        self._ready = False
        self._loads += 1
        if self._spec.setup_script or spare is None:
            if spare is not None:
                spare.close()
            self._process = ExecutorProcess.execute(self._spec, self._work)
        else:
            self._process = spare
        self._process.begin(self._spec, self._work)

    @property
    def descriptors(self) -> list[int]:
        """Readable when it has something to say."""
        return [self._process.fd] if self._process is not None else []

    def receive(self, ready: set[int]) -> list[Any]:
        """What it says, if its descriptor is readable."""
        if self._process is None or self._process.fd not in ready:
            return []
        messages = [decode(frame, FromExecutor) for frame in self._process.receive()]
        for message in messages:
            if isinstance(message, ExecutorReady):
                self._get_ready()
            elif isinstance(message, AttemptEnded):
                self._running.discard((message.task, message.attempt))
        return messages

    def _get_ready(self) -> None:
        self._ready = True
        for run in list(self._waiting.values()):
            self.run(run)
        self._waiting.clear()

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.closed

    def take_end(self) -> Ended:
        """It has ended; what still waited for it waits for the next one."""
        assert self._process is not None
        how = self._process.close()
        self._process = None
        running, self._running = self._running, set()
        return Ended(how, self._ready or (how.startswith("killed") and self._loads < LOADS), tuple(running))

    def setup_words(self) -> str:
        """The end of what the setup script said."""
        try:
            path = os.path.join(os.path.dirname(self._work), "executor.stderr")
            with open(path, errors="replace") as file:
                return file.read()[-4000:]
        except OSError:
            return ""

    # --- attempts ----------------------------------------------------------------------------

    def run(self, run: Run) -> None:
        """Have an attempt run, as soon as the job is loaded."""
        key = run.launch.task, run.launch.attempt
        if self._process is None or not self._ready:
            self._waiting[key] = run
        else:
            self._running.add(key)
            self._process.send(run)

    def withdraw(self, key: Key) -> None:
        """Do not run an attempt that still waits."""
        self._waiting.pop(key, None)

    def order_kill(self, kill: Kill) -> bool:
        """Have it kill an attempt; False when it does not run it."""
        if self._process is None or (kill.task, kill.attempt) not in self._running:
            return False
        self._process.send(kill)
        return True

    # --- the end -----------------------------------------------------------------------------

    def kill(self) -> None:
        """Kill the executor and its attempts."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the executor and its attempts, and wait for that."""
        for process in (self._spare, self._process):
            if process is not None:
                process.close()
        self._spare = self._process = None
