"""The operator's side of a testbed: AWS and playbooks, from the one place that reaches the hosts."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.bed import AWS_SECRET, REGION, Testbed
from testbed.commands import CommandFailed, run
from testbed.hosts import Host

ROOT = Path(__file__).resolve().parent.parent.parent
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
_MESSAGE = re.compile(r'"msg": ("(?:[^"\\]|\\.)*")')
_TAG = "zmqmr:cluster"


@dataclass(frozen=True)
class Played:
    """What came of a playbook."""

    status: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Changed tasks, all hosts together."""
        return sum(int(match[2]) for match in _RECAP.finditer(self.output))

    @property
    def reason(self) -> str:
        """The messages of the tasks, failures among them, a line for each."""
        return "\n".join(json.loads(text) for text in _MESSAGE.findall(self.output))


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    started, pairs = [pid], [line.split() for line in run("ps", "-e", "-o", "pid=,ppid=").splitlines()]
    for parent in started:  # which grows meanwhile
        started += [int(each) for each, its_parent in pairs if int(its_parent) == parent]
    return started[1:]


class Controller:
    """Runs an operator's commands in `bed`, for a cluster named `name`, with a home of their own.

    `ssh_address`: as cluster.yml takes it."""

    def __init__(
        self, bed: Testbed, home: Path, cache: Path, name: str = "demo", ssh_address: str = "private"
    ) -> None:
        self.bed = bed
        self.cache = cache
        self.name = name
        self.ssh_address = ssh_address
        self.home = home
        self.directory = home / "config/zmqmr/clusters" / name
        self.scripts = Path(sys.executable).parent
        # A socket's path has room for some 100 characters, and each operator has connections of their own.
        self._sockets = hashlib.sha256(str(home).encode()).hexdigest()[:8]
        self.changes: dict[str, str] = {}  # to the environment of what is run
        self.commands: list[tuple[str, ...]] = []  # all that were run

    def environment(self) -> dict[str, str]:
        """The operator's."""
        kept = {
            name: value for name, value in self.bed.environment().items() if not name.startswith("ZMQMR_")
        }
        return {
            **kept,
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_CACHE_HOME": str(self.cache),
            "PATH": f"{self.scripts}:{os.environ['PATH']}",
            "ANSIBLE_FORCE_COLOR": "false",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.bed.folder / self._sockets),
            **self.changes,
        }

    def play(self, playbook: str, *options: str, check: bool = True, **variables: object) -> Played:
        """Run a playbook with extra variables; AssertionError with its output when it fails."""
        began = time.monotonic()
        process = self.start(playbook, *options, **variables)
        try:
            output, _ = process.communicate(timeout=600)
        except BaseException:
            self.kill(process)
            raise
        played = Played(process.returncode, output, time.monotonic() - began)
        assert not check or played.status == 0, output
        return played

    def start(self, playbook: str, *options: str, **variables: object) -> "subprocess.Popen[str]":
        """Start a playbook in a process group of its own."""
        values = {"cluster": self.name, "ssh_address": self.ssh_address, **variables}
        extra = [word for name, value in values.items() for word in ("-e", f"{name}={value}")]
        return self.popen("ansible-playbook", playbook, *extra, *options)

    def popen(self, *command: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command, its standard error joined to its output."""
        self.commands.append(command)
        return subprocess.Popen(
            self.bed.network.command(*command), cwd=ROOT, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, **options,
        )  # fmt: skip

    def run(self, *command: str, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command as the operator, in the project's folder."""
        self.commands.append(command)
        done = subprocess.run(
            self.bed.network.command(*command), cwd=ROOT, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, capture_output=True, **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    @staticmethod
    def kill(process: "subprocess.Popen[str]") -> None:
        """kill -9 of a playbook and all that it started, what has left its process group too."""
        started = descendants(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()

    def secrets(self) -> set[str]:
        """What no output may show: the cluster's keys, and that of AWS."""
        found = {AWS_SECRET}
        for path in [*self.directory.glob("*.secret"), *self.directory.glob("new-keys/*.secret")]:
            found.add(path.read_text().split()[-1])
        key = (self.directory / "id_ed25519").read_text().splitlines()
        return found | set(key[1:-1])

    def client(self, service: str, region: str = REGION) -> Any:
        """A boto3 client; call it within `bed.network.inside()`."""
        import boto3

        url = self.bed.environment()["AWS_ENDPOINT_URL"]
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": AWS_SECRET}
        return boto3.client(service, region_name=region, endpoint_url=url, **keys)

    def instances(self, role: str = "") -> list[dict[str, Any]]:
        """The cluster's instances that cost something, oldest first."""
        filters = [
            {"Name": f"tag:{_TAG}", "Values": [self.name]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
        if role:
            filters.append({"Name": "tag:zmqmr:role", "Values": [role]})
        with self.bed.network.inside():
            answer = self.client("ec2").describe_instances(Filters=filters)
        found = [instance for each in answer["Reservations"] for instance in each["Instances"]]
        return sorted(found, key=lambda instance: (instance["LaunchTime"], instance["InstanceId"]))

    def host(self, instance: dict[str, Any]) -> Host:
        """The host of an instance."""
        return self.bed.host(instance["PrivateIpAddress"])

    def coordinator(self) -> Host:
        """The coordinator's host."""
        (instance,) = self.instances("coordinator")
        return self.host(instance)

    def workers(self) -> dict[str, str]:
        """The workers that the coordinator has, and their states."""
        keys = ["--keys=/etc/zmqmr/keys", "--authorized-keys=/etc/zmqmr/authorized_keys"]
        answer = self.coordinator().enter("zmqmr", "workers", "--json", *keys)
        return {worker["name"]: worker["state"] for worker in json.loads(answer)}

    def wait_for_workers(self, names: set[str], timeout: float = 180) -> None:
        """Wait until exactly these workers are ready."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                there = self.workers()
            except (CommandFailed, ValueError):  # the coordinator has just been killed
                there = {}
            if {name for name, state in there.items() if state == "ready"} == names:
                return
            if time.monotonic() > deadline:
                raise CommandFailed(f"not the workers {sorted(names)} but {there}")
            time.sleep(0.5)
