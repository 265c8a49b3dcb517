"""Whole jobs in a simulated world: a slow network, and workers that die, are cut off and come back.

The scheduler is the real one; the agents are simulated as docs/design.md describes them. Every job must
succeed and its output must be exact, whatever happens. A seed that fails is in the name of its test.
"""

import heapq
import itertools
import random
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from core.strategies import COMMAND, MAP_ONLY, MAP_REDUCE, SCRIPT, make_spec, make_step

from zmqmr.core.events import Command, Inform, JobSubmitted, Reported, Tick, WorkerJoined
from zmqmr.core.scheduler import Scheduler
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptProgress,
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
    Kill,
    Launch,
    Opened,
    OpenFailed,
    OpenJob,
    OwnerLost,
)

Record = tuple[int, int]  # split, number in the split
Key = tuple[str, int]  # task, attempt

RECORDS = 4  # in a split
LONGEST = 2000.0  # virtual seconds; a job that lasts longer hangs
DEATHS = 2  # losses that a task survives
FAILURES = 3  # of a task; it survives as many
FULL = 2  # times that a worker has no room for a job

SHAPES = [
    [MAP_ONLY],
    [MAP_REDUCE],
    [make_step(reducer=SCRIPT, partitions=3)],
    [make_step(reducer=SCRIPT, partitions=3), make_step(reducer=SCRIPT, partitions=2)],
    [MAP_ONLY, make_step(COMMAND), make_step(reducer=SCRIPT, partitions=4)],
    [make_step(reducer=COMMAND, partitions=2), make_step(COMMAND)],
]


def partition_of(record: Record, partitions: int) -> int:
    return (record[0] * 5 + record[1]) % partitions


class Spool:
    """What a task yielded, on a worker's drive."""

    def __init__(self, launch: Launch, records: list[Record], report: AttemptDone):
        self.stage, self.report = launch.stage, report
        self.parts = {number: _part_of(records, number, launch) for number in range(launch.partitions)}


def _part_of(records: list[Record], partition: int, launch: Launch) -> list[Record]:
    return [record for record in records if partition_of(record, launch.partitions) == partition]


