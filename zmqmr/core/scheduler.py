"""The coordinator's decisions: events in, commands out. No clock, no sockets, no randomness.

State changes in `Scheduler.handle` only. A report is believed when it comes from the worker's current
epoch and names the task's current attempt; any other changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zmqmr.core.state import Job, Stage, Task, TaskState, Worker
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
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
    JobEnded,
    JobSpec,
    JobUpdate,
    Kill,
    Launch,
    OpenFailed,
    OpenJob,
)

LOST_WHILE_EXECUTING = 3  # a task, or the data of a job, may lose this many workers
UPDATE_SECONDS = 0.2  # between two JobUpdates
COUNTER_LIMIT = 10_000  # of one job; Hadoop has 120, and jobs that count by key meet it


# --- events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker registered. A name already known has restarted: what it held is gone."""

    worker: str
    epoch: int
    host: str
    slots: int
    shuffle: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker has not been heard, or said goodbye."""

    worker: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A message from a registered worker."""

    worker: str
    message: (
        Heartbeat | AttemptProgress | AttemptDone | AttemptFailed | Committed | CommitFailed | OpenFailed
    )


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    client: bytes
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class JobCancelled:
    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = WorkerJoined | WorkerLost | Reported | JobSubmitted | JobCancelled | Tick


# --- commands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a worker's agent."""

    worker: str
    message: Any


@dataclass(frozen=True, slots=True)
class Inform:
    """Send a message to a client."""

    client: bytes
    message: Any


Command = Tell | Inform


