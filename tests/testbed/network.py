"""The network of one testbed: a namespace with a bridge, the controller's address, and a port for each host.

It has no default route: no packet of a host can leave the machine. Two testbeds, each in a namespace of its
own, may use the same addresses side by side.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.commands import run

CONTROLLER = "172.31.0.1"  # moto's default VPC is 172.31.0.0/16
METADATA = "169.254.169.254"
_PREFIX_LENGTH = 16
_BLOCKING, _FORWARDING = 0, 3  # states of a bridge's port
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """The hub namespace `<prefix>-hub`, and the namespaces `<prefix>-h<number>` of the hosts."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.hub = f"{prefix}-hub"

    def up(self) -> None:
        """Make the hub, unless it is there."""
        if Path(f"/run/netns/{self.hub}").exists():
            return
        run("ip", "netns", "add", self.hub)
        self._ip(self.hub, "link", "set", "lo", "up")
        self._ip(self.hub, "link", "add", "br0", "type", "bridge")
        self._ip(self.hub, "addr", "add", f"{CONTROLLER}/{_PREFIX_LENGTH}", "dev", "br0")
        self._ip(self.hub, "addr", "add", f"{METADATA}/32", "dev", "br0")
        self._ip(self.hub, "link", "set", "br0", "up")

    def down(self) -> None:
        """Remove the namespaces of this testbed; repeatable."""
        for line in run("ip", "netns").splitlines():
            name = line.split()[0]
            if name.startswith(f"{self.prefix}-"):
                run("ip", "netns", "del", name, check=False)

    def command(self, *words: object) -> list[str]:
        """A command line that runs `words` on the controller, the one place that can see the hosts.

        Not `ip netns exec`: that mounts another /sys, which hides the cgroups.
        """
        return ["nsenter", f"--net=/run/netns/{self.hub}", "--", *map(str, words)]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are in the hub's network."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.hub}") as hub:
            _enter(hub.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def namespace(self, number: int) -> str:
        """The path of a host's network namespace."""
        return f"/run/netns/{self.prefix}-h{number}"

    def plug(self, number: int, address: str, public: str = "") -> None:
        """Give a host a fresh namespace with `eth0` on the bridge; the controller reaches a `public` address
        too, and nobody outside does."""
        self.unplug(number)
        namespace, port = f"{self.prefix}-h{number}", _port(number)
        run("ip", "netns", "add", namespace)
        self._ip(self.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        # An address keeps its MAC, as on EC2: else the peers' caches cost half a minute after a reboot.
        mac = "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))
        self._ip(namespace, "link", "set", "eth0", "address", mac)
        self._ip(self.hub, "link", "set", port, "master", "br0", "up")
        self._ip(namespace, "link", "set", "lo", "up")
        self._ip(namespace, "addr", "add", f"{address}/{_PREFIX_LENGTH}", "dev", "eth0")
        self._ip(namespace, "link", "set", "eth0", "up")
        self._ip(namespace, "route", "add", "default", "via", CONTROLLER)
        if public:
            self._ip(namespace, "addr", "add", f"{public}/32", "dev", "eth0")
            self._ip(self.hub, "route", "replace", f"{public}/32", "dev", "br0")

    def cut(self, number: int) -> None:
        """Pull the cable: the peers see silence, and no FIN or RST."""
        self._ip(self.hub, "link", "set", _port(number), "down", check=False)

    def unplug(self, number: int) -> None:
        """Remove a host's network. The port goes by name, for orphaned sockets keep a namespace alive."""
        self._ip(self.hub, "link", "del", _port(number), check=False)
        run("ip", "netns", "del", f"{self.prefix}-h{number}", check=False)

    def partition(self, number: int) -> None:
        """Swallow every packet from and to a host; its link stays up."""
        self._set_port(number, _BLOCKING)

    def heal(self, number: int) -> None:
        """Undo partition()."""
        self._set_port(number, _FORWARDING)

    def silence(self, number: int, towards: str) -> None:
        """Lose what a host sends to an address; it still hears what comes from there."""
        self._ip(f"{self.prefix}-h{number}", "route", "add", "blackhole", towards)

    def unsilence(self, number: int, towards: str) -> None:
        """Undo silence()."""
        self._ip(f"{self.prefix}-h{number}", "route", "del", "blackhole", towards)

    def slow(self, number: int, rate: str) -> None:
        """Bound what a host sends, to `1mbit` say."""
        limit = ("tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        run("tc", "-n", f"{self.prefix}-h{number}", "qdisc", "add", "dev", "eth0", "root", *limit)

    def unslow(self, number: int) -> None:
        """Undo slow()."""
        run("tc", "-n", f"{self.prefix}-h{number}", "qdisc", "del", "dev", "eth0", "root")

    def _set_port(self, number: int, state: int) -> None:
        run("bridge", "-n", self.hub, "link", "set", "dev", _port(number), "state", state)

    @staticmethod
    def _ip(namespace: str, *words: object, check: bool = True) -> None:
        run("ip", "-n", namespace, *words, check=check)


def _port(number: int) -> str:
    return f"v{number}"


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
