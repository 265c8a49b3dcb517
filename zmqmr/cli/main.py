"""zmqmr: the command with everything but running a job; `zmqmr-run` does that."""

import argparse
import sys
from collections.abc import Sequence

from zmqmr import __version__
from zmqmr.cli import coordinator, doctor, drain, drill, keygen, replay, worker, workers
from zmqmr.errors import EXIT_INTERRUPTED, ZmqmrError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status. Wrong usage ends the process with status 2, as argparse does."""
    parser = argparse.ArgumentParser(prog="zmqmr", description="Run mrjob jobs over ZeroMQ.")
    parser.add_argument("--version", action="version", version=f"zmqmr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor.add_command(commands)
    replay.add_command(commands)
    drill.add_command(commands)
    coordinator.add_command(commands)
    worker.add_command(commands)
    keygen.add_command(commands)
    workers.add_command(commands)
    drain.add_command(commands)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        return status
    except ZmqmrError as error:
        print(f"zmqmr: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
