"""Which of mrjob's own methods a job has changed, and what that means for its records."""

from typing import Any, Literal

from mrjob.job import MRJob

from zmqmr.core.plan import StagePlan, runs_as_command
from zmqmr.data.codecs import always_has_tab
from zmqmr.messages import JobSpec

Kind = Literal["mapper", "combiner", "reducer"]

_COMMON = ("execute", "_wrap_protocols", "_read_input", "_get_step", "stdin", "stdout")
_METHODS: dict[str, tuple[str, ...]] = {
    "mapper": (*_COMMON, "run_mapper", "map_pairs"),
    "combiner": (*_COMMON, "run_combiner", "combine_pairs", "_combine_or_reduce_pairs"),
    "reducer": (*_COMMON, "run_reducer", "reduce_pairs", "_combine_or_reduce_pairs"),
}


def is_stock(job_class: type, kind: Kind) -> bool:
    """Whether the job runs a mapper, combiner or reducer as mrjob does. One that does not gets its own
    method, with files for its input and output."""
    return all(getattr(job_class, name) is getattr(MRJob, name) for name in _METHODS[kind])


def is_marked(spec: JobSpec, job_class: Any, stage: StagePlan, job: Any) -> bool:
    """Whether the records of a stage's shuffle are marked: unless each is sure to have a TAB. `job`: any
    instance of the job, which can tell the protocols of all its steps; None when tasks are commands."""
    if not stage.links or job is None:
        return True
    number, kind = stage.links[-1]
    substeps: list[tuple[Kind, Any]] = [(kind, getattr(spec.steps[number], kind))]
    if stage.combine:
        substeps.append(("combiner", spec.steps[number].combiner))
    if any(runs_as_command(spec, substep) for _, substep in substeps):
        return True
    if not all(is_stock(job_class, which) for which, _ in substeps):
        return True
    return not always_has_tab(job.pick_protocols(number, kind)[1])
