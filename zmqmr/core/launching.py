"""Which task runs next, and where. Every choice costs the logarithm of the workers, not their number."""

import heapq
from collections import deque

from zmqmr.core.cluster import Cluster
from zmqmr.core.state import Attempt, Job, Stage, Task, TaskState, Worker
from zmqmr.messages import Launch

PROGRESS_A_SECOND = 10_000  # reports of a cluster whose slots are all busy: a tenth of the coordinator's time


class Launching(Cluster):
    """Fills free slots with ready tasks."""

    def __init__(self, exclude_failures: int):
        super().__init__()
        self.exclude_failures = exclude_failures

    # --- ready tasks -------------------------------------------------------------------------

    def _queue_all(self, job: Job) -> None:
        """Sort the ready tasks of the current stage by where they can run."""
        job.waiting.clear()
        for stage in job.stages:
            stage.clear_queues()
        for task in job.stage.tasks:
            if task.state is TaskState.READY:
                self._queue(job, task)

    def _queue(self, job: Job, task: Task) -> None:
        """A task of the current stage is ready."""
        stage = job.stages[task.stage]
        if task.stage != job.current:
            return  # its turn comes
        if task.wait_until > self._now:
            job.waiting[task.name] = task
            return
        if task.spool is not None:
            name: str | None = task.spool
        elif stage.plan.source is not None:
            name = self._holder(job, stage, task.number)
        else:
            stage.ready.append(task)
            return
        if name is None:
            return  # its input has to be made first
        stage.pinned.setdefault(name, deque()).append(task)
        stage.wake[name] = None

    # --- launching ---------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give every free slot a ready task; jobs take turns, the one with fewest running first."""
        while self.workers:
            jobs = [j for j in self.jobs.values() if (j.stage.ready or j.stage.wake) and not j.awaited]
            if len(jobs) > 1:
                jobs.sort(key=lambda job: job.running)
            if not any(self._launch_one(job) for job in jobs):
                return

    def _launch_one(self, job: Job) -> bool:
        stage = job.stage
        while stage.wake:
            name = next(iter(stage.wake))
            worker, tasks = self.workers.get(name), stage.pinned.get(name)
            if worker is not None and tasks and worker.takes_work and name in job.opened:
                self._launch(job, stage, tasks.popleft(), worker)
                if not tasks:
                    del stage.pinned[name]
                return True
            del stage.wake[name]
        if stage.ready:
            worker = self._worker_for(job, stage.ready[0].failed_on)
            if worker is not None:
                self._launch(job, stage, stage.ready.popleft(), worker)
                return True
        return False

    def _worker_for(self, job: Job, failed_on: frozenset[str]) -> Worker | None:
        """The least busy worker with a free slot, on which a task has not failed if there is one."""
        aside: list[tuple[int, str]] = []
        best = second = None
        while self._idle and best is None:
            entry = heapq.heappop(self._idle)
            worker = self.workers.get(entry[1])
            if worker is None or not worker.takes_new_work or worker.free != -entry[0]:
                continue  # out of date
            aside.append(entry)
            if worker.name not in job.opened or self._excluded(job, worker.name):
                continue
            if worker.name not in failed_on:
                best = worker
            elif second is None:
                second = worker
        for entry in aside:
            heapq.heappush(self._idle, entry)
        return best or second

    def _excluded(self, job: Job, name: str) -> bool:
        """Whether a worker failed the job too often; with nowhere else to go it is better than none."""
        if job.failed_on.get(name, 0) < self.exclude_failures:
            return False
        return any(
            job.failed_on.get(other.name, 0) < self.exclude_failures
            for other in self.workers.values()
            if other.name in job.opened and not other.draining
        )

    def _launch(self, job: Job, stage: Stage, task: Task, worker: Worker) -> None:
        worker.free -= 1
        self._offer(worker)
        stage.running += 1
        job.active[task.name] = task
        task.attempt += 1
        replay = task.spool == worker.name
        attempt = Attempt(
            task.attempt, worker.name, self._now, self._now, stage.version, task.missing, replay
        )
        task.state, task.attempts = TaskState.RUNNING, (*task.attempts, attempt)
        what = "replayed by" if replay else "launched on"
        self._note(job, task, f"attempt {task.attempt} {what} {worker.name}")
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
                owners=self._endpoints(stage, task),
                version=stage.version,
                tasks=plan.tasks,
                input_bytes=self._input_bytes(job, stage, task),
                replay=replay,
                careful=task.careful,
                skip=task.skip,
                progress_seconds=self._progress_seconds(job, plan.step, worker),
            ),
        )

    def _progress_seconds(self, job: Job, step: int, worker: Worker) -> float:
        """A coordinator of thousands of workers is told less often, yet in time for the task timeout."""
        seconds = len(self.workers) * worker.slots / PROGRESS_A_SECOND
        timeout = job.spec.steps[step].timeout_seconds
        return min(seconds, timeout / 4) if timeout else seconds

    def _input_bytes(self, job: Job, stage: Stage, task: Task) -> int:
        """What a reduce task's partition must hold: whatever went wrong, less or more is never read."""
        source = job.source(stage)
        return source.volume[task.number] if source is not None and stage.plan.kind == "reduce" else 0

    def _endpoints(self, stage: Stage, task: Task) -> tuple[str, ...]:
        """Where the records of each partition go; "" for those that nobody needs or that have them."""
        missing = task.missing
        return tuple(
            self.workers[owner].shuffle
            if owner is not None and (missing is None or partition in missing)
            else ""
            for partition, owner in enumerate(stage.owners)
        )
