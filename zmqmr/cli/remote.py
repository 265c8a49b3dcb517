"""The commands about jobs, for those of a cluster: `zmqmr jobs|show|attach|kill --cluster NAME`."""

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any

from zmqmr.cli.texts import print_json, print_progress, print_table, say
from zmqmr.errors import (
    EXIT_INTERRUPTED,
    EXIT_JOB_FAILED,
    EXIT_OK,
    CoordinatorUnreachable,
    UsageError,
)
from zmqmr.ids import LAST
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.remote import RemoteCluster
    from zmqmr.messages import JobEnded, JobSummary

_EXIT = {"succeeded": EXIT_OK, "failed": EXIT_JOB_FAILED, "killed": EXIT_INTERRUPTED}
_SHOWN = 20
_REASON_CHARACTERS = 80


def add_cluster_option(parser: argparse.ArgumentParser, what: str = "a job") -> None:
    """Add --cluster. `what` is found there."""
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help=f"{what} of this cluster: a name, or tcp://HOST:PORT of a coordinator",
    )


def connect(args: argparse.Namespace, job: str = "") -> "RemoteCluster":
    """The cluster that --cluster names, as a context."""
    from zmqmr.client.cluster import find_cluster
    from zmqmr.client.remote import RemoteCluster

    settings = Settings.from_environ()
    return RemoteCluster(find_cluster(args.cluster, settings), settings, job)


def jobs(args: argparse.Namespace) -> int:
    """Print the jobs that run on the cluster and those that it remembers, the newest first."""
    with connect(args) as cluster:
        found = list(reversed(cluster.jobs().jobs))
    shown = found if args.all else found[:_SHOWN]
    if args.json:
        for job in shown:
            print_json(_as_json(job))
    elif not found:
        say(f"no job has run on the cluster {args.cluster}, or none is remembered")
    else:
        print_table([["JOB", "STATE", "DONE", "WHY"], *map(_row, shown)])
    return EXIT_OK


def show(args: argparse.Namespace) -> int:
    """Print all that the coordinator knows of a job."""
    from zmqmr.client.texts import one_line

    job = _find(args)
    if args.json:
        print_json(_as_json(job))
        return EXIT_OK
    print(f"{'job:':12}{job.job}")
    print(f"{'state:':12}{job.state}" + (f": {one_line(job.reason)}" if job.reason else ""))
    if job.files:
        print(f"{'output:':12}{job.files} files: zmqmr attach {job.job} --cluster {args.cluster}")
    steps = max((stage.step for stage in job.stages), default=0) + 1
    print_progress(job.stages, job.counters, steps)
    return EXIT_OK


def kill(args: argparse.Namespace) -> int:
    """Kill a job and wait for its end. UsageError when it does not run."""
    job = _find(args)
    if job.state != "running":
        raise UsageError(f"{job.job} does not run: it {'was ' * (job.state == 'killed')}{job.state}")
    with connect(args, job.job) as cluster:
        ended = cluster.cancel()
        if ended is None:
            raise CoordinatorUnreachable(f"{job.job} has not ended; try again")
        cluster.release(ended.files)
    if args.json:
        print_json({"job": job.job, "state": ended.state, "reason": ended.reason})
    else:
        print(f"{job.job} was {ended.state}")
    return EXIT_OK


def attach(args: argparse.Namespace) -> int:
    """Follow a job to its end and fetch its output; an interrupt leaves the job alone."""
    from zmqmr.client.endings import log
    from zmqmr.client.progress import Progress

    job = _find(args)
    if not args.json:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.setLevel(logging.INFO)
    steps = max((stage.step for stage in job.stages), default=0) + 1
    with connect(args, job.job) as cluster:
        progress = Progress(steps)
        try:
            ended = cluster.attach(progress)
        finally:
            progress.close()
        if ended.state == "succeeded" and not args.json:
            _take_output(cluster, ended, args.output_dir)
        if args.json:
            print_json({"job": ended.job, "state": ended.state, "reason": ended.reason})
        else:
            _say_end(ended)
    return _EXIT[ended.state]


def _take_output(cluster: "RemoteCluster", ended: "JobEnded", directory: str | None) -> None:
    """Print the output, or put it into a directory; the cluster's copy of it goes when that is done."""
    import tempfile

    from zmqmr.data import outputs
    from zmqmr.net.blobs import BlobLost

    try:
        if directory is not None:
            output = outputs.OutputDirectory(outputs.local_path(directory))
            output.claim()
            try:
                cluster.fetch(ended.files, output.path)
                output.commit()
            except BaseException:
                output.discard()
                raise
        else:
            with tempfile.TemporaryDirectory(prefix="zmqmr-output-") as kept:
                cluster.fetch(ended.files, kept)
                for block in outputs.stream(outputs.parts(kept)):
                    sys.stdout.buffer.write(block)
                sys.stdout.flush()
    except BlobLost as error:
        reason = f"the output of {ended.job} was fetched before, or has waited for too long"
        raise UsageError(reason) from error
    cluster.release(ended.files)


def _say_end(ended: "JobEnded") -> None:
    from mrjob.logs.counters import _format_counters

    from zmqmr.client.endings import log
    from zmqmr.client.texts import one_line

    for counters in ended.counters:
        if counters:
            log.info("\n%s\n", _format_counters(counters))
    reason = f": {one_line(ended.reason)}" if ended.reason else ""
    say(f"{ended.job} {ended.state}{reason}")


def _find(args: argparse.Namespace) -> "JobSummary":
    """The job that is named, or whose id begins so. UsageError when there is none, or more than one."""
    with connect(args) as cluster:
        found = cluster.jobs().jobs
    exact = found[-1:] if args.job == LAST else [job for job in found if job.job == args.job]
    matching = exact or [job for job in found if job.job.startswith(args.job)]
    if not matching:
        raise UsageError(
            f"the cluster {args.cluster} knows no job {args.job}; see: zmqmr jobs --cluster {args.cluster}"
        )
    if len(matching) > 1:
        names = ", ".join(job.job for job in matching[:5])
        raise UsageError(f"{args.job} is the beginning of {len(matching)} jobs: {names}; give more of it")
    return matching[0]


def _row(job: "JobSummary") -> list[str]:
    from zmqmr.client.texts import cut, one_line

    done, tasks = _done(job)
    reason = one_line(job.reason.partition("\n")[0])
    return [job.job, job.state, f"{done} of {tasks} tasks", cut(reason, _REASON_CHARACTERS)]


def _done(job: "JobSummary") -> tuple[int, int]:
    return sum(stage.done for stage in job.stages), sum(stage.tasks for stage in job.stages)


def _as_json(job: "JobSummary") -> dict[str, Any]:
    import msgspec

    done, tasks = _done(job)
    fields = {name: getattr(job, name) for name in job.__struct_fields__}
    return msgspec.to_builtins(fields) | {"done": done, "tasks": tasks}
