"""From mrjob's runner to a JobSpec: reads what the runner was given, changes nothing of it."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zmqmr.client.jobconf import MAP_ATTEMPTS, StepConf, interpret, is_nline
from zmqmr.core.splits import one_file_splits, partition_count, plan_splits
from zmqmr.data.inputs import nline_splits
from zmqmr.data.outputs import local_path
from zmqmr.errors import UsageError
from zmqmr.messages import CACHE_LISTS, InputFile, JobSpec, Split, Step, Substep
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.runner import ZeroMQMRJobRunner

STREAMING = "streaming"
ATTEMPTS_TO_SKIP = 3  # of a task: one crashes, one finds the record, one fails on it again


def check_step_types(steps: Sequence[Mapping[str, Any]]) -> None:
    """UsageError when a step is not a MRStep; the message says which runner takes it."""
    for number, step in enumerate(steps):
        kind = step.get("type")
        if kind == STREAMING:
            continue
        runners = "-r hadoop, -r emr or -r dataproc" if kind == "jar" else "-r spark, -r hadoop or -r emr"
        raise UsageError(f"step {number + 1} is a {kind} step, which zmqmr does not run; use {runners}")


def interpret_steps(runner: "ZeroMQMRJobRunner", settings: Settings) -> tuple[StepConf, ...]:
    """What the jobconf of each step asks for; UsageError for what cannot be done."""
    confs = []
    for number, step in enumerate(runner._get_steps()):
        conf = interpret(
            runner._jobconf_for_step(number),
            settings,
            partitioner=runner._partitioner or "",
            sort_values=bool(runner._sort_values),
        )
        if conf.map_attempts < ATTEMPTS_TO_SKIP and runner._opts["skip_bad_records"]:
            raise UsageError(
                f"--skip-bad-records needs {ATTEMPTS_TO_SKIP} attempts to find a record that fails, and step"
                f" {number + 1} has {conf.map_attempts}; raise {MAP_ATTEMPTS} or ZMQMR_MAX_ATTEMPTS"
            )
        if conf.reduces == 0 and "reducer" in step:
            raise UsageError(
                f"step {number + 1} has a reducer, but mapreduce.job.reduces is 0; set 1 or more, or unset it"
            )
        confs.append(conf)
    return tuple(confs)


@dataclass(frozen=True)
class Plan:
    """The input of a job, and how it is cut."""

    splits: tuple[Split, ...]
    input_mode: Literal["lines", "nlines", "files"]
    total_bytes: int


def plan_input(
    runner: "ZeroMQMRJobRunner", files: Sequence[InputFile], conf: StepConf, settings: Settings
) -> Plan:
    """Cut `files` for the first step, as its jobconf asks."""
    total = sum(file.size for file in files)
    if runner._uses_input_manifest():
        return Plan(one_file_splits(files), "files", total)
    if is_nline(runner._hadoop_input_format or ""):
        return Plan(nline_splits(files, conf.lines_per_map), "nlines", total)
    low, high = conf.split_bounds(settings)
    splits = plan_splits(files, maps=conf.maps, split_floor_bytes=low, split_bytes=high, pack=conf.pack_files)
    return Plan(splits, "lines", total)


def build(
    runner: "ZeroMQMRJobRunner",
    *,
    confs: Sequence[StepConf],
    plan: Plan,
    settings: Settings,
    output_dir: str,
    step_output_dir: str,
    bundle: tuple[str, str],
) -> JobSpec:
    """The JobSpec of the runner's job. `bundle` is the packed working directory and its sha256."""
    names = runner._working_dir_mgr
    wrapper = runner._setup_wrapper_script_path
    return JobSpec(
        job=runner.get_job_key(),
        label=confs[0].name or runner._label(),
        script=names.name("file", runner._script_path) if runner._script_path else "",
        task_args=task_args(runner),
        steps=_steps(runner, confs, plan, settings),
        splits=plan.splits,
        input_mode=plan.input_mode,
        output_dir=output_dir,
        step_output_dir=step_output_dir,
        bundle=bundle[0],
        bundle_sha256=bundle[1],
        cmdenv=_variables("cmdenv", runner._cmdenv()),
        # As with mrjob's setup script, which puts each one in front of those before it.
        python_path=tuple(names.name("file", path) for path in reversed(runner._py_files())),
        task_python=task_python(runner),
        sh=sh(runner),
        sort=tuple(runner._opts["sort_bin"] or ("sort",)),
        setup_script=names.name("file", wrapper) if wrapper else "",
        job_class=runner._job_class,
        skip_bad_records=int(runner._opts["skip_bad_records"] or 0),
    )


