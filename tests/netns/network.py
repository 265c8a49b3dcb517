"""Hosts on one machine: network namespaces joined by a bridge, in a namespace of its own too.

Each namespace lives as long as a process that this one holds by a pipe, so nothing is left however the tests
end. The hosts share the file system.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from netns.services import Host

NETWORK = "10.83.26"  # addresses inside the namespaces only


class Network:
    """A bridge and the hosts on it."""

    def __init__(self, names: tuple[str, ...], stack: ExitStack):
        self._switch = _namespace("switch", stack)
        _in(self._switch, "ip", "link", "add", "bridge", "type", "bridge")
        _in(self._switch, "ip", "link", "set", "bridge", "up")
        self.hosts = {name: self._add(name, number, stack) for number, name in enumerate(names, 1)}

    def _add(self, name: str, number: int, stack: ExitStack) -> Host:
        pid, address = _namespace(name, stack), f"{NETWORK}.{number}"
        peer = ("peer", "name", "eth0", "netns", str(pid))
        _in(self._switch, "ip", "link", "add", name, "type", "veth", *peer)
        _in(self._switch, "ip", "link", "set", name, "master", "bridge", "up")
        _in(pid, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _in(pid, "ip", "link", "set", device, "up")
        return Host(name, address, _prefix(pid))

    def run(self, name: str, *command: str) -> None:
        """Run a command on a host."""
        subprocess.run([*self.hosts[name].prefix, *command], check=True)

    def cut(self, name: str) -> None:
        """Pull the host's cable: nothing comes or goes, and nobody is told."""
        _in(self._switch, "ip", "link", "set", name, "nomaster")

    def mend(self, name: str) -> None:
        """Plug it in again."""
        _in(self._switch, "ip", "link", "set", name, "master", "bridge")

    def silence(self, name: str, towards: str) -> None:
        """What a host sends to another one is lost; it still hears the other."""
        self.run(name, "ip", "route", "add", "blackhole", self.hosts[towards].address)

    def unsilence(self, name: str, towards: str) -> None:
        self.run(name, "ip", "route", "del", "blackhole", self.hosts[towards].address)

    def slow(self, name: str, rate: str) -> None:
        """Bound what a host sends, for example "1mbit"."""
        limit = ("tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        self.run(name, "tc", "qdisc", "add", "dev", "eth0", "root", *limit)


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network of hosts, gone when the block is left."""
    with ExitStack() as stack:
        yield Network(names, stack)


def _namespace(name: str, stack: ExitStack) -> int:
    """A network namespace, with a host name of its own; the process that keeps it."""
    said = subprocess.PIPE
    command = ["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo ready && exec cat"]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT)
    stack.callback(keeper.wait)
    assert keeper.stdin is not None and keeper.stdout is not None
    stack.callback(keeper.stdout.close)
    stack.callback(keeper.stdin.close)
    line = keeper.stdout.readline()
    assert line == b"ready\n", line
    return keeper.pid


def _prefix(pid: int) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{pid}/ns/net", f"--uts=/proc/{pid}/ns/uts", "--")


def _in(pid: int, *command: str) -> None:
    subprocess.run([*_prefix(pid), *command], check=True)
