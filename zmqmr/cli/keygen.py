"""zmqmr keygen: keys for a cluster."""

import argparse

from zmqmr.errors import EXIT_OK
from zmqmr.net.endpoints import ROLES


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `keygen` to the parser of `zmqmr`."""
    parser = commands.add_parser("keygen", help="make keys for a cluster")
    parser.add_argument(
        "--role", action="append", choices=ROLES, help="whose keys; several times for several (all three)"
    )
    parser.add_argument("directory", metavar="DIR", help="where the keys go; nothing there is replaced")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the keys and print the paths of their files. UsageError when one is there already."""
    from zmqmr.net.curve import make_keys

    for path in make_keys(args.directory, tuple(dict.fromkeys(args.role or ROLES))):
        print(path)
    return EXIT_OK
