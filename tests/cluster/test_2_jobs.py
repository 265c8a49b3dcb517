"""Jobs on real hosts, through ssh, while hosts die, are cut off, and come back."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cluster.jobs import MARK, Running, same, start, start_and_hold, until
from differential.harness import Result
from environment import ROOT
from testbed.capture import Capture
from testbed.controller import Controller
from testbed.hosts import Host

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def running(cluster: Controller, lines: Path) -> Iterator[Running]:
    """A job of which every worker has a task that waits."""
    running = start_and_hold(cluster, lines)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def test_a_job_gives_what_inline_gives_and_nothing_of_it_is_readable_on_the_network(
    cluster: Controller, undisturbed: Result, expected: Result, lines: Path
) -> None:
    same(undisturbed, expected)
    assert "is run again" not in undisturbed.stderr, "each worker has two drives"
    with Capture(cluster.bed.network) as capture:
        again = start(cluster, lines).end()

    assert again.stdout == undisturbed.stdout
    assert sum(map(len, capture.packets)) > len(lines.read_bytes())  # T2: it did see the job
    assert not any(MARK.encode() in packet for packet in capture.packets)


def test_a_task_that_failed_can_be_run_alone_on_its_host(cluster: Controller, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("good\nraise this\n")
    command = ["zmqmr-run", str(ROOT / "tests/jobs/bad_records.py"), "--cluster", cluster.name, "--no-conf"]
    done = cluster.run(*command, str(tmp_path / "bad.txt"), check=False)

    assert done.returncode == 1
    bundle = re.search(r"on that host: sudo zmqmr replay (/var/lib/zmqmr/state/repro/\S+)", done.stderr)
    assert bundle, done.stderr
    hosts = [cluster.host(instance) for instance in cluster.instances("worker")]
    there = [host for host in hosts if host.enter("sh", "-c", f"ls {bundle[1]} || true")]
    again = there[0].enter("sh", "-c", f"zmqmr replay {bundle[1]} 2>&1 || true")
    assert "cannot take raise this" in again


def test_the_example_of_the_manual_runs(cluster: Controller) -> None:
    done = cluster.run("zmqmr-run", "examples/word_freq.py", "--cluster", "demo", "README.md")

    assert done.stdout.count("\n") > 100


def worker(cluster: Controller, number: int) -> Host:
    return cluster.host(cluster.instances("worker")[number])


def await_lost(cluster: Controller, number: int) -> None:
    name = cluster.instances("worker")[number]["InstanceId"]
    until(lambda: cluster.workers().get(name) != "ready", f"{name} is not given up")


@contextmanager
def f2_a_killed_service(cluster: Controller) -> Iterator[None]:
    worker(cluster, 2).enter("systemctl", "kill", "--signal=KILL", "zmqmr-worker.service")
    yield


@contextmanager
def f10_a_partition_that_heals(cluster: Controller) -> Iterator[None]:
    network, number = cluster.bed.network, worker(cluster, 1).number
    network.partition(number)
    try:
        await_lost(cluster, 1)
    finally:
        network.heal(number)
    yield


@contextmanager
def f11_a_worker_that_hears_but_is_not_heard(cluster: Controller) -> Iterator[None]:
    network, number, coordinator = cluster.bed.network, worker(cluster, 1).number, cluster.coordinator()
    network.silence(number, coordinator.address)
    try:
        await_lost(cluster, 1)
    finally:
        network.unsilence(number, coordinator.address)
    yield


@contextmanager
def f13_a_slow_link(cluster: Controller) -> Iterator[None]:
    """Slow is not lost."""
    host = worker(cluster, 2)
    before = restarts(host)
    cluster.bed.network.slow(host.number, "1mbit")
    try:
        yield
    finally:
        cluster.bed.network.unslow(host.number)
    assert restarts(host) == before


def restarts(host: Host) -> str:
    shown = ("--property=NRestarts", "--property=MainPID")
    return host.enter("systemctl", "show", *shown, "zmqmr-worker.service")


@contextmanager
def f7_a_killed_coordinator(cluster: Controller) -> Iterator[None]:
    cluster.coordinator().enter("systemctl", "kill", "--signal=KILL", "zmqmr-coordinator.service")
    yield


@contextmanager
def f6_a_dead_host(cluster: Controller) -> Iterator[None]:
    worker(cluster, 0).kill()
    yield


Disturb = Callable[[Controller], AbstractContextManager[None]]
DISTURBANCES: list[Disturb] = [
    f2_a_killed_service, f10_a_partition_that_heals, f11_a_worker_that_hears_but_is_not_heard,
    f13_a_slow_link, f7_a_killed_coordinator,
    # It leaves a dead host, which the tests of repair replace.
    f6_a_dead_host,
]  # fmt: skip


IMPATIENCE = "/etc/systemd/system/zmqmr-worker.service.d/impatience.conf"


@contextmanager
def impatient_workers(cluster: Controller, seconds: int) -> Iterator[None]:
    """Workers that wait for each other's answers for less than the 30 seconds that are usual."""
    names = {each["InstanceId"] for each in cluster.instances("worker")}
    lines = f"[Service]\\nEnvironment=ZMQMR_ANSWER_SECONDS={seconds}\\n"
    start = "systemctl daemon-reload && systemctl restart zmqmr-worker.service"
    for number in range(3):
        write = f"mkdir -p {Path(IMPATIENCE).parent} && printf '{lines}' > {IMPATIENCE}"
        worker(cluster, number).enter("sh", "-c", f"{write} && {start}")
    cluster.wait_for_workers(names)
    try:
        yield
    finally:
        for number in range(3):
            worker(cluster, number).enter("sh", "-c", f"rm -r {Path(IMPATIENCE).parent} && {start}")
        cluster.wait_for_workers(names)


def test_f12_workers_that_do_not_reach_each_other_give_the_same_bytes_for_a_third_one_reaches_both(
    cluster: Controller, lines: Path, undisturbed: Result, expected: Result
) -> None:
    network, one, other = cluster.bed.network, worker(cluster, 0), worker(cluster, 1)
    with impatient_workers(cluster, seconds=6):
        running = start_and_hold(cluster, lines)
        network.silence(one.number, other.address)
        try:
            ours = running.end()
        finally:
            network.unsilence(one.number, other.address)

    same(ours, expected)
    assert ours.stdout == undisturbed.stdout


@pytest.mark.parametrize("disturbed_by", DISTURBANCES)
def test_the_output_is_the_same_bytes_whatever_happens_meanwhile(
    cluster: Controller, running: Running, undisturbed: Result, expected: Result, disturbed_by: Disturb
) -> None:
    with disturbed_by(cluster):
        assert running.goes_on
        ours = running.end()

    same(ours, expected)
    assert ours.stdout == undisturbed.stdout
    alive = {each["InstanceId"] for each in cluster.instances("worker") if cluster.host(each).alive}
    cluster.wait_for_workers(alive)
