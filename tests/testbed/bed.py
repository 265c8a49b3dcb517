"""A testbed: its network, its hosts, the fake EC2 that makes them, and the promise that nothing is left."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.commands import CommandFailed, cgroups, run
from testbed.hosts import Host
from testbed.network import CONTROLLER, METADATA, Network
from testbed.rootfs import cache_directory, locked, rootfs

TESTS = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
AWS_SECRET = "aSecretOfAWSThatNothingShows"
_PREFIX = "zmr"


class Testbed:
    """Hosts below one folder. `up()` also starts a reaper, which takes all down when this process dies."""

    __test__ = False  # its name does not make it a test

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network(folder.name)
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def new(cls) -> "Testbed":
        """An empty testbed of this process; those that a killed session left are taken down first."""
        rootfs()
        with locked("runs"):
            sweep()
            for number in range(1000):
                folder = _runs() / f"{_PREFIX}{number}"
                if not folder.exists():
                    folder.mkdir(parents=True)
                    bed = cls(folder)
                    bed._owner = open(folder / "owner.lock", "w")  # noqa: SIM115  held while this process lives
                    fcntl.flock(bed._owner, fcntl.LOCK_EX)
                    return bed
        raise CommandFailed("too many testbeds on this machine")

    def up(self) -> None:
        """Make the network, and start the reaper and the fake EC2 with its metadata service."""
        reaper = [sys.executable, "-m", "testbed.reaper", str(self.folder)]
        self._start(reaper, "reaper.log", stdin=subprocess.PIPE, start_new_session=True)
        self.network.up()
        self._start(self.network.command(sys.executable, "-m", "testbed.fakeaws", self.folder), "fakeaws.log")
        self._wait_for_aws()

    def down(self) -> None:
        """Take everything down; repeatable, and callable on what another process left."""
        for process in reversed(self._processes[1:]):
            process.kill()
            process.wait()
        for host in self.hosts():
            host.remove()
        self.network.down()
        cgroup = cgroups() / self.network.prefix
        if cgroup.exists():
            cgroup.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)
        for process in self._processes[:1]:  # the reaper finds nothing left to do
            if process.stdin is not None:
                process.stdin.close()
            process.wait()
        self._processes.clear()

    def hosts(self) -> list[Host]:
        """Every host there is, dead or alive."""
        folders = sorted((self.folder / "hosts").glob("h*"))
        return [Host.load(folder, self.network) for folder in folders if (folder / "state.json").exists()]

    def host(self, address: str) -> Host:
        """The host with this address."""
        return next(host for host in self.hosts() if host.address == address)

    def environment(self) -> dict[str, str]:
        """What leads AWS clients to the fake EC2, and nowhere else."""
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))
        }
        return {
            **clean,
            "AWS_ENDPOINT_URL": f"http://{CONTROLLER}:5000",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextmanager
    def refusing(self, action: str, code: str, message: str, where: str = "") -> Iterator[Callable[[], int]]:
        """Let the fake EC2 refuse an action, `RunInstances` say, with a code of EC2, when `where` is in
        the request. Gives a function that counts the refusals."""
        order = f"{action}-{uuid.uuid4().hex}"  # there may be others of this action and this code
        path, log, part = (self.folder / f"{word}-{order}" for word in ("refuse", "refused", "part"))
        log.write_text("")
        part.write_text(f"{code}\n{where}\n{message}")
        part.rename(path)
        try:
            yield lambda: len(log.read_text().splitlines())
        finally:
            path.unlink()

    def asked(self) -> list[str]:
        """What Ansible has asked of the fake AWS until now, as `ec2:RunInstances`."""
        path = self.folder / "asked"
        return path.read_text().split() if path.exists() else []

    def warn_of_interruption(self, instance: str) -> None:
        """Give an instance the two-minute notice of a spot interruption."""
        url = f"http://{METADATA}/_test/spot-interrupt/{instance}"
        script = f"import urllib.request as u; u.urlopen(u.Request('{url}', method='PUT'))"
        run(*self.network.command(sys.executable, "-c", script))

    def _start(self, command: list[str], log: str, **options: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        with open(self.folder / log, "wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, **options)  # type: ignore[call-overload]
        self._processes.append(process)

    def _wait_for_aws(self, timeout: float = 60) -> None:
        script = f"import socket; socket.create_connection(('{CONTROLLER}', 5000), 1)"
        deadline = time.monotonic() + timeout
        while True:
            try:
                run(*self.network.command(sys.executable, "-c", script))
                return
            except CommandFailed:
                log = (self.folder / "fakeaws.log").read_text()[-3000:]
                if time.monotonic() > deadline or self._processes[-1].poll() is not None:
                    raise CommandFailed(f"the fake EC2 does not answer:\n{log}") from None
                time.sleep(0.1)


def sweep() -> None:
    """Take down the testbeds whose process is gone."""
    for folder in _runs().glob(f"{_PREFIX}*"):
        with open(folder / "owner.lock", "w") as owner:
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            Testbed(folder).down()


def _runs() -> Path:
    return cache_directory() / "runs"
