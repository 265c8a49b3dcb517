"""How far one coordinator goes: the real scheduler with simulated workers, on a virtual clock.

Each row runs a whole job in a process of its own. The workers answer as agents do when nothing fails: an
attempt reports progress and its end, whoever is asked commits, everyone beats once a second. Measured is
what the coordinator's process would do: decide ("core"), and decode, journal and encode ("shell"; the socket
itself is left out).

    python scripts/scale.py                          every row; takes a quarter of an hour
    python scripts/scale.py --write                  ... and put the table into docs/performance.md
    python scripts/scale.py --cell 1000 100000 32    one row: workers, tasks, partitions
"""

import argparse
import heapq
import json
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zmqmr.coordinator.encoding import Encoding
from zmqmr.coordinator.journal import Journal
from zmqmr.coordinator.service import TICK_SECONDS, TICK_SHARE
from zmqmr.core.events import Command, Event, Inform, JobSubmitted, Reported, Tick, WorkerJoined
from zmqmr.core.launching import PROGRESS_A_SECOND
from zmqmr.core.scheduler import Scheduler
from zmqmr.messages import (
    AttemptDone,
    AttemptProgress,
    Commit,
    Committed,
    FrameCount,
    FromAgent,
    Heartbeat,
    InputFile,
    JobEnded,
    JobSpec,
    Launch,
    Opened,
    OpenJob,
    Piece,
    Split,
    Step,
    Substep,
    decode,
    encode,
)
from zmqmr.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
MARKED = re.compile(r"(<!-- scale -->\n).*?(<!-- /scale -->)", re.DOTALL)
SLOTS = 8  # of a worker
TASK_SECONDS = 10.0  # virtual, on average
PROGRESS_SECONDS = Settings().progress_seconds
BATCH = 64  # events written to the journal at a time: those of one turn of the coordinator's loop
CELLS = [  # workers, tasks, partitions; none: the tasks write files
    *((workers, tasks, 0) for workers in (10, 1000, 10_000) for tasks in (10_000, 100_000, 1_000_000)),
    *((workers, 100_000, 32) for workers in (10, 1000, 10_000)),
]


class OutOfTime(Exception):
    """The row has taken as long as it may."""


