"""Messages between processes arrive whole and in order, however the bytes are cut."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.errors import ProtocolError
from zmqmr.net.channel import Receiver, channel_pair, send


class Pipe:
    """A pipe, its reading end as a receiver."""

    def __init__(self) -> None:
        out, self.fd = os.pipe()
        os.set_blocking(out, False)
        self.receiver = Receiver(out)

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self.receiver.fd)
        if self.fd >= 0:
            self.close()

    def close(self) -> None:
        os.close(self.fd)
        self.fd = -1


def wire(messages: list[bytes]) -> bytes:
    """What `send` writes for messages."""
    with Pipe() as pipe:
        for message in messages:
            send(pipe.fd, message)
        return os.read(pipe.receiver.fd, 1_000_000)


def test_a_message_cut_at_any_byte_arrives_once_it_is_complete() -> None:
    data = wire([b"first", b"", b"second\0\xff"])
    for cut in range(len(data) + 1):
        with Pipe() as pipe:
            got = []
            for part in (data[:cut], data[cut:]):
                if part:
                    os.write(pipe.fd, part)
                    got += pipe.receiver.receive()
            assert got == [b"first", b"", b"second\0\xff"]
            assert not pipe.receiver.closed


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.integers(1, 9), min_size=200, max_size=200))
def test_messages_in_any_pieces_arrive_in_order(messages: list[bytes], sizes: list[int]) -> None:
    data = wire(messages) if messages else b""
    with Pipe() as pipe:
        got: list[bytes] = []
        for size in sizes:
            if not data:
                break
            os.write(pipe.fd, data[:size])
            data = data[size:]
            got += pipe.receiver.receive()
        assert got == messages


def test_nothing_to_read_is_no_message_and_no_end() -> None:
    with Pipe() as pipe:
        assert pipe.receiver.receive() == []
        assert pipe.receiver.drain() == []
        assert not pipe.receiver.closed


def test_drain_takes_all_up_to_the_end() -> None:
    messages = [b"x" * size for size in (1, 30_000, 0, 20_000)]
    with Pipe() as pipe:
        for message in messages:
            send(pipe.fd, message)
        pipe.close()
        assert pipe.receiver.drain() == messages
        assert pipe.receiver.closed


def test_half_a_message_of_a_peer_that_is_gone_is_none() -> None:
    data = wire([b"whole", b"half"])
    with Pipe() as pipe:
        os.write(pipe.fd, data[:-1])
        pipe.close()
        assert pipe.receiver.drain() == [b"whole"]
        assert pipe.receiver.closed


@pytest.mark.parametrize("blocking", [True, False])
def test_a_message_larger_than_the_buffer_arrives(blocking: bool) -> None:
    ours, theirs = channel_pair()
    message = os.urandom(1000) * 5000
    with ours, theirs:
        theirs.setblocking(blocking)
        sender = threading.Thread(target=send, args=(theirs.fileno(), message))
        sender.start()
        receiver, got = Receiver(ours.fileno()), []
        while not got:
            got = receiver.receive()
        sender.join()
    assert got == [message]


def test_sending_to_a_peer_that_is_gone_is_an_error() -> None:
    ours, theirs = channel_pair()
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        send(ours.fileno(), b"hello")


def test_a_peer_that_ends_with_unread_data_is_gone() -> None:
    ours, theirs = channel_pair()
    with ours:
        send(ours.fileno(), b"never read")
        theirs.close()
        receiver = Receiver(ours.fileno())
        assert receiver.receive() == []
        assert receiver.closed


def test_an_absurd_length_is_an_error() -> None:
    with Pipe() as pipe:
        os.write(pipe.fd, b"\xff\xff\xff\xff")
        with pytest.raises(ProtocolError):
            pipe.receiver.receive()


def test_channels_leave_the_low_descriptors_to_shell_scripts() -> None:
    ours, theirs = channel_pair()
    with ours, theirs:
        assert min(ours.fileno(), theirs.fileno()) >= 10
        assert not os.get_inheritable(ours.fileno())
