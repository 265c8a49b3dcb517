"""What the commands that run for long, or talk to them, have in common."""

import argparse
import fcntl
import os
import resource
import sys
from typing import TYPE_CHECKING

from zmqmr.errors import CoordinatorUnreachable, ProtocolError, UsageError
from zmqmr.net.endpoints import check_endpoint
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.messages import WorkerList
    from zmqmr.net.curve import Keys

CONTROL_ENDPOINT = "tcp://127.0.0.1:2681"
OTHER_FILES = 1024  # a service has open besides its connections
ANSWER_SECONDS = 10.0
_TURN_MILLISECONDS = 100


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Add --keys and --authorized-keys."""
    parser.add_argument(
        "--keys",
        metavar="DIR",
        default=os.environ.get("ZMQMR_KEYS") or os.environ.get("CREDENTIALS_DIRECTORY", ""),
        help="directory of keys, made by `zmqmr keygen`; without one only loopback addresses can be used"
        " ($CREDENTIALS_DIRECTORY)",
    )
    parser.add_argument(
        "--authorized-keys",
        metavar="FILE",
        default=os.environ.get("ZMQMR_AUTHORIZED_KEYS", ""),
        help="who may connect; read again whenever it changes (authorized_keys in the directory of keys)",
    )


def keys_of(args: argparse.Namespace, *roles: str) -> "Keys | None":
    """The keys that the options name, of the first of `roles` whose secret is there; None without --keys."""
    if not args.keys:
        return None
    from zmqmr.net.curve import load_keys

    present = [role for role in roles if os.path.exists(os.path.join(args.keys, f"{role}.secret"))]
    return load_keys(os.path.abspath(args.keys), (present or roles)[0], args.authorized_keys)


def endpoint(text: str) -> str:
    """An argument that is an endpoint."""
    try:
        return check_endpoint(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_room_for_files(settings: Settings) -> None:
    """Let this process have as many files open as its peers and its work need. UsageError when it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_peers + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UsageError(
            f"this process may have {hard} files open, but ZMQMR_MAX_PEERS={settings.max_peers} needs"
            f" {wanted}; set ZMQMR_MAX_PEERS={max(1, hard - OTHER_FILES)}, or raise the limit"
            " (LimitNOFILE, ulimit -Hn)"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def take(directory: str, what: str) -> int:
    """Make a directory private and this process's as long as it lives; a descriptor that holds it. UsageError
    when another process has it. `what`: uses it, for people."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"cannot use the directory {directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"another {what} uses {directory}; end it, or give another directory") from error
    return descriptor


def ask(args: argparse.Namespace, message: object) -> "WorkerList":
    """Send one message to the coordinator and wait for its answer. CoordinatorUnreachable without one,
    UsageError when it refuses."""
    from zmqmr.messages import encode
    from zmqmr.net.gate import Refusal
    from zmqmr.net.sockets import context, control_client, sent

    zmq_context = context()
    socket = control_client(
        zmq_context,
        args.coordinator,
        b"client:" + os.urandom(8).hex().encode(),
        Settings.from_environ(),
        keys_of(args, "coordinator", "client"),
    )
    refusal = Refusal(socket)
    try:
        sent(socket, encode(message))
        for _ in range(int(ANSWER_SECONDS * 1000 / _TURN_MILLISECONDS)):
            if socket.poll(_TURN_MILLISECONDS):
                return _answer(socket.recv(), args.coordinator)
            if reason := refusal.seen():
                raise CoordinatorUnreachable(f"the coordinator at {args.coordinator} refuses us: {reason}")
        raise CoordinatorUnreachable(
            f"the coordinator at {args.coordinator} has another key than the coordinator.pub that is given:"
            " somebody has exchanged it; get the new one"
            if refusal.is_for_its_key()
            else f"the coordinator at {args.coordinator} does not answer; does it run there, and is this its"
            " port?"
        )
    finally:
        refusal.close()
        socket.close()
        zmq_context.term()


def _answer(frame: bytes, coordinator: str) -> "WorkerList":
    from zmqmr import __version__
    from zmqmr.messages import ToOperator, WorkerList, decode

    try:
        answer = decode(frame, ToOperator)
    except ProtocolError as error:
        raise UsageError(
            f"the coordinator at {coordinator} answers what zmqmr {__version__} does not understand: use the"
            f" command of its own release ({error})"
        ) from error
    if isinstance(answer, WorkerList):
        return answer
    raise UsageError(f"the coordinator at {coordinator} refuses: {answer.reason}")


def add_coordinator_options(parser: argparse.ArgumentParser) -> None:
    """Add --coordinator, the keys, and --json."""
    parser.add_argument(
        "--coordinator",
        type=endpoint,
        metavar="ENDPOINT",
        default=CONTROL_ENDPOINT,
        help=f"where the coordinator listens ({CONTROL_ENDPOINT})",
    )
    add_key_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def say(text: str) -> None:
    """A line for the service's log."""
    print(f"zmqmr {text}", file=sys.stderr, flush=True)
