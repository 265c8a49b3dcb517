"""cluster.yml run again while a job runs: it replaces what is lost, and grows and shrinks the cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.jobs import Running, same, start
from differential.harness import Result
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def running(cluster: Controller, lines: Path) -> Iterator[Running]:
    """A job that takes longer than a playbook."""
    process = start(cluster, lines, "--pause", "0.3")
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def test_a_lost_worker_is_replaced_and_the_cluster_grows_to_four(
    cluster: Controller, running: Running
) -> None:
    before = {instance["InstanceId"] for instance in cluster.instances("worker")}
    lost = cluster.instances("worker")[0]
    cluster.host(lost).kill()
    assert running.process.poll() is None

    cluster.play("cluster.yml", workers=4, boot_seconds=10)

    after = {instance["InstanceId"] for instance in cluster.instances("worker")}
    assert len(after) == 4
    assert before - after == {lost["InstanceId"]}
    cluster.wait_for_workers(after)


def test_workers_leave_in_order_when_there_are_too_many(cluster: Controller, running: Running) -> None:
    before = [instance["InstanceId"] for instance in cluster.instances("worker")]

    played = cluster.play("cluster.yml", workers=2)

    assert [instance["InstanceId"] for instance in cluster.instances("worker")] == before[:2]
    assert "Drain them" in played.output
    cluster.wait_for_workers(set(before[:2]))


def test_the_job_that_ran_meanwhile_gives_the_same_bytes(
    running: Running, undisturbed: Result, expected: Result
) -> None:
    ours = running.end()

    same(ours, expected)
    assert ours.stdout == undisturbed.stdout
