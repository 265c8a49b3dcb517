"""The workers and jobs that the scheduler's parts share, and the commands that they give."""

import heapq
from collections import OrderedDict
from typing import Any

from zmqmr.core.events import Command, Inform, Tell
from zmqmr.core.state import Attempt, Job, Stage, Task, TaskState, Worker
from zmqmr.messages import (
    AttemptReport,
    Discard,
    EndJob,
    Failure,
    JobEnded,
    JobUpdate,
    Kill,
)

ENDED_JOBS = 100  # remembered


class Cluster:
    """All jobs and workers of one coordinator. Each change of state is made by a part of the scheduler."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.jobs: dict[str, Job] = {}
        self.ended: OrderedDict[str, JobEnded] = OrderedDict()  # the newest, for clients that ask late
        self.restarts = 0  # of the coordinator, since the beginning of its journal
        self._commands: list[Command] = []
        self._now = 0.0
        self._idle: list[tuple[int, str]] = []  # heap of (-free slots, worker); entries may be out of date

    # --- commands ----------------------------------------------------------------------------

    def _tell(self, worker: str, message: Any) -> None:
        self._commands.append(Tell(worker, message))

    def _inform(self, job: Job, message: Any) -> None:
        self._commands += [Inform(client, message) for client in job.clients]

    def _update(self, job: Job) -> None:
        job.changed, job.updated = False, self._now
        self._inform(job, self._progress_of(job))

    def _progress_of(self, job: Job) -> JobUpdate:
        slots = sum(worker.slots for worker in self.workers.values())
        waiting = "" if self.workers else "no worker is there"
        if self.workers and all(worker.draining for worker in self.workers.values()):
            waiting = "all workers are being drained"
        elif self.workers and len(job.unopened) == len(self.workers):
            waiting = "no worker can open the job yet"
        return JobUpdate(job.spec.job, job.progress(), slots, len(self.workers), waiting)

    def _note(self, job: Job, task: Task, what: str) -> None:
        job.tell(task, self._now, what)

    def _explain(
        self,
        worker: Worker,
        job: Job,
        task: Task,
        failure: Failure,
        final: bool,
        left_out: bool = False,
        began: bool = True,
    ) -> None:
        report = AttemptReport(
            job=job.spec.job,
            host=worker.host,
            step=job.plans[task.stage].step,
            task=task.name,
            attempt=max(task.attempt, 1),
            attempts=self._attempts_allowed(job, task) + max(task.attempt - task.failures, 0),
            final=final,
            failure=failure,
            story=task.story,
            left_out=left_out,
            worker=worker.name,
            began=began,
        )
        self._inform(job, report)

    def _attempts_allowed(self, job: Job, task: Task) -> int:
        plan = job.plans[task.stage]
        step = job.spec.steps[plan.step]
        return step.reduce_attempts if plan.kind == "reduce" else step.map_attempts

    def _ring(self, job: Job) -> list[str]:
        """The workers that may own a job's partitions, in the order of their names, each once for a slot."""
        able = (worker for name, worker in self.workers.items() if name not in job.unopened)
        staying = sorted(worker.name for worker in able if not worker.draining)
        return [name for name in staying for _ in range(self.workers[name].slots)]

    # --- slots -------------------------------------------------------------------------------

    def _freed(self, worker: Worker) -> None:
        """A slot of the worker is free."""
        worker.free += 1
        self._offer(worker)

    def _offer(self, worker: Worker) -> None:
        """The worker may take work: look at it."""
        if not worker.takes_work:
            return
        heapq.heappush(self._idle, (-worker.free, worker.name))
        if len(self._idle) > 4 * len(self.workers) + 64:
            self._idle = [(-each.free, each.name) for each in self.workers.values() if each.takes_work]
            heapq.heapify(self._idle)
        for job in self.jobs.values():
            if worker.name in job.stage.pinned:
                job.stage.wake[worker.name] = None

    def _gone(self, job: Job, task: Task, attempt: Attempt) -> None:
        """An attempt's process is gone, or its worker is."""
        task.attempts = tuple(each for each in task.attempts if each is not attempt)
        stage = job.stages[task.stage]
        stage.running -= 1
        if task.state is TaskState.RUNNING and all(each.superseded for each in task.attempts):
            task.state = TaskState.READY
        if task.state not in (TaskState.RUNNING, TaskState.COMMITTING) and not task.attempts:
            job.active.pop(task.name, None)
        worker = self.workers.get(attempt.worker)
        if worker is not None:
            self._freed(worker)

    def _kill(self, job: Job, task: Task, attempt: Attempt) -> None:
        self._tell(attempt.worker, Kill(job.spec.job, task.name, attempt.number))

    def _discard(self, job: Job, task: Task, number: int) -> None:
        """Nobody will commit this attempt."""
        for name in self.workers:
            self._tell(name, Discard(job.spec.job, task.name, number))

    # --- the end of a job --------------------------------------------------------------------

    def _end(self, job: Job, state: Any, reason: str) -> None:
        for name in self.workers:
            self._tell(name, EndJob(job.spec.job, state != "succeeded"))
        for _, attempt in job.attempts():
            if attempt.worker in self.workers:
                self.workers[attempt.worker].free += 1
                self._offer(self.workers[attempt.worker])
        del self.jobs[job.spec.job]
        ended = JobEnded(
            job.spec.job,
            state,
            counters=tuple(job.counters),
            reason=reason,
            stages=job.progress(),
            files=job.files if state == "succeeded" else (),
            seconds=max(0.0, self._now - job.began),
        )
        self.ended[job.spec.job] = ended
        while len(self.ended) > ENDED_JOBS:
            self.ended.popitem(last=False)
        self._inform(job, ended)

    def _is_live(self, job: Job) -> bool:
        return self.jobs.get(job.spec.job) is job

    def _holder(self, job: Job, stage: Stage, number: int) -> str | None:
        """The worker that holds the input of a stage's task."""
        source = job.source(stage)
        assert source is not None
        return source.owners[number] if source.plan.partitions else source.tasks[number].worker
