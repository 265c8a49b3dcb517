"""The end of a cluster, and that the manual said nothing that was not tried."""

import shlex
import time

import pytest
from environment import ROOT
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(600)


def manual() -> list[list[str]]:
    """The commands of the operator's manual."""
    lines = (ROOT / "docs/operations.md").read_text().splitlines()
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]


def test_the_manuals_commands_to_look_at_a_cluster_show_it(cluster: Controller) -> None:
    shown = [cluster.run(*words).stdout for words in manual() if words[0] == "ansible"]

    assert len(shown) == 2
    for instance in cluster.instances("worker"):
        assert all(instance["InstanceId"] in text for text in shown)


def test_keys_are_rotated_and_the_old_ones_refused(cluster: Controller) -> None:
    old = (cluster.directory / "authorized_keys").read_text().split()
    names = {instance["InstanceId"] for instance in cluster.instances("worker")}

    cluster.play("playbooks/rotate_keys.yml")

    new = (cluster.directory / "authorized_keys").read_text().split()
    assert len(new) == 6 and set(new) & set(old) == {"coordinator", "worker", "client"}
    for instance in cluster.instances():
        assert cluster.host(instance).enter("cat", "/etc/zmqmr/authorized_keys").split() == new
    cluster.wait_for_workers(names)


def test_a_worker_can_be_drained_alone(cluster: Controller) -> None:
    name = cluster.instances("worker")[0]["InstanceId"]

    played = cluster.play("playbooks/drain.yml", worker=name)

    assert f"{name} is free to go" in played.output
    assert cluster.workers()[name] != "ready"


def test_destroy_leaves_nothing_and_can_be_repeated(cluster: Controller) -> None:
    cluster.play("playbooks/destroy.yml")
    again = cluster.play("playbooks/destroy.yml")

    assert again.changed == 0
    assert cluster.instances() == []
    with cluster.bed.network.inside():
        ec2, iam = cluster.client("ec2"), cluster.client("iam")
        names = [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]
        assert not any(name.startswith("zmqmr-") for name in names)
        assert ec2.describe_key_pairs()["KeyPairs"] == []
        assert not any(role["RoleName"].startswith("zmqmr-") for role in iam.list_roles()["Roles"])
        assert iam.list_instance_profiles()["InstanceProfiles"] == []
    assert not cluster.directory.exists()
    deadline = time.monotonic() + 60
    while cluster.bed.hosts() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert cluster.bed.hosts() == []


def test_every_command_of_the_manual_was_run_by_these_tests(operator: Controller) -> None:
    commands = manual()
    example = {"ssh_from=203.0.113.7/32": "ssh_from=172.31.0.0/16"}
    run = [set(command) for command in operator.commands]

    assert len(commands) > 8
    for command in commands:
        words = {example.get(word, word) for word in command}
        words = {word for word in words if not word.startswith("worker=i-")}
        assert any(words <= each for each in run), f"no test runs: {command}"
