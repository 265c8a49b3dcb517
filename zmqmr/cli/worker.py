"""zmqmr worker: a worker of a cluster, until TERM, or until the coordinator has given it up.

It ends with status 3 when it is refused or hears nothing any more: whoever started it starts another, which
registers anew.
"""

import argparse
import os
import re
import socket

from zmqmr.cli.services import add_key_options, endpoint, keys_of, make_room_for_files, say, take
from zmqmr.errors import EXIT_OK, UsageError
from zmqmr.net.endpoints import check_safe
from zmqmr.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_OWN = "worker"  # name of the worker's own directory on each drive


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `worker` to the parser of `zmqmr`."""
    parser = commands.add_parser("worker", help="run a worker of a cluster")
    parser.add_argument(
        "--coordinator", type=endpoint, metavar="ENDPOINT", required=True, help="tcp://HOST:2681"
    )
    parser.add_argument(
        "--store", type=endpoint, metavar="ENDPOINT", help="where jobs' files come from: tcp://HOST:2682"
    )
    parser.add_argument(
        "--listen",
        type=endpoint,
        metavar="ENDPOINT",
        required=True,
        help="where the other workers send records: an address of this host that they reach, and a port",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        action="append",
        required=True,
        help="where intermediate data go, on a large and fast drive, of this worker alone; once for each"
        " drive: a job goes to the one with the most room",
    )
    parser.add_argument("--slots", type=int, metavar="N", help="tasks at a time (one for each core)")
    parser.add_argument("--name", help="of the worker, unique in the cluster (the host's name)")
    add_key_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until TERM; 3 when the coordinator has given this worker up. UsageError when it cannot listen,
    or not safely."""
    import mrjob.job  # noqa: F401  the executor is forked from here and needs it

    from zmqmr.net.notify import Notifier
    from zmqmr.worker.agent import run_agent
    from zmqmr.worker.spawn import ExecutorProcess, name_process

    settings = _settings(args)
    slots = len(os.sched_getaffinity(0)) if args.slots is None else args.slots
    if slots < 1:
        raise UsageError(f"--slots {slots}: give 1 or more")
    if args.listen.startswith(("tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:")):
        raise UsageError(f"--listen {args.listen}: give the address of this host that other workers reach")
    name = _name(args)
    make_room_for_files(settings)
    keys = keys_of(args, "worker")
    for where in (args.coordinator, args.listen, *filter(None, [args.store])):
        check_safe(where, keys is not None)
    places = [os.path.abspath(directory) for directory in args.directory]
    locks = [take(place, "worker") for place in places]
    # The same for each life: one that takes the place of another finds its spools.
    directories = [os.path.join(place, _OWN) for place in places]
    name_process("zmqmr-agent")
    # Forked before there is a ZeroMQ context, whose threads no fork may have.
    spare = ExecutorProcess.fork(close=locks)
    say(f"worker {name} listens at {args.listen} and offers {slots} slots to {args.coordinator}")
    run_agent(
        {
            "name": name,
            "coordinator": args.coordinator,
            "shuffle": args.listen,
            "store": args.store or "",
            "directory": directories[0],
            "more_directories": directories[1:],
            "slots": slots,
            "settings": settings,
            "lifeline": None,
            "spare": spare,
            "keys": keys,
            "notifier": Notifier.from_environ(),
        }
    )
    return EXIT_OK


def _settings(args: argparse.Namespace) -> Settings:
    """The settings, with the keys among them, for this process and for those it starts. They are paths."""
    paths = {"ZMQMR_KEYS": args.keys, "ZMQMR_AUTHORIZED_KEYS": args.authorized_keys}
    os.environ.update({name: os.path.abspath(path) for name, path in paths.items() if path})
    return Settings.from_environ()


def _name(args: argparse.Namespace) -> str:
    name: str = args.name or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100]
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: give 1 to 100 letters, digits, dots, dashes and underscores")
    return name
