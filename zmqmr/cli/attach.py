"""zmqmr attach: follow a job that another client runs, to the same end, and fetch a detached job's output."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from zmqmr.cli import remote
from zmqmr.cli.texts import add_job_argument, moment, print_bytes, print_json, say, show_log
from zmqmr.client.texts import printable
from zmqmr.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, EXIT_UNREACHABLE, UsageError
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.records import Record, Records

_END_SECONDS = 120.0  # for the job's client to complete the output
_EXIT = {
    "succeeded": EXIT_OK,
    "failed": EXIT_JOB_FAILED,
    "killed": EXIT_INTERRUPTED,
    "lost": EXIT_UNREACHABLE,
    "running": EXIT_UNREACHABLE,
}


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `attach` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "attach",
        help="follow a job to its end and print a detached job's output",
        description="Follow a job that runs, to its end; then, or when it has ended before, say how it ended,"
        " and print the output of a detached job. Ctrl-C leaves the job alone.",
        epilog="Exit status: as the job ended: 0 succeeded, 1 failed, 130 killed, 3 lost; 2 there is no such"
        " job; 130 after Ctrl-C.",
    )
    add_job_argument(parser)
    parser.add_argument("--json", action="store_true", help="the end as one JSON object; no output")
    parser.add_argument("--output-dir", metavar="DIR", help="of a cluster's job: where its output goes")
    remote.add_cluster_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or as the job ended: 1 failed, 130 killed, 3 lost. An interrupt leaves the job alone."""
    from zmqmr.client.records import Records, how_it_ended

    record = remote.record_of(args)
    if args.cluster or record is None:
        return remote.attach(args, record)
    if args.output_dir:
        raise UsageError("--output-dir is for a job of a cluster; name that with --cluster")
    records = Records.of(Settings.from_environ())
    try:
        if not args.json:
            _print_log(record, records)
        if record.state == "running":
            record = _follow(record, records, quiet=args.json)
    except KeyboardInterrupt:
        if record.state == "running":
            say(f"{record.job} goes on")
        return EXIT_INTERRUPTED
    if args.json:
        print_json({"job": record.job, "state": record.state, "reason": record.reason})
    else:
        reason = f": {record.reason}" if record.reason else ""
        say(f"{record.job} {how_it_ended(record)}{reason}")
        if record.state == "succeeded" and record.to_stdout:
            _print_output(record, records)
    return _EXIT[record.state]


def _print_log(record: "Record", records: "Records") -> None:
    """What the client has said so far, on standard error as there; of a job that has ended, the last
    failure."""
    from zmqmr.client.joblog import Fold, entries

    fold = Fold()
    said = [entry for _, entry in entries(records.log_path(record.job))]
    if record.state != "running":
        said = [entry for entry in said if entry.get("failure")][-1:]
    for entry in said:
        print(f"{moment(entry['time'])} {printable(fold.text(entry))}", file=sys.stderr)


def _follow(record: "Record", records: "Records", quiet: bool) -> "Record":
    from zmqmr.client import contact
    from zmqmr.client.endings import log
    from zmqmr.client.progress import Progress

    if not quiet:
        show_log(log)
    progress = Progress(record.steps)
    try:
        contact.follow(record, records, progress)
    finally:
        progress.close()
    return contact.await_end(record, records, _END_SECONDS)


def _print_output(record: "Record", records: "Records") -> None:
    """Print the output; a detached job's own copy of it goes when that is done."""
    from zmqmr.data import outputs, places

    kept = os.path.join(record.data, places.OUTPUT)
    directory = record.output_dir or kept
    if not os.path.isdir(directory):
        say("its output was printed before" if record.fetched else "its client printed its output")
        return
    for block in outputs.stream(outputs.parts(directory)):
        print_bytes(block)
    if directory == kept:
        places.remove(record.data)
        record.fetched = True
        records.write(record)
