"""The coordinator's decisions: events in, commands out. No clock, no sockets, no randomness.

State changes in `Scheduler.handle` only. A report is believed when it comes from the worker's current
epoch and names the task's current attempt; any other changes nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from zmqmr.core.events import (
    AttemptSilent,
    ClientAttached,
    Command,
    CommitOverdue,
    CoordinatorRestarted,
    Event,
    Inform,
    JobCancelled,
    JobsRemembered,
    JobSubmitted,
    Reported,
    Tell,
    Tick,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
    WorkersMissing,
)
from zmqmr.core.state import Job, Stage, Task, TaskState, Worker
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptId,
    AttemptProgress,
    AttemptReport,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    EndJob,
    EndStage,
    Failure,
    FrameCount,
    Heartbeat,
    Inventory,
    JobEnded,
    JobUnknown,
    JobUpdate,
    Kill,
    Launch,
    OpenFailed,
    OpenJob,
    RecordAt,
)

LOST_WHILE_EXECUTING = 3  # a task, or the data of a job, may lose this many workers
ENDED_JOBS = 100  # remembered
UPDATE_SECONDS = 0.2  # between two JobUpdates
COMMIT_SECONDS = 60.0  # from an attempt's end until its records must have arrived


class Scheduler:
    """All jobs and workers of one coordinator."""

    def __init__(
        self,
        worker_timeout_seconds: float,
        worker_wait_seconds: float,
        max_counters: int = 10_000,
        exclude_failures: int = 3,
    ):
        """`worker_timeout_seconds`: silence after which a worker is lost.
        `worker_wait_seconds`: how long a job waits for a first or next worker before it fails.
        `max_counters`: different counters that a job may have. `exclude_failures`: of one job on one
        worker, after which the job prefers the others."""
        self.worker_timeout_seconds = worker_timeout_seconds
        self.worker_wait_seconds = worker_wait_seconds
        self.max_counters = max_counters
        self.exclude_failures = exclude_failures
        self.workers: dict[str, Worker] = {}
        self.jobs: dict[str, Job] = {}
        self.ended: OrderedDict[str, JobEnded] = OrderedDict()  # the newest, for clients that ask late
        self._commands: list[Command] = []
        self._now = 0.0
        self._events: dict[type, Callable[[Any], None]] = {
            WorkerJoined: self._worker_joined,
            WorkerLost: self._worker_lost_event,
            WorkerDrained: self._worker_drained,
            JobsRemembered: self._jobs_remembered,
            Reported: self._reported,
            JobSubmitted: self._job_submitted,
            JobCancelled: self._job_cancelled,
            ClientAttached: self._client_attached,
            CoordinatorRestarted: self._coordinator_restarted,
            AttemptSilent: self._attempt_silent,
            CommitOverdue: self._commit_overdue,
            WorkersMissing: self._workers_missing,
            Tick: self._tick,
        }
        self._reports: dict[type, Callable[[Worker, Job, Any], None]] = {
            AttemptProgress: self._attempt_progress,
            AttemptDone: self._attempt_done,
            AttemptFailed: self._attempt_failed,
            Committed: self._committed,
            CommitFailed: self._commit_failed,
            OpenFailed: self._open_failed,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about `event` at time `now` (seconds, never decreasing)."""
        self._commands = []
        self._now = now
        self._events[type(event)](event)
        self._fill()
        return self._commands

    # --- workers -----------------------------------------------------------------------------

    def _worker_joined(self, event: WorkerJoined) -> None:
        if event.worker in self.workers:
            self._worker_lost(event.worker)
        self.workers[event.worker] = Worker(
            name=event.worker,
            epoch=event.epoch,
            host=event.host,
            slots=event.slots,
            shuffle=event.shuffle,
            heard=self._now,
            free=event.slots,
            version=event.version,
            python=event.python,
        )
        for job in self.jobs.values():
            job.changed, job.waiting_since = True, None
            self._tell(event.worker, OpenJob(job.spec))

    def _worker_drained(self, event: WorkerDrained) -> None:
        if worker := self.workers.get(event.worker):
            worker.draining = True
            for job in self.jobs.values():
                job.changed = True

    def needs(self, name: str) -> bool:
        """Whether a worker runs attempts or holds data that a job will read."""
        return any(
            self._held_data(job, name) or any(task.worker == name for task in job.stage.active.values())
            for job in self.jobs.values()
        )

    def summary(self) -> list[Event]:
        """Events that make another scheduler like this one, which has no job."""
        events: list[Event] = [JobsRemembered(tuple(self.ended.values()))]
        for worker in self.workers.values():
            events.append(
                WorkerJoined(
                    worker.name,
                    worker.epoch,
                    worker.host,
                    worker.slots,
                    worker.shuffle,
                    worker.version,
                    worker.python,
                )
            )
            if worker.draining:
                events.append(WorkerDrained(worker.name))
        return events

    def _jobs_remembered(self, event: JobsRemembered) -> None:
        self.ended.update((job.job, job) for job in event.jobs)

    def _worker_lost_event(self, event: WorkerLost) -> None:
        self._worker_lost(event.worker)

    def _worker_lost(self, name: str) -> None:
        """Losing a worker costs a task no failure; a task that keeps losing workers ends its job."""
        worker = self.workers.pop(name, None)
        if worker is None:
            return
        for job in list(self.jobs.values()):
            job.changed = True
            self._requeue_attempts_of(job, worker)
            if job.spec.job in self.jobs:
                if self._held_data(job, name):
                    self._lose_data(job, worker)
                else:
                    self._confirm_for(job, worker)

    def _requeue_attempts_of(self, job: Job, worker: Worker) -> None:
        for task in list(job.stage.active.values()):
            if task.worker != worker.name or task.state not in (TaskState.RUNNING, TaskState.COMMITTING):
                continue
            if task.state is TaskState.COMMITTING and job.stage.plan.partitions:
                continue  # its frames are with their owners; running it again would double the records
            task.story.append(f"{self._now:.3f} attempt {task.attempt}: worker {worker.name} lost")
            task.losses += 1
            if task.losses >= LOST_WHILE_EXECUTING:
                reason = (
                    f"{task.losses} workers were lost while they ran {task.name}, the last on {worker.host}"
                )
                self._end(job, "failed", reason)
                return
            self._discard(job, task)
            self._back_to_ready(job, task)

    def _held_data(self, job: Job, name: str) -> bool:
        """Whether a worker held shuffled records or part files that the job still needs."""
        needed = [job.stage] if job.current + 1 < len(job.stages) else []  # a job's output is kept elsewhere
        if job.stage.plan.source is not None:
            needed.append(job.stages[job.stage.plan.source])
        return any(
            name in stage.owners
            if stage.plan.partitions
            else any(task.worker == name and task.state is TaskState.DONE for task in stage.tasks)
            for stage in needed
        )

    def _confirm_for(self, job: Job, worker: Worker) -> None:
        """A lost worker that owns no partition has nothing to add to the commits it takes part in."""
        for task in list(job.stage.active.values()):
            if task.state is TaskState.COMMITTING and worker.name in task.awaited:
                self._confirm(worker, job, task)

    def _lose_data(self, job: Job, worker: Worker) -> None:
        """The records a lost worker held are gone."""
        job.losses += 1
        if job.losses >= LOST_WHILE_EXECUTING:
            self._end(
                job, "failed", f"{job.losses} workers were lost with the job's data, the last {worker.host}"
            )
        else:
            self._restart(job)

    def _restart(self, job: Job) -> None:
        """The job starts anew with the workers there are; attempt numbers and failures go on."""
        for task in job.stage.active.values():
            if task.state is TaskState.RUNNING and task.worker in self.workers:
                self._tell(task.worker, Kill(job.spec.job, task.name, task.attempt))
                self.workers[task.worker].free += 1
        for stage in range(job.current + 1):
            for name in self.workers:
                self._tell(name, EndStage(job.spec.job, stage))
        job.begin()

    # --- jobs --------------------------------------------------------------------------------

    def _job_submitted(self, event: JobSubmitted) -> None:
        name = event.spec.job
        if name in self.jobs or name in self.ended:
            self._client_attached(ClientAttached(event.client, name))
            return  # a client that asks twice wants one job
        job = self.jobs[name] = Job(event.spec, event.client)
        for worker in self.workers:
            self._tell(worker, OpenJob(job.spec))

    def _job_cancelled(self, event: JobCancelled) -> None:
        if job := self.jobs.get(event.job):
            self._end(job, "killed", event.reason)

    def _end(self, job: Job, state: Any, reason: str) -> None:
        for worker in self.workers:
            self._tell(worker, EndJob(job.spec.job))
        for task in job.stage.active.values():
            if task.state is TaskState.RUNNING and task.worker in self.workers:
                self.workers[task.worker].free += 1
        del self.jobs[job.spec.job]
        ended = JobEnded(
            job.spec.job, state, counters=tuple(job.counters), reason=reason, stages=job.progress()
        )
        self.ended[job.spec.job] = ended
        while len(self.ended) > ENDED_JOBS:
            self.ended.popitem(last=False)
        self._inform(job, ended)

    def _stage_finished(self, job: Job) -> None:
        stage = job.stage
        job.changed = True
        if stage.plan.source is not None:
            for worker in self.workers:
                self._tell(worker, EndStage(job.spec.job, stage.plan.source))
        if job.current + 1 == len(job.stages):
            self._end(job, "succeeded", "")
        else:
            self._update(job)
            job.current += 1

    # --- reports -----------------------------------------------------------------------------

    def _reported(self, event: Reported) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or event.message.epoch != worker.epoch:
            return
        worker.heard = self._now
        if isinstance(event.message, Heartbeat):
            return
        if isinstance(event.message, Inventory):
            self._reconcile(worker, event.message)
            return
        job = self.jobs.get(event.message.job)
        if job is not None:
            self._reports[type(event.message)](worker, job, event.message)

    def _current(self, worker: Worker, job: Job, report: Any, state: TaskState) -> Task | None:
        """The task a report is about, when it is about its current attempt in `state`."""
        task = job.by_name.get(report.task)
        if task is None or task.state is not state or task.attempt != report.attempt:
            return None
        if state is TaskState.RUNNING and task.worker != worker.name:
            return None
        return task

    def _attempt_progress(self, worker: Worker, job: Job, report: AttemptProgress) -> None:
        task = self._current(worker, job, report, TaskState.RUNNING)
        if task is None:
            return
        task.progressed = self._now
        task.records, task.bytes = report.records, report.bytes
        if report.status:
            job.stages[task.stage].status = report.status
        job.changed = True

    def _attempt_done(self, worker: Worker, job: Job, report: AttemptDone) -> None:
        task = self._current(worker, job, report, TaskState.RUNNING)
        if task is None:
            return
        self._free_slot(worker, job, task)
        stage = job.stages[task.stage]
        if self._too_many_counters(job, report):
            reason = (
                f"the job has more than {self.max_counters} different counters;"
                " count fewer things or raise ZMQMR_MAX_COUNTERS"
            )
            self._end(job, "failed", reason)
            return
        task.state, task.done, task.progressed = TaskState.COMMITTING, report, self._now
        task.story.append(f"{self._now:.3f} attempt {task.attempt}: done on {worker.name}, committing")
        for name, frames in self._frames_by_owner(stage, worker, report).items():
            task.awaited.add(name)
            self._tell(name, Commit(job.spec.job, task.name, task.attempt, task.stage, frames))

    def _frames_by_owner(
        self, stage: Stage, worker: Worker, report: AttemptDone
    ) -> dict[str, tuple[FrameCount, ...]]:
        """Who takes part in the commit: the worker that ran the attempt, and whoever got frames."""
        parts: dict[str, list[FrameCount]] = {worker.name: []}
        for count in report.frames:
            if count.partition < len(stage.owners):
                parts.setdefault(stage.owners[count.partition], []).append(count)
        return {name: tuple(counts) for name, counts in parts.items()}

    def _too_many_counters(self, job: Job, report: AttemptDone) -> bool:
        known = sum(len(names) for step in job.counters for names in step.values())
        new = sum(len(names) for step in report.counters.values() for names in step.values())
        return known + new > self.max_counters and self._distinct_counters(job, report) > self.max_counters

    @staticmethod
    def _distinct_counters(job: Job, report: AttemptDone) -> int:
        distinct = {
            (str(step), group, name)
            for step, groups in enumerate(job.counters)
            for group, names in groups.items()
            for name in names
        }
        for step, groups in report.counters.items():
            distinct.update((step, group, name) for group, names in groups.items() for name in names)
        return len(distinct)

    def _committed(self, worker: Worker, job: Job, report: Committed) -> None:
        task = self._current(worker, job, report, TaskState.COMMITTING)
        if task is not None:
            self._confirm(worker, job, task)

    def _confirm(self, worker: Worker, job: Job, task: Task) -> None:
        """A worker has done its part of a commit, or is gone and its part does not matter."""
        task.awaited.discard(worker.name)
        if task.awaited or task.done is None:
            return
        stage = job.stages[task.stage]
        task.state = TaskState.DONE
        task.story.append(f"{self._now:.3f} attempt {task.attempt}: committed")
        stage.done += 1
        del stage.active[task.name]
        stage.records += task.done.records
        stage.bytes += task.done.bytes
        job.count(task.done.counters)
        job.changed = True
        task.done = None
        if stage.finished:
            self._stage_finished(job)

    def _commit_failed(self, worker: Worker, job: Job, report: CommitFailed) -> None:
        task = self._current(worker, job, report, TaskState.COMMITTING)
        if task is not None and worker.name in task.awaited:
            self._charge(worker, job, task, report.failure)

    def _attempt_failed(self, worker: Worker, job: Job, report: AttemptFailed) -> None:
        task = self._current(worker, job, report, TaskState.RUNNING)
        if task is None:
            return
        self._free_slot(worker, job, task)
        self._charge(worker, job, task, task.kill_failure or report.failure)

    def _open_failed(self, worker: Worker, job: Job, report: OpenFailed) -> None:
        if job.stage.tasks:
            self._explain(worker, job, job.stage.tasks[0], report.failure, final=True)
        self._end(job, "failed", report.failure.reason)

    def _charge(self, worker: Worker, job: Job, task: Task, failure: Failure) -> None:
        """One more failure of a task: run it again, or give the job up."""
        task.failures += 1
        task.failed_on.add(worker.name)
        job.stages[task.stage].failures += 1
        task.story.append(
            f"{self._now:.3f} attempt {task.attempt}: failed on {worker.name}: {failure.reason}"
        )
        job.failed_on[worker.name] = job.failed_on.get(worker.name, 0) + 1
        task.careful = task.careful or failure.crashed
        if self._skip(worker, job, task, failure):
            return
        final = failure.fatal or task.failures >= self._attempts_allowed(job, task)
        self._explain(worker, job, task, failure, final)
        if final:
            times = "once" if task.failures == 1 else f"{task.failures} times"
            self._end(job, "failed", f"{task.name} failed {times}: {failure.reason}")
        elif task.state is TaskState.COMMITTING and job.plans[task.stage].partitions:
            self._restart(job)  # other owners may have taken the records: running it again would double them
        else:
            self._discard(job, task)
            self._back_to_ready(job, task)

    def _skip(self, worker: Worker, job: Job, task: Task, failure: Failure) -> bool:
        """Leave a record out that failed two attempts in a row, if the job may; whether that was done.
        An attempt that only found such a record costs the task no failure."""
        at = RecordAt(failure.path, failure.offset) if failure.offset is not None else None
        again, task.suspect = at is not None and at == task.suspect, at
        if not again or at is None or failure.fatal or job.plans[task.stage].source is not None:
            return False
        if job.skipped >= job.spec.skip_bad_records:
            return False
        job.skipped += 1
        task.skip.append(at)
        task.failures = 0
        task.story.append(f"{self._now:.3f} leaves out the record at byte {at.offset} of {at.path}")
        self._explain(worker, job, task, failure, final=False)
        self._discard(job, task)
        self._back_to_ready(job, task)
        return True

    def _attempts_allowed(self, job: Job, task: Task) -> int:
        plan = job.plans[task.stage]
        step = job.spec.steps[plan.step]
        return step.reduce_attempts if plan.kind == "reduce" else step.map_attempts

    def _explain(self, worker: Worker, job: Job, task: Task, failure: Failure, final: bool) -> None:
        self._inform(
            job,
            AttemptReport(
                job=job.spec.job,
                host=worker.host,
                step=job.plans[task.stage].step,
                task=task.name,
                attempt=max(task.attempt, 1),
                attempts=self._attempts_allowed(job, task),
                final=final,
                failure=failure,
            ),
        )

    def _free_slot(self, worker: Worker, job: Job, task: Task) -> None:
        """The attempt's process is gone; whoever calls says what becomes of the task."""
        worker.free += 1
        job.stages[task.stage].running -= 1
        task.state = TaskState.READY

    def _discard(self, job: Job, task: Task) -> None:
        for name in self.workers:
            self._tell(name, Discard(job.spec.job, task.name, task.attempt))

    def _back_to_ready(self, job: Job, task: Task) -> None:
        stage = job.stages[task.stage]
        if task.state is TaskState.RUNNING:
            stage.running -= 1
        task.state, task.worker, task.done, task.kill_failure = TaskState.READY, None, None, None
        task.records = task.bytes = 0
        task.awaited.clear()
        stage.active.pop(task.name, None)
        stage.ready.append(task)
        job.changed = True

    # --- time --------------------------------------------------------------------------------

    def due(self, now: float) -> list[Event]:
        """What time alone has brought about; changes nothing. The shell handles, and journals, each."""
        events: list[Event] = [
            WorkerLost(worker.name)
            for worker in self.workers.values()
            if now - worker.heard > self.worker_timeout_seconds
        ]
        for job in self.jobs.values():
            since = job.waiting_since
            if not self.workers and since is not None and now - since > self.worker_wait_seconds:
                events.append(WorkersMissing(job.spec.job))
            events += self._overdue(job, now)
        return events

    def _overdue(self, job: Job, now: float) -> Iterator[Event]:
        timeout = job.spec.steps[job.stage.plan.step].timeout_seconds
        for task in job.stage.active.values():
            silent = now - task.progressed
            if task.state is TaskState.RUNNING and timeout and silent > timeout:
                yield AttemptSilent(job.spec.job, task.name, task.attempt)
            elif task.state is TaskState.COMMITTING and silent > COMMIT_SECONDS:
                yield CommitOverdue(job.spec.job, task.name, task.attempt)

    def _tick(self, event: Tick) -> None:
        for job in self.jobs.values():
            if self.workers:
                job.waiting_since = None
            elif job.waiting_since is None:
                job.waiting_since, job.changed = self._now, True
            if job.changed and self._now - job.updated >= UPDATE_SECONDS:
                self._update(job)

    def _workers_missing(self, event: WorkersMissing) -> None:
        job = self.jobs.get(event.job)
        if job is not None and not self.workers:
            self._end(job, "failed", f"no worker joined within {self.worker_wait_seconds:.0f} seconds")

    def _timed(self, event: AttemptSilent | CommitOverdue, state: TaskState) -> tuple[Job, Task] | None:
        """The job and task of an overdue attempt, if it is still the current one."""
        job = self.jobs.get(event.job)
        task = job.stage.active.get(event.task) if job is not None else None
        if job is None or task is None or task.attempt != event.attempt or task.state is not state:
            return None
        return job, task

    def _attempt_silent(self, event: AttemptSilent) -> None:
        """It is killed; its end is charged to the task with this reason."""
        found = self._timed(event, TaskState.RUNNING)
        if found is None:
            return
        job, task = found
        timeout = job.spec.steps[job.stage.plan.step].timeout_seconds
        reason = f"no progress for {timeout:g} seconds (mapreduce.task.timeout); it was killed"
        task.kill_failure = Failure(reason)
        task.progressed = self._now  # ask again if it has not ended after as long again
        if task.worker is not None:
            self._tell(task.worker, Kill(job.spec.job, task.name, task.attempt))

    def _commit_overdue(self, event: CommitOverdue) -> None:
        """A commit that waits for frames that were lost on the way never ends by itself."""
        found = self._timed(event, TaskState.COMMITTING)
        if found is None:
            return
        job, task = found
        reason = f"its records did not arrive complete within {COMMIT_SECONDS:.0f} seconds of its end"
        self._charge(self.workers[min(task.awaited)], job, task, Failure(reason))

    # --- after a restart ---------------------------------------------------------------------

    def _client_attached(self, event: ClientAttached) -> None:
        if job := self.jobs.get(event.job):
            job.client = event.client
            self._update(job)
        elif ended := self.ended.get(event.job):
            self._commands.append(Inform(event.client, ended))
        else:
            self._commands.append(Inform(event.client, JobUnknown(event.job)))

    def _coordinator_restarted(self, event: CoordinatorRestarted) -> None:
        for worker in self.workers.values():
            worker.heard, worker.resuming = self._now, True
        for job in self.jobs.values():
            job.waiting_since, job.changed = None, True
            for task in job.stage.active.values():
                task.progressed = self._now

    def _reconcile(self, worker: Worker, inventory: Inventory) -> None:
        """Bring a worker and the journal's view of it together, whatever was lost in between."""
        worker.resuming = False
        if self._is_ahead(worker, inventory):
            self._worker_lost(worker.name)  # it is refused when it is heard next, and begins a new epoch
            return
        for name in inventory.jobs:
            if name not in self.jobs:
                self._tell(worker.name, EndJob(name))
        for job in list(self.jobs.values()):
            if job.spec.job not in inventory.jobs:
                self._tell(worker.name, OpenJob(job.spec))
            self._reconcile_job(worker, job, inventory)
        for attempt in inventory.running:
            known = self.jobs.get(attempt.job)
            task = known.stage.active.get(attempt.task) if known is not None else None
            if task is None or task.attempt != attempt.attempt or task.worker != worker.name:
                self._tell(worker.name, Kill(attempt.job, attempt.task, attempt.attempt))

    def _is_ahead(self, worker: Worker, inventory: Inventory) -> bool:
        """Whether a worker did what the journal does not know of, because its end was lost. Whose records
        it holds cannot be told then, and attempt numbers would be used twice: it must begin anew."""
        done = tuple(AttemptId(report.job, report.task, report.attempt) for report in inventory.done)
        for attempt in (*inventory.running, *done, *inventory.committed):
            job = self.jobs.get(attempt.job)
            task = job.by_name.get(attempt.task) if job is not None else None
            if task is not None and attempt.attempt > task.attempt:
                return True
        for attempt in inventory.committed:
            job = self.jobs.get(attempt.job)
            task = job.by_name.get(attempt.task) if job is not None else None
            if task is None or attempt.attempt != task.attempt:
                continue
            if task.state not in (TaskState.COMMITTING, TaskState.DONE):
                return True
        return False

    def _reconcile_job(self, worker: Worker, job: Job, inventory: Inventory) -> None:
        running, committed = set(inventory.running), set(inventory.committed)
        reports = {AttemptId(report.job, report.task, report.attempt): report for report in inventory.done}
        for task in list(job.stage.active.values()):
            attempt = AttemptId(job.spec.job, task.name, task.attempt)
            if task.state is TaskState.RUNNING and task.worker == worker.name:
                if attempt in reports:
                    self._attempt_done(worker, job, reports[attempt])
                elif attempt not in running:
                    self._free_slot(worker, job, task)
                    self._discard(job, task)
                    self._back_to_ready(job, task)
            elif task.state is TaskState.COMMITTING and worker.name in task.awaited:
                if attempt in committed:
                    self._confirm(worker, job, task)
                elif task.done is not None:
                    frames = self._frames_by_owner(job.stages[task.stage], worker, task.done)
                    message = Commit(job.spec.job, task.name, task.attempt, task.stage, frames[worker.name])
                    self._tell(worker.name, message)
            if job.spec.job not in self.jobs:
                return  # a report ended it

    def _update(self, job: Job) -> None:
        job.changed, job.updated = False, self._now
        slots = sum(worker.slots for worker in self.workers.values())
        waiting = "" if self.workers else "no worker has joined"
        if self.workers and all(worker.draining for worker in self.workers.values()):
            waiting = "all workers are being drained"
        self._inform(job, JobUpdate(job.spec.job, job.progress(), slots, len(self.workers), waiting))

    # --- launching ---------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give every free slot a ready task; jobs take turns, the one with fewest running first."""
        while True:
            for job in sorted(self.jobs.values(), key=lambda job: job.stage.running):
                if self._launch_one(job):
                    break
            else:
                return

    def _launch_one(self, job: Job) -> bool:
        stage = job.stage
        if not stage.tasks and self._ring():
            self._begin_stage(stage)
            self._stage_finished(job)
            return True
        if not stage.ready or not any(worker.takes_work for worker in self.workers.values()):
            return False
        if not stage.begun:
            if not self._ring():
                return False
            self._begin_stage(stage)
        for _ in range(len(stage.ready)):
            task = stage.ready.popleft()
            worker = self._worker_for(job, stage, task)
            if worker is not None:
                self._launch(job, stage, task, worker)
                return True
            stage.ready.append(task)
        return False

    def _begin_stage(self, stage: Stage) -> None:
        """Partitions go round the slots of all workers, in the order of their names."""
        ring = self._ring()
        stage.owners = [ring[partition % len(ring)] for partition in range(stage.plan.partitions)]
        stage.begun = True

    def _ring(self) -> list[str]:
        """The workers that may own partitions, in the order of their names, each once for a slot."""
        staying = sorted(name for name, worker in self.workers.items() if not worker.draining)
        return [name for name in staying for _ in range(self.workers[name].slots)]

    def _worker_for(self, job: Job, stage: Stage, task: Task) -> Worker | None:
        """A worker with a free slot: the one that holds the task's input, or the least busy,
        one on which it has not failed first."""
        if stage.plan.source is not None:
            source = job.stages[stage.plan.source]
            holder = (
                source.owners[task.number]
                if stage.plan.kind == "reduce"
                else source.tasks[task.number].worker
            )
            worker = self.workers.get(holder or "")
            return worker if worker is not None and worker.takes_work else None
        free = [worker for worker in self.workers.values() if worker.takes_new_work]
        trusted = [name for name in self.workers if job.failed_on.get(name, 0) < self.exclude_failures]
        if trusted:  # with nowhere else to go, an excluded worker is better than none
            free = [worker for worker in free if worker.name in trusted]
        return max(
            free,
            key=lambda worker: (worker.name not in task.failed_on, worker.free, worker.name),
            default=None,
        )

    def _launch(self, job: Job, stage: Stage, task: Task, worker: Worker) -> None:
        worker.free -= 1
        stage.running += 1
        stage.active[task.name] = task
        task.attempt += 1
        task.state, task.worker, task.progressed = TaskState.RUNNING, worker.name, self._now
        task.story.append(f"{self._now:.3f} attempt {task.attempt}: launched on {worker.name}")
        plan = stage.plan
        self._tell(
            worker.name,
            Launch(
                job=job.spec.job,
                task=task.name,
                attempt=task.attempt,
                stage=plan.number,
                number=task.number,
                links=plan.links,
                combine=plan.combine,
                split=job.spec.splits[task.number] if plan.source is None else None,
                source=plan.source,
                partitions=plan.partitions,
                owners=tuple(self.workers[name].shuffle for name in stage.owners if name in self.workers),
                tasks=plan.tasks,
                careful=task.careful,
                skip=tuple(task.skip),
            ),
        )

    def _tell(self, worker: str, message: Any) -> None:
        self._commands.append(Tell(worker, message))

    def _inform(self, job: Job, message: Any) -> None:
        self._commands.append(Inform(job.client, message))
