"""A job as one host's agent sees it: its directory, its executor, its attempts, its partitions."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Literal

import msgspec

from zmqmr.core.keys import Keys
from zmqmr.core.plan import StagePlan, plan_stages
from zmqmr.data.outputs import SUCCESS, TEMPORARY
from zmqmr.data.places import SPOOLS, clear_job
from zmqmr.data.pushing import blob_of, fetched
from zmqmr.data.seals import seal
from zmqmr.data.spools import Shelf, Spool
from zmqmr.errors import Corrupt, SpillError, ZmqmrError
from zmqmr.messages import (
    AttemptDone,
    AttemptEnded,
    AttemptFailed,
    AttemptId,
    AttemptProgress,
    Commit,
    ExecutorFailed,
    ExecutorReady,
    Failure,
    FromExecutor,
    JobSpec,
    Kill,
    Launch,
    OpenFailed,
    Run,
    Seal,
    decode,
)
from zmqmr.net.frames import FrameHeader
from zmqmr.settings import Settings
from zmqmr.worker.attempt import SKIPPED
from zmqmr.worker.fetch import INPUT, Errand, StoreAccess, fetch, put_files, spec_here, unpack_bundle
from zmqmr.worker.partitions import Partitions, spill_error
from zmqmr.worker.repro import keep_bundle
from zmqmr.worker.spawn import ExecutorProcess
from zmqmr.worker.surroundings import surroundings

EXECUTOR_SECONDS = 5.0  # more than an executor needs to kill an attempt, beyond Settings.kill_seconds


def part_name(number: int, compress: str) -> str:
    """The name of a task's output file."""
    return f"part-{number:05d}" + (f".{compress}" if compress else "")


def _parent(shelf: Shelf) -> str:
    return os.path.dirname(shelf.directory) + os.sep


def _holds(path: str, done: AttemptDone) -> bool:
    """Whether the spool at `path` has what an attempt reports."""
    try:
        parts = Spool(path).parts.values()
    except SpillError:
        return False
    found = {(part.partition, part.bytes, part.crc32) for part in parts}
    return found == {(count.partition, count.bytes, count.crc32) for count in done.frames}


def _left_out(shelf: Shelf, key: str) -> bool:
    """Whether records were left out of what a spool was made from; the file of those is gone."""
    try:
        counters = shelf.report(key).counters
    except SpillError:
        return True
    return any("skipped_records" in groups.get("zmqmr", {}) for groups in counters.values())


LOADS = 4  # of a job whose executor is killed while it loads it


class _Attempt:
    """An attempt that runs or waits for its commit."""

    def __init__(self, launch: Launch, directory: str, output: str, target: str):
        self.launch = launch
        self.directory = directory
        self.output = output  # where it writes, or ""
        self.target = target  # where its output goes on commit
        self.running = True
        self.handed_over = False  # to the executor
        self.gone_by: float | None = None  # when the executor has failed to kill it
        self.done: AttemptDone | None = None  # its report, until it commits
        self.errand: Errand | None = None  # fetches its input or stores its output
        self.moved = 0  # bytes that its errand had moved when that was last reported
        self.report: AttemptDone | None = None  # of the attempt whose spool it delivers

    @property
    def key(self) -> tuple[str, int]:
        return self.launch.task, self.launch.attempt


