"""The commands about jobs, for those of a cluster: with --cluster NAME, or because a job's record says so."""

import argparse
import os
import tempfile
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from zmqmr.cli.texts import print_bytes, print_json, print_progress, print_table, say, show_log
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
    from zmqmr.client.records import Record
    from zmqmr.client.remote import RemoteCluster
    from zmqmr.messages import AttemptReport, JobEnded, JobSummary, JobUpdate

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


def record_of(args: argparse.Namespace) -> "Record | None":
    """The record of the job that is named, which says where it runs; UsageError when there is none on this
    machine, or more than one. With --cluster it need not be there: None, unless it is of that cluster."""
    from zmqmr.client.records import Records

    records = Records.of(Settings.from_environ())
    if not args.cluster:
        record = records.find(args.job)
        args.cluster, args.job = record.cluster, record.job
        return record
    with suppress(UsageError):
        record = records.find(args.job)
        if record.cluster == args.cluster:
            args.job = record.job
            return record
    return None


def connect(args: argparse.Namespace) -> "RemoteCluster":
    """The cluster that --cluster names, as a context."""
    from zmqmr.client.cluster import find_cluster
    from zmqmr.client.remote import RemoteCluster

    settings = Settings.from_environ()
    return RemoteCluster(find_cluster(args.cluster, settings), settings)


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

    with connect(args) as cluster:
        job = _find(args, cluster)
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


def kill(args: argparse.Namespace, record: "Record | None") -> int:
    """Kill a job and wait for its end. UsageError when it does not run."""
    from zmqmr.client.records import Records
    from zmqmr.client.remote_records import keep

    if args.force:
        raise UsageError(f"--force is for jobs of this machine; leave it out for one on {args.cluster}")
    with connect(args) as cluster:
        job = _find(args, cluster)
        if job.state != "running":
            raise UsageError(f"{job.job} does not run: it {'was ' * (job.state == 'killed')}{job.state}")
        ended = cluster.cancel()
        if ended is None:
            raise CoordinatorUnreachable(f"{job.job} has not ended; try again")
        cluster.release()
    if record is not None and record.state == "left":
        keep(record, ended, Records.of(Settings.from_environ()))
    if args.json:
        print_json({"job": job.job, "state": ended.state, "reason": ended.reason})
    else:
        print(f"{job.job} was {ended.state}")
    return EXIT_OK


def attach(args: argparse.Namespace, record: "Record | None") -> int:
    """Follow a job to its end and fetch its output, unless its own client does; an interrupt leaves the job
    alone."""
    from zmqmr.client.endings import log

    if not args.json:
        show_log(log)
    with connect(args) as cluster:
        job = _find(args, cluster)
        log.info(
            "%s on the cluster %s: %s, %d of %d tasks done", job.job, args.cluster, job.state, *_done(job)
        )
        ended = _follow(cluster, job, record)
        has_client = record is not None and _write_end(record, ended)
        if args.json:
            print_json({"job": ended.job, "state": ended.state, "reason": ended.reason})
        elif has_client and ended.state == "succeeded":
            say(f"{ended.job} succeeded; its own client has the output")
        else:
            if ended.state == "succeeded":
                _take_output(args, cluster, ended, record)
            _say_end(ended)
    return _EXIT[ended.state]


def _follow(cluster: "RemoteCluster", job: "JobSummary", record: "Record | None") -> "JobEnded":
    """Show how a job goes on until it ends. If it has a log here and no client that writes it, we do."""
    from zmqmr.client.joblog import JobLog
    from zmqmr.client.progress import Progress
    from zmqmr.client.records import Records, living

    steps = max((stage.step for stage in job.stages), default=0) + 1
    progress = Progress(steps, elsewhere=True)
    with ExitStack() as stack:
        stack.callback(progress.close)
        if record is None or living(record):
            return cluster.attach(progress)
        kept = JobLog(Records.of(Settings.from_environ()).log_path(job.job), steps, elsewhere=True)
        kept.open()
        stack.callback(kept.close)

        def on_message(message: "JobUpdate | AttemptReport") -> None:
            kept.note(message)
            progress(message)

        return cluster.attach(on_message)


def _write_end(record: "Record", ended: "JobEnded") -> bool:
    """Write the end of a job down; whether its own client lives, and does that."""
    from zmqmr.client.records import Records, living
    from zmqmr.client.remote_records import keep

    if living(record):
        return True
    keep(record, ended, Records.of(Settings.from_environ()))
    return False


def _take_output(
    args: argparse.Namespace, cluster: "RemoteCluster", ended: "JobEnded", record: "Record | None"
) -> None:
    """Print the output, or put it where the job or --output-dir says. The cluster's copy goes when that is
    done, unless the job is another machine's, whose client may be fetching it."""
    from zmqmr.client.records import Records
    from zmqmr.net.blobs import BlobLost

    directory = args.output_dir or (record.output_dir if record is not None else "")
    try:
        if directory:
            _fetch(cluster, ended, directory, record)
        else:
            _print(cluster, ended)
    except BlobLost as error:
        reason = f"the output of {ended.job} was fetched before, or has waited for too long"
        raise UsageError(reason) from error
    if record is None:
        return
    cluster.release(file.sha256 for file in ended.files)
    records = Records.of(Settings.from_environ())
    if (now := records.read(record.job)) is not None:
        now.fetched = True
        records.write(now)


def _print(cluster: "RemoteCluster", ended: "JobEnded") -> None:
    """Print the output; records that were left out are kept on this machine."""
    from zmqmr.client import skipped
    from zmqmr.client.remote_output import fetch_left_out, stream

    with tempfile.TemporaryDirectory(prefix="zmqmr-") as directory:
        fetch_left_out(cluster, ended.files, directory)
        skipped.tell(directory, False, ended.job, Settings.from_environ())
    for block in stream(cluster, ended.files):
        print_bytes(block)


def _fetch(cluster: "RemoteCluster", ended: "JobEnded", directory: str, record: "Record | None") -> None:
    """Put the output, and that of the steps if the job was asked for it, into directories."""
    from zmqmr.client import skipped
    from zmqmr.client.claims import claim_outputs, complete_outputs
    from zmqmr.client.remote_output import fetch
    from zmqmr.client.resume import take_back_output
    from zmqmr.data.outputs import TEMPORARY

    begun = os.path.isdir(os.path.join(directory, TEMPORARY))
    if begun and record is not None and directory == record.output_dir:
        take_back_output(record)  # its client was killed while it fetched
    steps_directory, steps = (record.step_output_dir, record.steps) if record is not None else ("", 1)
    with ExitStack() as undo:
        step_output, output = claim_outputs(directory, steps_directory, steps, undo)
        fetch(cluster, ended.files, output.path, step_output.path if step_output else "")
        complete_outputs(step_output, output)
        undo.pop_all()
    skipped.tell(output.path, True, ended.job, Settings.from_environ())


def _say_end(ended: "JobEnded") -> None:
    from zmqmr.client.endings import log_counters
    from zmqmr.client.texts import one_line

    log_counters(ended.counters)
    reason = f": {one_line(ended.reason)}" if ended.reason else ""
    say(f"{ended.job} {ended.state}{reason}")


def _find(args: argparse.Namespace, cluster: "RemoteCluster") -> "JobSummary":
    """The job that is named, or whose id begins so: the connection's from now on. UsageError when there is
    none, or more than one."""
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
    cluster.job = matching[0].job
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
