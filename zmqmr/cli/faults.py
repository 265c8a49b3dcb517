"""The faults of `zmqmr drill`: what is done to the processes, files and sockets of a job that runs."""

import glob
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from zmqmr.client.records import Record, Records
from zmqmr.data import places
from zmqmr.messages import Committed, Heartbeat, encode
from zmqmr.net.frames import pack
from zmqmr.net.sockets import context, control_client

AGENT, ATTEMPT, COORDINATOR = "zmqmr-agent", "zmqmr-attempt", "zmqmr-coord"  # as in /proc/PID/comm
STOP_SECONDS = 2.0  # how long a stopped process stays so
GARBAGE_FRAMES = 300  # to each socket
GARBAGE_LINGER_MILLISECONDS = 2000  # for the sockets to take them
_TASKS = 8  # the first ones, in whose names frames are damaged


class Target:
    """A run of `zmqmr-run`: its processes, and, as soon as it has written its record, its files."""

    def __init__(self, client: "subprocess.Popen[bytes]", records: Records, known: set[str]):
        """`known`: jobs that are others, because they were there before."""
        self.client = client
        self._records, self._known = records, known
        self._record: Record | None = None

    @property
    def record(self) -> Record | None:
        """What is known of the job; None while it has not begun."""
        if self._record is None:
            for job in set(self._records.jobs()) - self._known:
                record = self._records.read(job)
                client = record.processes.get("client") if record is not None else None
                if client is not None and client.pid == self.client.pid:
                    self._record = record
        return self._record

    @property
    def reason(self) -> str:
        """Why the job failed, in one line; "" when that is not known."""
        record = self._records.read(self.record.job) if self.record is not None else None
        return record.reason.partition("\n")[0] if record is not None else ""

    def process(self, name: str) -> int:
        """The first process with a name; 0 when there is none now."""
        return next((pid for pid in _descendants(self.client.pid) if _name(pid) == name), 0)

    def files(self, *pattern: str) -> list[str]:
        """The files of intermediate data whose paths below the job's directory match."""
        if self.record is None:
            return []
        return sorted(glob.glob(os.path.join(glob.escape(self.record.data), *pattern)))

    def endpoints(self) -> list[str]:
        """Where the coordinator and the agent listen."""
        if self.record is None:
            return []
        directory = os.path.dirname(self.record.endpoint.removeprefix("ipc://"))
        shuffles = sorted(glob.glob(os.path.join(glob.escape(directory), "shuffle-*")))
        return [self.record.endpoint, *(f"ipc://{path}" for path in shuffles[-1:])]


Strike = Callable[[Target, random.Random], bool]


@dataclass(frozen=True)
class Fault:
    """What happens to a run."""

    name: str
    strike: Strike  # False when there is nothing to hit yet: it is called again
    latest: float = 0.9  # of the run's time, when it may be drawn to begin; there is little to hit later
    small_drive: bool = False  # whether the intermediate data are on a small drive of the run's own


# --- processes -------------------------------------------------------------------------------


def _kill(process: str) -> Strike:
    def strike(target: Target, _: random.Random) -> bool:
        return _signal(target.process(process), signal.SIGKILL)

    return strike


def _stop(process: str) -> Strike:
    def strike(target: Target, _: random.Random) -> bool:
        pid = target.process(process)
        if not _signal(pid, signal.SIGSTOP):
            return False
        time.sleep(STOP_SECONDS)
        _signal(pid, signal.SIGCONT)
        return True

    return strike


def _signal(pid: int, number: int) -> bool:
    """Whether there was such a process."""
    if not pid:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except OSError:
        return found
    for child in children:
        found += [child, *_descendants(child)]
    return found


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


# --- files -----------------------------------------------------------------------------------

_EARLY = 0.5  # as in Fault.latest: while tasks map
_RUNS = (places.AGENT, "*", "shuffle-*", "partition-*.run")
_SPOOLS = (places.AGENT, "*", places.SPOOLS, "*.spool")
_JOURNAL = (places.SESSION, "journal")


def _flip_run(target: Target, draw: random.Random) -> bool:
    """Of a run that no reducer has begun to read: its checksum is looked at before, not all the time."""
    read = {path.split("-")[-2] for path in target.files(places.AGENT, "*", "attempts", "reduce-*-*-*")}
    files = [path for path in target.files(*_RUNS) if f"{_partition(path):05d}" not in read]
    return bool(files) and _flip_bit(draw.choice(files), draw)


