"""The child processes of a local cluster, forked with arguments or executed with them on the command line."""

import base64
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from zmqmr.settings import Settings


def _coordinator(arguments: dict[str, Any]) -> None:
    from zmqmr.coordinator.service import Coordinator, run_coordinator
    from zmqmr.status.server import StatusServer
    from zmqmr.status.state import State
    from zmqmr.worker.spawn import name_process

    name_process("zmqmr-coord")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _outlive_terminal()
    settings: Settings = arguments["settings"]
    state = State()
    page = StatusServer(state.snapshot, settings.status_port) if settings.status_port else None
    status_line = arguments.pop("status_line")
    if status_line is not None:
        os.write(status_line, page.start().encode() if page is not None else b"")
        os.close(status_line)
    elif page is not None:
        page.start()
    run_coordinator(Coordinator(**arguments, note=state.note))
    if page is not None:
        page.stop()


def _agent(arguments: dict[str, Any]) -> None:
    from zmqmr.worker.agent import run_agent
    from zmqmr.worker.spawn import ExecutorProcess, name_process

    name_process("zmqmr-agent")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _outlive_terminal()  # the executor too

    # Forked before the agent has a ZeroMQ context, whose threads no fork may have.
    spare = ExecutorProcess.fork(close=[arguments["lifeline"]])
    run_agent({**arguments, "spare": spare})


def _outlive_terminal() -> None:
    """When a terminal closes, its client ends the job, or has left that to the agent. A handler, because
    what is only ignored stays ignored in the programs that this process starts."""
    signal.signal(signal.SIGHUP, lambda number, frame: None)


MAINS: dict[str, Callable[[dict[str, Any]], None]] = {"coordinator": _coordinator, "agent": _agent}


def to_argument(arguments: dict[str, Any]) -> str:
    """Arguments as one word of a command line."""
    return base64.b64encode(msgspec.json.encode(arguments)).decode()


def from_argument(argument: str) -> dict[str, Any]:
    """The arguments that `to_argument` was given."""
    arguments: dict[str, Any] = msgspec.json.decode(base64.b64decode(argument))
    arguments["settings"] = Settings(**arguments["settings"])
    return arguments


def main() -> None:
    """The main function when it is executed: what to be, and its arguments."""
    import mrjob.job  # noqa: F401  the executor is forked from here and needs it

    MAINS[sys.argv[1]](from_argument(sys.argv[2]))
