"""Drives a real Scheduler and checks, after every event, what must always hold."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, TypeVar

from zmqmr.core.events import Command, Event, Inform, Reported, Tell, Tick, WorkerJoined
from zmqmr.core.scheduler import Scheduler
from zmqmr.core.state import Job, Stage, Task, TaskState
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptProgress,
    Commit,
    CommitFailed,
    Committed,
    Counters,
    Failure,
    FrameCount,
    Heartbeat,
    JobEnded,
    Launch,
    Opened,
    OpenFailed,
    OpenJob,
)

WORKER_TIMEOUT = 5.0
WORKER_WAIT = 60.0
LONGEST_WAIT = 31.0  # of a task before its next attempt
CLIENT = b"client"

M = TypeVar("M")


def snapshot(scheduler: Scheduler) -> Any:
    """All that the scheduler knows, except when it last heard of its workers."""
    workers = {
        name: (worker.epoch, worker.slots, worker.free) for name, worker in sorted(scheduler.workers.items())
    }
    jobs = {}
    for name, job in sorted(scheduler.jobs.items()):
        stages = [
            (
                [astuple(task) for task in stage.tasks],
                [task.name for task in stage.ready],
                [(name, [task.name for task in tasks]) for name, tasks in stage.pinned.items()],
                tuple(stage.owners),
                (stage.version, stage.done, stage.running, stage.failures),
                (stage.records, stage.bytes, stage.status),
            )
            for stage in job.stages
        ]
        jobs[name] = (stages, job.current, repr(job.counters), job.restarts, job.changed)
    return repr((workers, jobs))


def counters_of(launch: Launch) -> dict[str, Counters]:
    """Counters that tell every attempt apart, in the first step of its chain."""
    step = launch.links[0][0] if launch.links else 0
    return {str(step): {"tasks": {f"{launch.task} {launch.attempt}": 1}, "all": {"attempts": 1}}}


class Driver:
    """A scheduler, the events it was given, the commands it gave, and reports to make."""

    def __init__(self, **settings: Any):
        self.scheduler = Scheduler(WORKER_TIMEOUT, WORKER_WAIT, **settings)
        self.settings = settings
        self.now = 0.0
        self.log: list[tuple[Event, float, list[Command]]] = []
        self.commands: list[Command] = []  # of the last event
        self.launches: list[tuple[str, int, Launch]] = []  # worker, epoch
        self.ended: dict[str, JobEnded] = {}
        self.kept: dict[tuple[str, str], list[str]] = {}  # tasks whose spools a worker has of a job it opens
        self.full: set[str] = set()  # workers whose drive has no room for another job
        self.silent: set[str] = set()  # workers that do not say yet whether they have opened a job
        self._yielded: dict[tuple[str, str], dict[str, Counters]] = {}  # what the spools hold
        self._epoch = 0
        self._newest: dict[tuple[str, str], int] = {}
        self._commits: Counter[tuple[str, Commit]] = Counter()
        self._accepted: dict[tuple[str, str], dict[str, Counters]] = {}

    # --- events ------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Command]:
        """Give the scheduler an event, and check all that must hold afterwards."""
        commands = list(self.scheduler.handle(event, self.now))
        self.log.append((event, self.now, list(commands)))
        for command in commands:
            self._note(command)
        self._check()
        for command in list(commands):
            if isinstance(command.message, OpenJob):  # every worker answers at once
                assert isinstance(command, Tell)
                commands += self._open(command.worker, command.message.spec.job)
        self.commands = commands
        return commands

    def _open(self, worker: str, job: str) -> list[Command]:
        if worker in self.silent:
            return []
        if worker in self.full:
            return self.open_failed(worker, job, fatal=False)
        kept = tuple(self.kept.get((worker, job), ()))
        return self.handle(Reported(worker, Opened(job, self.epoch(worker), kept)))

    def tick(self) -> list[Command]:
        """Let the scheduler do what is due now, as the coordinator's shell does."""
        commands: list[Command] = []
        for event in self.scheduler.due(self.now):
            commands += self.handle(event)
        commands += self.handle(Tick())
        self.commands = commands
        return commands

    def join(self, name: str, slots: int = 1) -> None:
        """A worker joins, or comes back in a new epoch."""
        self._epoch += 1
        self.handle(WorkerJoined(name, self._epoch, f"host-{name}", slots, f"ipc://{name}/{self._epoch}"))

    def report(self, worker: str, message: Any) -> list[Command]:
        """Pass on a worker's message."""
        if isinstance(message, AttemptDone) and self.is_current(worker, message):
            task = self.task(message.task, message.job)
            attempt = task.running(message.attempt)
            if attempt is None or attempt.superseded:
                return self.handle(Reported(worker, message))
            self._yielded[message.job, message.task] = message.counters
            if not task.counted:
                self._accepted[message.job, message.task] = message.counters
        return self.handle(Reported(worker, message))

    def told(self, kind: type[M], worker: str | None = None) -> list[M]:
        """The messages of a kind in the commands of the last event, to `worker` or to anyone."""
        return [
            command.message
            for command in self.commands
            if isinstance(command.message, kind)
            and (worker is None or (isinstance(command, Tell) and command.worker == worker))
        ]

    # --- reports -----------------------------------------------------------------------------

    def epoch(self, worker: str) -> int:
        known = self.scheduler.workers.get(worker)
        return known.epoch if known is not None else 0

    def newest(self, task: str, job: str = "job") -> tuple[str, int, Launch]:
        """The last launch of a task."""
        return next(
            entry for entry in reversed(self.launches) if (entry[2].job, entry[2].task) == (job, task)
        )

    def done_message(self, entry: tuple[str, int, Launch]) -> AttemptDone:
        _, epoch, launch = entry
        frames = tuple(FrameCount(partition, 1, 10) for partition in range(launch.partitions))
        counters = self._yielded[launch.job, launch.task] if launch.replay else counters_of(launch)
        return AttemptDone(
            launch.job, launch.task, launch.attempt, epoch, counters, frames, records=2, bytes=3
        )

    def done(self, entry: tuple[str, int, Launch]) -> list[Command]:
        """Report that an attempt is done; if it is the current one, its counters are to count."""
        return self.report(entry[0], self.done_message(entry))

    def fail(self, entry: tuple[str, int, Launch], reason: str = "it broke", **kind: bool) -> list[Command]:
        """`kind`: what sort of failure, as fields of it."""
        worker, epoch, launch = entry
        failure = Failure(reason, **kind)
        return self.report(worker, AttemptFailed(launch.job, launch.task, launch.attempt, epoch, failure))

    def progress(self, entry: tuple[str, int, Launch]) -> list[Command]:
        worker, epoch, launch = entry
        return self.report(worker, AttemptProgress(launch.job, launch.task, launch.attempt, epoch, 1, 1, ""))

    def committed(self, worker: str, launch: Launch, epoch: int | None = None) -> list[Command]:
        epoch = self.epoch(worker) if epoch is None else epoch
        return self.report(worker, Committed(launch.job, launch.task, launch.attempt, epoch))

    def commit_failed(
        self, worker: str, launch: Launch, epoch: int | None = None, no_room: bool = False
    ) -> list[Command]:
        epoch = self.epoch(worker) if epoch is None else epoch
        failure = Failure("the disk is full" if no_room else "the disk is broken", no_room=no_room)
        return self.report(worker, CommitFailed(launch.job, launch.task, launch.attempt, epoch, failure))

    def open_failed(self, worker: str, job: str = "job", fatal: bool = True) -> list[Command]:
        failure = Failure("no such module" if fatal else "no room", fatal=fatal, no_room=not fatal)
        return self.report(worker, OpenFailed(job, self.epoch(worker), failure))

    def beat(self) -> None:
        """Every worker shows that it lives."""
        for worker in list(self.scheduler.workers):
            self.report(worker, Heartbeat(self.epoch(worker)))

    def finish(self, entry: tuple[str, int, Launch]) -> None:
        """An attempt is done, and everyone who is asked commits it."""
        self.done(entry)
        self.confirm_all(entry[2])

    def confirm_all(self, launch: Launch) -> None:
        task = self.task(launch.task, launch.job)
        for worker in sorted(task.awaited):
            self.committed(worker, launch)

    def task(self, name: str, job: str = "job") -> Task:
        return self.scheduler.jobs[job].by_name[name]

    def is_current(self, worker: str, message: Any) -> bool:
        """Whether a report is one to believe."""
        known = self.scheduler.workers.get(worker)
        job = self.scheduler.jobs.get(message.job)
        if known is None or known.epoch != message.epoch or job is None:
            return False
        task = job.by_name.get(message.task)
        if task is None:
            return False
        if isinstance(message, Committed | CommitFailed):
            committing = task.state is TaskState.COMMITTING and task.committing == message.attempt
            return committing and worker in task.awaited
        attempt = task.running(message.attempt)
        return attempt is not None and attempt.worker == worker

    # --- to the end --------------------------------------------------------------------------

    def drain(self) -> None:
        """Answer everything as an honest worker would; every job must end."""
        self.full.clear()
        if not self.scheduler.workers:
            self.join("w0")
        for _ in range(10_000):
            if not self.scheduler.jobs:
                return
            before = snapshot(self.scheduler)
            if any(job.waiting or job.unopened for job in self.scheduler.jobs.values()):
                self.now += LONGEST_WAIT
                self.beat()
                self.tick()
            for task in self._tasks(TaskState.RUNNING, TaskState.COMMITTING):
                self._answer_for(task)
            assert snapshot(self.scheduler) != before, f"nothing moves: {before}"
        raise AssertionError("no end in sight")

    def _tasks(self, *states: TaskState) -> list[tuple[str, str]]:
        jobs = self.scheduler.jobs.values()
        return [
            (job.spec.job, task.name) for job in jobs for task in job.active.values() if task.state in states
        ]

    def _answer_for(self, which: tuple[str, str]) -> None:
        job, name = which
        if job not in self.scheduler.jobs:
            return
        task = self.task(name, job)
        if task.state is TaskState.RUNNING:
            self.done(self.launched(name, task.attempts[-1].number, job))
        elif task.state is TaskState.COMMITTING:
            self.confirm_all(self.launched(name, task.committing, job)[2])

    def launched(self, task: str, attempt: int, job: str = "job") -> tuple[str, int, Launch]:
        """The launch of an attempt."""
        wanted = job, task, attempt
        return next(
            entry
            for entry in reversed(self.launches)
            if (entry[2].job, entry[2].task, entry[2].attempt) == wanted
        )

    def replay(self) -> None:
        """The same events give the same commands."""
        other = Scheduler(WORKER_TIMEOUT, WORKER_WAIT, **self.settings)
        for event, now, commands in self.log:
            assert other.handle(event, now) == commands
        assert snapshot(other) == snapshot(self.scheduler)

    # --- what must hold ----------------------------------------------------------------------

    def _note(self, command: Command) -> None:
        message = command.message
        if isinstance(message, Launch):
            assert isinstance(command, Tell)
            assert message.job not in self.ended, "launched after the end"
            key = message.job, message.task
            assert message.attempt > self._newest.get(key, 0), "an attempt number was used twice"
            self._newest[key] = message.attempt
            if message.replay:
                assert self.scheduler.jobs[message.job].by_name[message.task].spool == command.worker
            elif message.source is not None:
                source = self.scheduler.jobs[message.job].stages[message.source]
                assert command.worker == _holders(source)[message.number], "launched away from its input"
            assert command.worker in self.scheduler.jobs[message.job].opened
            self.launches.append((command.worker, self.epoch(command.worker), message))
        elif isinstance(message, Commit):
            assert isinstance(command, Tell)
            self._note_commit(command.worker, message)
        elif isinstance(message, JobEnded):
            assert isinstance(command, Inform)
            assert self.ended.get(message.job, message) == message, "ended twice"
            self.ended[message.job] = message
            self._check_ending(message)

    def _note_commit(self, worker: str, message: Commit) -> None:
        self._commits[worker, message] += 1
        assert self._commits[worker, message] == 1, "a commit was asked for twice"
        self.launched(message.task, message.attempt, message.job)

    def _check_ending(self, ended: JobEnded) -> None:
        if ended.state == "succeeded":
            tasks = [counters for (job, _), counters in self._accepted.items() if job == ended.job]
            assert len(tasks) == sum(stage.tasks for stage in ended.stages)
            assert _added(ended.counters) == _summed(tasks)

    def _check(self) -> None:
        self._check_slots()
        for job in self.scheduler.jobs.values():
            self._check_tasks(job)
            self._check_nothing_idle(job)

    def _check_slots(self) -> None:
        running = Counter(
            attempt.worker for job in self.scheduler.jobs.values() for _, attempt in job.attempts()
        )
        assert set(running) <= set(self.scheduler.workers), "it runs on a worker that is gone"
        for worker in self.scheduler.workers.values():
            assert worker.free + running[worker.name] == worker.slots, f"slots of {worker.name}"
            assert worker.free >= 0

    def _check_tasks(self, job: Job) -> None:
        for stage in job.stages:
            states = Counter(task.state for task in stage.tasks)
            assert stage.done == states[TaskState.DONE]
            assert stage.running == sum(len(task.attempts) for task in stage.tasks)
            assert not set(stage.owners) & set(job.unopened), "who cannot open the job owns a partition"
            assert stage.owned == {number for number, owner in enumerate(stage.owners) if owner is not None}
            busy = states[TaskState.RUNNING] + states[TaskState.COMMITTING]
            assert not busy or stage.plan.number >= job.current, "a stage runs that is finished"
            for task in stage.tasks:
                self._check_task(job, stage, task)
        counted = [self._accepted[job.spec.job, task.name] for task in _all_tasks(job) if task.counted]
        assert _added(job.counters) == _summed(counted), "counters are not those of the committed attempts"
        assert all(task.counted for task in _all_tasks(job) if task.state is TaskState.DONE)

    def _check_task(self, job: Job, stage: Stage, task: Task) -> None:
        step = job.spec.steps[job.plans[task.stage].step]
        kind = job.plans[task.stage].kind
        assert task.failures < (step.map_attempts if kind == "map" else step.reduce_attempts)
        assert task.losses < 3
        assert bool(task.awaited) == (task.state is TaskState.COMMITTING)
        assert task.awaited <= set(self.scheduler.workers), "it waits for a worker that is gone"
        assert (task.name in job.active) == (
            bool(task.attempts) or task.state in (TaskState.RUNNING, TaskState.COMMITTING)
        )
        live = [attempt for attempt in task.attempts if not attempt.superseded]
        assert bool(live) == (task.state is TaskState.RUNNING)
        if task.state is TaskState.DONE:
            assert task.missing is not None and not task.missing & stage.owned, "done, but not delivered"

    def _check_nothing_idle(self, job: Job) -> None:
        """Every ready task of the current stage waits in one queue, and no slot waits for it."""
        stage = job.stage
        queued = [task.name for task in stage.ready]
        queued += [task.name for tasks in stage.pinned.values() for task in tasks]
        queued += list(job.waiting)
        assert len(queued) == len(set(queued)), "a task is queued twice"
        if not job.settled or job.awaited:
            return
        ready = [task.name for task in stage.tasks if task.state is TaskState.READY]
        assert sorted(queued) == sorted(ready), "a ready task is in no queue"
        free = {name for name in job.opened if self.scheduler.workers[name].takes_work}
        workers = self.scheduler.workers
        staying = {name for name in free if not workers[name].draining}
        trusted = {name for name in staying if not self.scheduler._excluded(job, name)}
        assert not (trusted and stage.ready), "a slot is free and a task is ready"
        assert not free & set(stage.pinned), "a slot is free where a ready task's input is"


def _holders(stage: Stage) -> list[str | None]:
    """Who holds each piece of a stage's output."""
    return [*stage.owners] if stage.plan.partitions else [task.worker for task in stage.tasks]


def _all_tasks(job: Job) -> Iterator[Task]:
    return (task for stage in job.stages for task in stage.tasks)


def _added(counters: Any) -> Counter[tuple[int, str, str]]:
    return Counter(
        {
            (step, group, name): amount
            for step, groups in enumerate(counters)
            for group, names in groups.items()
            for name, amount in names.items()
        }
    )


def _summed(reports: list[dict[str, Counters]]) -> Counter[tuple[int, str, str]]:
    total: Counter[tuple[int, str, str]] = Counter()
    for report in reports:
        for step, groups in report.items():
            for group, names in groups.items():
                for name, amount in names.items():
                    total[int(step), group, name] += amount
    return total
