"""The gate of a process that listens: who gets in, how many at a time, and the proof that it is shut.

libzmq lets every key in unless somebody answers its question: the handler here does, in a thread of its
own, so that a busy loop keeps nobody waiting. What a peer that is in may say is checked for each message.
"""

import ctypes
import itertools
import os
import stat
import struct
import sys
import time
from socket import AF_INET, AF_INET6, SO_ACCEPTCONN, SOL_SOCKET
from socket import socket as Socket
from typing import Any

import zmq

from zmqmr.errors import UsageError
from zmqmr.net.curve import Keys
from zmqmr.net.greeting import has_keys

SELF_TEST_SECONDS = 10.0
SAY_SECONDS = 60.0  # between two complaints about too many peers
FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_STRANGERS_NAMED = 100  # refused keys that are named once each, so that a flood does not fill the log
_EVENT = struct.Struct("=HI")
# A socket filter of the kernel: one instruction, "return 0", keeps nothing of any packet.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)
_FILTER_PROGRAM = struct.Struct("@HP")
_watches = itertools.count()  # libzmq frees a name later than Python an object


class _Domain:
    """Answers for one socket: the roles whose keys may connect. What pyzmq calls a credentials provider."""

    def __init__(self, keys: Keys, roles: frozenset[str], name: str, named: set[bytes]):
        """`named`: refused keys that need not be named any more."""
        self._keys, self._roles, self._name, self._named = keys, roles, name, named

    def callback(self, domain: str, key: bytes) -> bool:
        allowed = bool(self._keys.authorized.roles(key) & self._roles)
        if not allowed and key not in self._named and len(self._named) < _STRANGERS_NAMED:
            self._named.add(key)
            print(
                f"zmqmr: the key {key.decode()} is not authorized for the {self._name} socket and is refused",
                file=sys.stderr,
                flush=True,
            )
        return allowed


