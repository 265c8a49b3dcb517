"""Jobs on real hosts, through ssh, while hosts die, are cut off, and come back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.jobs import MARK, SLOW, Running, same, start
from differential.harness import Result
from testbed.capture import Capture
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def running(cluster: Controller, lines: Path) -> Iterator[Running]:
    """A slow job of which every worker has a task."""
    process = start(cluster, lines, *SLOW)
    try:
        deadline = time.monotonic() + 60
        while not busy(cluster) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def busy(cluster: Controller) -> bool:
    """Whether a task runs on each worker that is up."""
    hosts = [cluster.host(instance) for instance in cluster.instances("worker")]
    return all("zmqmr-attempt" in host.enter("ps", "-eo", "comm") for host in hosts if host.alive)


def test_a_job_gives_what_inline_gives_and_nothing_of_it_is_readable_on_the_network(
    cluster: Controller, undisturbed: Result, expected: Result, lines: Path
) -> None:
    same(undisturbed, expected)
    with Capture(cluster.bed.network) as capture:
        again = Running(start(cluster, lines)).end()

    assert again.stdout == undisturbed.stdout
    assert sum(map(len, capture.packets)) > len(lines.read_bytes())  # T2: it did see the job
    assert not any(MARK.encode() in packet for packet in capture.packets)


def test_the_example_of_the_manual_runs(cluster: Controller) -> None:
    done = cluster.run("zmqmr-run", "examples/word_freq.py", "--cluster", "demo", "README.md")

    assert done.stdout.count("\n") > 100


def partition(cluster: Controller) -> None:
    number = cluster.host(cluster.instances("worker")[1]).number
    cluster.bed.network.partition(number)
    time.sleep(12)  # longer than the heartbeats that make it lost
    cluster.bed.network.heal(number)


def kill_coordinator(cluster: Controller) -> None:
    cluster.coordinator().enter("systemctl", "kill", "--signal=KILL", "zmqmr-coordinator.service")


def kill_worker_service(cluster: Controller) -> None:
    host = cluster.host(cluster.instances("worker")[2])
    host.enter("systemctl", "kill", "--signal=KILL", "zmqmr-worker.service")


def kill_worker_host(cluster: Controller) -> None:
    cluster.host(cluster.instances("worker")[0]).kill()


# The last one leaves a dead host, which the tests of repair replace.
@pytest.mark.parametrize("disturb", [kill_worker_service, partition, kill_coordinator, kill_worker_host])
def test_the_output_is_the_same_bytes_whatever_happens_meanwhile(
    cluster: Controller, running: Running, undisturbed: Result, expected: Result,
    disturb: Callable[[Controller], None],
) -> None:  # fmt: skip
    disturb(cluster)
    ours = running.end()

    same(ours, expected)
    assert ours.stdout == undisturbed.stdout
