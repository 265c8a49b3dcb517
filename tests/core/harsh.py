"""The simulated world of test_simulation with more misfortune: coordinators that die and come back from their
journal, messages that are lost with them, links that are cut for a while, and any number of workers.

The rules of the shell (`coordinator/service.py`) are followed: who is refused, who is asked for an inventory,
what is journalled, who is told nothing.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.strategies import make_spec
from core.test_simulation import RECORDS, SHAPES, Agent, World

from zmqmr.coordinator.service import _is_news_only
from zmqmr.core.events import (
    ClientAttached,
    Command,
    CoordinatorRestarted,
    Event,
    Inform,
    JobSubmitted,
    Reported,
    Tick,
    WorkerDrained,
    WorkerJoined,
    WorkerKept,
)
from zmqmr.core.scheduler import Scheduler
from zmqmr.core.state import TaskState
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptId,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    EndJob,
    EndStage,
    Failure,
    Heartbeat,
    Inventory,
    JobEnded,
    JobSpec,
    JobUnknown,
    Kill,
    Launch,
    OpenJob,
)

LONGEST = 3000.0  # virtual seconds; a job that lasts longer hangs
AFTERWARDS = 60.0  # virtual seconds in which everything must be cleaned up
CUT_SECONDS = (0.2, 2.0, 3.5)  # of a link, shorter than the silence that loses a worker


@dataclass(frozen=True)
class Misfortune:
    """What happens in a world, as the most times each."""

    worker_deaths: int = 2
    coordinator_deaths: int = 2
    cuts: int = 3
    drains: int = 2  # which are cancelled
    torn_journals: bool = False  # a coordinator that dies may lose the end of its journal
    attempts_fail: bool = True  # and commits, and frames get lost
    within_budget: bool = True  # no more than a job survives


class HarshAgent(Agent):
    """An agent that can say what it holds."""

    world: "HarshWorld"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.known = False  # its registration has arrived
        self.jobs: set[str] = set()
        self.over = False
        self.reports: dict[AttemptId, AttemptDone] = {}  # of attempts that wait for their commit
        self.confirmed: dict[AttemptId, Committed] = {}
        self.failed: dict[AttemptId, CommitFailed] = {}  # commits

    def report(self, message: Any) -> None:
        if isinstance(message, AttemptDone):
            self.reports[_id(message)] = message
        elif isinstance(message, CommitFailed):
            self.failed[_id(message)] = message
        elif isinstance(message, Committed):
            self.reports.pop(_id(message), None)
            self.confirmed[_id(message)] = message
        super().report(message)

    def take(self, message: Any) -> None:
        if isinstance(message, OpenJob):
            self.jobs.add(message.spec.job)
            self.over = False  # or no more: it begins anew
        elif isinstance(message, Commit) and _id(message) in self.confirmed:
            self.report(self.confirmed[_id(message)])  # a coordinator that came back asks twice
            return
        elif isinstance(message, Commit) and _id(message) in self.failed:
            self.report(self.failed[_id(message)])  # its frames are gone, so it fails again
            return
        elif isinstance(message, Commit) and message in self.waiting:
            return
        elif isinstance(message, Kill) and (message.task, message.attempt) not in self.running:
            lost = AttemptFailed("job", message.task, message.attempt, self.epoch, Failure("not here"))
            self.report(self.reports.get(_id(message), lost))  # the report, or the launch, was lost
        elif isinstance(message, Discard):
            self.reports.pop(_id(message), None)
        elif isinstance(message, EndStage):
            mine = [each for each in self.confirmed if each.task.split("-")[1] == str(message.stage)]
            for attempt in mine:
                del self.confirmed[attempt]
        elif isinstance(message, EndJob):
            self.end_job()
        super().take(message)

    def take_frame(self, launch: Launch, *frame: Any) -> None:
        if not self.over:
            super().take_frame(launch, *frame)

    def end_job(self) -> None:
        """Everything goes."""
        self.over, self.has_opened = True, False
        for held in (self.jobs, self.reports, self.confirmed, self.held, self.partitions, self.parts):
            held.clear()  # type: ignore[attr-defined]
        self.ended.clear()
        self.output.clear()
        self.waiting.clear()
        self.spools.clear()
        self.fresh.clear()
        self.applied.clear()

    def inventory(self, restarts: int) -> Inventory:
        running = tuple(AttemptId("job", task, attempt) for task, attempt in sorted(self.running))
        done = tuple(self.reports.values())
        return Inventory(self.epoch, restarts, tuple(self.jobs), running, done, tuple(self.confirmed))

    def left(self) -> list[Any]:
        """What it must not have once the job is over."""
        return [what for what in (self.running, self.held, self.partitions, self.waiting, self.jobs) if what]


class HarshWorld(World):
    """A world in which the coordinator dies too."""

    def __init__(self, seed: int, misfortune: Misfortune, workers: int, slots: int):
        super().__init__(seed)
        self.misfortune = misfortune
        self._workers, self._slots = workers, slots
        self.lose_frames = self.lose_frames and misfortune.attempts_fail
        self.journal: list[tuple[float, Event]] = []
        self._up = True
        self.lives = 0  # of coordinators
        self._lost_from: dict[int, float] = {}  # life -> when what it sent stops arriving
        self._cut_until: dict[str, float] = {}  # endpoint -> when messages pass again
        self.spec: JobSpec | None = None
        self._done: set[str] = set()  # tasks that were ever done, and not to be done again
        self.again: list[str] = []  # those that were launched nevertheless
        self.events = 0

    def may_fail(self, task: str, probability: float) -> bool:
        once = self._failures[task] == 0  # the rest of a task's budget is for what else goes wrong
        return once and self.misfortune.attempts_fail and super().may_fail(task, probability)

    def may_lose_spool(self) -> bool:
        return self.misfortune.attempts_fail and super().may_lose_spool()

    # --- the coordinator's shell -------------------------------------------------------------

    def _handle(self, event: Any) -> None:
        if not self._up:
            if self.chance(0.5):  # it waits in the sender's queue; or it was on its way and is gone
                self.later(1.0, lambda: self._handle(event))
            return
        self.events += 1
        worker = self.scheduler.workers.get(event.worker) if isinstance(event, Reported) else None
        if isinstance(event, Reported) and (worker is None or event.message.epoch != worker.epoch):
            return  # whoever sends it is refused
        commands = self.scheduler.handle(event, self.now)
        if not _is_news_only(event):
            self.journal.append((self.now, event))
        self._note_done()
        for command in commands:
            self._carry_out(command)

    def _note_done(self) -> None:
        if not self.misfortune.worker_deaths and not self.misfortune.attempts_fail:
            for job in self.scheduler.jobs.values():
                self._done |= {task.name for task in job.stage.tasks if task.state is TaskState.DONE}

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Inform):
            if isinstance(command.message, JobEnded) and command.message not in self.ended:
                self.ended.append(command.message)
            elif isinstance(command.message, JobUnknown):
                self._submit()
            return
        worker = self.scheduler.workers.get(command.worker)
        if worker is None or worker.resuming:
            return  # its inventory will bring it up to date
        agent, message, life = self.registered[command.worker, worker.epoch], command.message, self.lives
        if isinstance(message, Launch) and message.task in self._done and not message.replay:
            self.again.append(message.task)

        def arrive() -> None:
            if self.now >= self._lost_from.get(life, LONGEST * 2):
                return
            if agent.alive and agent.connected:
                agent.take(message)

        self.deliver("", agent.endpoint, arrive)

    def deliver(self, source: str, target: str, action: Callable[[], None]) -> None:
        until = max(self._cut_until.get(source, 0.0), self._cut_until.get(target, 0.0))
        if until > self.now:
            key = source, target
            self._last[key] = max(self._last.get(key, 0.0), until)
        super().deliver(source, target, action)

    def _tick(self) -> None:
        if self._up:
            for event in self.scheduler.due(self.now):
                self._handle(event)
            self._handle(Tick())
        self.later(0.5, self._tick)

    def _submit(self) -> None:
        assert self.spec is not None
        self._handle(JobSubmitted(b"client", self.spec))

    def _coordinator_dies(self) -> None:
        if self.ended or not self._up:
            return
        self._up = False
        self._lost_from[self.lives] = self.now + self.random.uniform(0, 1)
        self.lives += 1
        if self.misfortune.torn_journals and self.chance(0.5) and self.journal:
            del self.journal[-self.random.randint(1, 5) :]
        self.later(self.random.choice([0.1, 1.0, 10.0]), self._coordinator_returns)

    def _coordinator_returns(self) -> None:
        self.scheduler = Scheduler(5.0, 60.0)
        for when, event in self.journal:
            self.scheduler.handle(event, when)
        self._up = True
        self._handle(CoordinatorRestarted())
        self._handle(ClientAttached(b"client", "job"))

    # --- workers -----------------------------------------------------------------------------

    def join(self, name: str, slots: int) -> None:
        agent = self.agents[name] = HarshAgent(self, name, next(self._epochs), slots)

        def arrive() -> None:
            if not self._up:
                self.later(0.3, arrive)
                return
            self.registered[name, agent.epoch] = agent
            agent.known = True
            self._handle(WorkerJoined(name, agent.epoch, name, slots, agent.endpoint))

        self.deliver(name, "", arrive)  # one life of a worker after the other
        self._beat(agent)

    def _beat(self, agent: Agent) -> None:
        assert isinstance(agent, HarshAgent)
        if agent.alive:
            if agent.connected and agent.known:
                late = max(0.1, self._cut_until.get(agent.endpoint, 0.0) - self.now)
                self.later(late, lambda: self._hear(agent))
            self.later(1.0, lambda: self._beat(agent))

    def _hear(self, agent: HarshAgent) -> None:
        """A heartbeat has arrived, and is answered as the shell answers it."""
        if not (self._up and agent.alive and agent.connected):
            return
        worker = self.scheduler.workers.get(agent.name)
        if worker is None or worker.epoch != agent.epoch:
            if self.agents[agent.name] is agent:
                agent.alive = False  # refused: it cleans up and begins anew
                self.join(agent.name, agent.slots)
            return
        self._handle(Reported(agent.name, Heartbeat(agent.epoch)))
        if worker.resuming:
            restarts = self.scheduler.restarts
            self.deliver("", agent.endpoint, lambda: agent.report(agent.inventory(restarts)))

    def _cut(self, name: str) -> None:
        """Nothing passes between a worker and the rest for a while, and then all of it."""
        agent = self.agents[name]
        if self.now < self._cut_until.get(agent.endpoint, -100.0) + 3 * max(CUT_SECONDS):
            return  # two together would be a silence that loses the worker
        self._cut_until[agent.endpoint] = self.now + self.random.choice(CUT_SECONDS)

    def _drain(self, name: str) -> None:
        """An operator wants a worker to leave, and then not: said twice, for what is said may be lost."""
        self._handle(WorkerDrained(name))
        for _ in range(2):
            self.later(self.random.uniform(0, 60), lambda: self._handle(WorkerKept(name)))
        self.later(LONGEST / 2, lambda: self._handle(WorkerKept(name)))

    # --- a job -------------------------------------------------------------------------------

    def run(self, spec: JobSpec) -> JobEnded:
        self.spec = spec
        names = [f"w{number:05d}" for number in range(self._workers)]
        for name in names:
            self.join(name, self._slots)
        chosen = self.random.choice
        for what, times in (
            (lambda: self._misfortune(chosen(names)), self.misfortune.worker_deaths),
            (lambda: self._cut(chosen(names)), self.misfortune.cuts),
            (lambda: self._drain(chosen(names)), self.misfortune.drains),
            (self._coordinator_dies, self.misfortune.coordinator_deaths),
        ):
            for _ in range(self.random.randint(0, times) if times < 3 else times):
                self.later(self.random.uniform(0, 15), what)
        self.later(self.random.uniform(0, 1), self._submit)
        self._tick()
        while not self.ended:
            self._step()
            assert self.now < LONGEST, f"the job hangs: {self._stuck()}"
        end = self.now + AFTERWARDS
        while self.now < end:
            self._step()
        return self.ended[0]

    def _misfortune(self, name: str) -> None:
        if not self.misfortune.within_budget:
            self._deaths = 0
        super()._misfortune(name)


def _id(message: Any) -> AttemptId:
    return AttemptId(message.job, message.task, message.attempt)


def live(seed: int, misfortune: Misfortune, workers: int = 0, splits: int = 0) -> HarshWorld:
    """One whole job in a world from a seed; AssertionError when a promise was broken."""
    world = HarshWorld(seed, misfortune, workers, 8 if workers > 10 else 2)
    draw = world.random
    world._workers = workers or draw.randint(1, 4)
    splits = splits or draw.randint(1, 6)
    ended = world.run(make_spec(*draw.choice(SHAPES), splits=splits))
    check(world, ended, splits)
    return world


def check(world: HarshWorld, ended: JobEnded, splits: int) -> None:
    """The promises, by their numbers in docs/failures.md."""
    assert len(world.ended) == 1, "2: the job ended in two ways"
    if ended.state == "succeeded":
        last = max(stage for stage, _ in world.output)
        found = Counter(
            record for (stage, _), part in world.output.items() if stage == last for record in part
        )
        wanted = Counter((split, number) for split in range(splits) for number in range(RECORDS))
        assert found == wanted, f"1: the output is wrong: {found - wanted} {wanted - found}"
        read = sum(groups["records"]["read"] for groups in ended.counters if groups)
        assert read == splits * RECORDS * len(ended.stages), "7: the counters are wrong"
    else:
        assert not world.misfortune.within_budget, f"the job failed: {ended.reason}"
        assert ended.reason, "4: it failed without a reason"
    assert not world.again, f"5: finished tasks were run again: {world.again}"
    for agent in world.agents.values():
        assert isinstance(agent, HarshAgent)
        assert not agent.left(), f"6: {agent.name} still has {agent.left()}"
