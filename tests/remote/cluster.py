"""A real cluster on this machine whose processes share no directory with the client or with each other.

Each process runs in a mount namespace of its own, in which the client's directory, and those of the others,
are empty. All sockets have CURVE.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from differential.harness import SMALL, Result, job_path, plain_environ, run

DEADLINE_SECONDS = 60.0
QUICK = {"ZMQMR_HEARTBEAT_SECONDS": "0.3", "ZMQMR_ANSWER_SECONDS": "3", "ZMQMR_WORKER_WAIT_SECONDS": "30"}


def free_ports(count: int = 1) -> int:
    """The first of so many free ports side by side. Not of those that the kernel gives to connections: a
    process that is started again must find its port free."""
    while True:
        first = random.randrange(20_000, 32_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as found:
                    found.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def until(what: Callable[[], object], why: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


class RemoteCluster:
    """One coordinator and workers. `home` is the cluster's; `hidden` directories are empty for it."""

    def __init__(self, home: Path, hidden: list[Path]):
        self.home = home
        self.hidden = hidden
        self.port = free_ports(2)
        self.settings: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: set[str] = set()
        self.worker_ports: dict[str, int] = {}
        (home / "keys").parent.mkdir(parents=True, exist_ok=True)
        self.command("keygen", home / "keys")

    @property
    def name(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of a client."""
        return plain_environ(SMALL | QUICK | {"ZMQMR_KEYS": str(self.home / "keys")} | dict(extra or {}))

    def command(self, *words: object, environ: Mapping[str, str] | None = None) -> Result:
        """Run a command of zmqmr to its end."""
        return run([sys.executable, "-m", "zmqmr", *map(str, words)], self.environ(environ))

    def start_coordinator(self, port: int | None = None) -> None:
        address = f"tcp://127.0.0.1:{port or self.port}"
        store = f"tcp://127.0.0.1:{(port or self.port) + 1}"
        self._start(
            "coordinator",
            ["coordinator", "--listen", address, "--store", store, "--status-port", "0"],
            ["--state-directory", str(self.home / "coordinator")],
        )

    def start_worker(
        self, name: str, slots: int = 2, port: int | None = None, hides: Sequence[Path] = ()
    ) -> None:
        """Start a worker, for which the directories `hides` are empty too."""
        listen = self.worker_ports.setdefault(name, free_ports())
        to = port or self.port
        self._start(
            name,
            ["worker", "--coordinator", f"tcp://127.0.0.1:{to}", "--store", f"tcp://127.0.0.1:{to + 1}"],
            ["--listen", f"tcp://127.0.0.1:{listen}", "--slots", str(slots), "--name", name],
            ["--directory", str(self.home / name)],
            hides=hides,
        )

    def _start(self, name: str, *words: list[str], hides: Sequence[Path] = ()) -> None:
        own = self.home / name
        (own / "cwd").mkdir(parents=True, exist_ok=True)
        others = [path for path in self.home.iterdir() if path.is_dir() and path.name not in (name, "keys")]
        command = [
            sys.executable,
            "-m",
            "zmqmr",
            *chain.from_iterable(words),
            "--keys",
            str(self.home / "keys"),
        ]
        if os.geteuid() == 0:
            mounts = "".join(f"mount -t tmpfs none {path}; " for path in [*self.hidden, *others, *hides])
            command = ["unshare", "--mount", "sh", "-ec", f'{mounts}exec "$@"', "sh", *command]
        log = open(self.home / f"{name}.log", "ab")  # noqa: SIM115  the child's
        self.processes[name] = subprocess.Popen(
            command,
            env=plain_environ(SMALL | QUICK | self.settings),
            cwd=own / "cwd",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        self.killed.add(name)
        process.send_signal(number)
        process.wait(DEADLINE_SECONDS)

    def end(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def workers(self) -> set[str]:
        """The names of those that the coordinator believes in."""
        where = ("--coordinator", self.name, "--keys", self.home / "keys", "--json")
        return {worker["name"] for worker in json.loads(self.command("workers", *where).stdout)}

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.home.glob("*.log")))

    # --- clients -----------------------------------------------------------------------------

    def job_command(self, job: str | Path, *words: object, cluster: str = "") -> list[str]:
        command = [sys.executable, "-m", "zmqmr.cli.run", job_path(job), "--no-conf"]
        return [str(word) for word in (*command, "--cluster", cluster or self.name, *words)]

    def run(self, job: str | Path, *words: object, stdin: bytes = b"", output: Path | None = None) -> Result:
        """Run a job to its end."""
        where = ("--output-dir", output) if output else ()
        return run(self.job_command(job, *where, *words), self.environ(), stdin, output)

    def start(self, job: str | Path, *words: object, cluster: str = "") -> "subprocess.Popen[bytes]":
        """Run a job while the test goes on."""
        return subprocess.Popen(
            self.job_command(job, *words, cluster=cluster),
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end_jobs(self) -> None:
        """Kill what runs."""
        listed = self.command("jobs", "--cluster", self.name, "--json").stdout.splitlines()
        for job in map(json.loads, listed):
            if job["state"] == "running":
                assert self.command("kill", job["job"], "--cluster", self.name).rc == 0

    def stored(self) -> list[str]:
        """The blobs that jobs need, as JOB/SHA256."""
        jobs = self.home / "coordinator" / "store" / "jobs"
        return [str(path.relative_to(jobs)) for path in jobs.glob("*/*")]


class Wire:
    """A TCP proxy for a pair of ports whose connections can be cut, or left open and silent."""

    def __init__(self, to: int, pause: float = 0.0):
        """`pause`: seconds before each 64 KiB."""
        self.port = free_ports(2)
        self._pause = pause
        self._ends: list[socket.socket] = []
        self._hushed: set[socket.socket] = set()
        self._doors = [socket.create_server(("127.0.0.1", self.port + n)) for n in (0, 1)]
        for number, door in enumerate(self._doors):
            threading.Thread(target=self._accept, args=(door, to + number), daemon=True).start()

    def _accept(self, door: socket.socket, to: int) -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                near, _ = door.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", to))
                except ConnectionRefusedError:  # nobody is there yet
                    near.close()
                    continue
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._pause)
                if source not in self._hushed:
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Close what is connected now."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def hush(self) -> None:
        """What is connected now hears nothing any more, and is not told."""
        self._hushed |= set(self._ends)

    def stop(self) -> None:
        for door in self._doors:
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
            door.close()
        self.cut()
        for end in self._ends:
            end.close()
