"""cluster.yml run again: it replaces what is lost, and grows and shrinks the cluster."""

import pytest
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(1200)


def test_a_lost_worker_is_replaced_and_the_cluster_grows_to_four(cluster: Controller) -> None:
    before = {instance["InstanceId"] for instance in cluster.instances("worker")}
    lost = cluster.instances("worker")[0]
    cluster.host(lost).kill()

    cluster.play("cluster.yml", workers=4, boot_seconds=10)

    after = {instance["InstanceId"] for instance in cluster.instances("worker")}
    assert len(after) == 4
    assert before - after == {lost["InstanceId"]}
    cluster.wait_for_workers(after)


def test_workers_leave_in_order_when_there_are_too_many(cluster: Controller) -> None:
    before = [instance["InstanceId"] for instance in cluster.instances("worker")]

    played = cluster.play("cluster.yml", workers=2)

    assert [instance["InstanceId"] for instance in cluster.instances("worker")] == before[:2]
    assert "Drain them" in played.output
    cluster.wait_for_workers(set(before[:2]))
