"""The stages of a job: nothing lost, nothing doubled, cut where the docstring says."""

import itertools

from core.strategies import COMMAND, SCRIPT, make_spec, make_step, specs
from hypothesis import given

from zmqmr.core.plan import plan_stages, runs_as_command
from zmqmr.messages import JobSpec, Substep


def substep_of(spec: JobSpec, link: tuple[int, str]) -> Substep | None:
    return getattr(spec.steps[link[0]], link[1])


@given(specs())
def test_every_mapper_and_reducer_is_run_once_and_in_order(spec: JobSpec) -> None:
    run = [link for stage in plan_stages(spec) for link in stage.links]
    wanted = [
        (number, kind)
        for number, step in enumerate(spec.steps)
        for kind in ("mapper", "reducer")
        if getattr(step, kind) is not None
    ]
    assert run == wanted


@given(specs())
def test_each_stage_reads_the_one_before(spec: JobSpec) -> None:
    stages = plan_stages(spec)
    assert [stage.number for stage in stages] == list(range(len(stages)))
    assert [stage.source for stage in stages] == [None, *range(len(stages) - 1)]


@given(specs())
def test_the_tasks_of_a_stage_are_what_its_source_gives(spec: JobSpec) -> None:
    stages = plan_stages(spec)
    assert stages[0].kind == "map" and stages[0].tasks == len(spec.splits)
    for before, stage in itertools.pairwise(stages):
        assert (stage.kind == "reduce") == (before.partitions > 0)
        assert stage.tasks == (before.partitions or before.tasks)
    assert stages[-1].partitions == 0
    assert stages[-1].output_step == len(spec.steps) - 1


@given(specs())
def test_a_shuffle_lies_before_each_reducer_and_nowhere_else(spec: JobSpec) -> None:
    shuffles = 0
    for stage in plan_stages(spec):
        for place, (number, kind) in enumerate(stage.links):
            if kind == "reducer":
                assert place == 0 and stage.kind == "reduce"
                assert stage.tasks == spec.steps[number].partitions
        shuffles += stage.partitions > 0
    assert shuffles == sum(step.reducer is not None for step in spec.steps)


@given(specs())
def test_a_substep_that_runs_as_a_command_is_alone_in_its_stage(spec: JobSpec) -> None:
    for stage in plan_stages(spec):
        if any(runs_as_command(spec, substep_of(spec, link)) for link in stage.links):
            assert len(stage.links) == 1


@given(specs())
def test_a_combiner_follows_its_own_mapper_and_none_is_lost(spec: JobSpec) -> None:
    combined = set()
    for stage in plan_stages(spec):
        if stage.combine:
            number, kind = stage.links[-1]
            assert kind == "mapper" and spec.steps[number].combiner is not None
            combined.add(number)
    assert combined == {number for number, step in enumerate(spec.steps) if step.combiner is not None}


@given(specs())
def test_no_cut_without_a_reason(spec: JobSpec) -> None:
    stages = plan_stages(spec)
    for before, after in itertools.pairwise(stages):
        if before.partitions:
            continue
        edges = [*before.links[-1:], *after.links[:1]]
        beside_a_command = any(runs_as_command(spec, substep_of(spec, link)) for link in edges)
        assert beside_a_command or spec.step_output_dir or before.combine


def test_steps_without_a_shuffle_between_them_run_in_one_process() -> None:
    spec = make_spec(make_step(reducer=SCRIPT, partitions=3), make_step(), make_step(), splits=2)
    first, second = plan_stages(spec)
    assert (first.links, first.partitions) == (((0, "mapper"),), 3)
    assert (second.links, second.tasks) == (((0, "reducer"), (1, "mapper"), (2, "mapper")), 3)


def test_wanted_output_of_steps_cuts_after_each() -> None:
    spec = make_spec(make_step(), make_step(), step_output_dir="/steps")
    assert [(stage.links, stage.output_step) for stage in plan_stages(spec)] == [
        (((0, "mapper"),), 0),
        (((1, "mapper"),), 1),
    ]


def test_a_command_is_cut_off_on_both_sides() -> None:
    spec = make_spec(make_step(), make_step(COMMAND), make_step())
    assert [stage.links for stage in plan_stages(spec)] == [
        ((0, "mapper"),),
        ((1, "mapper"),),
        ((2, "mapper"),),
    ]
