"""What the coordinator knows: workers, jobs, stages, tasks, attempts. Plain data for the scheduler."""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from zmqmr.core.counters import count_all
from zmqmr.core.plan import StagePlan, plan_stages
from zmqmr.messages import (
    AttemptDone,
    Counters,
    Failure,
    JobSpec,
    OpenJob,
    RecordAt,
    StageProgress,
    StoredFile,
    encode,
)

FOLLOWERS = 8  # clients that are told about a job: the newest
STORY_LENGTH = 20  # events kept for each task that is not done
DURATIONS = 500  # of committed attempts, the newest, that a slow one is compared with
NOTHING: frozenset[int] = frozenset()


class TaskState(Enum):
    """A task's life; a failed or lost attempt, or the loss of what it delivered, takes it back to READY."""

    READY = "ready"
    RUNNING = "running"
    COMMITTING = "committing"
    DONE = "done"


@dataclass(slots=True)
class Worker:
    """One epoch of a worker."""

    name: str
    epoch: int
    host: str
    slots: int
    shuffle: str  # endpoint
    heard: float  # when, seconds on the coordinator's clock
    free: int  # slots without an attempt
    resuming: bool = False  # it has not told the coordinator, which has started again, what it holds
    draining: bool = False  # it is to leave: it gets only the work that its data needs
    version: str = ""
    python: str = ""

    @property
    def takes_work(self) -> bool:
        return self.free > 0 and not self.resuming

    @property
    def takes_new_work(self) -> bool:
        return self.takes_work and not self.draining


@dataclass(slots=True)
class Attempt:
    """One run of a task on a worker's slot, until its process is gone."""

    number: int
    worker: str
    since: float  # when it was launched, seconds on the coordinator's clock
    progressed: float  # when it last showed progress
    version: int  # of the stage's owners, when it was launched
    wanted: frozenset[int] | None  # the partitions it was to deliver; None: all that have an owner
    replay: bool  # it delivers a kept spool
    records: int = 0  # of its input so far
    bytes: int = 0
    kill_failure: Failure | None = None  # why we killed it
    superseded: bool = False  # another attempt was first: its end means nothing


@dataclass(slots=True)
class Task:
    """One split or partition of a stage."""

    name: str
    stage: int
    number: int
    state: TaskState = TaskState.READY
    attempt: int = 0  # number of the newest attempt; 0: never launched
    attempts: tuple[Attempt, ...] = ()  # those that run: more than one only when a slow one is raced
    worker: str | None = None  # who ran the attempt that commits or is committed
    committing: int = 0  # the number of that attempt
    done: AttemptDone | None = None  # its report, while it commits
    done_at: float = 0.0  # when that came
    delivering: frozenset[int] = NOTHING  # partitions that get its records with this commit
    awaited: frozenset[str] = frozenset()  # workers that have not confirmed the commit
    missing: frozenset[int] | None = None  # partitions that do not have its records; None: all of them
    spool: str | None = None  # the worker that keeps what it yielded
    counted: bool = False  # its counters are in the job's
    signature: int | None = None  # of what it yielded, once somebody has taken it
    failures: int = 0  # charged to the task
    losses: int = 0  # workers lost while they ran it
    unreachable: int = 0  # times that an owner could not be reached
    wait_until: float = 0.0  # not launched before
    failed_on: frozenset[str] = frozenset()
    raced: bool = False  # a second attempt was launched because the first is slow
    careful: bool = False  # an attempt crashed: find the record
    suspect: RecordAt | None = None  # the record that the last attempt failed on
    skip: tuple[RecordAt, ...] = ()  # records left out
    files: tuple[StoredFile, ...] = ()  # of the committed attempt, in the store
    story: tuple[str, ...] = ()

    def running(self, number: int) -> Attempt | None:
        """The running attempt of that number."""
        return next((attempt for attempt in self.attempts if attempt.number == number), None)

    @property
    def needs_input(self) -> bool:
        """Whether it has to run the job, now or if what it does now fails."""
        return self.state is not TaskState.DONE and self.spool is None


class Stage:
    """The tasks of one stage, and who owns the partitions that they fill."""

    def __init__(self, plan: StagePlan):
        self.plan = plan
        self.tasks = [Task(plan.task(number), plan.number, number) for number in range(plan.tasks)]
        self.ready: deque[Task] = deque()  # for any worker
        self.pinned: dict[str, deque[Task]] = {}  # for the worker that holds their input or their spool
        self.wake: dict[str, None] = {}  # workers of which both a slot and a pinned task may be there
        self.owners: list[str | None] = [None] * plan.partitions  # None: nobody needs the partition
        self.assigned = [0] * plan.partitions  # the version with which each partition got its owner
        self.volume = [0] * plan.partitions  # bytes that have been delivered to each partition's owner
        self.version = 0  # of the owners
        self.owned: frozenset[int] = NOTHING
        self.done = 0
        self.running = 0  # attempts
        self.failures = 0
        self.records = 0  # of committed attempts
        self.bytes = 0
        self.reused = 0  # tasks whose spool was there before the job began
        self.status = ""
        self.durations: deque[float] = deque(maxlen=DURATIONS)  # seconds, of attempts that ran the job

    @property
    def finished(self) -> bool:
        return self.done == len(self.tasks)

    def own(self, owners: dict[int, str]) -> None:
        """Give partitions owners that have none of their records yet."""
        self.version += 1
        for partition, worker in owners.items():
            self.owners[partition] = worker
            self.assigned[partition] = self.version
            self.volume[partition] = 0
        self.owned = self.owned | frozenset(owners)
        self._require(frozenset(owners))

    def _require(self, partitions: frozenset[int]) -> None:
        """What was delivered to these partitions is gone."""
        for task in self.tasks:
            if task.missing is not None:
                task.missing |= partitions
            if task.state is TaskState.COMMITTING:
                task.delivering -= partitions
            elif task.state is TaskState.DONE:
                self.reopen(task)

    def reopen(self, task: Task) -> None:
        """A task that was done has to deliver again, or to run again."""
        task.state = TaskState.READY
        self.done -= 1

    def disown(self, partitions: Iterable[int]) -> None:
        """The records of these partitions are gone, or not needed any more."""
        gone = frozenset(partitions)
        for task in self.tasks if gone else ():
            if task.state is TaskState.COMMITTING:
                task.delivering -= gone
        for partition in gone:
            self.owners[partition] = None
        self.owned -= gone

    def clear_queues(self) -> None:
        self.ready.clear()
        self.pinned.clear()
        self.wake.clear()