def task_args(runner: "ZeroMQMRJobRunner") -> tuple[str, ...]:
    """The job's own switches for its tasks; the last --runner counts, so the alias wins."""
    alias = runner._opts["task_runner_alias"]
    return (*runner._mr_job_extra_args(), *(("--runner", alias) if alias else ()))


def sh(runner: "ZeroMQMRJobRunner") -> tuple[str, ...]:
    """The shell and its switches."""
    command = tuple(runner._sh_bin())
    if runner._opts["cluster"]:
        return command  # a program of the workers
    _program(command[0], "--sh-bin")
    return command


def task_python(runner: "ZeroMQMRJobRunner") -> tuple[str, ...]:
    """The interpreter for tasks, () when it is the one that runs now."""
    if runner._opts["cluster"]:  # a program of the workers; when none is named, the one that runs them
        return tuple(runner._opts["task_python_bin"] or runner._opts["python_bin"] or ())
    command = tuple(runner._task_python_bin())
    found = _program(command[0], "--python-bin or --task-python-bin")
    return () if len(command) == 1 and _is_running(found) else command


def _program(name: str, option: str) -> str:
    """The path of a program; UsageError when there is none."""
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"no program {name!r} on PATH; give another {option}")
    return found


def _is_running(python: str) -> bool:
    """Whether `python` is this interpreter: one of a virtual environment differs from the one it links to."""
    here = sys.executable
    return os.path.realpath(python) == os.path.realpath(here) and os.path.realpath(
        os.path.dirname(python)
    ) == os.path.realpath(os.path.dirname(here))


def _steps(
    runner: "ZeroMQMRJobRunner", confs: Sequence[StepConf], plan: Plan, settings: Settings
) -> tuple[Step, ...]:
    caches = _caches(runner)
    last = len(confs) - 1
    return tuple(
        Step(
            mapper=_substep(step.get("mapper")),
            combiner=_substep(step.get("combiner")),
            reducer=_substep(step.get("reducer")),
            partitions=partition_count(
                plan.total_bytes,
                reduces=conf.reduces or None,
                partition_bytes=settings.partition_bytes,
                max_partitions=settings.max_partitions,
            ),
            jobconf=_variables("jobconf", runner._jobconf_for_step(number)) | caches,
            partitioner=conf.partitioner,
            map_attempts=conf.map_attempts,
            reduce_attempts=conf.reduce_attempts,
            timeout_seconds=conf.timeout_seconds,
            compress=conf.compress if number == last else "",
        )
        for number, (step, conf) in enumerate(zip(runner._get_steps(), confs, strict=True))
    )


def _substep(description: Mapping[str, Any] | None) -> Substep | None:
    if description is None:
        return None
    if description["type"] == "script":
        return Substep("script", pre_filter=description.get("pre_filter") or "")
    from mrjob.util import shlex_split

    command = description["command"]
    try:
        words = shlex_split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise UsageError(f"the command {command!r} is not a command line: {error}") from error
    if not words:
        raise UsageError("a step has an empty command; give it one, or remove it")
    return Substep("command", command=tuple(words))


def _caches(runner: "ZeroMQMRJobRunner") -> dict[str, str]:
    """Hadoop's lists of the job's archives and files, as path#name."""
    return {
        conf: ",".join(
            f"{path}#{name}" for name, path in sorted(runner._working_dir_mgr.name_to_path(kind).items())
        )
        for conf, kind in zip(CACHE_LISTS, ("archive", "file"), strict=True)
    }


def _variables(what: str, values: Mapping[str, Any]) -> dict[str, str]:
    """`values` as strings, all of which can be environment variables; UsageError otherwise."""
    for name, value in values.items():
        if not name or "=" in name or "\0" in name or "\0" in str(value):
            raise UsageError(
                f"{what} {name!r} cannot be an environment variable of the tasks; rename or remove it"
            )
    return {name: str(value) for name, value in values.items()}


def bundled(runner: "ZeroMQMRJobRunner", kind: Literal["file", "archive"]) -> dict[str, str]:
    """The local paths of what goes into the working directory, by name; UsageError for other URIs."""
    return {name: local_path(path) for name, path in runner._working_dir_mgr.name_to_path(kind).items()}
