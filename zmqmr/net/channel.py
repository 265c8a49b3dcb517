"""Messages between the processes of one host, over a socket pair or a pipe."""

import errno
import fcntl
import os
import select
import socket
import struct

from zmqmr.errors import ProtocolError

_LENGTH = struct.Struct("<I")
_LARGEST = 256 * 1024**2
_READ_BYTES = 256 * 1024


def send(fd: int, message: bytes) -> None:
    """Write one message; blocks until the peer has room. BrokenPipeError when it is gone."""
    view = memoryview(_LENGTH.pack(len(message)) + message)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait_writable(fd)


def _wait_writable(fd: int) -> None:
    select.select([], [fd], [])


class Receiver:
    """Splits what arrives on a descriptor into messages."""

    def __init__(self, fd: int):
        self.fd = fd
        self.closed = False
        self._buffer = bytearray()

    def receive(self) -> list[bytes]:
        """The messages that one read completes; sets `closed` when the peer is gone."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE):
                raise
            data = b""
        if not data:
            self.closed = True
        self._buffer += data
        return self._messages()

    def drain(self) -> list[bytes]:
        """All messages up to the end of the stream; the peer has ended or is about to."""
        messages: list[bytes] = []
        os.set_blocking(self.fd, False)
        while not self.closed:
            before = len(self._buffer)
            got = self.receive()
            messages += got
            if not got and len(self._buffer) == before:
                break
        return messages

    def _messages(self) -> list[bytes]:
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _LARGEST:
                raise ProtocolError(f"a message of {length} bytes on a local channel")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return messages


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a two-way channel. They are no descriptors below 10, which shell scripts use."""
    ours, theirs = socket.socketpair()
    return _high(ours), _high(theirs)


def _high(end: socket.socket) -> socket.socket:
    moved = socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 10))
    end.close()
    return moved