class Scheduler:
    """All jobs and workers of one coordinator."""

    def __init__(self, worker_timeout_seconds: float, worker_wait_seconds: float):
        """`worker_timeout_seconds`: silence after which a worker is lost.
        `worker_wait_seconds`: how long a job waits for a first or next worker before it fails."""
        self.worker_timeout_seconds = worker_timeout_seconds
        self.worker_wait_seconds = worker_wait_seconds
        self.workers: dict[str, Worker] = {}
        self.jobs: dict[str, Job] = {}
        self._commands: list[Command] = []
        self._now = 0.0
        self._events: dict[type, Callable[[Any], None]] = {
            WorkerJoined: self._worker_joined,
            WorkerLost: self._worker_lost_event,
            Reported: self._reported,
            JobSubmitted: self._job_submitted,
            JobCancelled: self._job_cancelled,
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
        )
        for job in self.jobs.values():
            job.changed = True
            self._tell(event.worker, OpenJob(job.spec))

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
            if job.spec.job in self.jobs and self._held_data(job, name):
                self._restart(job, worker)

    def _requeue_attempts_of(self, job: Job, worker: Worker) -> None:
        for task in job.stage.tasks:
            if task.worker != worker.name or task.state not in (TaskState.RUNNING, TaskState.COMMITTING):
                continue
            task.story.append(f"{self._now:.3f} attempt {task.attempt}: worker {worker.name} lost")
            task.losses += 1
            if task.losses >= LOST_WHILE_EXECUTING:
                reason = f"{task.losses} workers were lost while they ran {task.name}, the last on {worker.host}"
                self._end(job, "failed", reason)
                return
            self._discard(job, task)
            self._back_to_ready(job, task)

    def _held_data(self, job: Job, name: str) -> bool:
        """Whether a worker held shuffled records or part files that the job still needs."""
        if name in job.stage.owners:
            return True
        source = job.stage.plan.source
        if source is None:
            return False
        stage = job.stages[source]
        return name in stage.owners or any(task.worker == name for task in stage.tasks)

    def _restart(self, job: Job, worker: Worker) -> None:
        """The records a lost worker held are gone: the job starts anew with the workers left."""
        job.losses += 1
        if job.losses >= LOST_WHILE_EXECUTING:
            self._end(job, "failed", f"{job.losses} workers were lost with the job's data, the last {worker.host}")
            return
        for task in job.stage.tasks:
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
        if name in self.jobs:
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
        for task in job.stage.tasks:
            if task.state is TaskState.RUNNING and task.worker in self.workers:
                self.workers[task.worker].free += 1
        del self.jobs[job.spec.job]
        self._inform(
            job,
            JobEnded(
                job.spec.job,
                state,
                counters=tuple(job.counters),
                reason=reason,
                stages=job.progress(),
            ),
        )

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
            task.status = job.stages[task.stage].status = report.status
        job.changed = True

    def _attempt_done(self, worker: Worker, job: Job, report: AttemptDone) -> None:
        task = self._current(worker, job, report, TaskState.RUNNING)
        if task is None:
            return
        worker.free += 1
        stage = job.stages[task.stage]
        stage.running -= 1
        if self._too_many_counters(job, report):
            reason = f"the job counts more than {COUNTER_LIMIT} different counters; count fewer things"
            self._end(job, "failed", reason)
            return
        task.state, task.done = TaskState.COMMITTING, report
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
        return known + new > COUNTER_LIMIT and self._distinct_counters(job, report) > COUNTER_LIMIT

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
        if task is None or task.done is None:
            return
        task.awaited.discard(worker.name)
        if task.awaited:
            return
        stage = job.stages[task.stage]
        task.state = TaskState.DONE
        task.story.append(f"{self._now:.3f} attempt {task.attempt}: committed")
        stage.done += 1
        stage.records += task.done.records
        stage.bytes += task.done.bytes
        job.count(task.done.counters)
        job.changed = True
        task.done = None
        if stage.finished:
            self._stage_finished(job)

    def _commit_failed(self, worker: Worker, job: Job, report: CommitFailed) -> None:
        task = self._current(worker, job, report, TaskState.COMMITTING)
        if task is not None:
            self._charge(worker, job, task, report.failure)

    def _attempt_failed(self, worker: Worker, job: Job, report: AttemptFailed) -> None:
        task = self._current(worker, job, report, TaskState.RUNNING)
        if task is None:
            return
        worker.free += 1
        self._charge(worker, job, task, task.kill_failure or report.failure)

    def _open_failed(self, worker: Worker, job: Job, report: OpenFailed) -> None:
        self._explain(worker, job, job.stage.tasks[0], report.failure, final=True)
        self._end(job, "failed", report.failure.reason)

    def _charge(self, worker: Worker, job: Job, task: Task, failure: Failure) -> None:
        """One more failure of a task: run it again, or give the job up."""
        task.failures += 1
        task.failed_on.add(worker.name)
        job.stages[task.stage].failures += 1
        task.story.append(f"{self._now:.3f} attempt {task.attempt}: failed on {worker.name}: {failure.reason}")
        final = failure.fatal or task.failures >= self._attempts_allowed(job, task)
        self._explain(worker, job, task, failure, final)
        if final:
            times = "once" if task.failures == 1 else f"{task.failures} times"
            self._end(job, "failed", f"{task.name} failed {times}: {failure.reason}")
        else:
            self._discard(job, task)
            self._back_to_ready(job, task)

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
        stage.ready.append(task)
        job.changed = True

    # --- time --------------------------------------------------------------------------------

    def _tick(self, event: Tick) -> None:
        for worker in list(self.workers.values()):
            if self._now - worker.heard > self.worker_timeout_seconds:
                self._worker_lost(worker.name)
        for job in list(self.jobs.values()):
            self._check_waiting(job)
            if job.spec.job in self.jobs:
                self._kill_the_silent(job)
                if job.changed and self._now - job.updated >= UPDATE_SECONDS:
                    self._update(job)

    def _check_waiting(self, job: Job) -> None:
        if self.workers:
            job.waiting_since = None
        elif job.waiting_since is None:
            job.waiting_since = self._now
            job.changed = True
        elif self._now - job.waiting_since > self.worker_wait_seconds:
            self._end(job, "failed", f"no worker joined within {self.worker_wait_seconds:.0f} seconds")

    def _kill_the_silent(self, job: Job) -> None:
        """An attempt without progress for the step's timeout is killed and charged."""
        for task in job.stage.tasks if job.stage.running else ():
            timeout = job.spec.steps[job.plans[task.stage].step].timeout_seconds
            if task.state is not TaskState.RUNNING or task.kill_failure or not timeout:
                continue
            if self._now - task.progressed > timeout and task.worker is not None:
                reason = f"no progress for {timeout:g} seconds (mapreduce.task.timeout); it was killed"
                task.kill_failure = Failure(reason)
                self._tell(task.worker, Kill(job.spec.job, task.name, task.attempt))

    def _update(self, job: Job) -> None:
        job.changed, job.updated = False, self._now
        slots = sum(worker.slots for worker in self.workers.values())
        waiting = "" if self.workers else "no worker has joined"
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
        if not stage.ready or not any(worker.free for worker in self.workers.values()):
            return False
        if not stage.begun:
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
        ring = [worker.name for worker in sorted(self.workers.values(), key=lambda worker: worker.name)]
        ring = [name for name in ring for _ in range(self.workers[name].slots)]
        stage.owners = [ring[partition % len(ring)] for partition in range(stage.plan.partitions)]
        stage.begun = True

    def _worker_for(self, job: Job, stage: Stage, task: Task) -> Worker | None:
        """A worker with a free slot: the one that holds the task's input, or the least busy,
        one on which it has not failed first."""
        if stage.plan.source is not None:
            source = job.stages[stage.plan.source]
            holder = (
                source.owners[task.number] if stage.plan.kind == "reduce" else source.tasks[task.number].worker
            )
            worker = self.workers.get(holder or "")
            return worker if worker is not None and worker.free else None
        free = [worker for worker in self.workers.values() if worker.free and not worker.draining]
        return max(
            free,
            key=lambda worker: (worker.name not in task.failed_on, worker.free, worker.name),
            default=None,
        )

    def _launch(self, job: Job, stage: Stage, task: Task, worker: Worker) -> None:
        worker.free -= 1
        stage.running += 1
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
            ),
        )

    def _tell(self, worker: str, message: Any) -> None:
        self._commands.append(Tell(worker, message))

    def _inform(self, job: Job, message: Any) -> None:
        self._commands.append(Inform(job.client, message))
