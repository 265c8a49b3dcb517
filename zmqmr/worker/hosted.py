"""A job as one host's agent sees it: its directory, its executor, its attempts, its partitions."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from zmqmr.core.plan import StagePlan, keeps_tasks, plan_stages, stage_of
from zmqmr.data.outputs import SKIPPED
from zmqmr.data.places import forget_bundles, set_aside
from zmqmr.data.pushing import blob_of, fetched
from zmqmr.errors import Corrupt, SpillError, ZmqmrError
from zmqmr.messages import (
    AttemptDone,
    AttemptEnded,
    AttemptFailed,
    AttemptId,
    AttemptProgress,
    Commit,
    ExecutorFailed,
    Failure,
    JobSpec,
    Kill,
    Launch,
    Opened,
    OpenFailed,
    Run,
    Seal,
)
from zmqmr.net.frames import FrameHeader
from zmqmr.settings import Settings
from zmqmr.worker.delivery import note_lost_owner
from zmqmr.worker.explain import explain_spill
from zmqmr.worker.fetch import (
    INPUT,
    Errand,
    StoreAccess,
    claim_files,
    fetch,
    put_files,
    spec_here,
    unpack_bundle,
)
from zmqmr.worker.hosted_executor import HostedExecutor
from zmqmr.worker.kept import Kept
from zmqmr.worker.partitions import spill_error
from zmqmr.worker.repro import with_bundle
from zmqmr.worker.shuffles import Shuffles
from zmqmr.worker.spawn import ExecutorProcess

START_AGAIN_SECONDS = 1.0  # between two tries to start an executor
EXECUTOR_SECONDS = 5.0  # more than an executor needs to kill an attempt, beyond Settings.kill_seconds


class _Attempt:
    """An attempt that runs or waits for its commit."""

    def __init__(self, launch: Launch, directory: str, output: str, target: str):
        self.launch = launch
        self.directory = directory
        self.output = output  # where it writes, or ""
        self.target = target  # where its output goes on commit
        self.running = True
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
        self._settings, self._epoch, self._send = settings, epoch, send
        self._shuffle = shuffle
        self._plans: tuple[StagePlan, ...] = plan_stages(self.spec)
        self._kept = Kept(self.spec, self._plans, self.directories)
        self._executor = HostedExecutor(self.spec, self.work, executor)
        self._shuffles = Shuffles(self._plans, self.directories, self.spec.sort, settings, slots)
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._confirmed: dict[AttemptId, None] = {}  # attempts whose commit was done here
        self._found: tuple[str, ...] | None = None  # tasks whose spools are here, once it is open
        self._opening = False
        self._start_again_at: float | None = None  # an executor, which could not be started

    # --- its beginning -----------------------------------------------------------------------

    def open(self) -> None:
        """Make ready for attempts and tell the coordinator, or tell it why that cannot be; beside the agent's
        loop. To be called whenever the coordinator asks: its answer may have been lost, or there is room now
        where there was none."""
        if self._found is not None:
            self._send(Opened(self.spec.job, self._epoch, self._found))
        elif not self._opening:
            self._opening = True
            self._begin(self._unpack, self._unpacked)

    def _unpack(self, errand: Errand) -> None:
        try:
            for each in self.directories:
                os.makedirs(each, exist_ok=True)
            unpack_bundle(self.spec, self.work, self._access)(errand)
        except (ZmqmrError, OSError):
            shutil.rmtree(self.work, ignore_errors=True)
            raise

    def _unpacked(self, _: Any, error: Exception | None) -> None:
        """While the executor loads the job, look for spools that an earlier life, or an earlier run, left."""
        if error is None:
            try:
                self._executor.start()
            except OSError as failed:
                error = failed
        if error is not None:
            self._cannot_open(error)
        else:
            self._begin(lambda errand: self._kept.find_tasks(errand.check), self._prepared)

    def _prepared(self, found: Any, error: Exception | None) -> None:
        if error is not None:
            self._cannot_open(error)
        else:
            self._found = found
            self.open()

    def _cannot_open(self, error: Exception) -> None:
        """Another worker may, unless it is the bundle itself that is wrong."""
        self._opening = False
        self._executor.close()
        fatal = isinstance(error, Corrupt) or not isinstance(error, SpillError | OSError)
        failure = Failure(f"cannot open the job: {error}", fatal=fatal)
        self._send(OpenFailed(self.spec.job, self._epoch, failure))

    def _begin(self, work: Callable[[Errand], Any], then: Callable[[Any, Exception | None], None]) -> Errand:
        """Do something beside the agent's loop: with large files it takes longer than a lost worker may be
        silent."""
        errand = Errand(work, then)
        self._errands[errand.fd] = errand
        return errand

    # --- the executor ------------------------------------------------------------------------

    @property
    def descriptors(self) -> list[int]:
        """What the agent's loop polls for this job."""
        return [*self._shuffles.descriptors, *self._executor.descriptors, *self._errands]

    def serve(self, ready: set[int]) -> None:
        """Take what the readable descriptors have."""
        self._shuffles.serve(ready)
        for descriptor in [each for each in self._errands if each in ready]:
            self._errands.pop(descriptor).finish()
        self._report_transfers()
        for message in self._executor.receive(ready):
            self._from_executor(message)
        if self._executor.has_ended:
            self._executor_ended()
        if self._start_again_at is not None and time.monotonic() >= self._start_again_at:
            self._start_again_at = None
            self._replace_executor()
        self._kill_frozen_executor()

    def _kill_frozen_executor(self) -> None:
        """One that does not carry out orders ends, with its attempts; another takes its place."""
        now = time.monotonic()
        overdue = any(
            attempt.running and attempt.gone_by is not None and now > attempt.gone_by
            for attempt in self._attempts.values()
        )
        if overdue:
            self._executor.kill()

    def _from_executor(self, message: Any) -> None:
        if isinstance(message, ExecutorFailed):
            self._send(OpenFailed(self.spec.job, self._epoch, message.failure))
        elif isinstance(message, AttemptProgress):
            self._send(msgspec.structs.replace(message, epoch=self._epoch))
        elif isinstance(message, AttemptEnded):
            self._attempt_ended(message)

    def _executor_ended(self) -> None:
        """The executor is gone, and its attempts with it: fail them and start another."""
        ended = self._executor.take_end()
        if ended.may_be_replaced:
            for key in ended.running:
                failure = Failure(f"its executor ended: {ended.how}")
                self._attempt_ended(AttemptEnded(*key, None, failure))
            self._replace_executor()
        else:
            self._send(OpenFailed(self.spec.job, self._epoch, self._executor.not_loaded(ended.how)))

    def _replace_executor(self) -> None:
        """Start another one, now or when that is possible: a drive or the table of processes may be full."""
        try:
            self._executor.start()
        except OSError as error:
            print(f"zmqmr: no process can be started for {self.spec.job}: {error}", file=sys.stderr)
            self._start_again_at = time.monotonic() + START_AGAIN_SECONDS

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
                output = self._kept.place_aside(plan, name)
                target = self._kept.part(plan, launch.number)
        except OSError as error:
            self._send(self._failed(launch, explain_spill(spill_error(error, directory))))
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
            failure = explain_spill(spill_error(error, self.directory))
            self._attempt_ended(AttemptEnded(*attempt.key, None, failure))

    def _replay(self, attempt: _Attempt) -> None:
        """Deliver what a kept spool holds: to others by an attempt of its own, to ourselves by the commit."""
        launch = attempt.launch
        try:
            report, spool = self._kept.find_spool(launch)
        except SpillError as error:
            self._attempt_ended(AttemptEnded(launch.task, launch.attempt, None, Failure(str(error))))
            return
        report = msgspec.structs.replace(  # it may be of an earlier run of the job, under other names
            report, job=self.spec.job, task=launch.task, attempt=launch.attempt, undelivered=()
        )
        if not self._plans[launch.stage].partitions:
            self._claim_output(attempt, report)
        elif all(owner in ("", self._shuffle) for owner in launch.owners):
            frames = tuple(msgspec.structs.replace(count, frames=0) for count in report.frames)
            report = msgspec.structs.replace(report, frames=frames)
            self._attempt_ended(AttemptEnded(launch.task, launch.attempt, report, None))
        else:
            attempt.report = report
            self._executor.run(msgspec.structs.replace(self._run_message(attempt, ()), replay=spool.path))

    def _claim_output(self, attempt: _Attempt, report: AttemptDone) -> None:
        """What a task of the last stage has yielded is in the store, if that has kept it."""
        name = os.path.relpath(attempt.target, self.directory)  # in an earlier run it may have been another
        first, *others = report.files
        files = (msgspec.structs.replace(first, name=name), *others)
        self._end_with_files(attempt, report, partial(claim_files, self._access, self.spec.job, files))

    def _with_input(self, plan: StagePlan, attempt: _Attempt) -> None:
        launch = attempt.launch
        if plan.source is None:
            self._with_split(attempt)
        elif plan.kind == "map":
            part = self._kept.part(self._plans[plan.source], launch.number)
            if sealed := self._kept.seals.get(part):
                self._executor.run(self._run_message(attempt, (part,), [sealed]))
            else:
                failure = Failure(f"{part} is not here any more; it is made again", damaged=True)
                self._attempt_ended(AttemptEnded(*attempt.key, None, failure))
        else:

            def sorted_or_failed(runs: list[str] | SpillError) -> None:
                if isinstance(runs, SpillError):
                    self._attempt_ended(AttemptEnded(launch.task, launch.attempt, None, self._unsorted(runs)))
                elif store.volume(launch.number) != launch.input_bytes:
                    failure = self._not_whole(store.volume(launch.number), launch)
                    self._attempt_ended(AttemptEnded(launch.task, launch.attempt, None, failure))
                elif attempt.key in self._attempts:
                    self._executor.run(self._run_message(attempt, runs, [store.seals[run] for run in runs]))

            store = self._shuffles.of(plan.source)
            store.when_sorted(launch.number, sorted_or_failed)

    def _with_split(self, attempt: _Attempt) -> None:
        blob = blob_of(attempt.launch.split)
        if blob is None:
            self._executor.run(self._run_message(attempt, ()))
            return

        def fetched_or_failed(_: Any, error: Exception | None) -> None:
            attempt.errand = None
            if error is not None:
                self._errand_failed(attempt, error)
            elif attempt.key in self._attempts:
                self._executor.run(self._run_message(attempt, ()))

        path = os.path.join(attempt.directory, INPUT)
        attempt.errand = self._begin(
            partial(fetch, self._access, self.spec.job, blob, path), fetched_or_failed
        )

    def _errand_failed(self, attempt: _Attempt, error: Exception) -> None:
        self._attempt_ended(AttemptEnded(*attempt.key, None, explain_spill(error)))

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
        self._kept.drop_damaged(error.path)
        return explain_spill(error)

    def _run_message(self, attempt: _Attempt, runs: Sequence[str], seals: Sequence[Seal] = ()) -> Run:
        return Run(
            launch=attempt.launch,
            epoch=self._epoch,
            runs=tuple(runs),
            directory=attempt.directory,
            output=attempt.output,
            compress=self._kept.compress(self._plans[attempt.launch.stage]),
            shuffle=self._shuffle,
            seals=tuple(seals),
        )

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
            self._kept.drop_spool(attempt.launch)
            self._send(self._failed(attempt.launch, ended.failure or Failure("it ended without a word")))
            self.discard(*attempt.key)
        else:
            self._forget_damaged_input(attempt, ended.failure)
            failure = ended.failure or Failure("it ended without saying why")
            failure = with_bundle(self.spec, attempt.launch, attempt.directory, failure, self._settings)
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
        attempt.gone_by = None  # its process has ended
        self._end_with_files(attempt, done, partial(put_files, self._access, self.spec.job, files))

    def _end_with_files(self, attempt: _Attempt, done: AttemptDone, find: Callable[[Errand], Any]) -> None:
        """The attempt has ended once its output's files are in the store, as `find` finds or puts them."""

        def over(files: Any, error: Exception | None) -> None:
            attempt.errand = None
            if error is not None:
                self._errand_failed(attempt, error)
            else:
                ended = msgspec.structs.replace(done, files=files)
                self._attempt_ended(AttemptEnded(*attempt.key, ended, None))

        attempt.errand = self._begin(find, over)

    def _forget_damaged_input(self, attempt: _Attempt, failure: Failure | None) -> None:
        """A partition whose runs are damaged is made again from the beginning."""
        launch = attempt.launch
        if failure is None or not failure.damaged or self._plans[launch.stage].kind != "reduce":
            return
        if launch.source is not None:
            self._shuffles.reset(launch.source, launch.number)

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
        elif self._executor.order_kill(kill):
            if attempt.gone_by is None:
                attempt.gone_by = time.monotonic() + self._settings.kill_seconds + EXECUTOR_SECONDS
        else:
            self._executor.withdraw(attempt.key)
            failure = Failure("it was killed before it began")
            self._attempt_ended(AttemptEnded(kill.task, kill.attempt, None, failure))

    # --- output ------------------------------------------------------------------------------

    def receive(self, header: FrameHeader, payload: bytes) -> None:
        """A shuffle frame has arrived."""
        self._shuffles.receive(header, payload)

    def refuse(self, header: FrameHeader, error: SpillError) -> None:
        """A frame could not be kept: the attempt's commit will fail for this reason."""
        self._shuffles.refuse(header, error)

    def try_commit(self, commit: Commit) -> bool:
        """Do this host's part of a commit; False while frames are still on their way.
        SpillError when it cannot be done."""
        if self._id(commit.task, commit.attempt) in self._confirmed:
            return True  # a coordinator that has started again asks twice
        attempt = self._attempts.get((commit.task, commit.attempt))
        plan = self._plans[commit.stage]
        if attempt is None and not commit.frames and not self._kept.has_output(plan, commit.task):
            raise Corrupt(f"what {commit.task} yielded is not here any more")
        if (
            commit.frames
            and attempt is None
            and not self._shuffles.of(commit.stage).holds(commit.task, commit.attempt, commit.frames)
        ):
            return False
        spool = None
        if attempt is not None and plan.partitions:
            spool = self._kept.keep_spool(attempt.launch, attempt.directory, attempt.output, attempt.done)
        if commit.frames:
            self._shuffles.of(commit.stage).commit(commit.task, commit.attempt, commit.frames, spool)
        if attempt is not None:
            if not plan.partitions and not attempt.launch.replay:
                self._kept.keep_part(attempt.output, attempt.target, commit.stage, attempt.done)
                if attempt.done is not None and attempt.done.files and keeps_tasks(self.spec, plan):
                    self._kept.keep_report(attempt.launch, attempt.directory, attempt.done)
            self._kept.keep_skipped(attempt.directory, attempt.launch.task)
            del self._attempts[attempt.key]
            shutil.rmtree(attempt.directory, ignore_errors=True)
        self._confirmed[self._id(commit.task, commit.attempt)] = None
        return True

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

    def lose_owner(self, endpoint: str) -> None:
        """Attempts that send there need not wait for an answer any more."""
        for attempt in self._attempts.values():
            if attempt.running and endpoint in attempt.launch.owners:
                note_lost_owner(attempt.directory, endpoint)

    def discard(self, task: str, attempt: int) -> None:
        """Forget whatever an attempt left here."""
        self._shuffles.discard(task, attempt)
        known = self._attempts.pop((task, attempt), None)
        self._executor.withdraw((task, attempt))
        self._executor.order_kill(Kill(self.spec.job, task, attempt))
        if known is not None:
            if known.errand is not None:
                known.errand.stop()
            if known.output:
                with suppress(OSError):
                    os.unlink(known.output)
            shutil.rmtree(known.directory, ignore_errors=True)

    def end_stage(self, stage: int, version: int) -> None:
        """Nobody reads this stage's partitions any more, nor wants what was sent to its owners up to that
        version. What its tasks yielded stays until the job ends: if a later stage loses a worker, it may be
        needed."""
        for attempt in [each for each in self._confirmed if stage_of(each.task) == stage]:
            del self._confirmed[attempt]
        if directories := self._shuffles.end_stage(stage, version):
            self._begin(lambda errand: _remove_all(directories), lambda result, error: None)

    def abort(self) -> None:
        """Nobody will finish the job: close it, and take back the output that is not marked complete."""
        self.close(keep=True).join()
        self._kept.take_back()

    def close(self, keep: bool = False) -> threading.Thread:
        """Kill what runs and remove what is left, except spools and repro bundles if they are to be kept. A
        thread does what may take longer than a lost worker may be silent: it ends when all is done. A job of
        this name may be opened meanwhile."""
        if not keep:
            forget_bundles(self._settings.repro_directory, self.spec.job)
        for errand in self._errands.values():
            errand.stop()
        earlier = [] if keep else self._kept.earlier_directories()
        asides = [set_aside(directory, keep) for directory in (*self.directories, *earlier)]
        ending = threading.Thread(target=self._end, args=[asides], daemon=True)
        ending.start()
        return ending

    def _end(self, asides: Sequence[str]) -> None:
        for errand in self._errands.values():
            errand.end()
        self._executor.close()
        self._shuffles.close()
        for attempt in self._attempts.values():
            if attempt.output:
                with suppress(OSError):
                    os.unlink(attempt.output)
        _remove_all(filter(None, asides))


def _remove_all(directories: Iterable[str]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
