"""What a peer of the coordinator may say, by its key, and whether its versions fit."""

from typing import get_args

from mrjob import __version__ as mrjob_version

from zmqmr import __version__
from zmqmr.messages import (
    PROTOCOL,
    Attach,
    FromAgent,
    FromClient,
    FromOperator,
    Introduction,
    ListWorkers,
    Register,
    Submit,
)

_OF_AGENTS = frozenset(get_args(FromAgent))
_OF_CLIENTS = frozenset(get_args(FromClient)) | {ListWorkers}
_OF_OPERATORS = frozenset(get_args(FromOperator))
_FIRST = {kind.__name__ for kind in (Register, Submit, Attach)}  # what a peer's first message may be
_MAY_SAY = {"worker": _OF_AGENTS, "client": _OF_CLIENTS, "coordinator": _OF_OPERATORS}


def may_say(roles: frozenset[str], kind: type) -> bool:
    """Whether a key with `roles` may send a message of a kind: a client's submits and follows jobs, a
    worker's registers and reports, the coordinator's own looks after the workers."""
    return any(kind in _MAY_SAY[role] for role in roles)


def misfit(message: Register | Submit | Attach, here: str) -> str:
    """Why a worker or client of these versions cannot take part, naming both sides; "" when it can.
    `here`: this host. mrjob's releases of one series, 0.7 for example, work together."""
    theirs = _who(message)
    if message.protocol != PROTOCOL:
        return (
            f"{theirs} has zmqmr {message.version} (protocol {message.protocol}), the coordinator on {here}"
            f" has zmqmr {__version__} (protocol {PROTOCOL}); install the same release on both"
        )
    if message.mrjob and _series(message.mrjob) != _series(mrjob_version):
        return (
            f"{theirs} has mrjob {message.mrjob}, the coordinator on {here} has mrjob {mrjob_version};"
            " install the same release on both"
        )
    return ""


def misfit_of_another_release(introduction: Introduction, here: str) -> str:
    """The same for a first message of which only the introduction can be read; "" when it is none."""
    if introduction.type not in _FIRST or introduction.protocol == PROTOCOL:
        return ""
    return (
        f"{_named(introduction.worker, introduction.host)} has zmqmr {introduction.version} (protocol"
        f" {introduction.protocol}), the coordinator on {here} has zmqmr {__version__} (protocol {PROTOCOL});"
        " install the same release on both"
    )


def other_pythons(python: str, workers: dict[str, str]) -> str:
    """A warning when workers run another Python than the client: 3.11 and 3.12 are other Pythons.
    `workers`: the version of each that said so, by name."""
    others = {name: version for name, version in workers.items() if _series(version) != _series(python)}
    if not python or not others:
        return ""
    name = min(others)
    many = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return (
        f"this is Python {python}, worker {name}{many} has {others[name]}: the job may behave otherwise there"
    )


def _who(message: Register | Submit | Attach) -> str:
    return _named(message.worker if isinstance(message, Register) else "", message.host)


def _named(worker: str, host: str) -> str:
    who = f"worker {worker[:200]}" if worker else "the client"
    return f"{who} on {host[:200]}" if host else who


def _series(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
