"""A cluster that is reached at its public addresses, up to the hosts; and a console that cannot be read."""

import json
from typing import Any

import pytest
from cluster.conftest import HERE
from cluster.jobs import until
from cluster.rights import ASKED_ELSEWHERE, asked_of
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(600)


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

    assert pong.stdout.count('"ping": "pong"') == 3
    assert "reserved name" not in pong.stderr
    for instance in open_cluster.instances():
        public = instance["PublicIpAddress"]
        assert public != instance["PrivateIpAddress"]
        assert hosts[instance["InstanceId"]]["ansible_host"] == public
        assert hosts[instance["InstanceId"]]["zmqmr_address"] == instance["PrivateIpAddress"]
        assert f"{instance['InstanceId']},{instance['PrivateIpAddress']},{public} ssh-ed25519 " in lines
    (coordinator,) = open_cluster.instances("coordinator")
    assert (facts["coordinator"], facts["ssh_address"]) == (coordinator["PublicIpAddress"], "public")


def test_an_inventory_has_the_instances_of_one_launch(open_cluster: Controller) -> None:
    workers = [worker["InstanceId"] for worker in open_cluster.instances("worker")]
    with open_cluster.bed.network.inside():
        ec2 = open_cluster.client("ec2")
        (launch,) = ec2.describe_instances(InstanceIds=workers)["Reservations"]

    groups = listed(open_cluster, "-e", f"reservation={launch['ReservationId']}")

    assert sorted(groups["zmqmr_workers"]["hosts"]) == sorted(workers)
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
    assert "ec2_public_ip_address" not in hosts[bare]
    assert hosts[bare]["ansible_host"] == hosts[bare]["ec2_private_ip_address"]
    assert {instance["InstanceId"] for instance in open_cluster.instances()} < set(hosts)
    assert groups["zmqmr"]["hosts"] == [bare]


def test_a_coordinator_whose_console_cannot_be_read_ends_the_run_and_what_was_learned_is_kept(
    open_cluster: Controller,
) -> None:
    (open_cluster.directory / "known_hosts").unlink()
    (coordinator,) = open_cluster.instances("coordinator")
    name, code = coordinator["InstanceId"], "UnauthorizedOperation"
    with open_cluster.bed.refusing("GetConsoleOutput", code, "You may not.", where=name):
        played = open_cluster.play("cluster.yml", *HERE, check=False)

    assert played.status != 0
    reason = f"cannot be reached safely: {name}: its console cannot be read: {code}: You may not."
    assert f"The coordinator {reason}" in played.reason, played.output
    workers = [worker["InstanceId"] for worker in open_cluster.instances("worker")]
    lines = (open_cluster.directory / "known_hosts").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == sorted(workers)


def test_stopped_instances_are_started_again_and_one_without_a_known_host_key_stops_no_other(
    open_cluster: Controller,
) -> None:
    cluster = open_cluster
    before = cluster.instances()
    (coordinator,) = cluster.instances("coordinator")
    worker, other = cluster.instances("worker")
    hosts = [cluster.host(instance) for instance in (coordinator, worker)]
    with cluster.bed.network.inside():
        ec2 = cluster.client("ec2")
        ec2.stop_instances(InstanceIds=[coordinator["InstanceId"], worker["InstanceId"]])
    until(lambda: not any(host.alive for host in hosts), "they are not off")
    (cluster.directory / "known_hosts").unlink()

    cluster.play("cluster.yml", *HERE, "--check")
    code = "UnauthorizedOperation"
    with cluster.bed.refusing("GetConsoleOutput", code, "You may not.", where=other["InstanceId"]):
        changed = {"ssh_from": "172.31.0.0/17"}
        played = cluster.play("cluster.yml", check=False, **changed)

    assert played.status != 0
    reason = f"its console cannot be read: {code}: You may not."
    assert f"Nobody can reach safely {other['InstanceId']}: {reason}" in played.reason, played.output
    assert f"[{other['InstanceId']}]" not in played.output, "nobody waits for it"
    assert [each["InstanceId"] for each in cluster.instances()] == [each["InstanceId"] for each in before]
    assert {each["State"]["Name"] for each in cluster.instances()} == {"running"}
    cluster.wait_for_workers({worker["InstanceId"]})
    done = cluster.run("zmqmr-run", "examples/word_freq.py", "--cluster", "open", "README.md")
    assert done.stdout.count("\n") > 100


def test_t12_ssh_is_open_from_where_it_was_said_last(open_cluster: Controller) -> None:
    with open_cluster.bed.network.inside():
        wanted = [{"Name": "group-name", "Values": ["zmqmr-open"]}]
        (group,) = open_cluster.client("ec2").describe_security_groups(Filters=wanted)["SecurityGroups"]

    networks = [network["CidrIp"] for rule in group["IpPermissions"] for network in rule["IpRanges"]]
    assert networks == ["172.31.0.0/17"]
    assert asked_of(open_cluster.bed) >= ASKED_ELSEWHERE  # T11