class Gate:
    """The one handler of a ZeroMQ context. Open it before any of the sockets that it guards is bound, and
    close it after the last of them is closed."""

    def __init__(self, context: "zmq.Context[Any]", keys: Keys):
        from zmq.auth.thread import ThreadAuthenticator  # asyncio too, which a local job can do without

        self.keys = keys
        self._context = context
        self._handler = ThreadAuthenticator(context)
        self._handler.start()
        self._named: set[bytes] = set()

    def guard(self, socket: "zmq.Socket[bytes]", name: str, roles: frozenset[str]) -> None:
        """Let only keys of `roles` connect to `socket`, which is not bound yet. `name`: of it, for people."""
        domain = f"zmqmr-{name}"
        socket.curve_secretkey = self.keys.secret
        socket.curve_publickey = self.keys.public
        socket.curve_server = True
        socket.zap_domain = domain.encode()
        self._handler.configure_curve_callback(domain, _Domain(self.keys, roles, name, self._named))

    def check(self, socket: "zmq.Socket[bytes]") -> None:
        """Knock at `socket`, which is bound, with a key that nobody knows. UsageError when it gets in."""
        endpoint = reachable(socket)
        public, secret = zmq.curve_keypair()
        self._named.add(public)  # this one is expected
        stranger = self._context.socket(zmq.DEALER)
        stranger.set(zmq.LINGER, 0)
        stranger.set(zmq.RECONNECT_IVL, -1)
        stranger.curve_publickey, stranger.curve_secretkey = public, secret
        stranger.curve_serverkey = self.keys.public
        watch = Watch(stranger, FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        try:
            stranger.connect(endpoint)
            event = watch.next(SELF_TEST_SECONDS)
        finally:
            watch.close()
            stranger.close()
        if event != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            what = "was let in" if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else "got no answer"
            raise UsageError(
                f"a random key {what} at {endpoint}: the port is not safe, so it is not opened;"
                " check the keys and what else listens there"
            )

    def close(self) -> None:
        self._handler.stop()


class Watch:
    """What libzmq says about the connections of a socket, by way of a socket that never makes it wait."""

    def __init__(self, socket: "zmq.Socket[bytes]", events: int):
        self._watched = socket
        name = f"inproc://watch-{next(_watches)}"
        socket.monitor(name, events)
        self.socket = socket.context.socket(zmq.PAIR)
        self.socket.set(zmq.RCVHWM, 0)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(name)

    def next(self, seconds: float = 0.0) -> int:
        """The next event, 0 when none comes in so many seconds."""
        return self.next_of(seconds)[0]

    def next_of(self, seconds: float = 0.0) -> tuple[int, int]:
        """The next event and the descriptor, or error, that it is about; (0, 0) when none comes."""
        if not self.socket.poll(int(seconds * 1000)):
            return 0, 0
        event, value = _EVENT.unpack(self.socket.recv_multipart()[0])
        return event, value

    def close(self) -> None:
        self._watched.monitor(None, 0)
        self.socket.close()


class Refusal:
    """Whether a client's connection is refused for its key: libzmq says nothing and ends it for good."""

    def __init__(self, socket: "zmq.Socket[bytes]"):
        """`socket`: one that connects already."""
        self._endpoint = bound(socket)
        self._watch = Watch(socket, FAILED)
        self._broken_off = False

    def seen(self) -> str:
        """Why the peer refuses the connection; "" while it has not."""
        while event := self._watch.next():
            self._broken_off |= event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return "it does not know our key; add it to authorized_keys there"
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return "it does not speak our protocol, or has keys and we have none, or the other way round"
        return ""

    def is_for_its_key(self) -> bool:
        """Whether somebody with another key than we expect is there; ask it of a connection that has been
        silent for a while. Takes some seconds at the worst."""
        self.seen()
        return self._broken_off and has_keys(self._endpoint)

    def close(self) -> None:
        self._watch.close()


class Door:
    """Bounds the peers of a listening socket: at the limit the kernel drops what comes to the port until some
    have gone. Those that are in stay; whoever knocks meanwhile tries again by itself."""

    def __init__(self, socket: "zmq.Socket[bytes]", peers: int):
        """`socket`: bound to a TCP port. `peers`: connections at a time, handshakes included."""
        self._peers = peers
        self._endpoint = bound(socket)
        self._listener = _listener(int(self._endpoint.rpartition(":")[2]))
        self._watch = Watch(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._inside: set[int] = set()
        self._say_at = 0.0
        self.is_open = True

    @property
    def signal(self) -> Any:
        """What to poll: readable when there is something to do."""
        return self._watch.socket

    @property
    def peers(self) -> int:
        return len(self._inside)

    def turn(self) -> None:
        """Count who came and went; shut or open."""
        while True:
            event, descriptor = self._watch.next_of()
            if event == zmq.EVENT_ACCEPTED:
                self._inside.add(descriptor)
            elif event == zmq.EVENT_DISCONNECTED:
                self._inside.discard(descriptor)
            else:
                break
        if self.is_open and self.peers >= self._peers:
            self._shut()
        elif not self.is_open and self.peers < self._peers:
            self._listener.setsockopt(SOL_SOCKET, _SO_DETACH_FILTER, 0)
            self.is_open = True

    def _shut(self) -> None:
        """libzmq can stop listening only together with all of its connections, so the kernel has to."""
        program = ctypes.create_string_buffer(_DROP_ALL)
        filter_program = _FILTER_PROGRAM.pack(1, ctypes.addressof(program))
        self._listener.setsockopt(SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
        self.is_open = False
        if time.monotonic() >= self._say_at:
            self._say_at = time.monotonic() + SAY_SECONDS
            print(
                f"zmqmr: {self.peers} peers are connected to {self._endpoint}; no more are taken until some"
                " have gone (ZMQMR_MAX_PEERS)",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        self._watch.close()
        self._listener.close()


def _listener(port: int) -> Socket:
    """This process's socket that listens at a TCP port, which libzmq has made."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
        except OSError:
            continue  # the listing itself
        found = Socket(fileno=os.dup(descriptor))
        if _listens_at(found, port):
            return found
        found.close()
    raise AssertionError(f"nothing listens at port {port}")


def _listens_at(socket: Socket, port: int) -> bool:
    if socket.family not in (AF_INET, AF_INET6) or not socket.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
        return False
    return bool(socket.getsockname()[1] == port)


def bound(socket: "zmq.Socket[bytes]") -> str:
    """The endpoint that a socket is bound or connected to, its port known."""
    endpoint = socket.get(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return endpoint.rstrip(b"\0").decode()


def reachable(socket: "zmq.Socket[bytes]") -> str:
    """An endpoint at which this host reaches the socket."""
    return bound(socket).replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
