"""The end of a cluster, and that the manual said nothing that was not tried."""

import shlex

import pytest
from cluster.jobs import until
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


def test_a_worker_can_be_drained_alone(cluster: Controller) -> None:
    name = cluster.instances("worker")[0]["InstanceId"]

    played = cluster.play("playbooks/drain.yml", worker=name)

    assert f"{name} is free to go" in played.output
    assert cluster.workers()[name] != "ready"


def test_destroy_leaves_nothing_and_can_be_repeated(cluster: Controller) -> None:
    addresses = {instance["PrivateIpAddress"] for instance in cluster.instances()}

    cluster.play("playbooks/destroy.yml")
    again = cluster.play("playbooks/destroy.yml")

    assert again.changed == 0
    assert cluster.instances() == []
    with cluster.bed.network.inside():
        ec2, iam = cluster.client("ec2"), cluster.client("iam")
        left = [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]
        left += [pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]]
        left += [role["RoleName"] for role in iam.list_roles()["Roles"]]
        left += [
            profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]
        ]
        volumes = ec2.describe_volumes(Filters=[{"Name": "tag:zmqmr:cluster", "Values": ["demo"]}])["Volumes"]
    assert "zmqmr-demo" not in left
    assert volumes == []
    assert not cluster.directory.exists()
    until(lambda: not any(host.address in addresses for host in cluster.bed.hosts()), "hosts are left")


def test_every_command_of_the_manual_was_run_by_these_tests(operator: Controller) -> None:
    commands = manual()
    example = {"ssh_from=203.0.113.7/32": "ssh_from=172.31.0.0/16"}
    run = [set(command) for command in operator.commands]

    assert len(commands) > 8
    for command in commands:
        words = {example.get(word, word) for word in command}
        words = {word for word in words if not word.startswith("worker=i-")}
        assert any(words <= each for each in run), f"no test runs: {command}"
