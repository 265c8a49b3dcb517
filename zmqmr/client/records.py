"""What is known of each job that ran on this machine: a small file in the state directory, and its log.

A record is written when the job begins and again when it ends, whole each time, so that a reader finds
the one or the other. A record that says "running" while none of its processes lives is of a lost job, or
of one on a cluster, which goes on there without its client.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from zmqmr.errors import UsageError
from zmqmr.ids import LAST
from zmqmr.messages import Counters, StageProgress
from zmqmr.settings import Settings

State = Literal["running", "succeeded", "failed", "killed", "lost", "left"]
RESUMABLE = ("failed", "killed", "lost")
MAX_INPUTS = 1000  # in a record, and so those whose changes can be named
MAX_COUNTERS = 1000  # in a record, of one step
MAX_TEXT = 20_000  # characters of a reason
LEFT = "its client has ended; zmqmr show asks the cluster"
DETACHED = "it goes on without a client; zmqmr show asks the cluster, zmqmr attach follows it"
_SUFFIX = ".json"


class Process(msgspec.Struct, frozen=True, array_like=True):
    """A process, so that another one which got its number later is not mistaken for it."""

    pid: int
    started: int  # clock ticks after the machine's start


class Input(msgspec.Struct, frozen=True, array_like=True):
    """An input as it was when the job was planned."""

    path: str
    size: int
    mtime_ns: int


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One job."""

    job: str
    label: str
    script: str  # absolute path of the job file; "" for a program without one
    arguments: list[str]  # of the job file, without those that say how to follow or resume it
    cwd: str
    begun: float  # seconds since 1970
    ended: float = 0.0  # 0.0: not yet
    state: State = "running"
    reason: str = ""
    counters: list[Counters] = []
    stages: list[StageProgress] = []
    steps: int = 1
    output_dir: str = ""
    step_output_dir: str = ""
    to_stdout: bool = False  # whether standard output is where the output goes
    detached: bool = False
    fetched: bool = False  # whether the output has been taken from where it was kept
    cluster: str = ""  # where it runs, as --cluster has it; empty: this machine
    data: str = ""  # directory of intermediate data, or of its client's files
    endpoint: str = ""  # of the coordinator
    boot: str = ""  # the machine's start that `processes` belong to
    processes: dict[str, Process] = {}  # by what they are
    versions: dict[str, str] = {}
    inputs: list[Input] = []  # the first ones
    input_count: int = 0
    bundle_sha256: str = ""
    files: dict[str, Input] = {}  # in the working directory, by name there
    task_args: list[str] = []
    settings: dict[str, str] = {}  # those that are not the default
    resumes: str = ""  # an earlier job, taken up
    resumed_by: str = ""  # a later job that has what this one left, or that succeeded
    command: list[str] = []  # as it was given
    made: list[str] = []  # output directories that were not there before the job, outermost first


@dataclass(frozen=True)
class Records:
    """The records below a state directory."""

    directory: str

    @classmethod
    def of(cls, settings: Settings) -> "Records":
        return cls(settings.jobs_directory)

    def path(self, job: str) -> str:
        return os.path.join(self.directory, job + _SUFFIX)

    def log_path(self, job: str) -> str:
        return os.path.join(self.directory, job + ".log")

    def check(self) -> None:
        """OSError unless records can be written."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.directory):
            pass

    def write(self, record: Record) -> None:
        """Write a record, whole or not at all; OSError when that is not possible."""
        path = self.path(record.job)
        part = f"{path}.{os.getpid()}.part"
        with suppress(FileNotFoundError):
            return self._write(part, path, record)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        self._write(part, path, record)

    @staticmethod
    def _write(part: str, path: str, record: Record) -> None:
        # Not msgspec's own JSON: arguments need not be text that can be encoded.
        text = json.dumps(msgspec.to_builtins(record))
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        os.replace(part, path)

    def read(self, job: str) -> Record | None:
        """The record of a job, None when there is none that can be read."""
        try:
            with open(self.path(job), "rb") as file:
                return msgspec.convert(json.loads(file.read()), Record)
        except (OSError, ValueError, RecursionError):  # of JSON, of Unicode, of msgspec
            return None

    def remove(self, job: str) -> None:
        """Remove a record and its log; never fails."""
        for path in (self.path(job), self.log_path(job)):
            with suppress(OSError):
                os.unlink(path)

    def jobs(self) -> list[str]:
        """The ids of all jobs with a record."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return []
        return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]

    def all(self) -> list[Record]:
        """All records that can be read, the newest first; a lost job's says so."""
        found = [record for job in self.jobs() if (record := self.read(job)) is not None]
        return sorted(map(settled, found), key=lambda record: (-record.begun, record.job))

    def damaged(self) -> list[str]:
        """The paths of the records that cannot be read."""
        return [self.path(job) for job in sorted(self.jobs()) if self.read(job) is None]

    def find(self, name: str) -> Record:
        """The record of the job whose id is `name`, or the only one whose id begins so; for LAST that of the
        newest job. UsageError."""
        if name == LAST and (newest := self.all()[:1]):
            return newest[0]
        if "/" not in name and (record := self.read(name)) is not None:
            return settled(record)
        jobs = sorted(job for job in self.jobs() if job.startswith(name))
        if len(jobs) == 1 and (record := self.read(jobs[0])) is not None:
            return settled(record)
        if len(jobs) > 1:
            shown = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
            raise UsageError(f"{name!r} may be any of {shown}; give more of the job's id")
        if len(jobs) == 1:
            raise UsageError(f"the record {self.path(jobs[0])} is damaged; remove it")
        raise UsageError(f"there is no job {name!r} on this machine; `zmqmr jobs` lists them")


def settled(record: Record) -> Record:
    """The record, as a lost job's if it says running and no process of it lives; of one on a cluster it is
    known only that its client has left it."""
    if record.state == "running" and not living(record):
        if record.cluster:
            return msgspec.structs.replace(record, state="left", reason=DETACHED if record.detached else LEFT)
        reason = "its processes ended without a word: killed, or the machine was started again"
        return msgspec.structs.replace(record, state="lost", reason=reason)
    return record


def how_it_ended(record: Record) -> str:
    """What a job is said to have done or suffered: failed, was killed, ..."""
    return f"was {record.state}" if record.state in ("killed", "lost") else record.state


def living(record: Record) -> dict[str, Process]:
    """The processes of a job that live."""
    if record.boot != boot_id():
        return {}
    return {
        what: process for what, process in record.processes.items() if started(process.pid) == process.started
    }


def started(pid: int) -> int:
    """When a process was started, in clock ticks after the machine's start; -1 when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])


def process(pid: int) -> Process:
    """What to keep of a process that lives."""
    return Process(pid, started(pid))


def boot_id() -> str:
    """Names the machine's last start."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def bounded(counters: list[Counters]) -> list[Counters]:
    """The counters, at most MAX_COUNTERS of each step."""
    return [dict(_first_counters(step)) for step in counters]


def _first_counters(step: Counters) -> Iterator[tuple[str, dict[str, int]]]:
    left = MAX_COUNTERS
    for group, names in step.items():
        if left <= 0:
            return
        yield group, dict(list(names.items())[:left])
        left -= len(names)