class Stopwatch:
    """Seconds and calls by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begun
            self.calls[name] += 1


class Cluster:
    """A coordinator without sockets, and workers that nothing ever happens to."""

    def __init__(self, workers: int, tasks: int, partitions: int, journal: str):
        settings = Settings()
        self.scheduler = Scheduler(settings.worker_timeout_seconds, settings.worker_wait_seconds)
        self.watch = Stopwatch()
        self.now = 0.0
        self.ended: JobEnded | None = None
        self._random = random.Random(1)
        self._journal = Journal(journal)
        self._encoded = Encoding()
        self._unwritten: list[tuple[float, Event]] = []
        self._pending: list[tuple[float, int, str, Any]] = []  # when, a tie-breaker, worker, message
        self._sent = 0
        self._names = [f"w{number:05d}" for number in range(workers)]
        for number, name in enumerate(self._names):
            host = f"10.0.{number // 256}.{number % 256}"
            self._handle(WorkerJoined(name, 1, host, SLOTS, f"tcp://{host}:2681"))
        self._handle(JobSubmitted(b"client", _spec(tasks, partitions)))

    def run(self) -> None:
        """Let virtual time pass until the job has ended."""
        turn = 0
        while self.ended is None:
            self.now += TICK_SECONDS
            turn += 1
            while self._pending and self._pending[0][0] <= self.now:
                _, _, worker, message = heapq.heappop(self._pending)
                self._report(worker, message)
            for name in self._names[turn % 10 :: 10]:  # each once a second
                self._report(name, Heartbeat(1))
            with self.watch.measuring("core due"):
                due = self.scheduler.due(self.now)
            for event in (*due, Tick()):
                self._handle(event)
        self._write_journal()

    def _report(self, worker: str, message: Any) -> None:
        frame = encode(message)
        with self.watch.measuring("shell decode"):
            event = Reported(worker, decode(frame, FromAgent))
        self._handle(event)

    def _handle(self, event: Event) -> None:
        kind = type(event.message if isinstance(event, Reported) else event).__name__
        with self.watch.measuring(f"core {kind}"):
            commands = self.scheduler.handle(event, self.now)
        if kind not in ("Heartbeat", "AttemptProgress", "Tick"):
            self._unwritten.append((self.now, event))
            if len(self._unwritten) >= BATCH:
                self._write_journal()
        for command in commands:
            self._carry_out(command)

    def _write_journal(self) -> None:
        with self.watch.measuring("shell journal"):
            self._journal.append(self._unwritten)
        self._unwritten.clear()

    def _carry_out(self, command: Command) -> None:
        message = command.message
        with self.watch.measuring("shell encode"):
            self._encoded(message)
        if isinstance(command, Inform):
            if isinstance(message, JobEnded):
                self.ended = message
        elif isinstance(message, OpenJob):
            self._later(0.01, command.worker, Opened(message.spec.job, 1, ()))
        elif isinstance(message, Launch):
            self._launched(command.worker, message)
        elif isinstance(message, Commit):
            self._later(0.01, command.worker, Committed(message.job, message.task, message.attempt, 1))

    def _launched(self, worker: str, launch: Launch) -> None:
        seconds = TASK_SECONDS * self._random.uniform(0.5, 1.5)
        frames = tuple(FrameCount(partition, 1, 1000) for partition in range(launch.partitions))
        counters = {"0": {"words": {"seen": 1000, "kept": 10}}}
        key = launch.job, launch.task, launch.attempt, 1
        self._later(seconds / 2, worker, AttemptProgress(*key, 1000, 100_000))
        done = AttemptDone(*key, counters, frames, records=2000, bytes=200_000)
        self._later(seconds, worker, done)

    def _later(self, seconds: float, worker: str, message: Any) -> None:
        self._sent += 1
        heapq.heappush(self._pending, (self.now + seconds, self._sent, worker, message))


def _spec(tasks: int, partitions: int) -> JobSpec:
    """One step of `tasks` splits; its reducer, with partitions, has one task for each."""
    script = Substep("script")
    step = Step(script, None, script if partitions else None, partitions or 1, {})
    splits = tuple(
        Split((Piece(InputFile(f"/data/input/part-{number:07d}", 64_000_000, 1), 0, 64_000_000),))
        for number in range(tasks)
    )
    return JobSpec("job", "job", "job.py", (), (step,), splits, "lines", "/out", "", "/bundle", "0" * 64, {})


def measure(workers: int, tasks: int, partitions: int, seconds: float) -> dict[str, Any]:
    """One row, in this process: what it did until the job ended or `seconds` had passed."""
    before = _memory()

    def stop(*_: object) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, stop)
    cluster = None
    with tempfile.TemporaryDirectory(prefix="zmqmr-scale-") as directory:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            cluster = Cluster(workers, tasks, partitions, str(Path(directory, "journal")))
            cluster.run()
        except OutOfTime:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
    if cluster is None:  # not even the first tasks were given out
        return {"workers": workers, "tasks": tasks, "partitions": partitions, "state": "not reached"}
    watch = cluster.watch
    return {
        "workers": workers,
        "tasks": tasks,
        "partitions": partitions,
        "state": cluster.ended.state if cluster.ended is not None else "not reached",
        "virtual": cluster.now,
        "memory": _memory() - before,
        "seconds": dict(watch.seconds),
        "calls": dict(watch.calls),
    }


def _memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def figures(row: dict[str, Any]) -> dict[str, float]:
    """What a measured row comes to; microseconds of the coordinator's process where nothing else is said."""
    seconds, calls = row["seconds"], row["calls"]
    core = sum(spent for name, spent in seconds.items() if name.startswith("core"))
    shell = sum(spent for name, spent in seconds.items() if name.startswith("shell"))
    events = sum(count for name, count in calls.items() if name.startswith("core") and name != "core due")
    decode_one = seconds["shell decode"] / calls["shell decode"]
    constant = [
        name for name in ("core Heartbeat", "core AttemptProgress", "core Tick", "core due") if name in calls
    ]
    idle = sum(seconds[name] for name in constant)
    heard = calls["core Heartbeat"] + calls.get("core AttemptProgress", 0)
    task = (core - idle + shell - heard * decode_one) / row["tasks"]
    beat = seconds["core Heartbeat"] / calls["core Heartbeat"] + decode_one
    progress = seconds["core AttemptProgress"] / calls["core AttemptProgress"] + decode_one
    tick = (seconds["core Tick"] + seconds["core due"]) / calls["core Tick"]
    ticks = min(tick / TICK_SECONDS, TICK_SHARE)  # the coordinator looks less often when it takes longer
    slots = row["workers"] * SLOTS  # all busy
    reports = min(slots / PROGRESS_SECONDS, PROGRESS_A_SECOND)
    second = row["workers"] * beat + reports * progress + ticks
    return {
        "events a second": events / core,
        "task": task * 1e6,
        "idle": 100 * second,  # per cent of a processor
        "shortest": slots * task / (1 - second) if second < 1 else float("inf"),
        "memory": row["memory"] / 1024**2,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        f"Python {platform.python_version()}, one core; {SLOTS} slots a worker.",
        "",
        "| workers | tasks | partitions | core's events a second | time for a task | beats and progress"
        " | shortest tasks it can feed | memory |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        start = f"| {row['workers']:,} | {row['tasks']:,} | {row['partitions'] or '-'} |"
        if row["state"] != "succeeded":
            lines.append(f"{start} not done in the time given | | | | |")
            continue
        got = figures(row)
        shortest = f"{got['shortest']:.2g} s" if got["shortest"] != float("inf") else "none"
        lines.append(
            f"{start} {got['events a second']:,.0f} | {got['task']:,.0f} µs | {got['idle']:.0f} % of a core"
            f" | {shortest} | {got['memory']:,.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print; 1 when a row did not come to its end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", type=int, nargs=3, metavar=("WORKERS", "TASKS", "PARTITIONS"))
    parser.add_argument("--seconds", type=float, default=600.0, help="that a row may take (600)")
    parser.add_argument("--json", action="store_true", help="with --cell: all that was measured")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    args = parser.parse_args()
    if args.cell:
        row = measure(*args.cell, args.seconds)
        print(json.dumps(row) if args.json else table([row]))
        return int(row["state"] != "succeeded")
    rows = []
    for cell in CELLS:
        command = [sys.executable, __file__, "--json", f"--seconds={args.seconds}", "--cell", *map(str, cell)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    if args.write:
        PAGE.write_text(MARKED.sub(lambda match: match[1] + table(rows) + match[2], PAGE.read_text()))
    return int(any(row["state"] != "succeeded" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
