"""The coordinator's decisions: events in, commands out. No clock, no sockets, no randomness.

State changes in `Scheduler.handle` only. Each part of it is a class, over those below it: `cluster` has what
all share, `launching` says what runs where, `repair` what is made again, `reports` what becomes of attempts,
`restart` what a coordinator does that was killed; here is what happens to workers, jobs and time.
"""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from zmqmr.core.events import (
    AttemptSilent,
    AttemptSlow,
    ClientAttached,
    ClientMissing,
    Command,
    CommitOverdue,
    CoordinatorRestarted,
    Event,
    JobCancelled,
    JobsRemembered,
    JobSubmitted,
    OpeningOverdue,
    Reported,
    Tick,
    WaitOver,
    WorkerDrained,
    WorkerJoined,
    WorkerKept,
    WorkerLost,
    WorkersMissing,
)
from zmqmr.core.restart import Restart
from zmqmr.core.state import Attempt, Job, Stage, Task, TaskState, Worker
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptProgress,
    CommitFailed,
    Committed,
    EndJob,
    Failure,
    Heartbeat,
    Inventory,
    Opened,
    OpenFailed,
)
from zmqmr.words import counted

UPDATE_SECONDS = 0.2  # between two JobUpdates
ASK_SECONDS = 5.0  # between two questions to a worker that has not opened a job
OPENING_SECONDS = 30.0  # for all workers to say what they have kept of a job that is resumed
COMMIT_SECONDS = 60.0  # from an attempt's end until its records must have arrived
SLOW_FACTOR = 1.5  # times the median, as Hadoop and Spark have it: such an attempt is slow ...
SLOW_SECONDS = 5.0  # ... but a shorter one is not worth a race
RACE_SECONDS = 1.0  # between two races of a job
RACED_SHARE = 10  # at most one task in so many, and one in any case, is raced at a time


