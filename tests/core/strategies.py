"""Jobs for the tests of the core: small specifications of any shape, and the strategies that draw them."""

from typing import Any

from hypothesis import strategies as st

from zmqmr.messages import InputFile, JobSpec, Piece, Split, Step, Substep

SCRIPT = Substep("script")
COMMAND = Substep("command", ("cat",))
FILTERED = Substep("script", pre_filter="cat")


def make_step(
    mapper: Substep | None = SCRIPT,
    reducer: Substep | None = None,
    combiner: Substep | None = None,
    partitions: int = 1,
    **others: Any,
) -> Step:
    """A step; a mapper that runs the job's script unless said otherwise."""
    return Step(mapper, combiner, reducer, partitions, {}, **others)


MAP_ONLY = make_step()
MAP_REDUCE = make_step(reducer=SCRIPT)


def make_split(number: int) -> Split:
    """The split of a file of its own, of `number` + 1 bytes."""
    return Split((Piece(InputFile(f"/in/{number}", number + 1, 0), 0, number + 1),))


def make_spec(*steps: Step, splits: int = 1, job: str = "job", **others: Any) -> JobSpec:
    """The specification of a job of these steps, with `splits` map tasks."""
    values: dict[str, Any] = {
        "job": job,
        "label": "label",
        "script": "job.py",
        "task_args": (),
        "steps": steps or (MAP_ONLY,),
        "splits": tuple(make_split(number) for number in range(splits)),
        "input_mode": "lines",
        "output_dir": "/out",
        "step_output_dir": "",
        "bundle": "/bundle",
        "bundle_sha256": "",
        "cmdenv": {},
    }
    return JobSpec(**{**values, **others})


_SUBSTEPS = st.sampled_from([SCRIPT, SCRIPT, COMMAND, FILTERED])


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A step with a mapper, a reducer or both, as mrjob makes them: a combiner comes with a mapper."""
    shape = draw(st.sampled_from(["map", "reduce", "map reduce"]))
    mapper = draw(_SUBSTEPS) if "map" in shape else None
    reducer = draw(_SUBSTEPS) if "reduce" in shape else None
    combiner = draw(st.none() | _SUBSTEPS) if mapper is not None else None
    return make_step(mapper, reducer, combiner, draw(st.integers(1, 4)))


def specs(job: str = "job", min_splits: int = 0, max_steps: int = 4) -> st.SearchStrategy[JobSpec]:
    """Jobs of one to `max_steps` steps over `min_splits` to 5 splits."""
    return st.builds(
        lambda chain, splits, step_output_dir, task_python: make_spec(
            *chain, splits=splits, job=job, step_output_dir=step_output_dir, task_python=task_python
        ),
        st.lists(steps(), min_size=1, max_size=max_steps),
        st.integers(min_splits, 5),
        st.sampled_from(["", "", "/steps"]),
        st.sampled_from([(), (), ("python3",)]),
    )
