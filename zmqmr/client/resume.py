"""Taking up an earlier run of the same command: which one, what of it can be used, and why not the rest."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from zmqmr import hook
from zmqmr.client.garbage import settle
from zmqmr.client.records import MAX_INPUTS, RESUMABLE, Record, Records, living
from zmqmr.client.texts import one_line
from zmqmr.data import outputs, places
from zmqmr.data.spools import Shelf
from zmqmr.errors import UsageError

STANDARD_INPUT = "standard input"  # in a record's inputs
_SHOWN = 5  # changes that are named
_FLAGS = {"--resume", "--detach", "-q", "--quiet", "-v", "--verbose"}
_WITH_VALUE = "--resume-from"
_WHERE_ONLY = {"status_port", "state_directory", "state_days", "state_bytes"}  # no output depends on them


def own_arguments(argv: Sequence[str]) -> list[str]:
    """A job file's arguments without those that say how to run it: the same for a job and its resumption."""
    words = list(argv)
    if words[:2] == ["-r", hook.ALIAS]:  # zmqmr-run puts it there
        del words[:2]
    kept = []
    rest = iter(words)
    for word in rest:
        if word == _WITH_VALUE:
            next(rest, None)
        elif word not in _FLAGS and not word.startswith(_WITH_VALUE + "="):
            kept.append(word)
    return kept


