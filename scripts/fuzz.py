"""A million hostile frames at a running coordinator and agent, while a job runs.

A job is run by `zmqmr-run` or, with --tcp, by a cluster at TCP ports with CURVE keys, whose peers here have
authorized keys of clients and workers. Its tasks wait for the fuzzing to go on, so that it lasts as long.
Meanwhile messages of every type, damaged in every way, come from peers with all kinds of names at the
coordinator's socket and at the one where the agent takes records, and garbage at both below ZeroMQ.
Everything is drawn from one seed.

In the end the output must be exact, and both processes must be those of the beginning and not have grown.
What a peer may do by right is left out: to offer itself as a worker, to kill the job, or to run a giant.
The rest is not: it follows the job, sends jobs of its own, and records from attempts that never were.

    python scripts/fuzz.py [--tcp] [--count 1000000] [--seed N]
"""

import argparse
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq
from fuzz_frames import UNIONS, Mutator, raw_bytes
from fuzz_sessions import HANG_SECONDS, LINES, Broken, OneMachine, OverTcp, Session, mb

from zmqmr.errors import ProtocolError
from zmqmr.messages import Attach, FromAgent, FromClient, Register, Submit, decode, encode
from zmqmr.net.curve import Keys
from zmqmr.net.frames import FrameHeader
from zmqmr.net.sockets import worker_identity

BURST = 100  # frames between two looks at everything else
PEERS = 12  # connections to a socket at a time
LIFE = 2000  # frames that a connection sends before another takes its place
DOUBLES = 50  # peers of a name that is taken: libzmq 4.3.5 never frees what it holds of one, about 20 kB
STRANGERS = 40  # raw connections left open at a time
SUBMITS = 500  # sound jobs at most: each is an entry of the journal
LARGEST_STEPS = 1000  # partitions of such a job


class Peers:
    """Connections to one socket, under ever new names."""

    def __init__(self, context: "zmq.Context[Any]", session: Session, name: str, draw: random.Random):
        self._context, self._draw = context, draw
        self._endpoint, self._keys = session.endpoints[name], session.keys[name]
        self._server = "coordinator" if name == "coordinator" else "worker"
        self._left: dict[zmq.Socket[bytes], int] = {}
        self._doubles = 0

    def identity(self) -> bytes:
        """A name that a peer may bear: a client's, a worker's, anything."""
        number = self._draw.getrandbits(48)
        name = self._draw.choice(["client:", "local:", "evil:", "local:x:", "\xff"])
        return f"{name}{number:x}".encode("latin-1").ljust(self._draw.choice([1, 1, 1, 250]), b"z")

    def send(self, identity: bytes | None, parts: list[bytes]) -> None:
        """Send from some peer, or from one of this name. Broken when nothing is taken for too long."""
        if identity is not None:
            peer = self._named(identity)
        elif len(self._left) < PEERS:
            peer = self._connect(self.identity())
        else:
            peer = self._draw.choice(list(self._left))
        try:
            peer.send_multipart(parts)
        except zmq.Again:
            raise Broken(f"{self._endpoint} takes no frame for {HANG_SECONDS} seconds") from None
        self._left[peer] -= 1
        if self._left[peer] <= 0:
            self._close(peer)
        elif self._draw.random() < 0.5:  # the others read nothing
            while peer.poll(0):
                peer.recv_multipart()

    def _named(self, identity: bytes) -> "zmq.Socket[bytes]":
        """A peer of this name: the one that there is; now and then a second one beside it."""
        for peer in self._left:
            if peer.identity == identity:
                if self._doubles == DOUBLES:
                    return peer
                self._doubles += 1
                break
        return self._connect(identity)

    def ping(self, question: bytes) -> None:
        """Ask what is always answered, as one more peer. Broken when no answer comes."""
        peer = self._socket(self._keys[:1])
        try:
            peer.setsockopt(zmq.LINGER, 0)
            peer.connect(self._endpoint)
            peer.send(question)
            if not peer.poll(HANG_SECONDS * 1000):
                raise Broken(f"{self._endpoint} has not answered for {HANG_SECONDS} seconds")
        finally:
            peer.close()

    def _connect(self, identity: bytes) -> "zmq.Socket[bytes]":
        if len(self._left) >= PEERS:
            self._close(next(iter(self._left)))
        peer = self._socket(self._keys)
        peer.setsockopt(zmq.IDENTITY, identity)
        peer.setsockopt(zmq.SNDTIMEO, HANG_SECONDS * 1000)
        peer.setsockopt(zmq.LINGER, HANG_SECONDS * 1000)
        peer.connect(self._endpoint)
        self._left[peer] = self._draw.randint(1, LIFE)
        return peer

    def _socket(self, keys: Sequence[Keys]) -> "zmq.Socket[bytes]":
        """A socket with one of these keys, if there are any."""
        peer = self._context.socket(zmq.DEALER)
        if keys:
            chosen = self._draw.choice(keys)
            peer.curve_publickey, peer.curve_secretkey = chosen.public, chosen.secret
            peer.curve_serverkey = chosen.of(self._server)
        return peer

    def _close(self, peer: "zmq.Socket[bytes]") -> None:
        del self._left[peer]
        peer.close()

    def close(self) -> None:
        for peer in list(self._left):
            self._close(peer)