class Scheduler(Restart):
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
        super().__init__(worker_timeout_seconds, max_counters, exclude_failures)
        self.worker_wait_seconds = worker_wait_seconds
        self._events: dict[type, Callable[[Any], None]] = {
            WorkerJoined: self._worker_joined,
            WorkerLost: self._worker_lost_event,
            WorkerDrained: self._worker_drained,
            WorkerKept: self._worker_kept,
            JobsRemembered: self._jobs_remembered,
            Reported: self._reported,
            JobSubmitted: self._job_submitted,
            JobCancelled: self._job_cancelled,
            ClientAttached: self._client_attached,
            CoordinatorRestarted: self._coordinator_restarted,
            AttemptSilent: self._attempt_silent,
            AttemptSlow: self._attempt_slow,
            CommitOverdue: self._commit_overdue,
            WaitOver: self._wait_over,
            WorkersMissing: self._workers_missing,
            OpeningOverdue: self._opening_overdue,
            ClientMissing: self._client_missing,
            Tick: self._tick,
        }
        self._reports: dict[type, Callable[[Worker, Job, Any], None]] = {
            AttemptProgress: self._attempt_progress,
            AttemptDone: self._attempt_done,
            AttemptFailed: self._attempt_failed,
            Committed: self._committed,
            CommitFailed: self._commit_failed,
            Opened: self._opened,
            OpenFailed: self._open_failed,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about `event` at time `now` (seconds, never decreasing)."""
        self._commands = []
        self._now = now
        self._events[type(event)](event)
        self._fill()
        return self._commands

    def _reported(self, event: Reported) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or event.message.epoch != worker.epoch:
            return
        worker.heard = self._now
        if isinstance(event.message, Heartbeat):
            return
        if isinstance(event.message, Inventory):
            if not self._reconcile(worker, event.message):
                self._worker_lost(worker.name)  # it is refused when it is heard next, and begins a new epoch
            return
        job = self.jobs.get(event.message.job)
        if job is not None:
            self._reports[type(event.message)](worker, job, event.message)

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
        for ended in self.ended.values():  # which it may have missed: what it kept of them is of no use
            if ended.state == "succeeded":
                self._tell(event.worker, EndJob(ended.job))
        for job in self.jobs.values():
            job.changed, job.waiting_since = True, None
            self._tell(event.worker, job.opening)

    def _worker_drained(self, event: WorkerDrained) -> None:
        if worker := self.workers.get(event.worker):
            worker.draining = True
            for job in list(self.jobs.values()):
                job.changed = True
                for stage in job.stages:
                    if worker.name in stage.owners:  # others take over what nobody reads yet
                        self._move(job, stage, range(stage.plan.partitions), worker.name)

    def _worker_kept(self, event: WorkerKept) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None and worker.draining:
            worker.draining = False
            for job in list(self.jobs.values()):
                job.changed = True
                if worker.name in job.opened and not job.settled and not job.awaited:
                    self._settle(job)  # without it nobody could own what the job needs
                    self._advance(job)
            self._offer(worker)

    def needs(self, name: str) -> bool:
        """Whether a worker runs attempts or holds data that a job will read."""
        return any(
            any(attempt.worker == name for _, attempt in job.attempts())
            or any(name in stage.owners for stage in job.stages)
            or any(self._keeps_parts(job, stage, name) for stage in job.stages[:-1])
            for job in self.jobs.values()
        )

    @staticmethod
    def _keeps_parts(job: Job, stage: Stage, name: str) -> bool:
        if stage.plan.partitions or job.stages[stage.plan.number + 1].finished:
            return False
        return any(task.worker == name and task.state is TaskState.DONE for task in stage.tasks)

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
        worker = self.workers.pop(name, None)
        if worker is None:
            return
        for job in list(self.jobs.values()):
            job.changed = True
            self._lose_worker_of(job, worker)
            if self._is_live(job):
                self._commit_without(job, name)

    # --- jobs --------------------------------------------------------------------------------

    def _job_submitted(self, event: JobSubmitted) -> None:
        name = event.spec.job
        if name in self.jobs or name in self.ended:
            self._client_attached(ClientAttached(event.client, name))
            return  # a client that asks twice wants one job
        job = self.jobs[name] = Job(event.spec, event.client, self._now, event.lease_seconds)
        job.asked = self._now
        if event.spec.reuse:  # nothing runs before it is known what need not run
            job.awaited = set(self.workers)
        for worker in self.workers:
            self._tell(worker, job.opening)

    def _job_cancelled(self, event: JobCancelled) -> None:
        if job := self.jobs.get(event.job):
            self._end(job, "killed", event.reason)

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
            if job.lease_seconds and now - job.client_heard > job.lease_seconds:
                events.append(ClientMissing(job.spec.job))
            if job.awaited and now - job.began > OPENING_SECONDS:
                events.append(OpeningOverdue(job.spec.job))
            events += self._overdue(job, now)
            events += [
                WaitOver(job.spec.job, task.name) for task in job.waiting.values() if task.wait_until <= now
            ]
            events += self._slow(job, now)
        return events

    def _overdue(self, job: Job, now: float) -> Iterator[Event]:
        for task in job.active.values():
            timeout = job.spec.steps[job.plans[task.stage].step].timeout_seconds
            for attempt in task.attempts:
                if timeout and now - attempt.progressed > timeout:
                    yield AttemptSilent(job.spec.job, task.name, attempt.number)
            if task.state is TaskState.COMMITTING and now - task.done_at > COMMIT_SECONDS:
                yield CommitOverdue(job.spec.job, task.name, task.committing)

    def _slow(self, job: Job, now: float) -> Iterator[Event]:
        """Attempts that idle workers may overtake: when nothing else is left to launch."""
        stage = job.stage
        if now - job.raced_at < RACE_SECONDS:
            return
        if stage.ready or stage.plan.source is not None or len(self.workers) < 2 or not self._idle:
            return
        if 2 * stage.done < len(stage.tasks) or not stage.durations:
            return
        slow = max(SLOW_SECONDS, SLOW_FACTOR * median(stage.durations))
        room = max(1, len(stage.tasks) // RACED_SHARE)
        room -= sum(task.raced for task in job.active.values())
        for task in job.active.values():
            if task.state is not TaskState.RUNNING or task.raced or task.stage != job.current:
                continue
            first = task.attempts[0]
            if room > 0 and now - first.since > slow and not first.replay:
                room -= 1
                yield AttemptSlow(job.spec.job, task.name, first.number)

    def _tick(self, event: Tick) -> None:
        for job in self.jobs.values():
            if self.workers:
                job.waiting_since = None
            elif job.waiting_since is None:
                job.waiting_since, job.changed = self._now, True
            self._ask_again(job)
            if job.changed and self._now - job.updated >= UPDATE_SECONDS:
                self._update(job)

    def _ask_again(self, job: Job) -> None:
        """A connection that was made anew may have lost the first word of a job, or the answer; and whoever
        could not open it may be able to now."""
        for name, (times, at) in job.unopened.items():
            if at <= self._now and not self.workers[name].resuming:
                job.unopened[name] = times, self._now + ASK_SECONDS
                self._tell(name, job.opening)
        if self._now - job.asked < ASK_SECONDS or len(job.opened) == len(self.workers):
            return
        job.asked = self._now
        for worker in self.workers.values():
            known = worker.name in job.opened or worker.name in job.unopened
            if not known and not worker.resuming:
                self._tell(worker.name, job.opening)

    def _workers_missing(self, event: WorkersMissing) -> None:
        job = self.jobs.get(event.job)
        if job is not None and not self.workers:
            self._end(job, "failed", f"no worker joined within {counted(self.worker_wait_seconds, 'second')}")

    def _opening_overdue(self, event: OpeningOverdue) -> None:
        if job := self.jobs.get(event.job):
            job.awaited.clear()
            self._settle(job)

    def _client_missing(self, event: ClientMissing) -> None:
        if job := self.jobs.get(event.job):
            seconds = counted(job.lease_seconds, "second")
            self._end(job, "killed", f"its client has been gone for {seconds}; --detach lets a job go on")

    def _wait_over(self, event: WaitOver) -> None:
        job = self.jobs.get(event.job)
        task = job.waiting.pop(event.task, None) if job is not None else None
        if job is not None and task is not None:
            self._queue(job, task)

    def _timed(self, event: AttemptSilent | AttemptSlow) -> tuple[Job, Task, Attempt] | None:
        """The attempt that an event is about, if it still runs."""
        job = self.jobs.get(event.job)
        task = job.by_name.get(event.task) if job is not None else None
        attempt = task.running(event.attempt) if task is not None else None
        return (job, task, attempt) if job and task and attempt else None

    def _attempt_silent(self, event: AttemptSilent) -> None:
        """It is killed; its end is charged to the task with this reason."""
        found = self._timed(event)
        if found is None:
            return
        job, task, attempt = found
        timeout = job.spec.steps[job.plans[task.stage].step].timeout_seconds
        reason = f"no progress for {counted(timeout, 'second')} (mapreduce.task.timeout); it was killed"
        attempt.kill_reason = reason
        attempt.progressed = self._now  # ask again if it has not ended after as long again
        self._kill(job, task, attempt)

    def _attempt_slow(self, event: AttemptSlow) -> None:
        """Race it: the first of the two to be done is the task's, the other is killed."""
        found = self._timed(event)
        if found is None:
            return
        job, task, attempt = found
        if task.raced or task.state is not TaskState.RUNNING or len(task.attempts) > 1:
            return
        if job.plans[task.stage].source is not None:
            return  # only the worker that holds its input can run it
        job.raced_at = self._now
        worker = self._worker_for(job, task.failed_on | {attempt.worker})
        if worker is not None and worker.name != attempt.worker:
            task.raced = True
            self._note(job, task, f"attempt {attempt.number} on {attempt.worker} is slow: it is raced")
            self._launch(job, job.stages[task.stage], task, worker)

    def _commit_overdue(self, event: CommitOverdue) -> None:
        """A commit that waits for frames that were lost on the way never ends by itself."""
        job = self.jobs.get(event.job)
        task = job.by_name.get(event.task) if job is not None else None
        if job is None or task is None or task.committing != event.attempt:
            return
        if task.state is TaskState.COMMITTING:
            reason = f"its records did not arrive complete within {COMMIT_SECONDS:.0f} seconds of its end"
            for name in sorted(task.awaited):
                if self._is_live(job) and name in task.awaited:
                    self._refuse_part(self.workers[name], job, task, Failure(reason))
