"""Taking up an earlier run of the same command: which one, what of it can be used, and why not the rest."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress

from zmqmr import hook
from zmqmr.client.garbage import settle
from zmqmr.client.records import MAX_INPUTS, RESUMABLE, Record, Records, how_it_ended, living, settled
from zmqmr.client.texts import one_line
from zmqmr.data import outputs, places
from zmqmr.data.spools import Shelf
from zmqmr.errors import UsageError
from zmqmr.words import counted

STANDARD_INPUT = "standard input"  # in a record's inputs
_SHOWN = 5  # changes that are named
_NEAR = 3  # jobs that are named when none is the same
_FLAGS = {"--resume", "--detach", "-q", "--quiet", "-v", "--verbose"}
_WITH_VALUE = "--resume-from"
_NO_MATTER = ("-o", "--output-dir", "--skip-bad-records")  # switches with a value that no finished task minds
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


def essence(arguments: Sequence[str]) -> list[str]:
    """What of a job's own arguments its tasks may depend on, in whatever order it was given."""
    kept = []
    rest = iter(arguments)
    for word in rest:
        if word in _NO_MATTER:
            next(rest, None)
        elif word.partition("=")[0] not in _NO_MATTER:
            kept.append(word)
    return sorted(kept)


class Earlier:
    """An earlier job, locked so that no other command takes it up too."""

    def __init__(self, record: Record, records: Records):
        """UsageError when the job runs, has succeeded, or is being taken up by another command."""
        _check_state(record, records)
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
        if old.task_args != new.task_args or essence(old.arguments) != essence(new.arguments):
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
        left = "its finished tasks are" if self._there else kept(old)
        resuming = f"resuming {old.job}, which {how_it_ended(old)}"
        if not left:
            return [f"{resuming}: it left no finished task, so all run"]
        if not self.usable(new):
            return [f"{resuming}: nothing of it is used, because {said}"]
        lines = [f"{resuming}: {left} used again"]
        if changes:
            lines.append(f"but tasks that this concerns run again: {said}")
        return lines

    def ended(self, job: str, succeeded: bool) -> None:
        """The job that took it up has ended. If that `succeeded`, what this one left is of no use any more;
        else it may have taken all there was, and is the one to be taken up next. Workers of a cluster see to
        that alone."""
        if succeeded or not (self._there or kept(self.record)):
            if not self._there:
                places.remove(self.record.data)
            record = self._records.read(self.record.job)
            if record is not None:
                record.resumed_by = job
                with suppress(OSError):
                    self._records.write(record)
        self.close()

    def close(self) -> None:
        """Let others take it up."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def kept(record: Record) -> str:
    """What a job that did not succeed has left for the next, "" when that is nothing. What is done with it
    comes after: 2 finished tasks, 20 bytes, are."""
    spools = places.spools(record.data, record.job)
    tasks = len(Shelf(spools).list_keys()) if os.path.isdir(spools) else 0
    if not tasks:
        return ""
    size = counted(places.size(spools), "byte")
    return f"{counted(tasks, 'finished task')}, {size}, {'is' if tasks == 1 else 'are'}"


def take_back_output(record: Record) -> None:
    """Remove what is in the output directories of a job that nobody works for any more, unless it is
    complete, and those that it made."""
    for path in filter(None, (record.output_dir, record.step_output_dir)):
        if os.path.exists(os.path.join(path, outputs.SUCCESS)):
            continue
        with suppress(OSError):  # it is not there
            lock = places.lock(path)
            if lock >= 0:
                outputs.OutputDirectory(path).discard()  # it was empty when the job began
                os.close(lock)
    outputs.remove_empty_directories(record.made)


def find(
    command: tuple[str, list[str]],
    name: str,
    records: Records,
    inputs: Callable[[], Container[str]] = tuple,
    cluster: str = "",
    ask: Callable[[Record], Record] = lambda record: record,
) -> Earlier:
    """The job named `name`, or the newest that the same command (see `command_line`) left unfinished in this
    directory, on `cluster`, or else another command of the same job file with the same `inputs`; UsageError
    without one. `ask`: says how a job went on that its client left."""
    if name:
        record = records.find(name)
        if record.cluster != cluster:
            where = f"on the cluster {record.cluster}" if record.cluster else "on this machine"
            how = f"with --cluster {record.cluster}" if record.cluster else "without --cluster"
            raise UsageError(f"{record.job} ran {where}; resume it {how}")
        return Earlier(ask(record) if record.state == "left" else record, records)
    known = [each for each in records.all() if (each.script, each.cluster) == (command[0], cluster)]
    here = [each for each in known if each.cwd == os.getcwd()]
    same = [each for each in here if essence(each.arguments) == essence(command[1])]
    unfinished = [each for each in same or here if _is_unfinished(each)]
    if not same:
        read = inputs()
        same = unfinished = [each for each in unfinished if each.state != "running" and _has_read(each, read)]
    if not same:
        raise UsageError(_none_found([each for each in known if _is_unfinished(each)]))
    newest = (unfinished or same)[0]
    return Earlier(ask(newest) if newest.state == "left" else newest, records)


def _is_unfinished(record: Record) -> bool:
    return record.state == "running" or (record.state in (*RESUMABLE, "left") and not record.resumed_by)


def _has_read(record: Record, inputs: Container[str]) -> bool:
    return bool(record.inputs) and all(each.path in inputs for each in record.inputs)


def _none_found(near: list[Record]) -> str:
    said = "no earlier run of this command in this directory is known; run it without --resume"
    if not near:
        return f"{said}, or name a job with --resume-from JOB (`zmqmr jobs` lists them)"
    jobs = ", ".join(f"{each.job} ({one_line(shlex.join(each.arguments))})" for each in near[:_NEAR])
    return f"{said}, or with --resume-from JOB; unfinished jobs of this job file: {jobs}"


def _check_state(record: Record, records: Records) -> None:
    if record.state == "running":  # of a cluster's, the client may be none of this machine's
        client = living(record).get("client")
        where = f" (process {client.pid})" if client else ""
        raise UsageError(f"{record.job} is still running{where}; follow it with: zmqmr attach {record.job}")
    if heir := _heir(record, records):
        raise UsageError(f"{record.job} was resumed by {heir}, {_next_step(heir, records)}")
    if record.state == "succeeded" and record.cluster and not record.fetched:
        raise UsageError(f"{record.job} succeeded; fetch its output with: zmqmr attach {record.job}")
    if record.state not in RESUMABLE:
        raise UsageError(f"{record.job} {record.state}: there is nothing to resume; run it without --resume")


def _heir(record: Record, records: Records) -> str:
    """The last of the jobs that took this one up one after the other, if it has what this one left."""
    later = sorted(records.all(), key=lambda each: each.begun)
    heir = record.resumed_by
    if (
        not heir and not record.cluster and not kept(record)
    ):  # a client that is killed cannot write down that it has it
        heir = next((each.job for each in reversed(later) if each.resumes == record.job), "")
    by_job = {each.job: each for each in later}
    while heir in by_job and by_job[heir].resumed_by:
        heir = by_job[heir].resumed_by
    return heir


def _next_step(heir: str, records: Records) -> str:
    found = records.read(heir)
    if found is None or found.state == "succeeded":
        return "which is done; run it anew"
    if settled(found).state == "running":
        return f"which runs; follow it with: zmqmr attach {heir}"
    return f"which {how_it_ended(settled(found))}; resume that: zmqmr-run --resume {heir}"


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
