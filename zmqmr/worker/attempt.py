"""An attempt: one forked process that reads its input, runs its chain of substeps and reports.

Descriptor 1 points to standard error, so that nothing but records that the job yields gets into the data.
"""

import atexit
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from zmqmr.core.counters import count
from zmqmr.core.plan import runs_as_command
from zmqmr.data.inputs import copy_decompressed, raw_name, read_blocks
from zmqmr.data.outputs import SKIPPED
from zmqmr.data.seals import check
from zmqmr.data.sort import merged
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptProgress,
    Counters,
    Failure,
    FrameCount,
    JobSpec,
    Piece,
    RecordAt,
    Run,
    encode,
)
from zmqmr.net.channel import send
from zmqmr.settings import Settings
from zmqmr.worker import command, links
from zmqmr.worker.delivery import deliver
from zmqmr.worker.explain import Position, explain
from zmqmr.worker.marker import Marker
from zmqmr.worker.output import Output
from zmqmr.worker.repro import save_slice
from zmqmr.worker.sinks import lines_of
from zmqmr.worker.spawn import adopt_orphans, name_process
from zmqmr.worker.stack import note_on_term
from zmqmr.worker.taskenv import task_env, with_environ


class Attempt:
    """What the parts of an attempt share: the job, the task, its progress, its counters."""

    def __init__(self, run: Run, spec: JobSpec, job_class: Any, settings: Settings, result: int):
        self.run = run
        self.launch = run.launch
        self.spec = spec
        self.job_class = job_class
        self.settings = settings
        self.directory = run.directory
        self.position = Position()
        self.counters: dict[str, Counters] = {}
        self.records = 0  # input records and bytes
        self.bytes = 0
        self.output_records = 0
        self.output_bytes = 0
        self.reports = 0  # of counters and statuses
        self.undelivered: tuple[int, ...] = ()  # partitions whose owner could not be reached
        self.pid = os.getpid()
        self.marked_input = False  # a reduce task's records are marked
        self.sink: Any = None  # where its records go, once it is made
        self._result = result
        self._status = ""

    @property
    def work(self) -> str:
        """The task's own working directory."""
        return os.path.join(self.directory, "work")

    def read(self, records: int, size: int) -> None:
        """Input has been read."""
        self.records += records
        self.bytes += size

    def set_status(self, status: str) -> None:
        """The job's set_status; also shows that the task lives."""
        self._status = status[:1000]
        self.reports += 1

    def progress(self) -> tuple[Any, ...]:
        """A value that changes when a record is read or yielded, or the job counts or sets its status."""
        room = self.sink.room if self.sink is not None else 0
        yielded = self.output_records, self.output_bytes
        return self.records, *yielded, self.position.consumed(), room, self.reports

    def report_progress(self) -> None:
        launch = self.launch
        lines, size = self.position.within_block()
        self.report(
            AttemptProgress(
                launch.job,
                launch.task,
                launch.attempt,
                self.run.epoch,
                self.records + lines,
                self.bytes + size,
                self._status,
            )
        )

    def report(self, message: Any) -> None:
        """Send to the executor."""
        self.stay_ourselves()
        send(self._result, encode(message))

    def stay_ourselves(self) -> None:
        """End here when this is a process that the job forked and that came back into our code."""
        if os.getpid() != self.pid:
            os._exit(1)

    # --- input -------------------------------------------------------------------------------

    def map_blocks(self) -> Iterator[bytes]:
        """A map task's input: blocks of whole lines, with the position and the progress kept."""
        if self.launch.split is None:
            yield from self._part_blocks(self.run.runs[0])
            return
        numbered = self.spec.input_mode == "nlines"
        for piece in self.launch.split.pieces:
            self.set_environment(piece)
            for offset, block in read_blocks(
                piece, block_bytes=self.settings.block_bytes, max_line_bytes=self.settings.max_line_bytes
            ):
                self.position.at(piece.file.path, offset, block)
                yield _with_offsets(offset, block) if numbered else block
                self.read(_count_lines(block), len(block))

    def careful_records(self) -> Iterator[bytes]:
        """A map task's records one by one, each noted before it is given out; those to skip are set aside."""
        skip = set(self.launch.skip)
        marker = Marker(self.directory)
        numbered = self.spec.input_mode == "nlines" and self.launch.split is not None
        for block in self.map_blocks():
            path, offset = self.position.path, self.position.offset
            for line in lines_of(block):
                if numbered:
                    offset = int(line.partition(b"\t")[0])
                if RecordAt(path, offset) in skip:
                    self._set_aside(line)
                else:
                    marker.note(path, offset, line)
                    self.position.only(offset, line)
                    yield line
                offset += len(line) + 1

    def _set_aside(self, record: bytes) -> None:
        step = str(self.launch.links[0][0])
        count(self.counters.setdefault(step, {}), "zmqmr", "skipped_records", 1)
        with open(os.path.join(self.directory, SKIPPED), "ab") as file:
            file.write(record + b"\n")

    def _part_blocks(self, path: str) -> Iterator[bytes]:
        offset = 0
        for block in merged([path], (), "", "", self.settings.block_bytes):
            self.position.at(path, offset, block)
            yield block
            offset += len(block)
            self.read(_count_lines(block), len(block))

    def reduce_blocks(self) -> Iterator[bytes]:
        """A reduce task's input: the merged runs of its partition."""
        for block in self.merged_runs():
            self.position.at("", 0, block)
            yield block
            self.read(_count_lines(block), len(block))

    def merged_runs(self) -> Iterator[bytes]:
        """The records of a reduce task's partition, in order, from the beginning."""
        settings = self.settings
        return merged(
            self.run.runs, self.spec.sort, settings.sort_memory, self.directory, settings.block_bytes
        )

    def raw_files(self) -> Iterator[tuple[str, str]]:
        """A mapper_raw task's input: local path of the decompressed file, and where it came from."""
        assert self.launch.split is not None
        for piece in self.launch.split.pieces:
            self.set_environment(piece)
            path = piece.file.path
            self.position.at(path, 0, b"")
            if piece.file.codec or piece.pushed is not None:
                path = os.path.join(self.work, raw_name(path))
                copy_decompressed(piece, path)
            yield path, piece.file.path
            self.read(1, piece.length)

    # --- environment -------------------------------------------------------------------------

    def set_environment(self, piece: Piece | None) -> None:
        """The task's environment variables, for the piece it reads now."""
        launch = self.launch
        step, kind = launch.links[0] if launch.links else (0, "mapper")
        variables = task_env(self.spec, step, kind, launch.number, launch.attempt, self.work, piece)
        os.environ.update(with_environ(os.environ, variables))

    def enter_work_directory(self, job_work: str) -> None:
        """A working directory of the task's own, with links to everything in the job's."""
        os.mkdir(self.work)
        for name in os.listdir(job_work):
            os.symlink(os.path.join(job_work, name), os.path.join(self.work, name))
        os.chdir(self.work)

    # --- the end -----------------------------------------------------------------------------

    def done(self, frames: tuple[FrameCount, ...]) -> AttemptDone:
        launch = self.launch
        return AttemptDone(
            job=launch.job,
            task=launch.task,
            attempt=launch.attempt,
            epoch=self.run.epoch,
            counters=self.counters,
            frames=frames,
            records=self.records,
            bytes=self.bytes,
            output_records=self.output_records,
            output_bytes=self.output_bytes,
            undelivered=self.undelivered,
        )

    def failed(self, failure: Failure) -> AttemptFailed:
        launch = self.launch
        return AttemptFailed(launch.job, launch.task, launch.attempt, self.run.epoch, failure)


