"""A million hostile frames at a running coordinator and agent, while a job runs.

A job is run by `zmqmr-run`. Its tasks wait for the fuzzing to go on, so that it lasts as long. Meanwhile
messages of every type, damaged in every way, come from peers with all kinds of names at the
coordinator's socket and at the one where the agent takes records, and garbage at both below ZeroMQ.
Everything is drawn from one seed.

In the end the output must be exact, and both processes must be those of the beginning and not have grown.
What a peer may do by right is left out: to offer itself as a worker, to kill the job, or to run a giant.
The rest is not: it follows the job, sends jobs of its own, and records from attempts that never were.

    python scripts/fuzz.py [--count 1000000] [--seed N]
"""

import argparse
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from fuzz_frames import UNIONS, Mutator, raw_bytes

from zmqmr.errors import ProtocolError
from zmqmr.messages import Attach, FromAgent, FromClient, Register, Submit, decode, encode
from zmqmr.net.frames import FrameHeader
from zmqmr.net.sockets import worker_identity

LINES = 200  # of the job's input, each waiting for its share of the frames
WORDS = 30  # of a line
BURST = 100  # frames between two looks at everything else
PEERS = 12  # connections to a socket at a time
LIFE = 2000  # frames that a connection sends before another takes its place
DOUBLES = 50  # peers of a name that is taken: libzmq 4.3.5 never frees what it holds of one, about 20 kB
STRANGERS = 40  # raw connections left open at a time
SUBMITS = 500  # sound jobs at most: each is an entry of the journal
LARGEST_STEPS = 1000  # partitions of such a job
START_SECONDS = 60
HANG_SECONDS = 60  # for a socket to take a frame, and for the job to end after the last
GROWTH = 96 * 1024**2  # of a process's memory, bytes

JOB = """
import os, time
from mrjob.job import MRJob

class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--pace")

    def mapper(self, _, line):
        number, *words = line.split()
        while int(open(self.options.pace).read() or 0) < int(number):
            self.set_status("waiting at line " + number + " " + str(time.time()))
            time.sleep(0.02)
        for word in words:
            self.increment_counter("words", "seen")
            yield word, 1

    def reducer(self, word, counts):
        yield word, sum(counts)

if __name__ == "__main__":
    Job.run()
"""
# Many tasks, partitions and frames from a small input, and two of them at a time.
SETTINGS = {
    "ZMQMR_SPLIT_BYTES": "2000",
    "ZMQMR_SPLIT_FLOOR_BYTES": "1000",
    "ZMQMR_PARTITION_BYTES": "5000",
    "ZMQMR_FRAME_BYTES": "1000",
    "ZMQMR_STATUS_PORT": "0",
}


class Broken(Exception):
    """What must not happen has happened; the message says what."""


