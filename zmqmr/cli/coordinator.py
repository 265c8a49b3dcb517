"""zmqmr coordinator: the coordinator of a cluster, until TERM."""

import argparse
import os

from zmqmr.cli.services import (
    CONTROL_ENDPOINT,
    add_key_options,
    endpoint,
    keys_of,
    make_room_for_files,
    say,
    take,
)
from zmqmr.cli.texts import show_log
from zmqmr.errors import EXIT_OK
from zmqmr.settings import Settings


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `coordinator` to the parser of `zmqmr`."""
    parser = commands.add_parser("coordinator", help="run the coordinator of a cluster")
    parser.add_argument(
        "--listen",
        type=endpoint,
        metavar="ENDPOINT",
        default=CONTROL_ENDPOINT,
        help=f"where workers and clients connect ({CONTROL_ENDPOINT})",
    )
    parser.add_argument(
        "--store",
        type=endpoint,
        metavar="ENDPOINT",
        help="where jobs' files and outputs are transferred: tcp://0.0.0.0:2682",
    )
    parser.add_argument(
        "--state-directory",
        metavar="DIR",
        required=True,
        help="where the journal is kept; a coordinator started again there takes it up",
    )
    add_key_options(parser)
    parser.add_argument(
        "--status-port", type=int, metavar="PORT", help="of the status page, on loopback; 0: none (2680)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until TERM. UsageError when it cannot listen, or not safely."""
    from zmqmr.coordinator.eventlog import log
    from zmqmr.coordinator.service import Coordinator, run_coordinator
    from zmqmr.net.notify import Notifier
    from zmqmr.status.server import StatusServer
    from zmqmr.status.state import State
    from zmqmr.worker.spawn import name_process

    settings = Settings.from_environ()
    name_process("zmqmr-coord")
    make_room_for_files(settings)
    keys = keys_of(args, "coordinator")
    show_log(log, "zmqmr ")
    state_directory = os.path.abspath(args.state_directory)
    os.umask(0o077)  # the journal has what jobs were given, which may be secret
    lock = take(state_directory, "coordinator")
    state = State()
    coordinator = Coordinator(
        endpoint=args.listen,
        settings=settings,
        lifeline=None,
        journal=os.path.join(state_directory, "journal"),
        note=state.note,
        keys=keys,
        notifier=Notifier.from_environ(),
        store=args.store or "",
        store_directory=os.path.join(state_directory, "store"),
    )
    port = settings.status_port if args.status_port is None else args.status_port
    page = StatusServer(state.snapshot, port)
    url = page.start() or "no"
    files = f"{coordinator.store.endpoint} for files, " if coordinator.store is not None else ""
    say(f"coordinator listens at {coordinator.endpoint}, {files}status page: {url}")
    try:
        run_coordinator(coordinator)
    finally:
        page.stop()
        os.close(lock)
    return EXIT_OK
