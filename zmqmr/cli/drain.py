"""zmqmr drain: let workers finish what they have, so that they can leave without loss."""

import argparse
from typing import TYPE_CHECKING

from zmqmr.cli.services import add_coordinator_options, ask
from zmqmr.cli.texts import say
from zmqmr.cli.workers import await_workers, show
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK

if TYPE_CHECKING:
    from zmqmr.messages import WorkerList


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `drain` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "drain",
        help="let workers leave in order",
        description="The workers get no new work. They are free to end when no job needs them any more."
        " One that is started again takes work as before.",
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="of a worker; `zmqmr workers` shows the names"
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="until no job needs any of them (0)"
    )
    parser.add_argument("--cancel", action="store_true", help="let them stay, and take work again")
    add_coordinator_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the workers; 1 when one of those named is still needed, after waiting if that was asked for."""
    from zmqmr.messages import Drain

    for name in args.names:
        found = ask(args, Drain(name, args.cancel))
    if args.cancel:
        show(found, args.json)
        return EXIT_OK
    if all(worker.state == "draining" for worker in found.workers):
        say(
            "no worker is left to take work: jobs wait until one joins, or stays with"
            f" zmqmr drain --cancel {args.names[-1]}"
        )
    found = await_workers(args, lambda found: not _needed(found, args.names), found)
    show(found, args.json)
    return EXIT_JOB_FAILED if _needed(found, args.names) else EXIT_OK


def _needed(found: "WorkerList", names: list[str]) -> bool:
    return any(worker.name in names and worker.needed for worker in found.workers)
