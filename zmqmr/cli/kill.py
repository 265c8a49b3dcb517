"""zmqmr kill: ask a job to end and wait for it, or end its processes."""

import argparse
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from zmqmr.cli import remote
from zmqmr.cli.texts import add_job_argument, print_json
from zmqmr.errors import EXIT_OK, CoordinatorUnreachable, UsageError
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.records import Record

_END_SECONDS = 20.0  # for a job's client to end after the job


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `kill` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "kill",
        help="kill a running job and wait for its end",
        description="Kill a running job and wait for its end. Its output is taken back; what it has finished"
        " is kept for --resume. Its client ends with status 130.",
        epilog="Exit status: 0 the job is over, 2 it does not run, or there is no such job, 3 it could not be"
        " ended: use --force.",
    )
    add_job_argument(parser)
    parser.add_argument("--force", action="store_true", help="do not ask: end its processes")
    parser.add_argument("--json", action="store_true", help="say how it ended as one JSON object")
    remote.add_cluster_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the job is over, 2 when it does not run, 3 when it could not be ended."""
    record = remote.record_of(args)
    if args.cluster or record is None:
        return remote.kill(args, record)
    from zmqmr.client import contact
    from zmqmr.client.garbage import settle
    from zmqmr.client.records import Records, how_it_ended
    from zmqmr.client.resume import take_back_output

    records = Records.of(Settings.from_environ())
    if record.state != "running":
        raise UsageError(f"{record.job} does not run: it {how_it_ended(record)}")
    if args.force:
        _end_processes(record)
    else:
        contact.cancel(record, records)
    now = contact.await_end(record, records, _END_SECONDS)
    if now.state == "running":
        raise CoordinatorUnreachable(
            f"{record.job} has not ended; end its processes with: zmqmr kill --force {record.job}"
        )
    if args.force and now.state == "lost":
        take_back_output(now)
        now.state, now.reason = "killed", "killed by zmqmr kill --force"
        deadline = time.monotonic() + _END_SECONDS
        while not settle(now, records, time.time()) and time.monotonic() < deadline:
            time.sleep(0.05)  # what the agent had started ends a moment after it
    if args.json:
        print_json({"job": now.job, "state": now.state, "reason": now.reason})
    else:
        print(f"{now.job} {how_it_ended(now)}")
    return EXIT_OK


def _end_processes(record: "Record") -> None:
    """Kill the client first, so that it starts nothing again; then the agent sees to the rest, as after
    any client's death, if it still can within a second."""
    from zmqmr.client.records import living

    for what, patience in (("client", 1.0), ("agent", 0.0), ("coordinator", 0.0)):
        if process := living(record).get(what):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + patience
        while living(record) and time.monotonic() < deadline:
            time.sleep(0.02)
