"""A job of this client while it runs: its record and its log, kept up to date until the end."""

import os
import sys
import time
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING

import mrjob

from zmqmr import __version__
from zmqmr.client import records, skipped
from zmqmr.client.claims import complete_outputs
from zmqmr.client.endings import log
from zmqmr.client.joblog import JobLog
from zmqmr.client.jobspec import bundled
from zmqmr.client.records import Record, Records
from zmqmr.client.resume import STANDARD_INPUT, Earlier, command_line, kept
from zmqmr.data import outputs, places
from zmqmr.errors import UsageError
from zmqmr.messages import AttemptReport, JobEnded, JobSpec, JobUpdate
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.runner import ZeroMQMRJobRunner


class Session:
    """Use as a context around the run: however the block is left, the record says how the job ended."""

    def __init__(self, settings: Settings, record: Record):
        self.record = record
        self.records = Records.of(settings)
        self._bundles = settings.repro_directory
        self._log = JobLog(self.records.log_path(record.job), record.steps, bool(record.cluster))
        self._ended = self._warned = False
        self._there = False  # whether a cluster has the job: its end is not this process's to decide
        self._succeeded = False

    @property
    def known(self) -> bool:
        """Whether the job's processes have run, so that its record says so."""
        return bool(self.record.boot)

    def __enter__(self) -> "Session":
        self._log.pid = os.getpid()
        self._log.open()
        return self

    def runs(self, endpoint: str, processes: dict[str, int]) -> None:
        """Keep where the coordinator is, and which processes the job has; called whenever one is started."""
        self.record.endpoint = endpoint
        self.record.boot = records.boot_id()
        everyone = {"client": os.getpid()} | processes
        self.record.processes = {what: records.process(pid) for what, pid in everyone.items()}
        self._write()

    def goes_there(self) -> None:
        """A cluster has the job now."""
        self._there = True

    def leave(self) -> None:
        """The job goes on without this process."""
        self._end("left", records.DETACHED)

    def fetched(self) -> None:
        """The output of the job has been fetched from its cluster."""
        self.record.fetched = True
        self._write()

    def note(self, message: JobUpdate | AttemptReport) -> None:
        """Keep what a message says of failures and progress."""
        self._log.note(message)
        if isinstance(message, JobUpdate):
            self.record.stages = list(message.stages)

    def ended(self, ended: JobEnded) -> None:
        """Keep the end of the job as the coordinator tells it."""
        self.record.counters = records.bounded([dict(counters) for counters in ended.counters])
        self.record.stages = list(ended.stages)
        self._succeeded = ended.state == "succeeded"
        if not self._succeeded:  # it has succeeded when its output is complete
            self._end(ended.state, ended.reason)

    def __exit__(self, kind: object, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._end("succeeded", "")
        elif self._there and self._succeeded:
            self._end("succeeded", f"its output was not fetched: {str(error) or 'interrupted'}")
        elif self._there:
            self._end("left", str(error) or "interrupted")
        elif isinstance(error, KeyboardInterrupt):
            self._end("killed", str(error) or "interrupted")
        elif isinstance(error, Exception):
            self._end("failed", str(error) or repr(error))
        else:
            self._end("killed", repr(error))
        self._log.close()

    def _end(self, state: records.State, reason: str) -> None:
        if self._ended or not self.record.boot:  # of the two who know, the coordinator; or it never ran
            return
        self._ended = True
        self.record.state = state
        self.record.reason = reason[: records.MAX_TEXT]
        self.record.ended = time.time()
        self._write()
        if state == "succeeded":
            places.forget_bundles(self._bundles, self.record.job)
        if state in records.RESUMABLE:
            log.info("job %s %s%s", self.record.job, records.how_it_ended(self.record), self._next_step())

    def _next_step(self) -> str:
        tasks = kept(self.record)
        if not tasks or self._warned:
            return ""
        unless = " while the job file is unchanged" if self.record.state == "failed" else ""
        return f"; {tasks} kept; the same command with --resume goes on from there{unless}"

    def _write(self) -> None:
        try:
            self.records.write(self.record)
        except OSError as error:
            if not self._warned:
                log.warning("%s: no other command will know the job", _cannot_write(self.records, error))
            self._warned = True


def check_remembered(settings: Settings) -> None:
    """UsageError when no other command could know the job: nobody would ever see its output."""
    known = Records.of(settings)
    try:
        known.check()
    except OSError as error:
        raise UsageError(f"--detach needs a record of the job: {_cannot_write(known, error)}") from error


def made_directories(
    output: outputs.OutputDirectory, step_output: outputs.OutputDirectory | None
) -> tuple[str, ...]:
    """The directories that the job's client made for its output, the outermost first."""
    if step_output is None:
        return output.made
    numbered = sorted(entry.path for entry in os.scandir(step_output.path))
    return (*output.made, *step_output.made, *numbered)


def _cannot_write(known: Records, error: OSError) -> str:
    return f"cannot write to {known.directory} ({error.strerror or error}; set ZMQMR_STATE_DIRECTORY)"


def describe(
    runner: "ZeroMQMRJobRunner", spec: JobSpec, settings: Settings, data: str, to_stdout: bool
) -> Record:
    """The record of a job that is about to begin."""
    script, arguments = command_line()
    pieces = (piece.file for split in spec.splits for piece in split.pieces)
    inputs = {}
    for file in pieces:
        path = STANDARD_INPUT if file.path.startswith(data) else file.path
        inputs[path] = records.Input(path, file.size, file.mtime_ns)
    in_output = os.path.join(data, places.OUTPUT) == spec.output_dir
    return Record(
        job=spec.job,
        label=spec.label,
        script=script,
        arguments=arguments,
        cwd=os.getcwd(),
        begun=time.time(),
        steps=len(spec.steps),
        output_dir="" if in_output else spec.output_dir,
        step_output_dir=spec.step_output_dir,
        to_stdout=to_stdout,
        detached=bool(runner._opts["detach"]),
        cluster=runner._opts["cluster"] or "",
        data=data,
        versions=versions(),
        inputs=list(islice(inputs.values(), records.MAX_INPUTS)),
        input_count=len(inputs),
        bundle_sha256=spec.bundle_sha256,
        files=_files(runner, data),
        task_args=list(spec.task_args),
        settings=settings.changed(),
        command=list(sys.orig_argv),
        made=list(spec.made),
    )


def _files(runner: "ZeroMQMRJobRunner", data: str) -> dict[str, records.Input]:
    """The user's files in the job's working directory as they are now, the first ones, by name there."""
    found = {}
    own = ((name, path) for name, path in bundled(runner, "file").items() if not path.startswith(data))
    for name, path in islice(sorted(own), records.MAX_INPUTS):
        status = os.stat(path)
        found[name] = records.Input(path, status.st_size, status.st_mtime_ns)
    return found


def versions() -> dict[str, str]:
    """The versions of all that a task's output may depend on."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"zmqmr": __version__, "mrjob": mrjob.__version__, "python": python}


@dataclass
class Run:
    """What one run of the job is made of."""

    spec: JobSpec
    settings: Settings
    session: Session
    step_output: outputs.OutputDirectory | None
    output: outputs.OutputDirectory
    earlier: Earlier | None

    def complete_output(self) -> None:
        """Mark the output complete."""
        complete_outputs(self.step_output, self.output)
        skipped.tell(self.output.path, bool(self.session.record.output_dir), self.spec.job, self.settings)

    def let_go(self) -> None:
        """Close what another process, forked from this one, holds on to."""
        for directory in filter(None, (self.step_output, self.output)):
            directory.release()
        if self.earlier is not None:
            self.earlier.close()