class Agent:
    """One epoch of a worker: frames wait for their attempt's commit; when it ends, its spools are left."""

    def __init__(self, world: "World", name: str, epoch: int, slots: int):
        self.world, self.name, self.epoch, self.slots = world, name, epoch, slots
        self.alive = True
        self.connected = True  # to the coordinator
        self.has_opened = False  # the job
        self.ended: dict[int, int] = {}  # stage -> version of the owners that nothing is wanted for
        self.running: set[Key] = set()
        self.output: dict[Key, list[Record]] = {}  # of attempts that write part files
        self.held: dict[tuple[int, str, int], dict[int, list[list[Record]]]] = {}
        self.partitions: dict[tuple[int, int], list[Record]] = {}  # committed, by stage and partition
        self.parts: dict[tuple[int, int], list[Record]] = {}  # committed part files, by stage and number
        self.applied: set[tuple[int, str, int]] = set()
        self.waiting: list[Commit] = []
        self.fresh: dict[Key, Spool] = {}  # of attempts that are not committed

    @property
    def spools(self) -> dict[str, Spool]:
        """Those kept on the drive, which outlives the agent."""
        return self.world.drives.setdefault(self.name, {})

    @property
    def endpoint(self) -> str:
        return f"{self.name}/{self.epoch}"

    def report(self, message: Any) -> None:
        if self.alive and self.connected:
            self.world.to_coordinator(self, message)

    def take(self, message: Any) -> None:
        """A message from the coordinator."""
        if isinstance(message, Launch):
            self._launch(message)
        elif isinstance(message, Kill):
            self._end_attempt(message.task, message.attempt, "killed")
        elif isinstance(message, Commit):
            if message.frames:
                self.ended.pop(message.stage, None)
            self.waiting.append(message)
            self._commit_what_is_complete()
        elif isinstance(message, Discard):
            self._discard(message)
        elif isinstance(message, EndStage):
            self._end_stage(message.stage, message.version)
        elif isinstance(message, EndJob):
            self.running.clear()
        elif isinstance(message, OwnerLost):
            assert not self.world.is_alive(message.shuffle) or not self.world.is_known(message.shuffle)
        else:
            assert isinstance(message, OpenJob)
            self._open(message.spec.job)

    def _open(self, job: str) -> None:
        if self.has_opened or not self.world.may_be_full(self.name):
            self.has_opened = True
            self.report(Opened(job, self.epoch, tuple(sorted(self.spools))))
        else:
            self.report(OpenFailed(job, self.epoch, Failure("no room for the job", no_room=True)))

    # --- attempts ----------------------------------------------------------------------------

    def _launch(self, launch: Launch) -> None:
        assert self.has_opened
        self.running.add((launch.task, launch.attempt))
        if launch.replay:
            self.world.later(0.01, lambda: self._replay(launch))
            return
        records = self._input(launch)
        if launch.task.startswith("reduce") and len(records) != launch.input_bytes:
            self._drop_partition(launch)
            self._end_attempt(launch.task, launch.attempt, "its partition is not whole", damaged=True)
            return
        seconds = self.world.random.expovariate(1.0) * (30 if self.world.chance(0.05) else 1)
        self.world.later(seconds, lambda: self._finish(launch, records))
        if self.world.chance(0.2):
            message = AttemptProgress(launch.job, launch.task, launch.attempt, self.epoch, 1, 1)
            self.world.later(seconds / 2, lambda: self.report(message))

    def _input(self, launch: Launch) -> list[Record]:
        if launch.source is None:
            return [(launch.number, number) for number in range(RECORDS)]
        if launch.task.startswith("reduce"):
            return list(self.partitions.get((launch.source, launch.number), ()))
        return list(self.parts[launch.source, launch.number])

    def _finish(self, launch: Launch, records: list[Record]) -> None:
        key = launch.task, launch.attempt
        if not self.alive or key not in self.running:
            return
        if self.world.may_fail(launch.task, 0.1):
            self._end_attempt(*key, "bad luck", no_room=self.world.chance(0.5))
            return
        if launch.source is not None and self.world.may_fail(launch.task, 0.05):
            self._drop_partition(launch)
            self._end_attempt(*key, "its input is not what was written", damaged=True)
            return
        step = str(launch.links[0][0] if launch.links else 0)
        counters = {step: {"records": {"read": len(records)}}}
        report = AttemptDone(launch.job, launch.task, launch.attempt, self.epoch, counters)
        self.running.discard(key)
        if launch.partitions:
            self.fresh[key] = Spool(launch, records, report)
            report = self.fresh[key].report = self._deliver(launch, self.fresh[key])
        else:
            self.output[key] = records
        self.report(report)

    def _drop_partition(self, launch: Launch) -> None:
        assert launch.source is not None
        self.partitions.pop((launch.source, launch.number), None)
        self.applied -= {each for each in self.applied if each[::2] == (launch.source, launch.number)}

    def _replay(self, launch: Launch) -> None:
        if not self.alive or (launch.task, launch.attempt) not in self.running:
            return
        spool = self.spools.get(launch.task)
        if spool is None or self.world.may_lose_spool():
            self.spools.pop(launch.task, None)
            self._end_attempt(launch.task, launch.attempt, "no such spool")
            return
        self.running.discard((launch.task, launch.attempt))
        self.report(self._deliver(launch, spool))

    def _deliver(self, launch: Launch, spool: Spool) -> AttemptDone:
        """Send what is for others; what is for this worker stays in the spool."""
        counts, undelivered = [], []
        for partition, records in spool.parts.items():
            owner = launch.owners[partition]
            frames = [records[start : start + 2] for start in range(0, len(records), 2)]
            sent = 0
            if owner and owner != self.endpoint:
                if not self.world.is_alive(owner):
                    undelivered.append(partition)
                for sequence, frame in enumerate(frames):
                    self.world.send_frame(self, launch, partition, sequence, frame)
                sent = len(frames)
            if records:
                counts.append(FrameCount(partition, sent, len(records), zlib.crc32(repr(records).encode())))
        return msgspec.structs.replace(
            spool.report,
            attempt=launch.attempt,
            epoch=self.epoch,
            frames=tuple(counts),
            undelivered=tuple(undelivered),
        )

    def _end_attempt(self, task: str, attempt: int, reason: str, **kind: bool) -> None:
        if (task, attempt) in self.running:
            self.running.discard((task, attempt))
            failure = Failure(reason, **kind)
            self.report(AttemptFailed("job", task, attempt, self.epoch, failure))

    # --- commits -----------------------------------------------------------------------------

    def take_frame(self, launch: Launch, partition: int, sequence: int, frame: list[Record]) -> None:
        if launch.version <= self.ended.get(launch.stage, -1):
            return  # it comes late
        held = self.held.setdefault((launch.stage, launch.task, launch.attempt), {}).setdefault(partition, [])
        if sequence == len(held):
            held.append(frame)
        self._commit_what_is_complete()

    def _commit_what_is_complete(self) -> None:
        for commit in list(self.waiting):
            held = self.held.get((commit.stage, commit.task, commit.attempt), {})
            if all(len(held.get(count.partition, ())) >= count.frames for count in commit.frames):
                self.waiting.remove(commit)
                self._commit(commit, held)

    def _commit(self, commit: Commit, held: dict[int, list[list[Record]]]) -> None:
        if self.world.may_fail(commit.task, 0.05):
            failure = Failure("the disk is full", no_room=True)
            self.report(CommitFailed(commit.job, commit.task, commit.attempt, self.epoch, failure))
            return
        key = commit.task, commit.attempt
        if key in self.fresh:
            self.spools[commit.task] = self.fresh.pop(key)
        for count in commit.frames:
            joined = commit.stage, commit.task, count.partition
            if joined not in self.applied:
                self.applied.add(joined)
                into = self.partitions.setdefault((commit.stage, count.partition), [])
                if count.frames:
                    into.extend(record for frame in held[count.partition] for record in frame)
                else:
                    into.extend(self.spools[commit.task].parts[count.partition])
        records = self.output.pop(key, None)
        if records is not None:
            number = int(commit.task.rpartition("-")[2])
            self.parts[commit.stage, number] = records
            self.world.output[commit.stage, number] = records
        self.report(Committed(commit.job, commit.task, commit.attempt, self.epoch))

    def _discard(self, message: Discard) -> None:
        for key in [key for key in self.held if key[1:] == (message.task, message.attempt)]:
            del self.held[key]
        self.output.pop((message.task, message.attempt), None)
        self.fresh.pop((message.task, message.attempt), None)
        self.waiting = [
            commit
            for commit in self.waiting
            if (commit.task, commit.attempt) != (message.task, message.attempt)
        ]

    def _end_stage(self, stage: int, version: int) -> None:
        self.ended[stage] = version
        self.waiting = [commit for commit in self.waiting if commit.stage != stage]
        self.applied = {entry for entry in self.applied if entry[0] != stage}
        for table in (self.held, self.partitions):
            for key in [key for key in table if key[0] == stage]:
                del table[key]  # type: ignore[attr-defined]


