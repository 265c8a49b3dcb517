"""The end of a cluster, and that the manual said nothing that was not tried."""

import pytest
from cluster.jobs import until
from cluster.manual import is_of_other_hosts, manual, was_run
from cluster.rights import ASKED_ELSEWHERE, asked_of, operators_rights
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(600)


# What no run here comes upon: changed descriptions, a first spot instance, AWS's own checks.
NEVER_ASKED = {
    "ec2:CreateTags", "ec2:UpdateSecurityGroupRuleDescriptionsIngress", "iam:CreateServiceLinkedRole",
    "iam:PassRole", "iam:TagInstanceProfile", "iam:TagRole",
}  # fmt: skip


def test_the_manuals_commands_to_look_at_a_cluster_show_it(cluster: Controller) -> None:
    shown = [cluster.run(*words).stdout for words in manual() if words[0] == "ansible"]

    assert len(shown) == 2
    for instance in cluster.instances("worker"):
        assert all(instance["InstanceId"] in text for text in shown)


def test_the_coordinators_log_has_its_days(cluster: Controller) -> None:
    log = cluster.coordinator().enter("journalctl", "--unit=zmqmr-coordinator", "--output=cat", "--no-pager")

    for instance in cluster.instances("worker"):
        assert f"zmqmr worker {instance['InstanceId']} joins with" in log
    assert " is gone\n" in log and " is to leave\n" in log
    assert " begins\n" in log and " succeeded\n" in log


def test_the_manuals_way_to_the_status_page_leads_there(cluster: Controller) -> None:
    (words,) = [words for words in manual() if words[0] == "ssh"]
    address = cluster.coordinator().address
    there = [word.replace("~", str(cluster.home)).replace("ADDRESS", address) for word in words]
    # The operator of the tests has another folder of settings.
    there = [word.replace("/.config/", "/config/") for word in there]
    look = "import urllib.request as u; print(u.urlopen('http://localhost:2680', timeout=5).read().decode())"
    tunnel = cluster.popen(*there)
    try:
        cluster.commands[-1] = tuple(words)

        def page() -> str:
            return cluster.run("python3", "-c", look, check=False).stdout

        until(lambda: '"jobs"' in page(), "no status page")
    finally:
        cluster.kill(tunnel)


def test_a_worker_can_be_drained_alone(cluster: Controller) -> None:
    name = cluster.instances("worker")[0]["InstanceId"]

    played = cluster.play("playbooks/drain.yml", worker=name)

    assert f"{name} is free to go" in played.output
    assert cluster.workers()[name] != "ready"

    played = cluster.play("playbooks/drain.yml", worker=name, cancel="true")

    assert f"{name} takes work again" in played.output
    assert cluster.workers()[name] == "ready"


def test_destroy_leaves_nothing_and_can_be_repeated(cluster: Controller) -> None:
    addresses = {instance["PrivateIpAddress"] for instance in cluster.instances()}

    cluster.play("playbooks/destroy.yml")
    again = cluster.play("playbooks/destroy.yml")

    assert again.changed == 0
    assert "Nothing in us-east-1 bears the tag of cluster demo. It has been ended already" in again.reason
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
    assert not [name for name in left if name.startswith("zmqmr-demo")]
    assert volumes == []
    assert not cluster.directory.exists()
    until(lambda: not any(host.address in addresses for host in cluster.bed.hosts()), "hosts are left")


def test_t11_the_operators_policy_allows_what_ansible_asked_of_aws_and_little_more(
    operator: Controller,
) -> None:
    allowed, asked = operators_rights(), asked_of(operator.bed)

    assert len(asked) > 25
    assert asked - allowed == set()
    # What the conditions of the policy rest on: all bears its tags from its creation on.
    assert asked & {"ec2:CreateTags", "iam:TagInstanceProfile", "iam:TagRole"} == set()
    # What no run here comes upon: errors, throttling, roles that others changed, EC2's own checks and tags.
    assert sorted(allowed - asked - NEVER_ASKED - ASKED_ELSEWHERE) == []


def test_every_command_of_the_manual_was_run_by_these_tests(operator: Controller) -> None:
    commands = [command for command in manual() if not is_of_other_hosts(command)]

    assert len(commands) > 10
    for command in commands:
        assert was_run(command, operator.commands), f"no test runs: {command}"
