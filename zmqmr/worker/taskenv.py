"""The environment variables of a task: its jobconf as Hadoop streaming and mrjob's local runner set it."""

import os
from collections.abc import Mapping
from typing import Literal

from zmqmr.messages import JobSpec, Piece

_CACHES = {"files": "mapreduce.job.cache.files", "archives": "mapreduce.job.cache.archives"}


def task_env(
    spec: JobSpec,
    step: int,
    kind: Literal["mapper", "combiner", "reducer"],
    number: int,
    attempt: int,
    working_directory: str,
    piece: Piece | None,
) -> dict[str, str]:
    """The variables of one attempt (from 1) of task `number`, without those of the worker's own environment.

    They are the step's jobconf, then what Hadoop says about the task, each under all of its names and with
    "_" for ".", then the job's cmdenv. `piece` is what the task reads; None for a reducer. A name that
    jobconf gives in one spelling only is there in all spellings. Merge with `with_environ`.
    """
    from mrjob.compat import translate_jobconf_for_all_versions

    user = spec.steps[step].jobconf
    conf = {name: value for key, value in user.items() for name in translate_jobconf_for_all_versions(key)}
    conf |= user  # where both spellings are given, each keeps its value
    for key, value in _about(spec, step, kind, number, attempt, working_directory, piece).items():
        conf |= dict.fromkeys(translate_jobconf_for_all_versions(key), value)
    return {name.replace(".", "_"): value for name, value in conf.items()} | spec.cmdenv


def with_environ(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """`environ` with `variables` over it; the values of names that end in PATH are joined, as mrjob does.

    What is in front already is not joined again, so that merging twice is merging once.
    """
    from mrjob.conf import combine_local_envs

    new = {
        name: value
        for name, value in variables.items()
        if not (name.endswith("PATH") and f"{environ.get(name, '')}:".startswith(f"{value}:"))
    }
    return combine_local_envs(environ, new)


def _about(
    spec: JobSpec,
    step: int,
    kind: str,
    number: int,
    attempt: int,
    working_directory: str,
    piece: Piece | None,
) -> dict[str, str]:
    """What Hadoop says about the task; ids have the form that mrjob's local runner gives them."""
    task = f"{spec.job}_{kind}_{step:04d}{number}"
    about = {
        "mapreduce.job.id": spec.job,
        "mapreduce.task.id": f"task_{task}",
        "mapreduce.task.attempt.id": f"attempt_{task}_{attempt - 1}",
        "mapreduce.task.ismap": str(kind == "mapper").lower(),
        "mapreduce.task.partition": str(number),
        "mapreduce.task.output.dir": _output_directory(spec, step, working_directory),
        "mapreduce.job.local.dir": working_directory,
    }
    for what, key in _CACHES.items():
        entries = spec.steps[step].jobconf.get(key, "").split(",")  # path#name
        names = [entry.rpartition("#")[2] for entry in entries if "#" in entry]
        about[f"mapreduce.job.cache.local.{what}"] = ",".join(
            os.path.join(working_directory, n) for n in names
        )
    if piece is not None:
        about["mapreduce.map.input.file"] = "file://" + piece.file.path
        about["mapreduce.map.input.start"] = str(piece.start)
        about["mapreduce.map.input.length"] = str(piece.length)
    return about


def _output_directory(spec: JobSpec, step: int, working_directory: str) -> str:
    if step == len(spec.steps) - 1:
        return spec.output_dir
    if spec.step_output_dir:
        return os.path.join(spec.step_output_dir, f"{step:04d}")
    return working_directory  # what the step writes goes to no directory
