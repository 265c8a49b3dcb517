"""A cluster's life on real hosts: provisioned by a playbook that is killed, rebooted, looked at."""

import json
import random
import re
import stat
from pathlib import Path

import pytest
from cluster.jobs import until
from cluster.plays import AFRESH, output_until, play_role, shown
from testbed.commands import run
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(1200)

WANTED = {"workers": 3, "ssh_from": "172.31.0.0/16", "s3_read": "s3://books/in/"}


FOLDER = {
    "authorized_keys", "client.pub", "client.secret", "cluster.json", "coordinator.pub", "coordinator.secret",
    "id_ed25519", "id_ed25519.pub", "known_hosts", "worker.pub", "worker.secret",
}  # fmt: skip
LACK = "InsufficientInstanceCapacity"
HOSTS, LAST = 75, 165  # about where a run comes to the hosts, and how many tasks it has at least


def roles(operator: Controller) -> dict[str, int]:
    return {role: len(operator.instances(role)) for role in ("coordinator", "worker")}


def play_until(operator: Controller, task: int = 0, line: str = "") -> None:
    """Kill the playbook when it begins task number `task`, or prints `line`."""
    process = operator.start("cluster.yml", **WANTED)
    output_until(process, task, line)
    operator.kill(process)


def test_what_ec2_lacks_is_waited_for_until_a_deadline_and_named(operator: Controller) -> None:
    """The coordinator starts, and no worker: what follows begins with half a cluster."""
    with operator.bed.refusing("RunInstances", LACK, "There is none.", where="'worker'") as refusals:
        played = operator.play("cluster.yml", check=False, launch_seconds=3, **WANTED)

    assert played.status != 0
    (reason,) = [line for line in played.reason.splitlines() if LACK in line and "does not start" in line]
    assert re.search(
        r"the 3 workers of type c6id\.large: EC2 has no more of this type in us-east-1\w now", reason
    )
    assert "1 coordinator and 0 workers are running and cost money: run cluster.yml again, or" in reason
    assert refusals() > 1
    assert roles(operator) == {"coordinator": 1, "worker": 0}


def test_f48_a_playbook_killed_anywhere_and_run_again_makes_one_set_of_instances(
    operator: Controller,
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    choose = random.Random(seed)
    (coordinator,) = operator.instances()
    # While it provisions; before it has touched a host; on the hosts.
    play_until(operator, task=choose.randrange(20, HOSTS))
    play_until(operator, line="PLAY [Install zmqmr]")
    instances = [instance["InstanceId"] for instance in operator.instances()]
    assert roles(operator) == {"coordinator": 1, "worker": 3}, f"seed {seed}"
    assert coordinator["InstanceId"] in instances, f"seed {seed}"

    # One host stands for all.
    operator.play("cluster.yml", "--check", "--limit=localhost,zmqmr_workers[0]", **WANTED)
    for host in operator.bed.hosts():
        assert host.enter("ls", "/opt", "/etc/zmqmr", check=False) == "/opt:", "check mode changed a host"

    play_until(operator, task=choose.randrange(HOSTS + 5, LAST))
    played = operator.play("cluster.yml", "-vvv", "--diff", **WANTED)

    assert [instance["InstanceId"] for instance in operator.instances()] == instances, f"seed {seed}"
    assert "Cluster demo is up: 3 workers" in played.output
    operator.wait_for_workers({instance["InstanceId"] for instance in operator.instances("worker")})
    assert not shown(operator.secrets(), played.output)  # T9
    left = {path.name for path in operator.directory.iterdir()} - FOLDER
    assert not left, f"seed {seed}"


def test_a_second_run_changes_nothing_and_remembers_its_arguments(cluster: Controller) -> None:
    before = len(cluster.bed.asked())

    played = cluster.play("cluster.yml")

    assert played.changed == 0, played.output
    asked = cluster.bed.asked()[before:]
    assert asked and all(re.match(r"\w+:(Describe|Get|List)", action) for action in asked), asked
    assert roles(cluster) == {"coordinator": 1, "worker": 3}


def test_instances_are_launched_as_promised(cluster: Controller) -> None:
    with cluster.bed.network.inside():
        ec2 = cluster.client("ec2")
        volumes = ec2.describe_volumes()["Volumes"]
        groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["zmqmr-demo"]}])
    for instance in cluster.instances():
        metadata = instance["MetadataOptions"]
        assert (metadata["HttpTokens"], metadata["HttpPutResponseHopLimit"]) == ("required", 1)  # T10
        assert instance["IamInstanceProfile"]["Arn"].endswith("/zmqmr-demo-us-east-1")
    roots = [volume for volume in volumes if volume["Attachments"]]
    assert roots and all(volume["Encrypted"] and volume["VolumeType"] == "gp3" for volume in roots)  # T21
    (group,) = groups["SecurityGroups"]
    open_to = {
        (rule["FromPort"], address["CidrIp"])
        for rule in group["IpPermissions"]
        for address in rule["IpRanges"]
    }
    assert open_to == {(22, "172.31.0.0/16")}  # T12
    among = {pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]}
    assert among == {group["GroupId"]}


def test_the_operators_folder_is_private_and_has_what_clients_need(cluster: Controller) -> None:
    assert stat.S_IMODE(cluster.directory.stat().st_mode) == 0o700
    for name in ("id_ed25519", "client.secret", "worker.secret", "coordinator.secret"):
        assert stat.S_IMODE((cluster.directory / name).stat().st_mode) & 0o077 == 0
    facts = json.loads((cluster.directory / "cluster.json").read_text())
    (coordinator,) = cluster.instances("coordinator")
    expected = {"name": "demo", "coordinator": coordinator["PrivateIpAddress"], "user": "ubuntu", "port": 22}
    assert {**facts, **expected} == facts


