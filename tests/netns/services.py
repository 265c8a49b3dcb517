"""A cluster of real processes for the tests: coordinator, workers and a client, each on a host of its own
or all on this one."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from differential.harness import Result, plain_environ
from faults.nemesis import FaultPlace, is_alive
from process.places import wait_until

from zmqmr.net.curve import make_keys

SUBMIT = Path(__file__).parent / "submit.py"
CONTROL_PORT = 2681
SHUFFLE_PORT = 2683
# A heartbeat is lost within 3 seconds; many small tasks and frames from a small text.
QUICK = {
    "ZMQMR_HEARTBEAT_SECONDS": "0.5",
    "ZMQMR_HEARTBEATS_MISSED": "6",
    "ZMQMR_PATIENCE_SECONDS": "6",
    "ZMQMR_ANSWER_SECONDS": "2",
    "ZMQMR_RUN_BYTES": "20000",
    "ZMQMR_BLOCK_BYTES": "300",
    "ZMQMR_FRAME_BYTES": "200",
    "ZMQMR_KILL_SECONDS": "0.5",
    "ZMQMR_WORKER_WAIT_SECONDS": "30",
}


@dataclass(frozen=True)
class Host:
    """Where a process runs: its address, and the words in front of its command."""

    name: str
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


@dataclass
class Service:
    """A coordinator or worker: its process, started again by nobody unless the test does."""

    host: Host
    arguments: list[str]
    log: Path
    process: "subprocess.Popen[bytes]"

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def pid(self) -> int:
        return self.process.pid


@dataclass
class Cluster:
    """The processes of one cluster. `keys`: a directory of keys, or None for loopback without any."""

    place: FaultPlace
    keys: Path | None
    settings: dict[str, str] = field(default_factory=lambda: dict(QUICK))
    services: dict[str, Service] = field(default_factory=dict)
    endpoint: str = ""

    def start(self, name: str, host: Host, *arguments: str) -> Service:
        """Start `zmqmr` with arguments."""
        log = self.place.notes / f"{name}-{len(os.listdir(self.place.notes))}.log"
        command = [*host.prefix, sys.executable, "-m", "zmqmr", *arguments]
        if self.keys is not None:
            command += ["--keys", str(self.keys)]
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        service = self.services[name] = Service(host, list(arguments), log, process)
        return service

    def environ(self) -> dict[str, str]:
        return plain_environ(self.place.environ(**self.settings))

    def start_coordinator(self, host: Host, port: int = CONTROL_PORT) -> Service:
        self.endpoint = f"tcp://{host.address}:{port}"
        state = str(self.place.temporary / "state")
        listen = ("--listen", self.endpoint, "--state-directory", state, "--status-port", "0")
        return self.start("coordinator", host, "coordinator", *listen)

    def start_worker(self, name: str, host: Host, port: int | str = SHUFFLE_PORT, slots: int = 1) -> Service:
        listen = ("--coordinator", self.endpoint, "--listen", f"tcp://{host.address}:{port}")
        directory = str(self.place.temporary / name)
        more = ("--directory", directory, "--slots", str(slots), "--name", name)
        return self.start(name, host, "worker", *listen, *more)

    def again(self, name: str) -> Service:
        """What systemd does: start a service that has ended again."""
        old = self.services[name]
        return self.start(name, old.host, *old.arguments)

    def await_said(self, name: str, text: str) -> None:
        service = self.services[name]
        wait_until(lambda: text in service.said() or service.process.poll() is not None, service.said)
        assert text in service.said(), service.said()

    def await_ended(self, name: str) -> int:
        service = self.services[name]
        wait_until(lambda: service.process.poll() is not None, service.said)
        code: int = service.process.returncode
        return code

    def workers(self, host: Host | None = None) -> dict[str, dict]:
        """What `zmqmr workers` shows, by name; empty while the coordinator does not answer."""
        host = host or self.services["coordinator"].host
        done = subprocess.run(
            [*host.prefix, sys.executable, "-m", "zmqmr", "workers", "--json", *self._asking()],
            env=self.environ(),
            capture_output=True,
        )
        return {worker["name"]: worker for worker in json.loads(done.stdout or "[]")}

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of `zmqmr` that asks the coordinator, on its host."""
        host = self.services["coordinator"].host
        command = [*host.prefix, sys.executable, "-m", "zmqmr", *words, *self._asking()]
        return subprocess.run(command, env=self.environ(), capture_output=True, text=True)

    def _asking(self) -> list[str]:
        keys = ["--keys", str(self.keys)] if self.keys is not None else []
        return ["--coordinator", self.endpoint, *keys]

    def await_workers(self, *names: str) -> None:
        def all_ready() -> bool:
            found = self.workers()
            return all(found.get(name, {}).get("state") == "ready" for name in names)

        wait_until(all_ready, self.story)

    def submit(
        self,
        job: Path,
        inputs: Sequence[Path],
        output: Path,
        args: Sequence[str] = (),
        host: Host | None = None,
        keys: Path | None = None,
        seconds: float = 60.0,
        partitions: int = 4,
        split: int = 800,
        versions: dict[str, str] | None = None,
    ) -> "Submitted":
        """Submit a job from a client's host; its end is waited for with `end`."""
        output.mkdir(exist_ok=True)
        chosen = keys or self.keys
        order = {
            "coordinator": self.endpoint,
            "keys": str(chosen) if chosen is not None else "",
            "job": str(job),
            "inputs": [str(path) for path in inputs],
            "output": str(output),
            "args": list(args),
            "seconds": seconds,
            "partitions": partitions,
            "split": split,
            "versions": versions or {},
        }
        prefix = host.prefix if host is not None else ()
        process = subprocess.Popen(
            [*prefix, sys.executable, str(SUBMIT), json.dumps(order)],
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Submitted(process, output)

    def story(self) -> str:
        """The logs of all services."""
        return "\n".join(f"--- {name}\n{service.said()}" for name, service in self.services.items())

    def stop(self) -> None:
        """End the workers, then the coordinator, in order; all must end without complaint."""
        for name in sorted(self.services, key=lambda name: name == "coordinator"):
            service = self.services[name]
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
                try:
                    service.process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"{name} does not end on TERM: {service.said()}") from None
                assert service.process.returncode == 0, service.said()

    def kill(self) -> None:
        """End whatever is left."""
        for pid in self.place.processes():
            if is_alive(pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for service in self.services.values():
            service.process.wait()


@dataclass
class Submitted:
    """A job that a client follows."""

    process: "subprocess.Popen[bytes]"
    output: Path
    ended: dict = field(default_factory=dict)

    def end(self) -> dict:
        """Wait for the end of the job; what the client was told of it."""
        if not self.ended:
            said, complaints = self.process.communicate(timeout=90)
            assert self.process.returncode == 0, complaints.decode()
            self.ended = json.loads(said)
        return self.ended

    def assert_same_as(self, oracle: Result, cluster: Cluster) -> dict:
        """The job succeeds with the lines and counters of mrjob's inline runner."""
        ended = self.end()
        assert ended["state"] == "succeeded", f"{ended}\n{cluster.story()}"
        lines: Counter[bytes] = Counter()
        for part in self.output.glob("part-*"):
            lines.update(part.read_bytes().split(b"\n")[:-1])
        assert (oracle.lines - lines, lines - oracle.lines) == (Counter(), Counter()), "missing and too many"
        assert [counters for counters in ended["counters"] if counters] == oracle.counters
        return ended


def key_directory(parent: Path) -> Path:
    """A directory with keys of all roles."""
    directory = parent / "keys"
    make_keys(str(directory), ("coordinator", "worker", "client"))
    return directory


def free_port() -> int:
    """A port that nobody listens at now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
