"""Runs of a job that the tests hurt while they work: which process is which, and what came of it."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from differential.harness import DEADLINE_SECONDS, JOBS, Result, job_path, plain_environ, run_stock
from process.places import Place, wait_until

WORDS = JOBS / "noted_words.py"
# Many splits and partitions, many records in flight, from a text of a few kilobytes.
MANY_TASKS = {
    "ZMQMR_SPLIT_BYTES": "800",
    "ZMQMR_SPLIT_FLOOR_BYTES": "400",
    "ZMQMR_PARTITION_BYTES": "2500",
    "ZMQMR_BLOCK_BYTES": "300",
    "ZMQMR_RUN_BYTES": "600",
    "ZMQMR_FRAME_BYTES": "200",
    "ZMQMR_KILL_SECONDS": "0.5",
}


class Run:
    """A started `zmqmr-run`: its processes by their part in it, and its end."""

    def __init__(
        self,
        place: Place,
        output: Path,
        inputs: Sequence[Path],
        args: Sequence[str | Path] = (),
        settings: Mapping[str, str] = MANY_TASKS,
        job: str | Path = WORDS,
        **popen: object,
    ):
        self.place = place
        self.output = output
        self.executions_file = place.notes / "executions"
        command = [sys.executable, "-m", "zmqmr.cli.run", job_path(job), "--no-conf", "-o", output]
        if job == WORDS:
            command += ["--tell", place.notes]
        descriptor, self._said_path = tempfile.mkstemp(dir=place.notes)  # a pipe that nobody reads gets full
        options: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": descriptor, "stderr": descriptor}
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            [str(word) for word in [*command, *args, *inputs]],
            env=plain_environ(place.environ(**settings)),
            start_new_session=True,
            **(options | popen),
        )
        os.close(descriptor)

    # --- who is who --------------------------------------------------------------------------

    def coordinator(self) -> int:
        """The child that holds the journal open; 0 when there is none now."""
        return next((pid for pid in children(self.process.pid) if _has_open(pid, "/journal")), 0)

    def agent(self) -> int:
        """The child with an executor; 0 when there is none now."""
        for pid in children(self.process.pid):
            if not _has_open(pid, "/journal") and any(not is_sort(child) for child in children(pid)):
                return pid
        return 0

    def executor(self) -> int:
        """The agent's child that forks the attempts; 0 when there is none now."""
        agent = self.agent()
        return next((pid for pid in children(agent) if not is_sort(pid)), 0) if agent else 0

    def attempts(self) -> list[int]:
        """The processes that run user code now."""
        executor = self.executor()
        return children(executor) if executor else []

    def await_one(self, what: str) -> int:
        """The process of a part as soon as there is one."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [getattr(self, what)()]
            return bool(found[0]) or self.process.poll() is not None

        wait_until(is_there, self.story)
        assert found[0], self.story()
        return found[0]

    def sockets(self) -> list[Path]:
        """The sockets of the session."""
        return [path for path in self._files() if path.is_socket()]

    def spilled(self, suffix: str) -> list[Path]:
        """Files of intermediate data whose names end with `suffix`."""
        return [path for path in self._files() if path.name.endswith(suffix) and path.is_file()]

    def _files(self) -> list[Path]:
        """All there is in the temporary folder; what comes or goes meanwhile may be missing."""
        return [Path(folder, name) for folder, _, names in os.walk(self.place.temporary) for name in names]

    # --- what it did -------------------------------------------------------------------------

    def executions(self, kind: str = "") -> list[tuple[str, int, int]]:
        """What has run so far: task, attempt number from 0, and process."""
        if not self.executions_file.exists():
            return []
        found = []
        for line in self.executions_file.read_text().splitlines():
            what, attempt_id, pid = line.split()
            task, _, attempt = attempt_id.rpartition("_")
            if what.startswith(kind):
                found.append((task, int(attempt), int(pid)))
        return found

    def await_executions(self, count: int, kind: str = "") -> None:
        """Until `count` attempts have begun."""
        wait_until(lambda: len(self.executions(kind)) >= count or self.process.poll() is not None, self.story)
        assert len(self.executions(kind)) >= count, self.story()

    def said(self) -> str:
        """What the run has written to standard output and standard error so far."""
        return Path(self._said_path).read_text(errors="replace")

    def story(self) -> str:
        """What there is to say about the run while it goes on, or about its end."""
        code = self.process.poll()
        state = f"ended with {code}" if code is not None else f"still running: {self.place.processes()}"
        return f"{state}, executions {self.executions()}, said {self.said()}"

    def end(self) -> Result:
        """Wait for the end of the run; what it left."""
        if not hasattr(self, "_result"):
            try:
                self.process.wait(timeout=DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"it hangs: {self.story()}") from None
            files = {}
            if self.output.is_dir():
                files = {path.name: path.read_bytes() for path in self.output.iterdir() if path.is_file()}
            self._result = Result(self.process.returncode, b"", self.said(), files)
        return self._result

    # --- the oracle --------------------------------------------------------------------------

    def assert_same_as(self, oracle: Result) -> Result:
        """It succeeds with the lines and counters of mrjob's inline runner, and leaves nothing."""
        result = self.end()
        assert result.rc == 0, result.stderr
        assert "_SUCCESS" in result.files
        missing, too_many = oracle.lines - result.lines, result.lines - oracle.lines
        assert (missing, too_many) == (Counter(), Counter()), "missing and too many"
        assert result.counters == oracle.counters, result.stderr
        self.place.assert_nothing_left()
        return result

    def assert_failed(self, *says: object, code: int = 1) -> Result:
        """It fails with `code`, says all of `says`, and leaves nothing, output neither."""
        result = self.end()
        assert result.rc == code, result.stderr
        missing = [str(part) for part in says if str(part) not in result.stderr]
        assert not missing, f"{missing} not in:\n{result.stderr}"
        assert result.files == {}
        self.place.assert_nothing_left()
        return result


