"""Content keys: the same for what yields the same, and for nothing else."""

from typing import Any

import msgspec
import pytest
from core.strategies import MAP_REDUCE, SCRIPT, make_spec, make_split, make_step

from zmqmr.core.keys import Keys
from zmqmr.core.plan import plan_stages
from zmqmr.messages import InputFile, JobSpec, Piece, Split

TWO_STEPS = [make_step(reducer=SCRIPT, partitions=2), make_step(reducer=SCRIPT)]


def keys(spec: JobSpec, environment: str = "Python") -> list[list[str]]:
    plans = plan_stages(spec)
    found = Keys(spec, plans, environment)
    return [[found.of(plan.number, number) for number in range(plan.tasks)] for plan in plans]


def test_another_run_of_the_same_job_has_the_same_keys() -> None:
    spec = make_spec(*TWO_STEPS, splits=3)
    again = msgspec.structs.replace(
        spec, job="another", output_dir="/elsewhere", bundle="/elsewhere", reuse="/x", label="other"
    )
    assert keys(spec) == keys(again)
    every = [key for stage in keys(spec) for key in stage]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    "change",
    [
        {"bundle_sha256": "0" * 64},
        {"task_args": ("--limit=3",)},
        {"cmdenv": {"LANG": "C"}},
        {"script": "other.py"},
        {"job_class": "Other"},
        {"input_mode": "nlines"},
        {"task_python": ("pypy3",)},
        {"setup_script": "setup.sh"},
        {"steps": (make_step(reducer=SCRIPT, partitions=3), TWO_STEPS[1])},
        {"steps": (make_step(reducer=SCRIPT, partitions=2, compress="gz"), TWO_STEPS[1])},
    ],
)
def test_what_a_task_may_depend_on_changes_every_key(change: dict[str, Any]) -> None:
    spec = make_spec(*TWO_STEPS, splits=2)
    before = {key for stage in keys(spec) for key in stage}
    after = {key for stage in keys(msgspec.structs.replace(spec, **change)) for key in stage}
    assert not before & after


def test_another_interpreter_or_library_changes_every_key() -> None:
    spec = make_spec(MAP_REDUCE, splits=2)
    assert keys(spec, "Python 3.11")[0] != keys(spec, "Python 3.12")[0]


def test_one_more_input_changes_no_other_map_task_and_every_reduce_task() -> None:
    spec = make_spec(*TWO_STEPS, splits=2)
    more = msgspec.structs.replace(spec, splits=(make_split(9), *spec.splits))
    before, after = keys(spec), keys(more)
    assert after[0][1:] == before[0]
    assert not set(after[1]) & set(before[1]) and not set(after[2]) & set(before[2])


def test_a_file_of_another_time_or_size_is_another_input() -> None:
    def of(size: int, mtime_ns: int) -> str:
        split = Split((Piece(InputFile("/in", size, mtime_ns), 0, 5),))
        return keys(msgspec.structs.replace(make_spec(MAP_REDUCE), splits=(split,)))[0][0]

    assert len({of(5, 1), of(6, 1), of(5, 2)}) == 3


def test_an_input_that_is_given_twice_is_two_tasks() -> None:
    split = make_split(0)
    spec = msgspec.structs.replace(make_spec(MAP_REDUCE), splits=(split, split))
    assert len(set(keys(spec)[0])) == 2