def _partition(run: str) -> int:
    return int(os.path.basename(run).removeprefix("partition-").partition(".")[0])


def _flip_spool(target: Target, draw: random.Random) -> bool:
    files = target.files(*_SPOOLS)
    return bool(files) and _flip_bit(draw.choice(files), draw)


def _flip_bit(path: str, draw: random.Random) -> bool:
    """Flip a bit of a file in its place; False when the file has gone, or is empty."""
    with suppress(OSError), open(path, "r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size:
            position = draw.randrange(size)
            byte = os.pread(file.fileno(), 1, position)[0] ^ 1 << draw.randrange(8)
            return os.pwrite(file.fileno(), bytes([byte]), position) == 1
    return False


def _delete_spool(target: Target, draw: random.Random) -> bool:
    files = target.files(*_SPOOLS)
    with suppress(FileNotFoundError):
        if files:
            os.unlink(draw.choice(files))
            return True
    return False


def _cut_journal(target: Target, draw: random.Random) -> bool:
    """Kill the coordinator and cut off what it wrote last, which SQLite keeps in a file of its own."""
    folder, name = _JOURNAL
    files = [path for path in target.files(folder, f"{name}-wal") if os.path.getsize(path)]
    files = files or target.files(folder, name)
    if not files or not _signal(target.process(COORDINATOR), signal.SIGKILL):
        return False
    os.truncate(files[0], draw.randrange(max(1, os.path.getsize(files[0]))))
    return True


# --- frames ----------------------------------------------------------------------------------


def _send_garbage(target: Target, draw: random.Random) -> bool:
    endpoints = target.endpoints()
    if len(endpoints) < 2 or target.record is None or not target.process(AGENT):
        return False
    zmq_context = context()
    try:
        for endpoint in endpoints:
            name = f"client:drill-{draw.getrandbits(48):x}".encode()
            socket = control_client(zmq_context, endpoint, name)
            for _ in range(GARBAGE_FRAMES):
                socket.send_multipart(_garbage(target.record.job, draw))
            socket.close(linger=GARBAGE_LINGER_MILLISECONDS)
    finally:
        zmq_context.term()
    return True


def _garbage(job: str, draw: random.Random) -> list[bytes]:
    """A message that is damaged, nobody's or nothing at all, by chance."""
    task = f"map-0-{draw.randrange(_TASKS):05d}"
    records = pack(job, 0, task, 1, 1, draw.randrange(2), draw.randrange(2), b'"drill"\t1\n')
    report = draw.choice([encode(Committed(job, task, 1, 0)), encode(Heartbeat(0))])
    match draw.randrange(6):
        case 0:
            return [draw.randbytes(draw.choice([0, 1, 50, 5000]))]
        case 1:
            return [report[: draw.randrange(len(report))]]
        case 2:
            return [_flipped(report, draw)]
        case 3:
            return [b"\x91" * 10_000 + report, *records]
        case 4:
            return [_flipped(records[0], draw), records[1]]
        case _:
            return [records[0], _flipped(records[1], draw)]


def _flipped(frame: bytes, draw: random.Random) -> bytes:
    data = bytearray(frame)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def all_faults(fill: Strike) -> tuple[Fault, ...]:
    """Every fault. `fill` fills the run's small drive for a while."""
    return (
        Fault("kill an attempt", _kill(ATTEMPT)),
        Fault("kill the executor", _kill("zmqmr-executor")),
        Fault("kill the agent", _kill(AGENT)),
        Fault("kill the coordinator", _kill(COORDINATOR)),
        Fault("stop the agent", _stop(AGENT)),
        Fault("stop the coordinator", _stop(COORDINATOR)),
        Fault("flip a bit in a run", _flip_run, _EARLY),
        Fault("flip a bit in a spool", _flip_spool, _EARLY),
        Fault("delete a spool", _delete_spool, _EARLY),
        Fault("cut the journal short", _cut_journal, _EARLY),
        Fault("send garbage", _send_garbage, _EARLY),
        Fault("fill the drive", fill, _EARLY, small_drive=True),
    )
