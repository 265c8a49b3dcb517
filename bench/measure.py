"""Run a command and measure all of its processes: wall time, CPU time, peak memory.

    python bench/measure.py REPORT.json COMMAND [ARGUMENT...]

The processes that a command starts may outlive their parent. This one therefore makes itself their
"subreaper" (Linux): whoever loses its parent becomes its child, and is waited for like the command
itself. CPU time is what the kernel accounts to the children, so it is exact, but for processes whose
parent ignores SIGCHLD: the kernel accounts those to nobody. Memory is the sum of PSS (shared pages
count once) over the tree, sampled about 20 times a second: a shorter peak is not seen.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """What a command used, with all of its descendants."""

    returncode: int  # of the command; negative: the signal that ended it
    wall_seconds: float  # until the command ended
    cpu_seconds: float  # user and system
    peak_bytes: int  # sampled sum of PSS
    processes: int  # most seen at once
    left: int  # processes that outlived the command by `linger_seconds` and were killed


def measure(command: list[str], report: Path, **popen: object) -> Usage:
    """Run `command` in a process of its own that measures it.

    `report` is a file to write the result to. `popen` goes to subprocess.run. Raises
    RuntimeError when the measuring itself fails, for example since the command does not exist.
    """
    report.unlink(missing_ok=True)
    subprocess.run([sys.executable, __file__, str(report), *command], **popen)  # type: ignore[call-overload]
    if not report.exists():
        raise RuntimeError(f"{command[0]} could not be run")
    return Usage(**json.loads(report.read_text()))


def descendants(root: int) -> list[int]:
    """The process ids of all processes below `root`, without itself."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    unseen = [root]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return found


def memory_bytes(pid: int) -> int:
    """The PSS of a process; 0 when it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class Sampler(threading.Thread):
    """Watches the descendants of this process until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.processes = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            pids = descendants(os.getpid())
            self.processes = max(self.processes, len(pids))
            self.peak_bytes = max(self.peak_bytes, sum(map(memory_bytes, pids)))
            self._stopped.wait(SAMPLE_SECONDS)

    def stop(self) -> None:
        """End the sampling; returns when it has ended."""
        self._stopped.set()
        self.join()


def run(command: list[str], linger_seconds: float = 5.0) -> Usage:
    """Run `command` as a child and wait for all of its descendants.

    Takes every child of the calling process for one of the command's. What still runs
    `linger_seconds` after the command ended is killed, and counted in `left`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this system has no subreapers")
    sampler = Sampler()
    before = _cpu_seconds()
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    sampler.start()
    _, status = os.waitpid(pid, 0)
    wall_seconds = time.perf_counter() - began
    left = _wait_for_orphans(linger_seconds)
    sampler.stop()
    return Usage(
        returncode=os.waitstatus_to_exitcode(status),
        wall_seconds=wall_seconds,
        cpu_seconds=_cpu_seconds() - before,
        peak_bytes=sampler.peak_bytes,
        processes=sampler.processes,
        left=left,
    )


def _wait_for_orphans(linger_seconds: float) -> int:
    """Reap all children; kill those that are left at the deadline, and say how many those were."""
    deadline = time.monotonic() + linger_seconds
    killed: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return len(killed)
        if pid:
            continue
        if time.monotonic() > deadline:
            for pid in descendants(os.getpid()):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.01)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asdict(run(sys.argv[2:]))))
