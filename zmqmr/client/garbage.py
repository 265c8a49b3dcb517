"""What jobs that ended leave on this machine, and when it goes: by age, by size, or as of no use."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from zmqmr.client.records import Record, Records
from zmqmr.data import outputs, places
from zmqmr.settings import Settings
from zmqmr.words import counted

KEEP_RECORDS = 1000  # the newest; more make every look at them slow
_DUE_SECONDS = 3600.0  # between two automatic collections, unless state_days is very short
_STAMP = ".collected"
_DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class Garbage:
    """Something that is removed."""

    path: str
    bytes: int
    reason: str


def collect_if_due(settings: Settings) -> None:
    """Collect if the last time is long enough ago, which costs a look at one file; never fails."""
    records = Records.of(settings)
    stamp = os.path.join(records.directory, _STAMP)
    now = time.time()
    with suppress(OSError):
        due = min(_DUE_SECONDS, settings.state_days * _DAY_SECONDS / 10)
        if os.path.exists(stamp) and 0 <= now - os.stat(stamp).st_mtime < due:
            return
        os.makedirs(records.directory, mode=0o700, exist_ok=True)
        with open(stamp, "w"):
            os.utime(stamp)
        for _ in collect(settings, now):
            pass


def collect(settings: Settings, now: float, *, dry_run: bool = False) -> Iterator[Garbage]:
    """Remove what is of no use, or only say what that would be. `now`: seconds since 1970. What belongs to
    a job that lives is never touched."""
    collector = _Collector(settings, now, dry_run)
    yield from collector.lost_sessions()
    yield from collector.emptied()
    yield from collector.too_old()
    yield from collector.orphans()
    yield from collector.too_many()
    yield from collector.too_large()


class _Collector:
    def __init__(self, settings: Settings, now: float, dry_run: bool):
        self._settings = settings
        self._dry_run = dry_run
        self._records = Records.of(settings)
        self._oldest = now - settings.state_days * _DAY_SECONDS
        self._now = now
        self._all = self._records.all()
        self._gone: set[str] = set()  # paths

    def _removed(self, path: str, reason: str) -> Iterator[Garbage]:
        """Remove a path that nobody uses, and say so."""
        if path in self._gone or not os.path.lexists(path) or _is_used(path):
            return
        self._gone.add(path)
        is_directory = os.path.isdir(path)
        size = places.size(path) if is_directory else os.lstat(path).st_size
        if not self._dry_run:
            if is_directory:
                places.remove(path)
            else:
                with suppress(OSError):
                    os.unlink(path)
        yield Garbage(path, size, reason)

    def lost_sessions(self) -> Iterator[Garbage]:
        """What is left of jobs whose processes were killed at one stroke, except what a later job can use."""
        for record in self._all:
            on_file = self._records.read(record.job)
            gone = record.state in ("lost", "left")
            if not gone or on_file is None or on_file.state != "running":
                continue
            left = [path for path in (_sockets(record), _session(record)) if path and os.path.isdir(path)]
            sizes = [places.size(path) for path in left]
            if not self._dry_run and not settle(record, self._records, self._now):
                continue  # somebody works in it, or takes it up
            for path, size in zip(left, sizes, strict=True):
                yield Garbage(path, size, f"{record.job} was {record.state}")

    def emptied(self) -> Iterator[Garbage]:
        """Directories of jobs that ended without a file: the job that took them up has what was in them."""
        for record in self._all:
            if record.state != "running" and record.data and not _has_files(record.data):
                yield from self._removed(record.data, "it is empty")

    def too_old(self) -> Iterator[Garbage]:
        """Records, logs and data of jobs that ended long ago, and old repro bundles."""
        reason = f"older than {counted(self._settings.state_days, 'day')}"
        for record in self._all:
            if record.state != "running" and (record.ended or record.begun) < self._oldest:
                yield from self._job(record, reason)
        for entry in self._repro_bundles():
            if entry.stat().st_mtime < self._oldest:
                yield from self._removed(entry.path, reason)

    def too_many(self) -> Iterator[Garbage]:
        """Records beyond the newest."""
        ended = [record for record in self._all if record.state != "running"]
        for record in ended[KEEP_RECORDS:]:
            yield from self._job(record, f"more than {KEEP_RECORDS} records")

    def _job(self, record: Record, reason: str) -> Iterator[Garbage]:
        if _is_used(record.data):
            return
        yield from self._removed(record.data, reason)
        yield from self._removed(self._records.log_path(record.job), reason)
        yield from self._removed(self._records.path(record.job), reason)

    def orphans(self) -> Iterator[Garbage]:
        """Directories of jobs without a record, and records that cannot be read."""
        known = {record.data for record in self._all}
        bases = {os.path.dirname(data) for data in known if data}
        bases.add(places.own_directory(places.base_directory(None)))
        for base in sorted(bases):
            for entry in _entries(base):
                if entry.path not in known and self._is_old(entry):
                    yield from self._removed(entry.path, "no job is known that it belongs to")
        readable = {record.job for record in self._all}
        for entry in _entries(self._records.directory):
            job = entry.name.rpartition(".")[0]
            if not entry.name.startswith(".") and job not in readable and self._is_old(entry):
                yield from self._removed(entry.path, "no record that can be read")

    def _is_old(self, entry: "os.DirEntry[str]") -> bool:
        with suppress(OSError):
            return entry.stat(follow_symlinks=False).st_mtime < self._oldest
        return False

    def too_large(self) -> Iterator[Garbage]:
        """The oldest data and repro bundles, until the rest is within the limit."""
        found = [(r.ended or r.begun, r.data) for r in self._all if r.state != "running" and r.data]
        found += [(entry.stat().st_mtime, entry.path) for entry in self._repro_bundles()]
        total, limit = 0, counted(self._settings.state_bytes, "byte")
        for _, path in sorted(found, reverse=True):
            if path in self._gone or not os.path.lexists(path):
                continue
            total += places.size(path) if os.path.isdir(path) else os.lstat(path).st_size
            if total > self._settings.state_bytes:
                yield from self._removed(path, f"more than {limit} are kept")

    def _repro_bundles(self) -> list["os.DirEntry[str]"]:
        return _entries(self._settings.repro_directory)


def settle(record: Record, records: Records, now: float) -> bool:
    """Write the end of a job without processes down, and remove all but what a later job can use; False
    when another process holds its directory."""
    if _is_used(record.data):
        return False
    if record.data:
        places.prune(record.data)
    outputs.remove_empty_directories(record.made)
    if sockets := _sockets(record):
        shutil.rmtree(sockets, ignore_errors=True)
    record.ended = record.ended or now
    with suppress(OSError):
        records.write(record)
    return True


def _is_used(path: str) -> bool:
    """Whether somebody works in a directory, or takes it up."""
    try:
        lock = places.lock(path)
    except OSError:
        return False  # no directory
    if lock >= 0:
        os.close(lock)
    return lock < 0


def _has_files(directory: str) -> bool:
    return any(names for _, _, names in os.walk(directory))


def _sockets(record: Record) -> str:
    """The directory of a job's sockets, "" when there can be none."""
    path = os.path.dirname(record.endpoint.removeprefix("ipc://"))
    return path if os.path.basename(path).startswith("zmqmr-") else ""


def _session(record: Record) -> str:
    return os.path.join(record.data, places.SESSION) if record.data else ""


def _entries(directory: str) -> list["os.DirEntry[str]"]:
    try:
        return list(os.scandir(directory))
    except OSError:
        return []
