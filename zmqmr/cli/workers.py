"""zmqmr workers: the workers of a cluster, as its coordinator sees them."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zmqmr.cli.services import add_coordinator_options, ask
from zmqmr.cli.texts import print_table
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK, CoordinatorUnreachable

if TYPE_CHECKING:
    from zmqmr.messages import WorkerInfo, WorkerList

POLL_SECONDS = 0.5
_HEADS = ("NAME", "HOST", "STATE", "SLOTS", "FREE", "NEEDED", "HEARD", "VERSION", "PYTHON")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `workers` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "workers",
        help="show the workers of a cluster",
        description="Shows the workers of a cluster. With names, whether those are there and ready.",
        epilog="NEEDED: yes while a job that runs needs what the worker holds or does, so that its end would"
        " cost work. HEARD: how long ago its coordinator heard it.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a worker that should be ready")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="until those named are ready (0)"
    )
    add_coordinator_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each worker; 1 when one of those named is not ready, after waiting if that was asked
    for. CoordinatorUnreachable without an answer."""
    found = await_workers(args, lambda found: not _missing(found, args.names))
    show(found, args.json)
    missing = _missing(found, args.names)
    if missing:
        print(f"zmqmr: not there and ready: {', '.join(missing)}", file=sys.stderr)
    return EXIT_JOB_FAILED if missing else EXIT_OK


def _missing(found: "WorkerList", names: list[str]) -> list[str]:
    ready = {worker.name for worker in found.workers if worker.state == "ready"}
    return [name for name in names if name not in ready]


def await_workers(
    args: argparse.Namespace, are_so: Callable[["WorkerList"], bool], found: "WorkerList | None" = None
) -> "WorkerList":
    """The workers as soon as they `are_so`, or when `args.wait` seconds are over. CoordinatorUnreachable when
    it does not answer at the end; one that is starting has as long."""
    from zmqmr.messages import ListWorkers

    deadline = time.monotonic() + args.wait
    while True:
        try:
            found = found or ask(args, ListWorkers())
        except CoordinatorUnreachable:
            if time.monotonic() > deadline:
                raise
        if found and (are_so(found) or time.monotonic() > deadline):
            return found
        found = None
        time.sleep(POLL_SECONDS)


def show(found: "WorkerList", as_json: bool) -> None:
    """Print workers as a table or as JSON."""
    import msgspec

    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(found.workers) + b"\n")
        return
    print_table([_HEADS, *map(_row, found.workers)])


def _row(worker: "WorkerInfo") -> tuple[str, ...]:
    return (
        worker.name,
        worker.host,
        worker.state,
        str(worker.slots),
        str(worker.free),
        "yes" if worker.needed else "no",
        f"{worker.heard_seconds:.1f} s",
        worker.version,
        worker.python,
    )