class FaultPlace(Place):
    """A place with a folder for the notes of jobs, outside of the folder that must be empty in the end."""

    def __init__(self, temporary: Path, notes: Path):
        super().__init__(temporary)
        self.notes = notes


def some_words(lines: int, first: str = "w") -> str:
    """Lines of about 15 bytes with few words, the first of each beginning with `first`."""
    return "".join(f"{first}{n % 17} v{n % 5} and {'x' * (n % 7)}\n" for n in range(lines))


def oracle(inputs: Sequence[Path], job: str | Path = WORDS, runner: str = "inline") -> Result:
    """What mrjob's own runner makes of the job."""
    result = run_stock(job, (), inputs, runner)
    assert result.rc == 0, result.stderr
    return result


# --- processes -------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The living children of a process, zombies left out."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in pids if is_alive(int(child))]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_sort(pid: int) -> bool:
    """Whether a process is GNU sort, or about to be."""
    try:
        return b"--temporary-directory" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _has_open(pid: int, suffix: str) -> bool:
    try:
        return any(os.readlink(link).endswith(suffix) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def end_process(pid: int) -> None:
    """Kill a process if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stop_for(pid: int, seconds: float) -> None:
    """Freeze a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def memory_bytes(pid: int) -> int:
    """The proportional memory of a process (PSS); 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def peak_memory(run: Run) -> dict[str, int]:
    """The highest memory of the run's lasting processes, sampled until it ends, in bytes."""
    peaks = {"coordinator": 0, "agent": 0, "executor": 0, "attempt": 0}
    while run.process.poll() is None:
        for what in ("coordinator", "agent", "executor"):
            pid = getattr(run, what)()
            peaks[what] = max(peaks[what], memory_bytes(pid) if pid else 0)
        peaks["attempt"] = max([peaks["attempt"], *map(memory_bytes, run.attempts())])
        time.sleep(0.05)
    return peaks


def chance(seed: int) -> random.Random:
    """A random generator whose seed is printed, so that a failure can be repeated."""
    print(f"seed {seed}")
    return random.Random(seed)
