"""What is lost and has to be made again: as little as possible, from spools where they are kept.

A task has delivered to a partition when the partition's owner has joined its records. When the owner is lost,
or what it holds is damaged, the partition gets another owner, and every task delivers to it again: from the
spool that its worker keeps, or by running again where the spool is lost too. To run again, a task needs its
own input, which may have to be made again in the same way, down to the job's input files.
"""

from collections.abc import Iterable

from zmqmr.core.launching import Launching
from zmqmr.core.state import Attempt, Job, Stage, Task, TaskState, Worker
from zmqmr.messages import EndJob, EndStage, OwnerLost

LOST_WHILE_EXECUTING = 3  # workers that a task may lose
RESTARTS = 3  # of a job whose tasks yield other records each time


class Repair(Launching):
    """Keeps everything that a job still needs in somebody's hands."""

    def _settle(self, job: Job) -> None:
        """Give every partition that is needed an owner, make ready the tasks that must fill it again, and
        find the stage to go on with. Whatever was lost or found before."""
        while True:
            job.settled = bool(self.workers)
            for consumer in reversed(job.stages[1 : job.current + 2]):
                self._settle_input(job, consumer)
            before, job.current = job.current, job.first_unfinished()
            if job.current <= before:
                break
        job.changed = True
        self._queue_all(job)

    def _settle_input(self, job: Job, consumer: Stage) -> None:
        source = job.source(consumer)
        assert source is not None
        needed = [task.number for task in consumer.tasks if task.needs_input]
        if source.plan.partitions:
            self._own(job, source, [number for number in needed if source.owners[number] is None])
        else:
            self._reopen_parts(source, needed)

    def _own(self, job: Job, stage: Stage, partitions: list[int]) -> None:
        """Partitions go round the slots of all workers that stay and can open the job, in the order of their
        names; without one the job is not settled."""
        ring = self._ring(job)
        if partitions and not ring:
            job.settled = False
        elif partitions:
            stage.own({partition: ring[partition % len(ring)] for partition in partitions})

    def _reopen_parts(self, stage: Stage, needed: list[int]) -> None:
        for number in needed:
            task = stage.tasks[number]
            if task.state is TaskState.DONE and task.worker is None:
                stage.reopen(task)

    def _lose_worker_of(self, job: Job, worker: Worker) -> None:
        """A worker is gone, with all that it ran and held for a job."""
        name = worker.name
        job.opened.discard(name)
        job.awaited.discard(name)
        job.unopened.pop(name, None)
        for task, attempt in job.attempts():
            if attempt.worker == name and not self._lose_attempt(job, task, attempt, worker.host):
                return
        for sender in sorted({attempt.worker for _, attempt in job.attempts()}):
            self._tell(sender, OwnerLost(job.spec.job, worker.shuffle))
        for stage in job.stages:
            stage.disown([number for number, owner in enumerate(stage.owners) if owner == name])
            for task in stage.tasks:
                if task.spool == name:
                    task.spool = None
                if task.worker == name and task.state is TaskState.DONE:
                    task.worker = None  # its part file is gone
        self._settle(job)

    def _lose_attempt(self, job: Job, task: Task, attempt: Attempt, host: str) -> bool:
        """False when that ends the job. Losing a worker costs a task no failure; a task that keeps losing
        workers ends its job."""
        self._gone(job, task, attempt)
        self._note(job, task, f"attempt {attempt.number}: worker {attempt.worker} was lost")
        self._discard(job, task, attempt.number)
        if not attempt.replay and not attempt.superseded:
            task.losses += 1
        if task.losses >= LOST_WHILE_EXECUTING:
            reason = f"{task.losses} workers were lost while they ran {task.name}, the last on {host}"
            self._end(job, "failed", reason)
            return False
        return True

    def _lose_input(self, job: Job, task: Task) -> None:
        """What a task read is damaged: it is made again."""
        source = job.source(job.stages[task.stage])
        assert source is not None
        if source.plan.partitions:
            source.disown([task.number])
        elif source.tasks[task.number].state is TaskState.DONE:
            source.reopen(source.tasks[task.number])
        self._settle(job)

    def _move(self, job: Job, stage: Stage, partitions: Iterable[int], name: str) -> bool:
        """A worker has no room for partitions that it owns, or is to leave: others get those that nobody
        reads now. False when there is nobody else."""
        ring = [other for other in self._ring(job) if other != name]
        readers = job.stages[stage.plan.number + 1].tasks
        moved = [
            number
            for number in partitions
            if stage.owners[number] == name and readers[number].needs_input and not readers[number].attempts
        ]
        if not ring or not moved:
            return False
        stage.disown(moved)
        if name not in stage.owners:
            self._tell(name, EndStage(job.spec.job, stage.plan.number, stage.version))
        stage.own({number: ring[number % len(ring)] for number in moved})
        self._settle(job)
        return True

    def _free(self, job: Job, stage: Stage) -> None:
        """Every task that reads the stage is done: nobody needs its partitions."""
        for name in self.workers:
            self._tell(name, EndStage(job.spec.job, stage.plan.number, stage.version))
        stage.disown(range(stage.plan.partitions))

    def _begin_anew(self, job: Job, task: Task) -> None:
        """A task yielded other records than before, and some of those are in use: nothing can stand."""
        job.restarts += 1
        if job.restarts >= RESTARTS:
            self._end(
                job,
                "failed",
                f"{task.name} yields other records each time it is run, so what was lost with a worker cannot"
                " be made again; make the job deterministic (seed its random numbers) and run it again",
            )
            return
        for _, attempt in job.attempts():
            if attempt.worker in self.workers:
                self._freed(self.workers[attempt.worker])
        for name in self.workers:
            self._tell(name, EndJob(job.spec.job))
            self._tell(name, job.opening)
        job.begin()