class HostedJob:
    """One job on this host. Everything it leaves is below its directory and the output's `_temporary`."""

    def __init__(
        self,
        spec: JobSpec,
        directories: Sequence[str],
        settings: Settings,
        slots: int,
        epoch: int,
        shuffle: str,
        send: Callable[[Any], None],
        executor: ExecutorProcess | None,
        access: StoreAccess | None = None,
    ):
        """`directories`: the agent's own, one for each drive. `shuffle`: the agent's own endpoint.
        `executor`: one that was started ahead, or None. `send`: to the coordinator.
        `access`: to its store."""
        self.directories = [os.path.join(directory, spec.job) for directory in directories]
        self.directory = self.directories[0]
        self.spec = spec_here(spec, self.directory)
        self._access = access
        self._errands: dict[int, Errand] = {}  # by the descriptor to poll
        self._transfers_due = 0.0  # when to report how far they are
        self.work = os.path.join(self.directory, "work")
        self._settings, self._slots, self._epoch, self._send = settings, slots, epoch, send
        self._shuffle = shuffle
        self._plans: tuple[StagePlan, ...] = plan_stages(self.spec)
        self._shelves = [Shelf(os.path.join(each, SPOOLS)) for each in self.directories]
        self._stores: dict[int, Partitions] = {}
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._committed: list[str] = []  # part files
        self._loads = 0  # how often the job was loaded
        self._written_to: set[str] = set()  # directories of part files
        self._seals: dict[str, Seal] = {}  # of part files that a later stage reads
        self._confirmed: dict[AttemptId, None] = {}  # attempts whose commit was done here
        self._ready = False
        self._pending: list[Run] = []  # until the executor is ready
        self._executor: ExecutorProcess | None = None
        self._spare = executor
        self.kept: tuple[str, ...] = ()  # tasks whose spools an earlier life, or an earlier run, left here
        try:
            for each in self.directories:
                os.makedirs(each, exist_ok=True)
            self.kept = self._find_kept()
            self._begin(unpack_bundle(self.spec, self.work, access), self._unpacked)
        except OSError as error:
            self._cannot_open(error)

    def _find_kept(self) -> tuple[str, ...]:
        """The tasks whose spools are here, and those that are taken over from an earlier run."""
        earlier = Shelf(self.spec.reuse) if self.spec.reuse else None
        if not any(shelf.list_keys() for shelf in (*self._shelves, *filter(None, [earlier]))):
            return ()
        tasks = {
            self._keys.of(plan.number, number): plan.task(number)
            for plan in self._plans
            if plan.partitions
            for number in range(plan.tasks)
        }
        if earlier is not None:
            whole = [key for key in earlier.list_keys() if key in tasks and not _left_out(earlier, key)]
            self._shelves[0].take_over(earlier, whole)
        for shelf in self._shelves:
            for key in set(shelf.list_keys()) - set(tasks):
                shelf.drop(key)
        return tuple(sorted(tasks[key] for shelf in self._shelves for key in shelf.list_keys()))

    @cached_property
    def _keys(self) -> Keys:
        """Made when the first key is needed: it looks at the drive."""
        return Keys(self.spec, self._plans, surroundings(self.spec.task_python))

    def _shelf(self, key: str) -> Shelf | None:
        """The shelf on which a spool is."""
        return next((shelf for shelf in self._shelves if os.path.exists(shelf.path(key))), None)

    def _key(self, launch: Launch) -> str:
        return self._keys.of(launch.stage, launch.number)

    def _drop_spool(self, key: str) -> None:
        for shelf in self._shelves:
            shelf.drop(key)

    def _cannot_open(self, error: Exception) -> None:
        self._send(OpenFailed(self.spec.job, self._epoch, Failure(f"cannot open the job: {error}")))

    def _begin(self, work: Callable[[Errand], Any], then: Callable[[Any, Exception | None], None]) -> Errand:
        """Do something beside the agent's loop: with large files it takes longer than a lost worker may be
        silent."""
        errand = Errand(work, then)
        self._errands[errand.fd] = errand
        return errand

    def _unpacked(self, _: Any, error: Exception | None) -> None:
        if error is None:
            try:
                self._start_executor(self._spare)
            except OSError as failed:
                error = failed
        if error is not None:
            self._cannot_open(error)

    # --- the executor ------------------------------------------------------------------------

    def _start_executor(self, spare: ExecutorProcess | None = None) -> None:
        self._spare = None
        self._ready = False
        self._loads += 1
        if self.spec.setup_script or spare is None:
            if spare is not None:
                spare.close()
            self._executor = ExecutorProcess.execute(self.spec, self.work)
        else:
            self._executor = spare
        self._executor.begin(self.spec, self.work)

    @property
    def descriptors(self) -> list[int]:
        """What the agent's loop polls for this job."""
        found = [descriptor for store in self._stores.values() for descriptor in store.descriptors]
        if self._executor is not None:
            found.append(self._executor.fd)
        return [*found, *self._errands]

    def serve(self, ready: set[int]) -> None:
        """Take what the readable descriptors have."""
        for store in self._stores.values():
            for descriptor in store.descriptors:
                if descriptor in ready:
                    store.sort_ended(descriptor)
        for descriptor in [each for each in self._errands if each in ready]:
            self._errands.pop(descriptor).finish()
        self._report_transfers()
        if self._executor is not None and self._executor.fd in ready:
            for frame in self._executor.receive():
                self._from_executor(decode(frame, FromExecutor))
            if self._executor.closed:
                self._executor_ended()
        self._kill_frozen_executor()

    def _kill_frozen_executor(self) -> None:
        """One that does not carry out orders ends, with its attempts; another takes its place."""
        now = time.monotonic()
        overdue = any(
            attempt.running and attempt.gone_by is not None and now > attempt.gone_by
            for attempt in self._attempts.values()
        )
        if overdue and self._executor is not None:
            self._executor.kill()

    def _from_executor(self, message: Any) -> None:
        if isinstance(message, ExecutorReady):
            self._ready = True
            for run in self._pending:
                self._run(run)
            self._pending.clear()
        elif isinstance(message, ExecutorFailed):
            self._send(OpenFailed(self.spec.job, self._epoch, message.failure))
        elif isinstance(message, AttemptProgress):
            self._send(msgspec.structs.replace(message, epoch=self._epoch))
        elif isinstance(message, AttemptEnded):
            self._attempt_ended(message)

    def _executor_ended(self) -> None:
        """The executor is gone, and its attempts with it: fail them and start another."""
        assert self._executor is not None
        how = self._executor.close()
        self._executor = None
        if not self._ready and how.startswith("killed") and self._loads < LOADS:
            self._start_executor()  # somebody killed it, not the job
            return
        if not self._ready:
            failure = Failure(f"the process that loads the job ended: {how}", stderr=self._setup_words())
            self._send(OpenFailed(self.spec.job, self._epoch, failure))
            return
        running = [each for each in self._attempts.values() if each.running and each.errand is None]
        for attempt in running:
            task, number = attempt.key
            self._attempt_ended(AttemptEnded(task, number, None, Failure(f"its executor ended: {how}")))
        self._start_executor()

    def _setup_words(self) -> str:
        """The end of what the setup script said."""
        try:
            with open(os.path.join(self.directory, "executor.stderr"), errors="replace") as file:
                return file.read()[-4000:]
        except OSError:
            return ""

    # --- attempts ----------------------------------------------------------------------------

    def launch(self, launch: Launch) -> None:
        """Run an attempt, as soon as its input is sorted and the executor is ready."""
        plan = self._plans[launch.stage]
        name = f"{launch.task}-{launch.attempt}"
        drive = self.directories[(launch.number + launch.attempt) % len(self.directories)]
        directory = os.path.join(drive, "attempts", name)
        output = target = ""
        try:
            os.makedirs(directory)
            if plan.partitions:
                output = os.path.join(directory, "spool")
            else:
                parts = self._parts_directory(plan)
                os.makedirs(os.path.join(parts, TEMPORARY), exist_ok=True)
                self._written_to.add(parts)
                output = os.path.join(parts, TEMPORARY, name)
                target = os.path.join(parts, part_name(launch.number, self._compress(plan)))
        except OSError as error:
            self._send(self._failed(launch, Failure(str(spill_error(error, directory)), path=directory)))
            return
        if blob_of(launch.split) is not None:
            split = fetched(launch.split, os.path.join(directory, INPUT))
            launch = msgspec.structs.replace(launch, split=split)
        attempt = _Attempt(launch, directory, output, target)
        self._attempts[attempt.key] = attempt
        try:
            if launch.replay:
                self._replay(attempt)
            else:
                self._with_input(plan, attempt)
        except OSError as error:
            failure = Failure(str(spill_error(error, self.directory)), path=self.directory)
            self._attempt_ended(AttemptEnded(*attempt.key, None, failure))

    def _replay(self, attempt: _Attempt) -> None:
        """Deliver what a kept spool holds: to others by an attempt of its own, to ourselves by the commit."""
        launch, key = attempt.launch, self._key(attempt.launch)
        shelf = self._shelf(key)
        try:
            if shelf is None:
                raise Corrupt(f"there is no spool of {launch.task} any more")
            report = shelf.report(key)
            spool = Spool(shelf.path(key))
        except SpillError as error:
            self._attempt_ended(AttemptEnded(launch.task, launch.attempt, None, Failure(str(error))))
            return
        report = msgspec.structs.replace(  # it may be of an earlier run of the job, under other names
            report, job=self.spec.job, task=launch.task, attempt=launch.attempt, undelivered=()
        )
        if all(owner in ("", self._shuffle) for owner in launch.owners):
            frames = tuple(msgspec.structs.replace(count, frames=0) for count in report.frames)
            report = msgspec.structs.replace(report, frames=frames)
            self._attempt_ended(AttemptEnded(launch.task, launch.attempt, report, None))
        else:
            attempt.report = report
            self._run(msgspec.structs.replace(self._run_message(attempt, ()), replay=spool.path))

    def _with_input(self, plan: StagePlan, attempt: _Attempt) -> None:
        launch = attempt.launch
        if plan.source is None:
            self._with_split(attempt)
        elif plan.kind == "map":
            source = self._plans[plan.source]
            part = os.path.join(
                self._parts_directory(source), part_name(launch.number, self._compress(source))
            )
            self._run(self._run_message(attempt, (part,), [self._seals[part]]))
        else:

            def sorted_or_failed(runs: list[str] | SpillError) -> None:
                if isinstance(runs, SpillError):
                    self._attempt_ended(AttemptEnded(launch.task, launch.attempt, None, self._unsorted(runs)))
                elif store.volume(launch.number) != launch.input_bytes:
                    failure = self._not_whole(store.volume(launch.number), launch)
                    self._attempt_ended(AttemptEnded(launch.task, launch.attempt, None, failure))
                elif attempt.key in self._attempts:
                    self._run(self._run_message(attempt, runs, [store.seals[run] for run in runs]))

            store = self._store(plan.source)
            store.when_sorted(launch.number, sorted_or_failed)

    def _with_split(self, attempt: _Attempt) -> None:
        blob = blob_of(attempt.launch.split)
        if blob is None:
            self._run(self._run_message(attempt, ()))
            return

        def fetched_or_failed(_: Any, error: Exception | None) -> None:
            attempt.errand = None
            if error is not None:
                self._errand_failed(attempt, error)
            elif attempt.key in self._attempts:
                self._run(self._run_message(attempt, ()))

        path = os.path.join(attempt.directory, INPUT)
        attempt.errand = self._begin(
            partial(fetch, self._access, self.spec.job, blob, path), fetched_or_failed
        )

    def _errand_failed(self, attempt: _Attempt, error: Exception) -> None:
        failure = Failure(str(error), path=getattr(error, "path", ""))
        self._attempt_ended(AttemptEnded(*attempt.key, None, failure))

    def _report_transfers(self) -> None:
        """A transfer that moves is progress: its attempt is not to be killed for silence."""
        now = time.monotonic()
        if now < self._transfers_due:
            return
        self._transfers_due = now + self._settings.progress_seconds
        for attempt in self._attempts.values():
            if attempt.errand is not None and (moved := attempt.errand.moved()) != attempt.moved:
                attempt.moved = moved
                self._send(AttemptProgress(self.spec.job, *attempt.key, self._epoch, 0, 0))

    @staticmethod
    def _not_whole(volume: int, launch: Launch) -> Failure:
        reason = f"partition {launch.number} has {volume} bytes here, {launch.input_bytes} were delivered"
        return Failure(f"{reason}; it is made again", damaged=True)

    def _unsorted(self, error: SpillError) -> Failure:
        """Why a partition has no runs. A spool that is damaged is of no use to anybody."""
        for shelf in self._shelves:
            if os.path.dirname(error.path) == shelf.directory:
                shelf.drop(os.path.basename(error.path).partition(".")[0])
        return Failure(str(error), path=error.path, damaged=isinstance(error, Corrupt))

    def _run_message(self, attempt: _Attempt, runs: Sequence[str], seals: Sequence[Seal] = ()) -> Run:
        return Run(
            launch=attempt.launch,
            epoch=self._epoch,
            runs=tuple(runs),
            directory=attempt.directory,
            output=attempt.output,
            compress=self._compress(self._plans[attempt.launch.stage]),
            shuffle=self._shuffle,
            seals=tuple(seals),
        )

    def _run(self, run: Run) -> None:
        if self._executor is None or not self._ready:
            self._pending.append(run)
        else:
            attempt = self._attempts.get((run.launch.task, run.launch.attempt))
            if attempt is not None:  # not discarded while it waited
                attempt.handed_over = True
                self._executor.send(run)

    def _attempt_ended(self, ended: AttemptEnded) -> None:
        attempt = self._attempts.get((ended.task, ended.attempt))
        if attempt is None or not attempt.running:
            return
        files = self._files_to_store(attempt) if ended.done is not None else {}
        if ended.done is not None and not ended.done.files and files:
            self._store_output(attempt, ended.done, files)
            return
        attempt.running = False
        if ended.done is not None:
            done = ended.done
            if attempt.report is not None:  # the records were sent; all else is as it was when they were made
                done = msgspec.structs.replace(
                    attempt.report, frames=done.frames, undelivered=done.undelivered
                )
            attempt.done = msgspec.structs.replace(done, epoch=self._epoch)
            self._send(attempt.done)
        elif attempt.launch.replay:
            self._drop_spool(self._key(attempt.launch))
            self._send(self._failed(attempt.launch, ended.failure or Failure("it ended without a word")))
            self.discard(*attempt.key)
        else:
            self._forget_damaged_input(attempt, ended.failure)
            failure = self._with_repro(attempt, ended.failure or Failure("it ended without saying why"))
            self._send(self._failed(attempt.launch, failure))
            self.discard(*attempt.key)

    def _files_to_store(self, attempt: _Attempt) -> dict[str, str]:
        """What an attempt of a stored job adds to the job's output: name there -> path."""
        if not self.spec.stored:
            return {}
        files = {}
        name = os.path.relpath(attempt.target, self.directory) if attempt.target else ""
        if name.startswith(("output/", "steps/")):
            files[name] = attempt.output
        skipped = os.path.join(attempt.directory, SKIPPED)
        if os.path.exists(skipped):
            files[f"output/_{SKIPPED}/{attempt.launch.task}"] = skipped
        return files

    def _store_output(self, attempt: _Attempt, done: AttemptDone, files: dict[str, str]) -> None:
        """Report the attempt once the store has its output: what is committed then survives this worker."""

        def stored_or_failed(stored: Any, error: Exception | None) -> None:
            attempt.errand = None
            if error is not None:
                self._errand_failed(attempt, error)
            else:
                ended = msgspec.structs.replace(done, files=stored)
                self._attempt_ended(AttemptEnded(*attempt.key, ended, None))

        attempt.gone_by = None  # its process has ended
        attempt.errand = self._begin(partial(put_files, self._access, self.spec.job, files), stored_or_failed)

    def _forget_damaged_input(self, attempt: _Attempt, failure: Failure | None) -> None:
        """A partition whose runs are damaged is made again from the beginning."""
        launch = attempt.launch
        if failure is None or not failure.damaged or self._plans[launch.stage].kind != "reduce":
            return
        store = self._stores.get(launch.source) if launch.source is not None else None
        if store is not None:
            store.reset(launch.number)

    def _with_repro(self, attempt: _Attempt, failure: Failure) -> Failure:
        """The failure with the path of its repro bundle, if there is one; never a reason to fail itself."""
        try:
            path = keep_bundle(self.spec, attempt.launch, attempt.directory, failure, self._settings)
        except (OSError, ZmqmrError):
            return failure
        return msgspec.structs.replace(failure, repro=path)

    def _failed(self, launch: Launch, failure: Failure) -> AttemptFailed:
        return AttemptFailed(self.spec.job, launch.task, launch.attempt, self._epoch, failure)

    def kill(self, kill: Kill) -> None:
        """End an attempt, through the executor if it has it already; its end is reported as a failure."""
        attempt = self._attempts.get((kill.task, kill.attempt))
        if attempt is None:  # its launch was lost, or the report of its end
            failure = Failure("it does not run here")
            self._send(AttemptFailed(self.spec.job, kill.task, kill.attempt, self._epoch, failure))
            return
        if attempt.done is not None:  # the report was lost
            self._send(attempt.done)
            return
        if attempt.errand is not None:
            attempt.errand.stop()
            attempt.errand = None
            failure = Failure("it was killed while its files were moved")
            self._attempt_ended(AttemptEnded(kill.task, kill.attempt, None, failure))
        elif attempt.handed_over and self._executor is not None:
            self._executor.send(kill)
            if attempt.gone_by is None:
                attempt.gone_by = time.monotonic() + self._settings.kill_seconds + EXECUTOR_SECONDS
        else:
            self._pending = [run for run in self._pending if run.launch != attempt.launch]
            failure = Failure("it was killed before it began")
            self._attempt_ended(AttemptEnded(kill.task, kill.attempt, None, failure))

    # --- output ------------------------------------------------------------------------------

    def _parts_directory(self, plan: StagePlan) -> str:
        """Where a stage's part files go."""
        if plan.output_step == len(self.spec.steps) - 1:
            return self.spec.output_dir
        if self.spec.step_output_dir:
            return os.path.join(self.spec.step_output_dir, f"{plan.output_step:04d}")
        return os.path.join(self.directory, f"stage-{plan.number}")

    def _compress(self, plan: StagePlan) -> Literal["", "gz", "bz2"]:
        return self.spec.steps[plan.output_step].compress if plan.number == len(self._plans) - 1 else ""

    def _store(self, stage: int) -> Partitions:
        store = self._stores.get(stage)
        if store is None:
            store = self._stores[stage] = Partitions(
                [os.path.join(each, f"shuffle-{stage}") for each in self.directories],
                self.spec.sort,
                self._settings.sort_memory,
                self._settings.run_bytes,
                self._settings.hold_bytes,
                self._slots,
            )
        return store

    def receive(self, header: FrameHeader, payload: bytes) -> None:
        """A shuffle frame has arrived."""
        try:
            self._store(header.stage).receive(header, payload)
        except SpillError as error:
            self.refuse(header, error)
        except OSError as error:  # there is not even a directory; the attempt's commit misses the frame
            print(f"zmqmr: a frame of {header.task} cannot be kept: {error}", file=sys.stderr)

    def refuse(self, header: FrameHeader, error: SpillError) -> None:
        """A frame could not be kept: the attempt's commit will fail for this reason."""
        self._store(header.stage).refuse(header, error)

    def try_commit(self, commit: Commit) -> bool:
        """Do this host's part of a commit; False while frames are still on their way.
        SpillError when it cannot be done."""
        if self._id(commit.task, commit.attempt) in self._confirmed:
            return True  # a coordinator that has started again asks twice
        attempt = self._attempts.get((commit.task, commit.attempt))
        plan = self._plans[commit.stage]
        if (
            commit.frames
            and attempt is None
            and not self._store(commit.stage).holds(commit.task, commit.attempt, commit.frames)
        ):
            return False
        spool = self._keep_spool(attempt) if attempt is not None and plan.partitions else None
        if commit.frames:
            self._store(commit.stage).commit(commit.task, commit.attempt, commit.frames, spool)
        if attempt is not None:
            if not plan.partitions:
                self._keep_part(attempt, commit.stage)
            self._keep_skipped(attempt)
            del self._attempts[attempt.key]
            shutil.rmtree(attempt.directory, ignore_errors=True)
        self._confirmed[self._id(commit.task, commit.attempt)] = None
        return True

    def _keep_spool(self, attempt: _Attempt) -> Spool:
        """The attempt's spool, now the task's; an earlier attempt's stands, if it holds the same."""
        key = self._key(attempt.launch)
        shelf = self._shelf(key)
        fresh = None if attempt.launch.replay else attempt.done
        if shelf is not None and fresh is not None and not _holds(shelf.path(key), fresh):
            shelf.drop(key)
            shelf = None
        if shelf is None and attempt.done is not None:
            shelf = next(each for each in self._shelves if attempt.directory.startswith(_parent(each)))
            try:
                shelf.keep(key, attempt.output, attempt.done)
            except OSError as error:
                raise spill_error(error, shelf.path(key)) from error
        if shelf is None:
            raise Corrupt(f"there is no spool of {attempt.launch.task} any more")
        return Spool(shelf.path(key))

    def _keep_part(self, attempt: _Attempt, stage: int) -> None:
        try:
            if any(plan.source == stage for plan in self._plans):
                sealed = seal(attempt.output)
                self._seals[attempt.target] = msgspec.structs.replace(sealed, path=attempt.target)
            os.replace(attempt.output, attempt.target)
            self._committed.append(attempt.target)
        except OSError as error:
            raise SpillError(
                f"cannot move {attempt.output} to {attempt.target}: {error.strerror}", attempt.target
            ) from error

    def _keep_skipped(self, attempt: _Attempt) -> None:
        """The records that the attempt left out, as a file in the output directory that readers ignore."""
        skipped = os.path.join(attempt.directory, SKIPPED)
        if os.path.exists(skipped):
            directory = os.path.join(self.spec.output_dir, f"_{SKIPPED}")
            os.makedirs(directory, exist_ok=True)
            shutil.move(skipped, os.path.join(directory, attempt.launch.task))

    def _id(self, task: str, attempt: int) -> AttemptId:
        return AttemptId(self.spec.job, task, attempt)

    def inventory(self) -> tuple[list[AttemptId], list[AttemptDone], list[AttemptId]]:
        """The attempts that run, the reports of those that wait for their commit, the commits done."""
        attempts = self._attempts.values()
        running = [self._id(*attempt.key) for attempt in attempts if attempt.running]
        return (
            running,
            [attempt.done for attempt in attempts if attempt.done is not None],
            list(self._confirmed),
        )

    def discard(self, task: str, attempt: int) -> None:
        """Forget whatever an attempt left here."""
        for store in self._stores.values():
            store.discard(task, attempt)
        known = self._attempts.pop((task, attempt), None)
        if known is not None:
            if known.errand is not None:
                known.errand.stop()
            if known.output:
                with suppress(OSError):
                    os.unlink(known.output)
            shutil.rmtree(known.directory, ignore_errors=True)

    def end_stage(self, stage: int) -> None:
        """Nobody reads this stage's partitions any more. What its tasks yielded stays until the job ends: if
        a later stage loses a worker, it may be needed."""
        for attempt in [each for each in self._confirmed if each.task.split("-")[1] == str(stage)]:
            del self._confirmed[attempt]
        store = self._stores.pop(stage, None)
        if store is not None:
            store.remove()
            for directory in store.directories:
                shutil.rmtree(directory, ignore_errors=True)

    def abort(self) -> None:
        """Nobody will finish the job: close it, and take back the output that is not marked complete."""
        self.close(keep=True)
        for directory in self._written_to:
            if os.path.exists(os.path.join(directory, SUCCESS)):
                continue
            for path in self._committed:
                if os.path.dirname(path) == directory:
                    with suppress(OSError):
                        os.unlink(path)
            shutil.rmtree(os.path.join(directory, TEMPORARY), ignore_errors=True)

    def close(self, keep: bool = False) -> None:
        """Kill what runs and remove what is left, except spools if they are to be kept."""
        for errand in self._errands.values():
            errand.stop()
        for errand in self._errands.values():
            errand.end()
        self._errands.clear()
        if self._spare is not None:
            self._spare.close()
        if self._executor is not None:
            self._executor.close()
            self._executor = None
        for store in self._stores.values():
            store.remove()
        for attempt in self._attempts.values():
            if attempt.output and os.path.exists(attempt.output):
                os.unlink(attempt.output)
        self._attempts.clear()
        for directory in self.directories:
            clear_job(directory, keep and not self.spec.stored)  # nobody resumes a stored job
