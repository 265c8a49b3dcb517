"""zmqmr gc: remove what jobs that ended left on this machine and nobody needs."""

import argparse
import time

from zmqmr.cli.texts import print_json
from zmqmr.client.texts import one_line
from zmqmr.errors import EXIT_OK
from zmqmr.settings import Settings
from zmqmr.words import counted


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `gc` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "gc",
        help="remove what ended jobs left: by age, by size, or because it is of no use",
        description="Remove what ended jobs left on this machine: all that is older than ZMQMR_STATE_DAYS"
        " (default 7); the oldest intermediate data and repro bundles beyond ZMQMR_STATE_BYTES (default 10"
        " GiB); what is of no use. Each run does the same once an hour. What a running job has is never"
        " touched.",
        epilog="Exit status: 0.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed and why")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is removed and why; always 0."""
    from zmqmr.client.garbage import collect

    total = count = 0
    would = "would remove" if args.dry_run else "removed"
    for garbage in collect(Settings.from_environ(), time.time(), dry_run=args.dry_run):
        total, count = total + garbage.bytes, count + 1
        if args.json:
            print_json({"path": garbage.path, "bytes": garbage.bytes, "reason": garbage.reason})
        else:
            size = counted(garbage.bytes, "byte")
            print(f"{would} {one_line(garbage.path)} ({size}): {one_line(garbage.reason)}")
    if not args.json:
        print(
            f"{would} {counted(count, 'thing')}, {counted(total, 'byte')}"
            if count
            else "there is nothing to remove"
        )
    return EXIT_OK
