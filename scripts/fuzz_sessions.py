"""What is fuzzed: a running job with its coordinator and agent, on one machine or as a cluster over TCP."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zmq

from zmqmr import __version__
from zmqmr.core.splits import plan_splits
from zmqmr.data.bundles import pack
from zmqmr.data.inputs import list_inputs
from zmqmr.messages import Attach, JobEnded, JobSpec, Step, Submit, Substep, ToClient, decode, encode
from zmqmr.net.curve import Keys, load_keys, make_keys
from zmqmr.net.sockets import control_client
from zmqmr.settings import Settings

LINES = 200  # of the job's input, each waiting for its share of the frames
WORDS = 30  # of a line
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
PARTITIONS, SPLIT_BYTES = 5, 2000  # of the job on a cluster


class Broken(Exception):
    """What must not happen has happened; the message says what."""


class Session:
    """A running job, its processes and its sockets. `endpoints`: of coordinator and agent; `keys`: of peers
    at each, () without keys; `job`: its name."""

    endpoints: dict[str, str]
    keys: dict[str, tuple[Keys, ...]]
    job: str

    def __init__(self, folder: Path, draw: random.Random):
        self._folder = folder
        self._pace = folder / "pace"
        self._said = folder / "said"
        self.pace(0)
        (folder / "job.py").write_text(JOB)
        words = [[f"w{draw.randrange(97)}" for _ in range(WORDS)] for _ in range(LINES)]
        self._expected = Counter(word for line in words for word in line)
        self._text = folder / "input.txt"
        self._text.write_text("".join(f"{number} {' '.join(line)}\n" for number, line in enumerate(words)))
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._begin()
            self.before = self.memory()
        except BaseException:
            self.stop()
            raise
        self.most = dict(self.before)

    def _begin(self) -> None:
        """Start the processes and the job."""
        raise NotImplementedError

    @property
    def pids(self) -> dict[str, int]:
        """Of coordinator and agent."""
        raise NotImplementedError

    def _end_job(self) -> None:
        """Wait for the end of the job; Broken when it does not succeed."""
        raise NotImplementedError

    def connect_raw(self, name: str) -> socket.socket:
        """A connection to a socket, below ZeroMQ. OSError when there is none."""
        raise NotImplementedError

    def _start(self, *command: object) -> "subprocess.Popen[bytes]":
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ZMQMR_")}
        environ |= SETTINGS | {"TMPDIR": str(self._folder), "XDG_STATE_HOME": str(self._folder / "state")}
        with open(self._said, "ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, command)],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self._processes.append(process)
        return process

    def pace(self, number: int) -> None:
        """Let the job process its input up to a line."""
        new = self._pace.with_suffix(".new")
        new.write_text(str(number))
        os.replace(new, self._pace)

    def _await(self, what: str, find: Any) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while not (found := find()):
            if any(process.poll() is not None for process in self._processes) or time.monotonic() > deadline:
                raise Broken(f"no {what} after {START_SECONDS} seconds; {self.said()}")
            time.sleep(0.02)
        return found

    def _await_opened(self, pattern: str) -> str:
        """The name of the job that has its files below the agent's directory."""

        def find() -> str:
            return next((path.parent.name for path in self._folder.glob(pattern)), "")

        name: str = self._await("job at the agent", find)
        return name

    def said(self) -> str:
        """The end of what the processes have said."""
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
                raise Broken(f"{name} has grown from {mb(self.before[name])} to {mb(size)}; {self.said()}")

    def finish(self) -> None:
        """Let the job end; its output must be exact."""
        self.pace(LINES)
        self._end_job()
        if "started again" in self.said() or "is run again" in self.said():
            raise Broken(f"a process or an attempt failed; {self.said()}")
        found: Counter[str] = Counter()
        for path in (self._folder / "out").glob("part-*"):
            for line in path.read_text().splitlines():
                word, count = line.split("\t")
                found[word.strip('"')] += int(count)
        if found != self._expected:
            raise Broken(f"the output is wrong: {found - self._expected} {self._expected - found}")

    def stop(self) -> None:
        """End what still runs."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(HANG_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


class OneMachine(Session):
    """A job of `zmqmr-run`: its sockets are files."""

    def _begin(self) -> None:
        job = ("zmqmr.cli.run", self._folder / "job.py", "--no-conf", "--pace", self._pace)
        self._run = self._start(*job, "--num-cores", "2", "-o", self._folder / "out", self._text)
        self._paths = {name: self._await_socket(name) for name in ("coordinator", "shuffle-1")}
        self.endpoints = {name: f"ipc://{path}" for name, path in self._paths.items()}
        self.endpoints["shuffle"] = self.endpoints.pop("shuffle-1")
        self._paths["shuffle"] = self._paths.pop("shuffle-1")
        self.keys = {"coordinator": (), "shuffle": ()}
        self._children = self._await_processes()
        self.job = self._await_opened("zmqmr-*/*/agent/*/work")

    @property
    def pids(self) -> dict[str, int]:
        return self._children

    def _await_socket(self, name: str) -> str:
        found: Path = self._await(name, lambda: next(self._folder.glob(f"zmqmr-*/{name}"), None))
        return str(found)

    def _await_processes(self) -> dict[str, int]:
        def find() -> dict[str, int]:
            names = {pid: _name(pid) for pid in _children(self._run.pid)}
            return {name: pid for pid, name in names.items() if name.startswith("zmqmr-")}

        pids: dict[str, int] = self._await("processes", lambda: found if len(found := find()) == 2 else None)
        return pids

    def connect_raw(self, name: str) -> socket.socket:
        stranger = socket.socket(socket.AF_UNIX)
        stranger.settimeout(HANG_SECONDS)
        try:
            stranger.connect(self._paths[name])
        except OSError:
            stranger.close()
            raise
        return stranger

    def _end_job(self) -> None:
        try:
            status = self._run.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"the job does not end; {self.said()}") from None
        if status:
            raise Broken(f"the job failed with exit status {status}; {self.said()}")
        if f"seen={LINES * WORDS}" not in self.said():
            raise Broken(f"the counters are wrong; {self.said()}")


class OverTcp(Session):
    """A cluster of a coordinator and one worker at TCP ports, with CURVE keys. Peers have authorized ones."""

    def _begin(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        directory = str(self._folder / "keys")
        make_keys(directory, ("coordinator", "worker", "client"))
        worker, client = load_keys(directory, "worker"), load_keys(directory, "client")
        self.keys = {"coordinator": (client, client, worker), "shuffle": (worker,)}
        self.ports = {name: _free_port() for name in ("coordinator", "shuffle")}
        self.endpoints = {name: f"tcp://127.0.0.1:{port}" for name, port in self.ports.items()}
        control = self.endpoints["coordinator"]
        state = ("--state-directory", self._folder / "coordinator", "--status-port", "0", "--keys", directory)
        coordinator = self._start("zmqmr", "coordinator", "--listen", control, *state)
        data = ("--directory", self._folder / "data", "--name", "w", "--slots", "2", "--keys", directory)
        listen = ("--coordinator", control, "--listen", self.endpoints["shuffle"])
        agent = self._start("zmqmr", "worker", *listen, *data)
        self._services = {"coordinator": coordinator.pid, "agent": agent.pid}
        self._submit(client)
        self._await_opened("data/*/fuzzed/work")

    @property
    def pids(self) -> dict[str, int]:
        return self._services

    def _submit(self, client: Keys) -> None:
        output = self._folder / "out"
        output.mkdir()
        bundle, digest = pack({"job.py": str(self._folder / "job.py")}, {}, str(self._folder))
        script = Substep("script")
        spec = JobSpec(
            job="fuzzed",
            label="fuzzed",
            script="job.py",
            task_args=("--pace", str(self._pace)),
            steps=(Step(script, None, script, PARTITIONS, {}),),
            splits=plan_splits(
                list_inputs([str(self._text)]), maps=None, split_floor_bytes=1000, split_bytes=SPLIT_BYTES
            ),
            input_mode="lines",
            output_dir=str(output),
            step_output_dir="",
            bundle=bundle,
            bundle_sha256=digest,
            cmdenv={},
        )
        self.job = spec.job
        name = f"client:{os.getpid():x}".encode()
        self._client = control_client(self._context, self.endpoints["coordinator"], name, Settings(), client)
        self._client.send(encode(Submit(spec, __version__)))

    def connect_raw(self, name: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[name]), HANG_SECONDS)

    def _end_job(self) -> None:
        """What a client is told that does not listen for long is dropped: it asks anew."""
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline:
            if not self._client.poll(500):
                self._client.send(encode(Attach(self.job)))
                continue
            message = decode(self._client.recv(), ToClient)
            if isinstance(message, JobEnded):
                if message.state != "succeeded":
                    raise Broken(f"the job {message.state}: {message.reason}; {self.said()}")
                if message.counters[0]["words"]["seen"] != LINES * WORDS:
                    raise Broken(f"the counters are wrong: {message.counters}")
                return
        raise Broken(f"the job does not end; {self.said()}")

    def stop(self) -> None:
        self._context.destroy(linger=0)
        super().stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def mb(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1024**2:.0f} MB"
