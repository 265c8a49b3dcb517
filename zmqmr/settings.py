"""Every setting, its default and its unit. Read once, at start, from one place.

Each field is the environment variable ZMQMR_<NAME>; those of bytes take 64M and 64MiB, too. An unknown
ZMQMR_ variable is an error, so that a typing mistake is never silently ignored.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from zmqmr.errors import SettingsError

MIB = 1024**2
MOST = 1024**4  # of any number or size
MOST_SECONDS = 1_000_000  # of any time: what the system's calls that wait can take
SMALLEST_TASK = 128 * MIB  # address space with which a task of any job can begin
SHORTEST_TIMEOUT = 0.3  # seconds of silence after which a worker may be given up

SMALLEST_NUMBER = 0.001  # of those that need not be whole

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT])(?:iB)?", re.IGNORECASE)
_UNITS = {"K": 1024, "M": MIB, "G": 1024**3, "T": 1024**4}
_MAY_BE_ZERO = {"status_port", "task_memory_bytes", "state_days", "state_bytes", "store_bytes"}
_LIMITS = {
    "status_port": 65535,
    "max_attempts": 1000,
    "max_partitions": 100_000,
    "frames_in_flight": 1_000_000,
    "frame_bytes": 8 * MIB,
}

# Read by the start-up hook and the tests' tools, before or beside any Settings object.
_OTHER_VARIABLES = {"ZMQMR_NO_HOOK"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force; immutable, passed down explicitly."""

    heartbeat_seconds: float = 1.0  # between two heartbeats of an agent
    heartbeats_missed: int = 5  # this many missed: the worker is lost
    patience_seconds: float = 30.0  # of a worker with a silent coordinator, at least; then it begins anew
    max_attempts: int = 4  # failures of one task that fail the job
    exclude_failures: int = 3  # of one job on one worker, after which the job prefers other workers
    task_memory_bytes: int = 0  # address space that an attempt may have; 0: no limit
    kill_seconds: float = 5.0  # between TERM and KILL of an attempt
    split_bytes: int = 64 * MIB  # largest input split
    split_floor_bytes: int = 4 * MIB  # smallest split that a plain file is cut into
    partition_bytes: int = 8 * MIB  # input bytes for each reduce partition ...
    max_partitions: int = 32  # ... up to this many partitions, unless the job says
    block_bytes: int = 256 * 1024  # input is read in blocks of this size, which fit a core's cache
    max_line_bytes: int = 64 * MIB  # a longer line is an error
    frame_bytes: int = 256 * 1024  # map output is sent in frames of this size
    frames_in_flight: int = 16  # high-water mark of a shuffle connection, frames
    run_bytes: int = 16 * MIB  # partition bytes sorted into one run
    hold_bytes: int = 256 * MIB  # uncommitted shuffle bytes an agent keeps in memory
    combine_values: int = 1_000_000  # values a combiner's table holds before it is combined
    sort_memory: str = "64M"  # GNU sort's -S
    stderr_bytes: int = 1 * MIB  # of a task's standard error kept while it runs; a failure has 20,000
    max_counters: int = 10_000  # counters of one job
    worker_wait_seconds: float = 60.0  # a job waits this long for a worker
    state_directory: str = ""  # of records and bundles; empty: zmqmr in XDG_STATE_HOME or ~/.local/state
    state_days: float = 7.0  # what is kept of jobs that ended goes when it is older
    state_bytes: int = 10 * 1024 * MIB  # of intermediate data and repro bundles kept; the oldest go first
    status_port: int = 2680  # 0: no status page
    keys: str = ""  # directory of this host's keys; empty: private sockets only
    authorized_keys: str = ""  # path of the list of keys that may connect; empty: in that directory
    max_peers: int = 4096  # connections that a listening TCP port takes at a time
    store_bytes: int = 0  # of all files that a coordinator keeps for jobs; 0: what its drive has
    store_keep_seconds: float = 86400.0  # an ended job's output waits this long for its client
    client_lease_seconds: float = 60.0  # a job on a cluster is killed when its client is gone for so long
    answer_seconds: float = 30.0  # for a worker to take the records that were sent to it
    progress_seconds: float = 0.5  # between two progress reports of an attempt

    @property
    def worker_timeout_seconds(self) -> float:
        """Silence after which the coordinator gives a worker up."""
        return self.heartbeat_seconds * self.heartbeats_missed

    def changed(self) -> dict[str, str]:
        """The settings that are not the default, as strings."""
        pairs = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return {name: str(value) for name, value, default in pairs if value != default}

    @property
    def _state_home(self) -> str:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return os.path.abspath(self.state_directory or os.path.join(home, "zmqmr"))

    @property
    def repro_directory(self) -> str:
        """Where repro bundles are kept."""
        return os.path.join(self._state_home, "repro")

    @property
    def jobs_directory(self) -> str:
        """Where the records and logs of jobs are kept."""
        return os.path.join(self._state_home, "jobs")

    @property
    def lease_seconds(self) -> float:
        """Silence of the coordinator after which an agent ends its attempts: long enough for it to be
        started again. A worker that was given up is refused when it is heard again, so nothing it does
        in between counts."""
        return max(self.patience_seconds, 2 * self.worker_timeout_seconds)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """The settings of an environment; SettingsError names the variable that is wrong."""
        known = {f"ZMQMR_{field.name.upper()}": field for field in fields(cls)}
        values: dict[str, Any] = {}
        for variable in sorted(v for v in environ if v.startswith("ZMQMR_")):
            if variable in _OTHER_VARIABLES:
                continue
            if variable not in known:
                raise SettingsError(f"{variable} is not a setting of zmqmr; unset it")
            field = known[variable]
            values[field.name] = _value(variable, environ[variable], type(field.default))
        if "exclude_failures" not in values and "max_attempts" in values:
            values["exclude_failures"] = max(1, min(cls().exclude_failures, values["max_attempts"] - 1))
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float):
                _check_range(f"ZMQMR_{field.name.upper()}", value, field.name)
        if self.state_directory and not os.path.isabs(self.state_directory):
            raise SettingsError(
                f"ZMQMR_STATE_DIRECTORY={self.state_directory!r} must begin with /: commands in other"
                " directories would not find the jobs"
            )
        if not re.fullmatch(r"[1-9]\d*[%bKMGT]?", self.sort_memory):
            raise SettingsError(
                f"ZMQMR_SORT_MEMORY={self.sort_memory!r} is not a size that GNU sort takes, such as 64M"
            )
        self._check_sizes()
        self._check_attempts_and_times()

    def _check_sizes(self) -> None:
        """Refuse sizes that contradict each other, by name."""
        if self.split_floor_bytes > self.split_bytes:
            raise SettingsError("ZMQMR_SPLIT_FLOOR_BYTES must not exceed ZMQMR_SPLIT_BYTES")
        if self.frame_bytes > self.hold_bytes:
            raise SettingsError(
                "ZMQMR_FRAME_BYTES must not exceed ZMQMR_HOLD_BYTES:"
                " an agent could not hold a single frame in memory"
            )
        if 0 < self.task_memory_bytes < SMALLEST_TASK:
            raise SettingsError(
                f"ZMQMR_TASK_MEMORY_BYTES={self.task_memory_bytes} is too small: no Python process with mrjob"
                f" fits; give at least {SMALLEST_TASK}, or 0 for no limit"
            )
        if 0 < self.task_memory_bytes < 2 * self.max_line_bytes:
            raise SettingsError(
                "ZMQMR_TASK_MEMORY_BYTES must be at least twice ZMQMR_MAX_LINE_BYTES:"
                " a task could not read the longest line that is allowed; raise the one or lower the other"
            )

    def _check_attempts_and_times(self) -> None:
        """Refuse numbers of attempts, and times, that contradict each other, by name."""
        if self.exclude_failures >= self.max_attempts > 1:
            raise SettingsError(
                "ZMQMR_EXCLUDE_FAILURES must be less than ZMQMR_MAX_ATTEMPTS:"
                " otherwise a failed task would never be tried on another worker"
            )
        if self.heartbeats_missed < 2:
            raise SettingsError(
                "ZMQMR_HEARTBEATS_MISSED must be at least 2: with 1 a heartbeat that is a little late"
                " loses a worker that is alive"
            )
        if self.worker_timeout_seconds < SHORTEST_TIMEOUT:
            raise SettingsError(
                f"ZMQMR_HEARTBEAT_SECONDS times ZMQMR_HEARTBEATS_MISSED must be at least {SHORTEST_TIMEOUT}"
                " seconds: the coordinator looks at the time ten times a second"
            )
        if self.worker_wait_seconds < self.heartbeat_seconds:
            raise SettingsError(
                "ZMQMR_WORKER_WAIT_SECONDS must be at least ZMQMR_HEARTBEAT_SECONDS: a worker that was given"
                " up learns of it with its next heartbeat, and the job would not wait for it"
            )


def _value(variable: str, text: str, kind: type) -> Any:
    """What a variable says, as its setting's type; SettingsError says what it may be."""
    if variable.endswith("_BYTES") and (size := _SIZE.fullmatch(text)):
        return int(float(size[1]) * _UNITS[size[2].upper()])
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number, such as 0.5"
        if variable.endswith("_BYTES"):
            allowed = "a number of bytes, nor a size such as 64K, 64MiB or 1G"
        raise SettingsError(f"{variable}={text!r} is not {allowed}") from None


def _check_range(variable: str, value: float, name: str) -> None:
    """Refuse a number that no part of zmqmr, or of what it calls, could take."""
    if not math.isfinite(value):
        raise SettingsError(f"{variable}={value} must be a finite number")
    smallest = 0 if name in _MAY_BE_ZERO else 1 if isinstance(value, int) else SMALLEST_NUMBER
    if value < smallest:
        raise SettingsError(f"{variable}={value} is too small; the smallest value is {smallest}")
    limit = _LIMITS.get(name, MOST_SECONDS if name.endswith("_seconds") else MOST)
    if value > limit:
        raise SettingsError(f"{variable} must not exceed {limit:,}")
