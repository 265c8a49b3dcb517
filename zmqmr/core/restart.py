"""A coordinator that has started again: the journal's view of each worker and what it really holds."""

from zmqmr.core.events import ClientAttached, CoordinatorRestarted, Inform
from zmqmr.core.reports import Reports
from zmqmr.core.state import Job, TaskState, Worker
from zmqmr.messages import (
    AttemptDone,
    AttemptId,
    Commit,
    EndJob,
    Inventory,
    JobUnknown,
    Kill,
)


class Restart(Reports):
    """Workers get nothing to do until their inventory has come."""

    def _client_attached(self, event: ClientAttached) -> None:
        if job := self.jobs.get(event.job):
            job.client_heard = self._now
            if event.client not in job.clients:
                job.clients.append(event.client)
            self._commands.append(Inform(event.client, self._progress_of(job)))
        elif ended := self.ended.get(event.job):
            self._commands.append(Inform(event.client, ended))
        else:
            self._commands.append(Inform(event.client, JobUnknown(event.job)))

    def _coordinator_restarted(self, event: CoordinatorRestarted) -> None:
        self.restarts += 1
        for worker in self.workers.values():
            worker.heard, worker.resuming = self._now, True
        for job in self.jobs.values():
            job.waiting_since, job.changed, job.client_heard = None, True, self._now
            for task in job.active.values():
                task.done_at = self._now
                for attempt in task.attempts:
                    attempt.progressed = self._now

    def _reconcile(self, worker: Worker, inventory: Inventory) -> bool:
        """Bring a worker and the journal's view of it together, whatever was lost in between. False when it
        did what the journal does not know of, and must begin anew. A worker is asked again and again: only
        its first answer counts, since the others may not know of what it was told after that."""
        if not worker.resuming or inventory.restarts != self.restarts:
            return True
        if self._is_ahead(inventory):
            return False
        worker.resuming = False
        for name in inventory.jobs:
            if name not in self.jobs:
                self._tell(worker.name, EndJob(name))
        for job in list(self.jobs.values()):
            if job.spec.job not in inventory.jobs or worker.name not in job.opened:
                self._tell(worker.name, job.opening)
            self._reconcile_job(worker, job, inventory)
        for each in inventory.running:
            known = self.jobs.get(each.job)
            task = known.by_name.get(each.task) if known is not None else None
            attempt = task.running(each.attempt) if task is not None else None
            if attempt is None or attempt.worker != worker.name:
                self._tell(worker.name, Kill(each.job, each.task, each.attempt))
        self._offer(worker)
        return True

    def _is_ahead(self, inventory: Inventory) -> bool:
        """Whether a worker did what the journal does not know of, because its end was lost: attempt numbers
        would be used twice."""
        done = tuple(AttemptId(report.job, report.task, report.attempt) for report in inventory.done)
        for each in (*inventory.running, *done, *inventory.committed):
            job = self.jobs.get(each.job)
            task = job.by_name.get(each.task) if job is not None else None
            if task is not None and each.attempt > task.attempt:
                return True
        for each in inventory.committed:
            job = self.jobs.get(each.job)
            task = job.by_name.get(each.task) if job is not None else None
            if task is not None and each.attempt == task.attempt != task.committing:
                return True
        return False

    def _reconcile_job(self, worker: Worker, job: Job, inventory: Inventory) -> None:
        running, committed = set(inventory.running), set(inventory.committed)
        reports = {AttemptId(each.job, each.task, each.attempt): each for each in inventory.done}
        asked = [task for task in job.active.values() if worker.name in task.awaited]
        self._reconcile_attempts(worker, job, running, reports)
        for task in asked:
            if not self._is_live(job):
                return
            if task.state is not TaskState.COMMITTING or worker.name not in task.awaited:
                continue
            if AttemptId(job.spec.job, task.name, task.committing) in committed:
                self._confirm(worker.name, job, task)
            else:
                counts = self._counts_by_owner(job.stages[task.stage], task).get(worker.name, ())
                message = Commit(job.spec.job, task.name, task.committing, task.stage, counts)
                self._tell(worker.name, message)

    def _reconcile_attempts(
        self, worker: Worker, job: Job, running: set[AttemptId], reports: dict[AttemptId, AttemptDone]
    ) -> None:
        for task, attempt in job.attempts():
            known = AttemptId(job.spec.job, task.name, attempt.number)
            if attempt.worker != worker.name or not self._is_live(job):
                continue
            if known in reports:
                self._attempt_done(worker, job, reports[known])
            elif known not in running:
                self._gone(job, task, attempt)
                self._discard(job, task, attempt.number)
                if task.state is TaskState.READY:
                    self._queue(job, task)
