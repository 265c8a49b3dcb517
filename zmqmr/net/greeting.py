"""Who is at an endpoint, as far as that can be known without a key.

libzmq ends a connection whose server has another key than the client expects without a word, as a tunnel
does behind which nobody listens. But before any key is used each side sends ZMTP's greeting.
"""

from socket import AF_UNIX, create_connection
from socket import socket as Socket

from zmqmr.net.endpoints import is_tcp

ANSWER_SECONDS = 3.0  # for a host at the other end of a tunnel
_BYTES = 64
_MECHANISM = slice(12, 32)
_NAME = b"CURVE"
# Signature, version 3.1, mechanism, not a server, filler.
_OURS = (b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + _NAME.ljust(20, b"\0")).ljust(_BYTES, b"\0")


def has_keys(endpoint: str) -> bool:
    """Whether a ZeroMQ socket with CURVE keys answers at an endpoint; waits up to ANSWER_SECONDS twice."""
    try:
        with _connected(endpoint) as socket:
            socket.sendall(_OURS)
            greeting = b""
            while len(greeting) < _BYTES and (data := socket.recv(_BYTES - len(greeting))):
                greeting += data
    except OSError:
        return False
    return greeting[:1] == _OURS[:1] and greeting[_MECHANISM].rstrip(b"\0") == _NAME


def _connected(endpoint: str) -> Socket:
    address = endpoint.partition("://")[2]
    if is_tcp(endpoint):
        host, _, port = address.rpartition(":")
        return create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS)
    socket = Socket(AF_UNIX)
    socket.settimeout(ANSWER_SECONDS)
    try:
        socket.connect(address)
    except BaseException:
        socket.close()
        raise
    return socket