class Job:
    """A submitted job: its specification, its stages, its fate."""

    def __init__(self, spec: JobSpec, client: bytes, now: float, lease_seconds: float = 0.0):
        self.spec = spec
        self.opening = OpenJob(spec)  # one object, which is encoded once for all workers
        self.asked = 0.0  # when those that have not opened the job were last asked to
        self.clients = deque([client], maxlen=FOLLOWERS)
        self.lease_seconds = lease_seconds  # that all of its clients may be silent; 0: for ever
        self.client_heard = now
        self.awaited: set[str] = set()  # workers that may have kept tasks of the job that this one resumes
        self.began = now
        self.plans = plan_stages(spec)
        self.total_bytes = sum(piece.length for split in spec.splits for piece in split.pieces)
        self.restarts = 0  # because a task yielded other records when it was run again
        self.skipped = 0  # records left out, of all tasks
        self.failed_on: dict[str, int] = {}  # failures by worker
        self.waiting_since: float | None = None
        self.changed = True  # since the last JobUpdate
        self.updated = 0.0  # when the last JobUpdate was made
        self.raced_at = 0.0  # when a slow attempt was last raced, or could not be
        self.begin()

    def begin(self) -> None:
        """Start, or start anew: nothing is done. Attempt numbers go on where they were."""
        previous = getattr(self, "stages", ())
        self.stages = [Stage(plan) for plan in self.plans]
        self.current = 0
        self.settled = False  # the partitions that are needed now have owners
        self.opened: set[str] = set()  # workers that know the job
        self.unopened: dict[str, tuple[int, float]] = {}  # those that cannot: how often, when to ask again
        self.active: dict[str, Task] = {}  # those that run or commit, by name
        self.waiting: dict[str, Task] = {}  # those that are ready, but not to be launched yet
        self.counters: list[Counters] = [{} for _ in self.spec.steps]
        self.by_name = {task.name: task for stage in self.stages for task in stage.tasks}
        for stage in previous:
            for old in stage.tasks:
                new = self.by_name[old.name]
                new.attempt, new.failures, new.losses = old.attempt, old.failures, old.losses
                new.story, new.failed_on = old.story, old.failed_on
                new.careful, new.suspect, new.skip = old.careful, old.suspect, old.skip

    def source(self, stage: Stage) -> Stage | None:
        """The stage whose output a stage reads; None: it reads the job's input."""
        return self.stages[stage.plan.source] if stage.plan.source is not None else None

    @property
    def stage(self) -> Stage:
        """The stage whose tasks are launched now: the first that is not finished."""
        return self.stages[self.current]

    def first_unfinished(self) -> int:
        """The number of the first stage that is not finished, or of the last stage."""
        unfinished = (stage.plan.number for stage in self.stages if not stage.finished)
        return next(unfinished, len(self.stages) - 1)

    @property
    def running(self) -> int:
        return sum(stage.running for stage in self.stages)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """What the committed attempts have put into the store."""
        return tuple(file for stage in self.stages for task in stage.tasks for file in task.files)

    def attempts(self) -> Iterator[tuple[Task, Attempt]]:
        """All that run."""
        for task in list(self.active.values()):
            for attempt in task.attempts:
                yield task, attempt

    def tell(self, task: Task, now: float, what: str) -> None:
        """Add to a task's story."""
        task.story = (*task.story, f"{now - self.began:.3f} {what}")[-STORY_LENGTH:]

    def count(self, counters: dict[str, Counters]) -> None:
        """Add the counters of a committed attempt."""
        for step, groups in counters.items():
            count_all(self.counters[int(step)], groups)

    def progress(self) -> tuple[StageProgress, ...]:
        running: dict[int, list[Attempt]] = {}
        for task, attempt in self.attempts():
            if not attempt.superseded:
                running.setdefault(task.stage, []).append(attempt)
        return tuple(self._progress_of(stage, running.get(stage.plan.number, [])) for stage in self.stages)

    def _progress_of(self, stage: Stage, running: list[Attempt]) -> StageProgress:
        return StageProgress(
            stage=stage.plan.number,
            step=stage.plan.step,
            kind=stage.plan.kind,
            tasks=len(stage.tasks),
            done=stage.done,
            running=len(running),
            records=stage.records + sum(attempt.records for attempt in running),
            bytes=stage.bytes + sum(attempt.bytes for attempt in running),
            total_bytes=self.total_bytes if stage.plan.source is None else 0,
            failures=stage.failures,
            status=stage.status,
            reused=stage.reused,
        )


def signature(report: AttemptDone) -> int:
    """A checksum of what an attempt yielded for all partitions: every attempt of a task has the same."""
    yielded = [(count.partition, count.bytes, count.crc32) for count in report.frames if count.bytes]
    return zlib.crc32(encode(yielded))
