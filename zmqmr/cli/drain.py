"""zmqmr drain: let a worker finish what it has, so that it can leave without loss."""

import argparse
import time
from typing import TYPE_CHECKING

from zmqmr.cli.services import add_coordinator_options, ask
from zmqmr.cli.workers import show
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK

if TYPE_CHECKING:
    from zmqmr.messages import WorkerList

POLL_SECONDS = 0.5


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `drain` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "drain",
        help="let a worker leave in order",
        description="The worker gets no new work. It is free to end when no job needs it any more;"
        " started again it takes work as before.",
    )
    parser.add_argument("name", metavar="NAME", help="of the worker; `zmqmr workers` shows the names")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="until no job needs the worker (0)"
    )
    add_coordinator_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the workers; 1 when the worker is still needed, after waiting if that was asked for."""
    from zmqmr.messages import Drain, ListWorkers

    deadline = time.monotonic() + args.wait
    found = ask(args, Drain(args.name))
    while _needed(found, args.name) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        found = ask(args, ListWorkers())
    show(found, args.json)
    return EXIT_JOB_FAILED if _needed(found, args.name) else EXIT_OK


def _needed(found: "WorkerList", name: str) -> bool:
    return any(worker.name == name and worker.needed for worker in found.workers)
