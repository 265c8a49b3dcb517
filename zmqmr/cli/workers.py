"""zmqmr workers: the workers of a cluster, as its coordinator sees them."""

import argparse
import sys
from typing import TYPE_CHECKING

from zmqmr.cli.services import add_coordinator_options, ask
from zmqmr.errors import EXIT_OK

if TYPE_CHECKING:
    from zmqmr.messages import WorkerInfo, WorkerList

_HEADS = ("NAME", "HOST", "STATE", "SLOTS", "FREE", "NEEDED", "HEARD", "VERSION", "PYTHON")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `workers` to the parser of `zmqmr`."""
    parser = commands.add_parser("workers", help="show the workers of a cluster")
    add_coordinator_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each worker. CoordinatorUnreachable without an answer."""
    from zmqmr.messages import ListWorkers

    show(ask(args, ListWorkers()), args.json)
    return EXIT_OK


def show(found: "WorkerList", as_json: bool) -> None:
    """Print workers as a table or as JSON."""
    import msgspec

    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(found.workers) + b"\n")
        return
    rows = [_HEADS, *map(_row, found.workers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


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
