"""zmqmr logs: what a job's client said, and every failed attempt explained, with its standard error."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from zmqmr.cli.texts import add_job_argument, moment, print_json, say
from zmqmr.client.texts import printable
from zmqmr.errors import EXIT_OK
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.joblog import Fold

_POLL_SECONDS = 0.2


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `logs` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "logs",
        help="what a job said, and why attempts failed",
        description="Print what a job's client said, even one that was quiet, and why attempts failed, with"
        " their standard error; attempts that failed alike once.",
        epilog="Exit status: 0 done, 2 there is no such job.",
    )
    add_job_argument(parser)
    parser.add_argument("--follow", action="store_true", help="wait for more until the job ends")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; 0, or 2 when there is no such job."""
    from zmqmr.client.joblog import Fold, entries
    from zmqmr.client.records import Records

    records = Records.of(Settings.from_environ())
    record = records.find(args.job)
    offset, fold = 0, Fold()
    while True:
        running = record.state == "running"  # asked first, so that the last words are not missed
        for after, entry in entries(records.log_path(record.job), offset):
            _print(entry, fold, args.json)
            offset = after
        if not args.follow or not running:
            break
        time.sleep(_POLL_SECONDS)
        record = records.find(record.job)
    if not args.json and record.state in ("running", "lost"):  # of any other end the log tells
        say(f"{record.job} is running" if running else f"{record.job} was lost: {record.reason}")
    return EXIT_OK


def _print(entry: dict[str, Any], fold: "Fold", as_json: bool) -> None:
    if as_json:
        print_json(entry)
    else:
        print(f"{moment(entry['time'])} {entry['level']}: {printable(fold.text(entry))}", flush=True)