def test_t13_a_host_with_another_ssh_key_is_not_spoken_to(cluster: Controller) -> None:
    path = cluster.directory / "known_hosts"
    known = path.read_text()
    keys = [line.split(" ", 1)[1] for line in known.splitlines()]
    path.write_text(
        "".join(
            line.split(" ", 1)[0] + " " + keys[index - 1] + "\n"
            for index, line in enumerate(known.splitlines())
        )
    )
    try:
        ping = ["ansible", "zmqmr", AFRESH, "-m", "ansible.builtin.ping"]
        done = cluster.run(*ping, "-e", "cluster=demo", check=False)
    finally:
        path.write_text(known)

    assert done.returncode != 0
    assert done.stdout.count("Host key verification failed") + done.stdout.count("UNREACHABLE") >= 4
    assert "pong" not in done.stdout


def test_a_worker_that_ssh_does_not_reach_is_kept_while_the_coordinator_hears_it_and_most_are_never_ended(
    cluster: Controller,
) -> None:
    workers = cluster.instances("worker")
    names = [each["InstanceId"] for each in workers]
    services = [["ssh.socket", "ssh.service"]] + 2 * [["ssh.socket", "ssh.service", "zmqmr-worker.service"]]
    for instance, units in zip(workers, services, strict=True):
        cluster.host(instance).enter("systemctl", "stop", *units)
    try:
        until(lambda: set(cluster.workers()) == {names[0]}, "they are still heard")
        played = cluster.play(
            "cluster.yml",
            "--limit=localhost,zmqmr_coordinator",
            AFRESH,
            check=False,
            boot_seconds=5,
            silent_seconds=3,
        )
    finally:
        for instance, units in zip(workers, services, strict=True):
            cluster.host(instance).enter("systemctl", "start", units[0], *units[2:])

    assert played.status != 0
    assert f"ssh does not reach {names[0]}, and the coordinator hears them" in played.reason
    silent = re.search(r"2 of 3 workers of cluster demo say nothing: (i-\w+), (i-\w+)\.", played.reason)
    assert silent and set(silent.groups()) == set(names[1:])
    assert cluster.instances("worker") == workers
    cluster.wait_for_workers(set(names))


@pytest.mark.parametrize(("number", "filesystem"), [(0, "ext4"), (1, "xfs")])
def test_f49_a_host_that_comes_back_with_blank_drives_serves_without_a_playbook(
    cluster: Controller, number: int, filesystem: str, tmp_path: Path
) -> None:
    instance = cluster.instances("worker")[number]
    host = cluster.host(instance)
    names = {each["InstanceId"] for each in cluster.instances("worker")}
    if filesystem != "ext4":
        play_role(cluster, tmp_path, "ephemeral_storage", instance, ephemeral_storage_filesystem=filesystem)
    host.power_off()
    host.start(blank_drives=True)
    host.wait_for_ssh()

    cluster.wait_for_workers(names)
    mounts = host.enter("findmnt", "--noheadings", "--output", "TARGET,FSTYPE,OPTIONS").splitlines()
    mine = [" ".join(line.split()) for line in mounts if "/mnt/ephemeral" in line]
    assert len(mine) == 2
    assert all(filesystem in line and "nodev" in line and "nosuid" in line for line in mine)
    assert (
        host.enter("stat", "--format=%U %a", "/mnt/ephemeral0/zmqmr", "/mnt/ephemeral1/zmqmr").split("\n")
        == ["zmqmr 700"] * 2
    )


@pytest.mark.parametrize("signature", ["filesystem", "partition table"])
def test_f49_a_drive_with_a_signature_is_never_formatted(cluster: Controller, signature: str) -> None:
    instance = cluster.instances("worker")[1]
    host = cluster.host(instance)
    names = {each["InstanceId"] for each in cluster.instances("worker")}
    host.power_off()
    host.start(prepare=lambda drive: sign(signature, drive.device))
    host.wait_for_ssh()

    cluster.wait_for_workers(names)
    drives = sorted(drive.device for drive in host.drives)
    foreign = drives.index(host.drives[0].device)
    assert host.enter("mountpoint", f"/mnt/ephemeral{foreign}", check=False).endswith("is not a mountpoint")
    assert host.enter("mountpoint", f"/mnt/ephemeral{1 - foreign}").endswith("is a mountpoint")
    kind = run("wipefs", "--no-act", "--noheadings", "--output", "TYPE,LABEL", host.drives[0].device)
    assert set(kind.split()) == ({"ext4", "precious"} if signature == "filesystem" else {"dos"})
    log = host.enter("journalctl", "--boot", "--output=cat", "--unit=zmqmr-ephemeral-storage.service")
    assert "carries a signature that is not ours: left alone" in log


def sign(kind: str, device: str) -> None:
    if kind == "filesystem":
        run("mkfs.ext4", "-q", "-L", "precious", device)
    else:
        entry = (
            bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
        )
        with open(device, "r+b") as drive:
            drive.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")


def test_t14_the_units_run_without_rights(cluster: Controller) -> None:
    host = cluster.coordinator()
    pid = host.enter("systemctl", "show", "--property=MainPID", "--value", "zmqmr-coordinator.service")
    status = host.enter("cat", f"/proc/{pid}/status")

    assert re.search(r"^CapEff:\s*0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)
    assert host.enter("stat", "--format=%U", f"/proc/{pid}") == "zmqmr"
    # T9: a key is in no argument and in no environment.
    secret = (cluster.directory / "coordinator.secret").read_text().split()[-1]
    seen = host.enter(
        "sh",
        "-c",
        f"tr '\\0' ' ' < /proc/{pid}/cmdline; tr '\\0' ' ' < /proc/{pid}/environ; journalctl --no-pager",
    )
    assert secret not in seen
