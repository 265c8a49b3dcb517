"""What the coordinator knows: workers, jobs, stages, tasks. Plain data, changed by the scheduler only."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from zmqmr.core.counters import count_all
from zmqmr.core.plan import StagePlan, plan_stages
from zmqmr.messages import AttemptDone, Counters, Failure, JobSpec, RecordAt, StageProgress

STORY_LENGTH = 50  # events kept for each task


class TaskState(Enum):
    """A task's life; a failed or lost attempt takes it back to READY."""

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
class Task:
    """One split or partition of a stage, with its current attempt."""

    name: str
    stage: int
    number: int
    state: TaskState = TaskState.READY
    attempt: int = 0  # number of the newest attempt; 0: never launched
    worker: str | None = None  # who runs it, or committed it
    failures: int = 0  # charged to the task
    losses: int = 0  # workers lost while they ran it
    failed_on: set[str] = field(default_factory=set)
    progressed: float = 0.0  # when the attempt last showed progress
    records: int = 0  # input records and bytes of the current attempt
    bytes: int = 0
    kill_failure: Failure | None = None  # why we killed it
    careful: bool = False  # an attempt crashed: find the record
    suspect: RecordAt | None = None  # the record that the last attempt failed on
    skip: list[RecordAt] = field(default_factory=list)  # records left out
    done: AttemptDone | None = None  # its report, while it commits
    awaited: set[str] = field(default_factory=set)  # workers that have not confirmed the commit
    story: deque[str] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))


class Stage:
    """The tasks of one stage."""

    def __init__(self, plan: StagePlan):
        self.plan = plan
        self.tasks = [
            Task(f"{plan.kind}-{plan.number}-{number:05d}", plan.number, number)
            for number in range(plan.tasks)
        ]
        self.ready: deque[Task] = deque(self.tasks)
        self.owners: list[str] = []  # worker of each partition, once the stage has begun
        self.begun = False
        self.active: dict[str, Task] = {}  # those that run or commit, by name
        self.done = 0
        self.running = 0
        self.failures = 0
        self.records = 0  # of committed attempts
        self.bytes = 0
        self.status = ""

    @property
    def finished(self) -> bool:
        return self.done == len(self.tasks)


class Job:
    """A submitted job: its specification, its stages, its fate."""

    def __init__(self, spec: JobSpec, client: bytes):
        self.spec = spec
        self.client = client
        self.plans = plan_stages(spec)
        self.total_bytes = sum(piece.length for split in spec.splits for piece in split.pieces)
        self.losses = 0
        self.skipped = 0  # records left out, of all tasks
        self.failed_on: dict[str, int] = {}  # failures by worker
        self.waiting_since: float | None = None
        self.changed = True  # since the last JobUpdate
        self.updated = 0.0  # when the last JobUpdate was made
        self.begin()

    def begin(self) -> None:
        """Start, or start anew: nothing is done. Attempt numbers go on where they were."""
        previous = getattr(self, "stages", None)
        self.stages = [Stage(plan) for plan in self.plans]
        self.current = 0
        self.counters: list[Counters] = [{} for _ in self.spec.steps]
        self.by_name = {task.name: task for stage in self.stages for task in stage.tasks}
        for stage in previous or ():
            for old in stage.tasks:
                new = self.by_name[old.name]
                new.attempt, new.failures, new.losses = old.attempt, old.failures, old.losses
                new.story, new.failed_on = old.story, old.failed_on
                new.careful, new.suspect, new.skip = old.careful, old.suspect, old.skip

    @property
    def stage(self) -> Stage:
        """The stage whose tasks run now."""
        return self.stages[self.current]

    def count(self, counters: dict[str, Counters]) -> None:
        """Add the counters of a committed attempt."""
        for step, groups in counters.items():
            count_all(self.counters[int(step)], groups)

    def progress(self) -> tuple[StageProgress, ...]:
        return tuple(self._progress_of(stage) for stage in self.stages)

    def _progress_of(self, stage: Stage) -> StageProgress:
        running = [task for task in stage.active.values() if task.state is TaskState.RUNNING]
        return StageProgress(
            stage=stage.plan.number,
            step=stage.plan.step,
            kind=stage.plan.kind,
            tasks=len(stage.tasks),
            done=stage.done,
            running=len(running),
            records=stage.records + sum(task.records for task in running),
            bytes=stage.bytes + sum(task.bytes for task in running),
            total_bytes=self.total_bytes if stage.plan.source is None else 0,
            failures=stage.failures,
            status=stage.status,
        )
