"""zmqmr: the command with everything but running a job; `zmqmr-run` does that."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from zmqmr import __version__
from zmqmr.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, ZmqmrError

# Each is a module of this package with a function `add_command`.
COMMANDS = (
    *("jobs", "show", "logs", "attach", "kill", "gc", "replay", "drill", "doctor"),  # on this machine
    *("coordinator", "worker", "keygen", "workers", "drain"),  # of a cluster
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status. Wrong usage ends the process with status 2, as argparse does."""
    version = argparse.ArgumentParser(prog="zmqmr", add_help=False)
    version.add_argument("--version", action="version", version=f"zmqmr {__version__}")
    version.parse_known_args(argv)  # before anything is imported that may be missing
    parser = argparse.ArgumentParser(
        prog="zmqmr",
        parents=[version],
        description="Run mrjob jobs over ZeroMQ: all there is besides running one, `zmqmr-run JOB.py`.",
        epilog="`zmqmr COMMAND --help` says more. Exit status: 0 done, 1 something failed, 2 wrong usage or"
        " input, 3 the coordinator was lost, 130 interrupted. Settings are ZMQMR_ variables: see the README.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"zmqmr.cli.{name}").add_command(commands)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        return status
    except ZmqmrError as error:
        print(f"zmqmr: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_JOB_FAILED


if __name__ == "__main__":
    sys.exit(main())