class Fuzz:
    """Sends frames and counts what was sent."""

    def __init__(self, session: Session, seed: int):
        self.session = session
        self.sent: Counter[str] = Counter()
        self._mutator = Mutator(seed, session.job)
        self._draw = random.Random(seed + 1)
        self._context = zmq.Context()
        self._control = Peers(self._context, session, "coordinator", self._draw)
        self._shuffle = Peers(self._context, session, "shuffle", self._draw)
        self._strangers: list[socket.socket] = []
        self._submits = 0

    def run(self, count: int) -> None:
        """Send so many frames, at the job's pace."""
        for number in range(count):
            draw = self._draw.random()
            if draw < 0.7:
                self._send_control()
            elif draw < 0.995:
                self._shuffle.send(None, self._mutator.shuffle_parts())
                self.sent["shuffle"] += 1
            else:
                self._send_raw()
            if number % BURST == 0:
                self._control.ping(encode(Attach("nobody")))
                self._shuffle.ping(b"")
                self.session.check()
                self.session.pace(LINES * number // count)

    def _send_control(self) -> None:
        parts = self._mutator.parts()
        identity = None
        self.sent["control"] += 1
        for message in _understood(parts[0]):
            self.sent["understood"] += 1
            if isinstance(message, Register):  # a wrong name, or it would be a worker
                identity = worker_identity(message.worker, message.epoch + 1)[:250]
            elif self._may_harm(message):
                return
            elif isinstance(message, Submit):
                self._submits += 1
        if self._submits <= SUBMITS or b"Submit" not in parts[0]:
            self._control.send(identity, parts)

    def _may_harm(self, message: Any) -> bool:
        """Whether a client has the right to what would spoil the run: to kill the job, or to run a giant."""
        if isinstance(message, Submit):
            return sum(step.partitions for step in message.spec.steps) > LARGEST_STEPS
        from_client = getattr(message, "epoch", None) is None and not isinstance(message, Attach)
        return from_client and getattr(message, "job", "") == self.session.job

    def _send_raw(self) -> None:
        self.sent["raw"] += 1
        try:
            stranger = self.session.connect_raw(self._draw.choice(["coordinator", "shuffle"]))
            self._strangers.append(stranger)
            stranger.sendall(raw_bytes(self._draw))
        except OSError:
            self.session.check()  # it was cut off, as it should be, or too many wait before it
        while len(self._strangers) > STRANGERS:
            self._strangers.pop(self._draw.randrange(len(self._strangers))).close()

    def close(self) -> None:
        for stranger in self._strangers:
            stranger.close()
        self._control.close()
        self._shuffle.close()
        self._context.destroy(linger=HANG_SECONDS * 1000)


def _understood(frame: bytes) -> Iterator[Any]:
    """What the coordinator takes a frame for. Whatever it is, no decoder may raise anything of its own."""
    for union in (*UNIONS, FrameHeader):
        try:
            message = decode(frame, union)
        except ProtocolError:
            continue
        if union in (FromAgent, FromClient):
            yield message


def main() -> int:
    """Run it; 1 with the reason when something broke."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="of frames (1,000,000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--tcp", action="store_true", help="at a cluster's ports, with authorized keys")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="zf-") as folder:
        session = (OverTcp if args.tcp else OneMachine)(Path(folder), random.Random(args.seed))
        fuzz = Fuzz(session, args.seed)
        begun = time.monotonic()
        try:
            fuzz.run(args.count)
            fuzz.close()
            session.check()
            session.finish()
        except Broken as broken:
            print(f"BROKEN after {dict(fuzz.sent)}: {broken}")
            return 1
        finally:
            session.stop()
        sizes = ", ".join(
            f"{name} {mb(session.before[name])} to {mb(session.most[name])}" for name in session.pids
        )
        rate = args.count / (time.monotonic() - begun)
        print(f"{dict(fuzz.sent)}, {rate:,.0f} frames a second; memory: {sizes}; output and counters exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