class Earlier:
    """An earlier job, locked so that no other command takes it up too."""

    def __init__(self, record: Record, records: Records):
        """UsageError when the job runs, has succeeded, or is being taken up by another command."""
        _check_state(record)
        if record.state == "lost":
            settle(record, records, time.time())
        self.record = record
        self._records = records
        self._lock = -1
        self._there = bool(record.cluster)  # whether what it left is on the workers of a cluster
        self.spools = record.job if self._there else places.spools(record.data, record.job)
        if not self._there and os.path.isdir(self.spools):
            self._lock = places.lock(record.data)
            if self._lock < 0:
                raise UsageError(f"{record.job} is being resumed or still ends; wait, and see `zmqmr jobs`")

    def changes(self, new: Record) -> Iterator[str]:
        """What is not as it was, whole phrases."""
        old = self.record
        for name in sorted(old.versions.keys() | new.versions.keys()):
            if old.versions.get(name) != new.versions.get(name):
                yield f"{name} is {new.versions.get(name)}, it was {old.versions.get(name)}"
        if old.bundle_sha256 != new.bundle_sha256:
            yield from _changed_files(old, new)
        if old.task_args != new.task_args or old.arguments != new.arguments:
            yield "the switches changed"
        for name in sorted((old.settings.keys() | new.settings.keys()) - _WHERE_ONLY):
            if old.settings.get(name) != new.settings.get(name):
                yield f"ZMQMR_{name.upper()} changed"
        yield from _changed_inputs(old, new)

    def usable(self, new: Record) -> bool:
        """Whether anything of it may be used again: with other code or versions, nothing is."""
        same = self.record.bundle_sha256 == new.bundle_sha256 and self.record.versions == new.versions
        return same and (self._there or os.path.isdir(self.spools))

    def explain(self, new: Record) -> list[str]:
        """What is used again and why not the rest, a line each."""
        old = self.record
        changes = list(self.changes(new))
        shown = changes[:_SHOWN]
        if len(changes) > _SHOWN:
            shown.append(f"and {len(changes) - _SHOWN} more")
        said = one_line("; ".join(shown))
        left = "its finished tasks" if self._there else kept(old)
        if not left:
            return [f"resuming {old.job}, which {old.state}: it left no finished task, so all run"]
        if not self.usable(new):
            return [f"resuming {old.job}, which {old.state}: nothing of it is used, because {said}"]
        lines = [f"resuming {old.job}, which {old.state}: {left} are kept"]
        if changes:
            lines.append(f"tasks that this concerns run again: {said}")
        return lines

    def take_back_output(self) -> None:
        """Remove what the job left in its output directories, if nobody was there to do it."""
        if self.record.state not in ("lost", "left"):
            return
        for path in filter(None, (self.record.output_dir, self.record.step_output_dir)):
            if os.path.exists(os.path.join(path, outputs.SUCCESS)):
                continue
            with suppress(OSError):  # it is not there
                lock = places.lock(path)
                if lock >= 0:
                    outputs.OutputDirectory(path).discard()  # it was empty when the job began
                    os.close(lock)

    def succeeded(self, job: str) -> None:
        """The job that took it up is done: what it left is of no use any more. Workers see to that alone."""
        if not self._there:
            places.remove(self.record.data)
        record = self._records.read(self.record.job)
        if record is not None:
            record.resumed_by = job
            self._records.write(record)
        self.close()

    def close(self) -> None:
        """Let others take it up."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def kept(record: Record) -> str:
    """What a job that did not succeed has left for the next, "" when that is nothing."""
    spools = places.spools(record.data, record.job)
    tasks = len(Shelf(spools).list_keys()) if os.path.isdir(spools) else 0
    return f"{tasks} finished tasks, {places.size(spools):,} bytes," if tasks else ""


def find(
    command: tuple[str, list[str]],
    name: str,
    records: Records,
    cluster: str = "",
    ask: Callable[[Record], Record] = lambda record: record,
) -> Earlier:
    """The job named `name`, or the newest that the same command (see `command_line`) left unfinished in this
    directory, on `cluster`; UsageError without one. `ask`: says how a job went on that its client left."""
    if name:
        record = records.find(name)
        if record.cluster != cluster:
            where = f"on the cluster {record.cluster}" if record.cluster else "on this machine"
            how = f"with --cluster {record.cluster}" if record.cluster else "without --cluster"
            raise UsageError(f"{record.job} ran {where}; resume it {how}")
        return Earlier(ask(record) if record.state == "left" else record, records)
    wanted = (*command, os.getcwd(), cluster)
    same = [each for each in records.all() if (each.script, each.arguments, each.cwd, each.cluster) == wanted]
    if not same:
        raise UsageError(
            "no earlier run of this command in this directory is known; run it without --resume,"
            " or name a job: zmqmr-run --resume JOB (`zmqmr jobs` lists them)"
        )
    return Earlier(ask(same[0]) if same[0].state == "left" else same[0], records)


def _check_state(record: Record) -> None:
    if record.state == "running":  # of a cluster's, the client may be none of this machine's
        client = living(record).get("client")
        where = f" (process {client.pid})" if client else ""
        raise UsageError(f"{record.job} is still running{where}; follow it with: zmqmr attach {record.job}")
    if record.resumed_by:
        raise UsageError(f"{record.job} was resumed by {record.resumed_by}, which is done; run it anew")
    if record.state not in RESUMABLE:
        raise UsageError(f"{record.job} {record.state}: there is nothing to resume; run it without --resume")


def _changed_files(old: Record, new: Record) -> Iterator[str]:
    script = os.path.basename(old.script)
    if script in old.files and script in new.files and old.files[script] != new.files[script]:
        yield "the job file changed"
        return
    names = [
        name for name in old.files.keys() | new.files.keys() if old.files.get(name) != new.files.get(name)
    ]
    yield f"the job's file {sorted(names)[0]} changed" if names else "the job's files changed"


def _changed_inputs(old: Record, new: Record) -> Iterator[str]:
    before = {each.path: each for each in old.inputs}
    now = {each.path: each for each in new.inputs}
    if old.input_count != new.input_count and max(old.input_count, new.input_count) > MAX_INPUTS:
        yield f"there are {new.input_count} inputs, there were {old.input_count}"
        return
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            yield f"input {path} is gone"
        elif path not in before:
            yield f"input {path} is new"
        elif before[path] != now[path]:
            yield f"input {path} changed"


def command_line() -> tuple[str, list[str]]:
    """The path of the running job file and its own arguments."""
    return os.path.abspath(sys.argv[0]) if sys.argv[0] else "", own_arguments(sys.argv[1:])
