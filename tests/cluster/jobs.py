"""A job for the tests of clusters, which waits when told to, and what it gives."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from differential.harness import Result
from environment import ROOT
from testbed.controller import Controller
from testbed.hosts import Host

JOB = ROOT / "tests/jobs/noted_words.py"
MARK = "aMarkThatNobodyElseSends"
GATE = "/srv/gate"  # on each host: its mappers do not end, and its reducers do not begin, before it is there


@dataclass
class Running:
    """A job on the cluster."""

    process: "subprocess.Popen[bytes]"
    cluster: Controller = field(repr=False)

    @property
    def goes_on(self) -> bool:
        return self.process.poll() is None

    def open(self, *hosts: Host) -> None:
        """Let the mappers on these hosts end, on all that are alive if none is named."""
        for host in hosts or self.cluster.bed.hosts():
            if host.alive:
                host.enter("touch", GATE)

    def end(self) -> Result:
        self.open()
        stdout, stderr = self.process.communicate(timeout=240)
        return Result(self.process.returncode, stdout, stderr.decode(errors="replace"))


def start(cluster: Controller, lines: Path, *switches: str) -> Running:
    """Start the job with open gates."""
    maps = ("-D", "mapreduce.job.maps=12", "-D", "mapreduce.job.reduces=3")
    command = ["zmqmr-run", str(JOB), "--cluster", cluster.name, "--no-conf", *maps, *switches, str(lines)]
    process = subprocess.Popen(
        cluster.bed.network.command(*command), cwd=ROOT, env=cluster.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return Running(process, cluster)


def start_and_hold(cluster: Controller, lines: Path) -> Running:
    """Start the job with closed gates, and wait until each worker that is up has a task that waits at one."""
    for host in cluster.bed.hosts():
        if host.alive:
            host.enter("rm", "-f", GATE)
    running = start(cluster, lines, "--gate", GATE)
    workers = [cluster.host(instance) for instance in cluster.instances("worker")]
    alive = [host for host in workers if host.alive]
    until(lambda: not running.goes_on or all(map(busy, alive)), "not every worker has a task")
    assert running.goes_on, running.end().stderr
    return running


def busy(host: Host) -> bool:
    """Whether a task runs there."""
    return "zmqmr-attempt" in host.enter("ps", "-eo", "comm")


def until(condition: Callable[[], bool], otherwise: str, timeout: float = 120) -> None:
    """Wait until it holds; AssertionError that says `otherwise`."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


def same(ours: Result, expected: Result) -> None:
    assert ours.rc == 0, ours.stderr
    assert ours.lines == expected.lines
    assert ours.counters == expected.counters