class Session:
    """A running job, its processes and its sockets."""

    def __init__(self, folder: Path, draw: random.Random):
        self._folder = folder
        self._pace = folder / "pace"
        self._said = folder / "said"
        self.pace(0)
        (folder / "job.py").write_text(JOB)
        words = [[f"w{draw.randrange(97)}" for _ in range(WORDS)] for _ in range(LINES)]
        self._expected = Counter(word for line in words for word in line)
        text = folder / "input.txt"
        text.write_text("".join(f"{number} {' '.join(line)}\n" for number, line in enumerate(words)))
        command = [
            sys.executable,
            "-m",
            "zmqmr.cli.run",
            folder / "job.py",
            "--no-conf",
            "--pace",
            self._pace,
        ]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ZMQMR_")}
        environ |= SETTINGS | {"TMPDIR": str(folder), "XDG_STATE_HOME": str(folder / "state")}
        with open(self._said, "wb") as said:
            self._process = subprocess.Popen(
                [str(word) for word in [*command, "--num-cores", "2", "-o", folder / "out", text]],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self.sockets = {name: self._await_socket(name) for name in ("coordinator", "shuffle-1")}
        self.pids = self._await_processes()
        self.job = self._await_job()
        self.before = self.memory()
        self.most = dict(self.before)

    def pace(self, number: int) -> None:
        """Let the job process its input up to a line."""
        new = self._pace.with_suffix(".new")
        new.write_text(str(number))
        os.replace(new, self._pace)

    def _await(self, what: str, find: Any) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while not (found := find()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"no {what} after {START_SECONDS} seconds; {self.said()}")
            time.sleep(0.02)
        return found

    def _await_socket(self, name: str) -> str:
        found: Path = self._await(name, lambda: next(self._folder.glob(f"zmqmr-*/{name}"), None))
        return str(found)

    def _await_processes(self) -> dict[str, int]:
        def find() -> dict[str, int]:
            return {
                _name(pid): pid for pid in _children(self._process.pid) if _name(pid).startswith("zmqmr-")
            }

        pids: dict[str, int] = self._await("processes", lambda: found if len(found := find()) == 2 else None)
        return pids

    def _await_job(self) -> str:
        def find() -> str:
            folders = self._folder.glob("zmqmr-*/*/agent/*/work")
            return next((path.parent.name for path in folders), "")

        name: str = self._await("job at the agent", find)
        return name

    def said(self) -> str:
        """The end of what `zmqmr-run` has said."""
        return "it said:\n" + self._said.read_text(errors="replace")[-4000:]

    def memory(self) -> dict[str, int]:
        """Bytes in memory now, by process."""
        sizes = {}
        for name, pid in self.pids.items():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                sizes[name] = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024
            except (OSError, IndexError):
                raise Broken(f"{name} has ended; {self.said()}") from None
        return sizes

    def check(self) -> None:
        """Both processes live and have not grown beyond the bound."""
        for name, size in self.memory().items():
            self.most[name] = max(self.most[name], size)
            if size - self.before[name] > GROWTH:
                raise Broken(f"{name} has grown from {_mb(self.before[name])} to {_mb(size)}; {self.said()}")

    def finish(self) -> None:
        """Let the job end; its output must be exact."""
        self.pace(LINES)
        try:
            status = self._process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"the job does not end; {self.said()}") from None
        if status:
            raise Broken(f"the job failed with exit status {status}; {self.said()}")
        if "started again" in self.said() or "is run again" in self.said():
            raise Broken(f"a process or an attempt failed; {self.said()}")
        found: Counter[str] = Counter()
        for path in (self._folder / "out").glob("part-*"):
            for line in path.read_text().splitlines():
                word, count = line.split("\t")
                found[word.strip('"')] += int(count)
        if found != self._expected:
            raise Broken(f"the output is wrong: {found - self._expected} {self._expected - found}")
        if f"seen={LINES * WORDS}" not in self.said():
            raise Broken(f"the counters are wrong; {self.said()}")

    def stop(self) -> None:
        """End what still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(HANG_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Peers:
    """Connections to one socket, under ever new names."""

    def __init__(self, context: "zmq.Context[Any]", path: str, draw: random.Random):
        self._context, self._endpoint, self._draw = context, f"ipc://{path}", draw
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
        peer = self._context.socket(zmq.DEALER)
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
        peer = self._context.socket(zmq.DEALER)
        peer.setsockopt(zmq.IDENTITY, identity)
        peer.setsockopt(zmq.SNDTIMEO, HANG_SECONDS * 1000)
        peer.setsockopt(zmq.LINGER, HANG_SECONDS * 1000)
        peer.connect(self._endpoint)
        self._left[peer] = self._draw.randint(1, LIFE)
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
        paths = session.sockets
        self._control = Peers(self._context, paths["coordinator"], self._draw)
        self._shuffle = Peers(self._context, paths["shuffle-1"], self._draw)
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
        stranger = socket.socket(socket.AF_UNIX)
        stranger.settimeout(HANG_SECONDS)
        self.sent["raw"] += 1
        try:
            stranger.connect(self._draw.choice(list(self.session.sockets.values())))
            stranger.sendall(raw_bytes(self._draw))
        except OSError:
            self.session.check()  # it was cut off, as it should be, or too many wait before it
        self._strangers.append(stranger)
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


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _mb(size: int) -> str:
    return f"{size / 1024**2:.0f} MB"


def main() -> int:
    """Run it; 1 with the reason when something broke."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="of frames (1,000,000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="zf-") as folder:
        session = Session(Path(folder), random.Random(args.seed))
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
            f"{name} {_mb(session.before[name])} to {_mb(session.most[name])}" for name in session.pids
        )
        rate = args.count / (time.monotonic() - begun)
        print(f"{dict(fuzz.sent)}, {rate:,.0f} frames a second; memory: {sizes}; output and counters exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
