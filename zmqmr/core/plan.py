"""Steps become stages: chains of substeps that one attempt runs, cut at every shuffle."""

from dataclasses import dataclass
from typing import Literal

from zmqmr.messages import JobSpec, Substep

Link = tuple[int, Literal["mapper", "reducer"]]  # step number, substep


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: what its tasks read, run and write."""

    number: int
    kind: Literal["map", "reduce"]
    step: int  # whose substep comes first, for people
    links: tuple[Link, ...]  # empty: records pass unchanged
    combine: bool  # the last link's step has a combiner
    source: int | None  # the stage it reads; None: the job's input splits
    tasks: int
    partitions: int  # of its shuffle; 0: it writes a part file a task
    output_step: int  # whose output the part files are

    def task(self, number: int) -> str:
        """The name of a task of the stage."""
        return f"{self.kind}-{self.number}-{number:05d}"


def stage_of(task: str) -> int:
    """The number of the stage that a task is of, from its name; ValueError when it is no task's."""
    return int(task.split("-")[1])


def number_of(task: str) -> int:
    """The number of a task in its stage, from its name; ValueError when it is no task's."""
    return int(task.split("-")[2])


def runs_as_command(spec: JobSpec, substep: Substep | None) -> bool:
    """Whether a substep runs as a subprocess of its own, fed with lines."""
    if substep is None:
        return False
    return substep.kind == "command" or bool(substep.pre_filter) or bool(spec.task_python)


class _Chain:
    """A stage that is still growing."""

    def __init__(self, kind: Literal["map", "reduce"], source: int | None, tasks: int, step: int):
        self.kind = kind
        self.source = source
        self.tasks = tasks
        self.step = step
        self.links: list[Link] = []
        self.ends_in_command = False


def plan_stages(spec: JobSpec) -> tuple[StagePlan, ...]:
    """The stages of a job, in the order they run.

    A stage of more than one link holds Python substeps only. A cut without a shuffle, after which
    part files are read, comes before and after each substep that runs as a command, between steps whose
    jobconf differs, because a process has one environment, and after each step when the output of steps
    is wanted.
    """
    stages: list[StagePlan] = []
    chain = _Chain("map", None, len(spec.splits), 0)

    def close(partitions: int, output_step: int, combine: bool = False) -> None:
        stages.append(
            StagePlan(
                number=len(stages),
                kind=chain.kind,
                step=chain.step,
                links=tuple(chain.links),
                combine=combine,
                source=chain.source,
                tasks=chain.tasks,
                partitions=partitions,
                output_step=output_step,
            )
        )

    last = len(spec.steps) - 1
    for number, step in enumerate(spec.steps):
        if step.mapper is not None:
            as_command = runs_as_command(spec, step.mapper)
            before = spec.steps[chain.links[0][0]].jobconf if chain.links else step.jobconf
            if chain.links and (as_command or chain.ends_in_command or before != step.jobconf):
                close(0, number - 1)
                chain = _Chain("map", len(stages) - 1, stages[-1].tasks, number)
            chain.links.append((number, "mapper"))
            chain.ends_in_command = as_command
        combine = step.combiner is not None and chain.links[-1:] == [(number, "mapper")]
        if step.reducer is not None:
            close(step.partitions, number, combine)
            chain = _Chain("reduce", len(stages) - 1, step.partitions, number)
            chain.links.append((number, "reducer"))
            chain.ends_in_command = runs_as_command(spec, step.reducer)
            combine = False
        if number == last:
            close(0, number, combine)
        elif spec.step_output_dir or combine:
            close(0, number, combine)
            chain = _Chain("map", len(stages) - 1, stages[-1].tasks, number + 1)
    return tuple(stages)


def keeps_tasks(spec: JobSpec, plan: StagePlan) -> bool:
    """Whether what a task of the stage yields is kept, so that it need not run again: in a spool, or, of a
    stored job's last stage, in the store."""
    return bool(plan.partitions) or (spec.stored and plan.output_step == len(spec.steps) - 1)