class _Pulse(threading.Thread):
    """Reports progress while there is some. The main thread may spend hours in one record of the job's."""

    def __init__(self, attempt: Attempt):
        super().__init__(daemon=True)
        self._attempt = attempt
        self._over = threading.Event()

    def run(self) -> None:
        last = self._attempt.progress()
        seconds = max(self._attempt.settings.progress_seconds, self._attempt.launch.progress_seconds)
        while not self._over.wait(seconds):
            now = self._attempt.progress()
            if now != last:
                last = now
                self._attempt.report_progress()

    def stop(self) -> None:
        """No report is sent once this returns."""
        self._over.set()
        self.join()


def _count_lines(block: bytes) -> int:
    return block.count(b"\n") + (not block.endswith(b"\n"))


def _with_offsets(offset: int, block: bytes) -> bytes:
    """NLineInputFormat: each line after its offset in the file and a TAB."""
    lines = []
    for line in lines_of(block):
        lines.append(b"%d\t%s\n" % (offset, line))
        offset += len(line) + 1
    return b"".join(lines)


def _run_chain(attempt: Attempt) -> tuple[FrameCount, ...]:
    """Run the stage's chain over the task's input; the frames it sent."""
    if attempt.run.replay:
        return deliver(attempt, attempt.run.replay)
    spec, launch = attempt.spec, attempt.launch
    output = Output(attempt)
    first = launch.links[0] if launch.links else None
    if first is None:
        target = output.target(None, None)
        for block in attempt.map_blocks():
            target.add_lines(lines_of(block))
    elif runs_as_command(spec, getattr(spec.steps[first[0]], first[1])):
        command.run_command(attempt, first, output)
    else:
        links.run_links(attempt, output)
    return output.close()


def _limit_memory(settings: Settings) -> None:
    if settings.task_memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (settings.task_memory_bytes, settings.task_memory_bytes))


def _first_piece(run: Run) -> Piece | None:
    """What a map task reads first: the job's mapper_init may look at it."""
    split = run.launch.split
    return split.pieces[0] if split is not None and split.pieces else None


def _save_slice(attempt: Attempt) -> None:
    """Keep the failing input for a repro bundle, where records were being processed one by one."""
    if attempt.position.record() is None or attempt.spec.input_mode != "lines":
        return
    try:
        save_slice(attempt, attempt.marked_input)
    except Exception as error:  # the failure itself is what matters
        print(f"zmqmr: no repro bundle: {error}", file=sys.stderr)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the job closed or replaced it


def _redirect(stderr: int) -> None:
    """Standard input is empty; standard output and error both go to the executor."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stderr, 1)
    os.dup2(stderr, 2)
    os.close(null)
    os.close(stderr)


def run_attempt(
    run: Run, spec: JobSpec, job_work: str, job_class: Any, settings: Settings, result: int, stderr: int
) -> None:
    """The main function of an attempt's process. Reports AttemptDone or AttemptFailed on `result`."""
    os.setsid()
    name_process("zmqmr-attempt")
    adopt_orphans()  # when this process ends, the executor knows them as what it left
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _redirect(stderr)
    attempt = Attempt(run, spec, job_class, settings, result)
    pulse = _Pulse(attempt)
    pulse.start()
    try:
        note_on_term(run.directory)
        _limit_memory(settings)
        attempt.enter_work_directory(job_work)
        attempt.set_environment(_first_piece(run))
        for sealed in run.seals:
            check(sealed)
        frames = _run_chain(attempt)
        atexit._run_exitfuncs()
        _flush_streams()
        pulse.stop()
        attempt.report(attempt.done(frames))
    except BaseException as error:
        attempt.stay_ourselves()
        pulse.stop()
        _save_slice(attempt)
        attempt.report(attempt.failed(explain(error, attempt.position, job_work)))
        _flush_streams()
