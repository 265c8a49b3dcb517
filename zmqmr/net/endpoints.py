"""Endpoints: who is at one, where it listens or connects to, and whether that is private to this machine."""

import ipaddress
import re

from zmqmr.errors import UsageError

ROLES = ("coordinator", "worker", "client")

_TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._*-]+):(\d{1,5}|\*)")


def is_tcp(endpoint: str) -> bool:
    return endpoint.startswith("tcp:")


def check_endpoint(endpoint: str) -> str:
    """`endpoint`, if it is one. UsageError when it is neither tcp://HOST:PORT nor ipc://PATH."""
    match = _TCP.fullmatch(endpoint)
    if match is not None and (match[2] == "*" or int(match[2]) < 65536):
        return endpoint
    if endpoint.startswith("ipc://") and len(endpoint) > len("ipc://"):
        return endpoint
    raise UsageError(f"{endpoint!r} is not an endpoint; give one like tcp://10.0.0.5:2681")


def needs_keys(endpoint: str) -> bool:
    """Whether others than the users of this machine may reach the endpoint."""
    match = _TCP.fullmatch(endpoint)
    if match is None:
        return is_tcp(endpoint)
    host = match[1].strip("[]")
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name, an interface, or all of them


def check_safe(endpoint: str, has_keys: bool) -> None:
    """UsageError when an endpoint that others may reach would be used without keys."""
    if not has_keys and needs_keys(endpoint):
        raise UsageError(
            f"{endpoint} is not private to this machine, so it needs keys: give --keys DIR"
            " (zmqmr keygen DIR makes them), or use tcp://127.0.0.1:PORT"
        )
