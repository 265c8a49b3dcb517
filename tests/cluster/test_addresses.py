"""A cluster that is reached at its public addresses, up to the hosts; and a console that cannot be read."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(600)

HERE = ["-i", "inventory/cluster.aws_ec2.yml", "-i", "localhost,", "--limit=localhost"]


@pytest.fixture(scope="module")
def open_cluster(operator: Controller) -> Iterator[Controller]:
    """The operator of a cluster of one coordinator and one worker, of which only EC2's part is made."""
    theirs = Controller(operator.bed, operator.home, operator.cache, name="open")
    try:
        theirs.play("cluster.yml", *HERE, workers=1, ssh_from="172.31.0.0/16", ssh_address="public")
        yield theirs
    finally:
        names = [instance["InstanceId"] for instance in theirs.instances()]
        with theirs.bed.network.inside():
            theirs.client("ec2").terminate_instances(InstanceIds=names)


def listed(operator: Controller, *options: str) -> dict[str, Any]:
    """The inventory of the operator's cluster."""
    text = operator.run("ansible-inventory", "--list", *options).stdout
    return json.loads(text, object_hook=lambda found: found.get("__ansible_unsafe", found))


def add_instance(operator: Controller, *tags: tuple[str, str], subnet: str = "") -> str:
    """Start an instance as nobody's playbook does."""
    named = [{"Key": key, "Value": value} for key, value in tags]
    with operator.bed.network.inside():
        ec2 = operator.client("ec2")
        zones = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
        (started,) = ec2.run_instances(
            ImageId=ec2.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"],
            InstanceType="t3.micro", SubnetId=subnet or zones[0]["SubnetId"], MinCount=1, MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": named}],
        )["Instances"]  # fmt: skip
    return str(started["InstanceId"])


def test_hosts_are_reached_at_their_public_addresses(open_cluster: Controller) -> None:
    pong = open_cluster.run("ansible", "zmqmr", "-e", "cluster=open", "-m", "ansible.builtin.ping")
    hosts = listed(open_cluster, "-e", "cluster=open")["_meta"]["hostvars"]
    facts = json.loads((open_cluster.directory / "cluster.json").read_text())
    lines = (open_cluster.directory / "known_hosts").read_text()

    assert pong.stdout.count('"ping": "pong"') == 2
    for instance in open_cluster.instances():
        public = instance["PublicIpAddress"]
        assert public != instance["PrivateIpAddress"]
        assert hosts[instance["InstanceId"]]["ansible_host"] == public
        assert hosts[instance["InstanceId"]]["zmqmr_address"] == instance["PrivateIpAddress"]
        assert f"{instance['InstanceId']},{instance['PrivateIpAddress']},{public} ssh-ed25519 " in lines
    (coordinator,) = open_cluster.instances("coordinator")
    assert (facts["coordinator"], facts["ssh_address"]) == (coordinator["PublicIpAddress"], "public")


def test_an_inventory_has_the_instances_of_one_launch(open_cluster: Controller) -> None:
    (worker,) = open_cluster.instances("worker")
    with open_cluster.bed.network.inside():
        ec2 = open_cluster.client("ec2")
        (launch,) = ec2.describe_instances(InstanceIds=[worker["InstanceId"]])["Reservations"]

    groups = listed(open_cluster, "-e", f"reservation={launch['ReservationId']}")

    assert groups["zmqmr_workers"]["hosts"] == [worker["InstanceId"]]
    assert "zmqmr_coordinator" not in groups or "hosts" not in groups["zmqmr_coordinator"]


def test_instances_without_public_address_or_role_hide_no_others(open_cluster: Controller) -> None:
    with open_cluster.bed.network.inside():
        ec2 = open_cluster.client("ec2")
        vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="172.31.224.0/24")["Subnet"]["SubnetId"]
    bare = add_instance(open_cluster, ("zmqmr:cluster", "bare"), subnet=subnet)
    try:
        everything = listed(open_cluster)
        groups = listed(open_cluster, "-e", "cluster=bare")
    finally:
        with open_cluster.bed.network.inside():
            ec2.terminate_instances(InstanceIds=[bare])

    hosts = everything["_meta"]["hostvars"]
    assert "public_ip_address" not in hosts[bare]
    assert hosts[bare]["ansible_host"] == hosts[bare]["private_ip_address"]
    assert {instance["InstanceId"] for instance in open_cluster.instances()} < set(hosts)
    assert groups["zmqmr"]["hosts"] == [bare]


def test_a_coordinator_whose_console_cannot_be_read_ends_the_run_and_what_was_learned_is_kept(
    open_cluster: Controller,
) -> None:
    (open_cluster.directory / "known_hosts").unlink()
    (coordinator,) = open_cluster.instances("coordinator")
    name, code = coordinator["InstanceId"], "UnauthorizedOperation"
    with open_cluster.bed.refusing("GetConsoleOutput", code, "You may not.", where=name):
        played = open_cluster.play("cluster.yml", *HERE, ssh_address="public", check=False)

    assert played.status != 0
    reason = f"cannot be reached safely: {name}: its console cannot be read: {code}: You may not."
    assert f"The coordinator {reason}" in played.reason, played.output
    (worker,) = open_cluster.instances("worker")
    lines = (open_cluster.directory / "known_hosts").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [worker["InstanceId"]]