class World:
    """A coordinator, agents, the network between them, and misfortune; all of it from one seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.now = 0.0
        self.scheduler = Scheduler(5.0, 60.0)
        self.output: dict[tuple[int, int], list[Record]] = {}
        self.ended: list[JobEnded] = []
        self.agents: dict[str, Agent] = {}  # alive, by name
        self.drives: dict[str, dict[str, Spool]] = {}  # of the hosts
        self.registered: dict[tuple[str, int], Agent] = {}  # whom the coordinator means by a name and epoch
        self.lose_frames = self.chance(0.3)
        self._failures: Counter[str] = Counter()
        self._full: Counter[str] = Counter()
        self._deaths = 0
        self._epochs = itertools.count(1)
        self._sequence = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._last: dict[tuple[str, str], float] = {}  # newest delivery of each connection

    # --- chance ------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def may_fail(self, task: str, probability: float) -> bool:
        """Whether something goes wrong with a task now; never more often than a task survives."""
        if self._failures[task] == FAILURES or not self.chance(probability):
            return False
        self._failures[task] += 1
        return True

    def may_be_full(self, worker: str) -> bool:
        """Whether a worker's drive has no room for the job now; less often than a job gives up for."""
        if self._full[worker] == FULL or not self.chance(0.15):
            return False
        self._full[worker] += 1
        return True

    def may_lose_spool(self) -> bool:
        return self.chance(0.1)

    # --- time and network --------------------------------------------------------------------

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._at(self.now + seconds, action)

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._sequence), action))

    def deliver(self, source: str, target: str, action: Callable[[], None]) -> None:
        """A message on a connection: late, but after the ones before it."""
        delay = self.random.expovariate(20.0) if self.chance(0.9) else self.random.uniform(0, 3)
        at = max(self._last.get((source, target), 0.0), self.now + delay)
        self._last[source, target] = at
        self._at(at, action)  # exactly: what comes at the same time comes in order

    def to_coordinator(self, agent: Agent, message: Any) -> None:
        event = Reported(agent.name, message)
        self.deliver(agent.endpoint, "", lambda: self._handle(event))
        if self.chance(0.05):
            self.later(self.random.uniform(0, 20), lambda: self._handle(event))

    def send_frame(
        self, sender: Agent, launch: Launch, partition: int, sequence: int, frame: list[Record]
    ) -> None:
        endpoint = launch.owners[partition]
        if self.lose_frames and self.may_fail(launch.task, 0.02):
            return

        def arrive() -> None:
            for agent in self.agents.values():
                if agent.endpoint == endpoint:
                    agent.take_frame(launch, partition, sequence, frame)

        self.deliver(f"{sender.endpoint} {launch.task} {launch.attempt}", endpoint, arrive)

    def is_alive(self, endpoint: str) -> bool:
        return any(agent.endpoint == endpoint and agent.alive for agent in self.agents.values())

    def is_known(self, endpoint: str) -> bool:
        return any(worker.shuffle == endpoint for worker in self.scheduler.workers.values())

    def _handle(self, event: Any) -> None:
        for command in self.scheduler.handle(event, self.now):
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Inform):
            if isinstance(command.message, JobEnded):
                self.ended.append(command.message)
            return
        worker = self.scheduler.workers.get(command.worker)
        if worker is None:
            return
        agent = self.registered[command.worker, worker.epoch]
        message = command.message

        def arrive() -> None:
            if agent.alive and agent.connected:
                agent.take(message)

        self.deliver("", agent.endpoint, arrive)

    # --- workers -----------------------------------------------------------------------------

    def join(self, name: str, slots: int) -> None:
        agent = self.agents[name] = Agent(self, name, next(self._epochs), slots)

        def arrive() -> None:
            self.registered[name, agent.epoch] = agent
            self._handle(WorkerJoined(name, agent.epoch, name, slots, agent.endpoint))

        self.deliver(name, "", arrive)  # one life of a worker after the other
        self._beat(agent)

    def _beat(self, agent: Agent) -> None:
        if agent.alive:
            if agent.connected:  # a heartbeat is late too, but never so late that a worker is lost for it
                beat = Reported(agent.name, Heartbeat(agent.epoch))
                self.later(0.1, lambda: self._handle(beat))
            self.later(1.0, lambda: self._beat(agent))

    def _misfortune(self, name: str) -> None:
        """A worker dies or is cut off, and a new one takes its place at once or much later."""
        agent = self.agents[name]
        if self._deaths == DEATHS or not (agent.alive and agent.connected):
            return
        self._deaths += 1
        if self.chance(0.7):
            agent.alive = False
        agent.connected = False
        back = self.random.choice([0.1, 2.0, 20.0])

        def come_back() -> None:
            agent.alive = False
            if self.chance(0.4):
                self.drives.pop(name, None)  # another host takes its place
            self.join(name, agent.slots)

        self.later(back, come_back)

    # --- a job -------------------------------------------------------------------------------

    def run(self, spec: JobSpec) -> JobEnded:
        for number in range(self.random.randint(1, 3)):
            self.join(f"w{number}", self.random.randint(1, 2))
        for name in list(self.agents):
            for _ in range(2):
                self.later(self.random.uniform(0, 12), lambda name=name: self._misfortune(name))
        self.later(self.random.uniform(0, 1), lambda: self._handle(JobSubmitted(b"client", spec)))
        self._tick()
        while not self.ended:
            self._step()
            assert self.now < LONGEST, f"the job hangs: {self._stuck()}"
        end = self.now + 60
        while self.now < end:
            self._step()
        return self.ended[0]

    def _tick(self) -> None:
        for event in self.scheduler.due(self.now):
            self._handle(event)
        self._handle(Tick())
        self.later(0.5, self._tick)

    def _step(self) -> None:
        self.now, _, action = heapq.heappop(self._queue)
        action()

    def _stuck(self) -> list[str]:
        return [
            f"{task.name} {task.state.value}: {list(task.story)}"
            for job in self.scheduler.jobs.values()
            for task in job.stage.tasks
        ]


@pytest.mark.parametrize("seed", range(150))
def test_every_job_ends_with_exact_output(seed: int) -> None:
    world = World(seed)
    splits = world.random.randint(1, 5)
    spec = make_spec(*world.random.choice(SHAPES), splits=splits)
    ended = world.run(spec)
    assert (ended.state, ended.reason) == ("succeeded", "")
    assert len(world.ended) == 1, "the job ended twice"

    last = max(stage for stage, _ in world.output)
    records = Counter(record for (stage, _), part in world.output.items() if stage == last for record in part)
    assert records == Counter((split, number) for split in range(splits) for number in range(RECORDS))
    read = sum(groups["records"]["read"] for groups in ended.counters if groups)  # each task counted once
    assert read == splits * RECORDS * len(ended.stages)
    for agent in world.agents.values():
        assert not agent.running, "an attempt outlives its job"
