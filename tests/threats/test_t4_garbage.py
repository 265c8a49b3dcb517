"""T4: malformed, huge and nested bytes at the ports harm nobody: a job succeeds in the middle of it."""

import os
import random
import socket
import struct
import threading
from pathlib import Path

import msgspec
import zmq
from differential.harness import Result
from faults.nemesis import WORDS, chance
from netns.services import Cluster
from threats.peers import answer, connected

from zmqmr.messages import Attach, JobUnknown, Refused
from zmqmr.net.curve import load_keys
from zmqmr.net.sockets import PATIENCE, context, shuffle_client

GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0" + b"NULL".ljust(20, b"\0") + b"\0".ljust(32, b"\0")
CURVE = GREETING.replace(b"NULL\0", b"CURVE")
HUGE = struct.pack(">BQ", 2, 2**62)  # a frame's header that promises more than there is memory


def raw_garbage(draw: random.Random) -> list[bytes]:
    """What may come to a port that is open to the world."""
    return [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(500),
        draw.randbytes(100_000),
        b"",
        GREETING[:20],
        GREETING + b"\4\x26\5READY\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\0" + draw.randbytes(300),
        GREETING + HUGE + b"x" * 10_000,
        CURVE + HUGE + b"x" * 10_000,
        CURVE + b"\4\xc8\5HELLO" + draw.randbytes(194),
        b"\x80\4\x95pickle.loads",
    ]


def throw(address: tuple[str, int], garbage: bytes) -> None:
    try:
        with socket.create_connection(address, timeout=5) as peer:
            peer.sendall(garbage)
            peer.settimeout(0.05)
            peer.recv(1000)
    except OSError:
        pass  # cut off, or nothing to hear: both are right


def address_of(endpoint: str) -> tuple[str, int]:
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def test_t4_raw_garbage_at_the_ports_disturbs_no_job(
    cluster: Cluster, words: Path, expected: Result, tmp_path: Path
) -> None:
    draw = chance(random.SystemRandom().randrange(10**6))
    ports = [cluster.endpoint, *(worker["shuffle"] for worker in cluster.workers().values())]
    job = cluster.submit(WORDS, [words], tmp_path / "out", ["--pause", "0.005"])
    throwers = [
        threading.Thread(target=throw, args=(address_of(port), garbage))
        for _ in range(5)
        for port in ports
        for garbage in raw_garbage(draw)
    ]
    for thrower in throwers:
        thrower.start()
    for thrower in throwers:
        thrower.join()
    job.assert_same_as(expected, cluster)
    assert all(service.process.poll() is None for service in cluster.services.values())


def malformed(draw: random.Random) -> list[bytes]:
    """Frames of a peer that has a key and is no friend."""
    attach = msgspec.msgpack.encode({"type": "Attach", "job": "x"})
    return [
        b"",
        b"\x91" * 100_000,
        b"\x81\xa4type\xa3\xff\xfe\xfd",
        msgspec.msgpack.encode({"type": "Submit", "spec": {}, "version": "\x1b[31m\n" * 10_000}),
        msgspec.msgpack.encode({"type": "Attach", "job": "../../x"}),
        msgspec.msgpack.encode({"type": "Register", "worker": "w", "protocol": 99, "version": "9"}),
        msgspec.msgpack.encode({"type": "Attach", "job": "x" * 10_000_000}),
        b"cos\nsystem\n(S'true'\ntR.",
        *(draw.randbytes(draw.randrange(1, 60)) for _ in range(1000)),
        *(
            attach[:place] + bytes([draw.randrange(256)]) + attach[place + 1 :]
            for place in range(len(attach))
            for _ in range(10)
        ),
    ]


def test_t4_malformed_frames_of_a_peer_with_a_key_are_dropped_and_said_once(
    cluster: Cluster, keys: Path, words: Path, expected: Result, tmp_path: Path
) -> None:
    draw = chance(random.SystemRandom().randrange(10**6))
    client, worker = load_keys(str(keys), "client"), load_keys(str(keys), "worker")
    endpoint = next(iter(cluster.workers().values()))["shuffle"]
    job = cluster.submit(WORDS, [words], tmp_path / "out", ["--pause", "0.002"])
    zmq_context = context()
    shuffle = shuffle_client(zmq_context, endpoint, 1000, 2**24, worker, PATIENCE)
    with connected(cluster.endpoint, client, b"noise") as control:
        for frame in malformed(draw):
            control.send(frame)
            shuffle.send_multipart([frame, os.urandom(20)] if len(frame) % 2 else [frame or b"x"])
        assert isinstance(answer(cluster, client, b"\x91" * 100_000), Refused)
        assert isinstance(answer(cluster, client, Attach("job")), JobUnknown)
        job.assert_same_as(expected, cluster)
        control.setsockopt(zmq.LINGER, 0)
    shuffle.close()
    zmq_context.term()
    said = cluster.services["coordinator"].said()
    assert said.count("peer noise") == 1
    assert "\x1b" not in said
    assert all(service.process.poll() is None for service in cluster.services.values())
