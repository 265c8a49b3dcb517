"""What operators get wrong: each stops before anything is changed, in one line that says what to do. T12."""

import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cluster.mistakes import GOOD, MISTAKES
from cluster.plays import play_role
from testbed.commands import run
from testbed.controller import Controller, Played

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[mistake[2][:40] for mistake in MISTAKES])
def test_a_mistake_is_named_before_anything_is_started(
    newcomer: Controller, mistakes: list[Future[Played]], number: int
) -> None:
    played = mistakes[number].result()

    assert played.status != 0
    assert re.search(MISTAKES[number][2], played.reason), played.output
    assert newcomer.instances() == []
    assert not newcomer.directory.exists()


@contextmanager
def readable_key(operator: Controller) -> Iterator[None]:
    key = operator.directory / "client.secret"
    key.chmod(0o440)
    yield
    key.chmod(0o400)


@contextmanager
def no_key(operator: Controller) -> Iterator[None]:
    away = operator.directory.with_name("away")
    operator.directory.rename(away)
    yield
    away.rename(operator.directory)


@contextmanager
def interrupted_rotation(operator: Controller) -> Iterator[None]:
    (operator.directory / "new-keys").mkdir(mode=0o700)
    yield
    (operator.directory / "new-keys").rmdir()


@contextmanager
def old_folder(operator: Controller) -> Iterator[None]:
    """The ssh key of a cluster of this name that was there before."""
    kept = operator.directory.with_name("kept")
    kept.mkdir(mode=0o700)
    names = ("id_ed25519", "id_ed25519.pub")
    for name in names:
        (operator.directory / name).rename(kept / name)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", operator.directory / names[0])
    yield
    for name in names:
        (kept / name).replace(operator.directory / name)
    kept.rmdir()


@pytest.mark.parametrize(
    ("situation", "variables", "reason"),
    [
        (readable_key, {}, r"Others can read .*/client\.secret: chmod go= .*rotate_keys\.yml"),
        (no_key, {}, r"Cluster demo was started elsewhere: its ssh key is not in .*/zmqmr/clusters/demo"),
        (
            old_folder,
            {},
            r"has another ssh key than .*/demo: that folder is an old one\. Copy the current one",
        ),
        (interrupted_rotation, {}, r"rotate_keys\.yml was interrupted for cluster demo: run it again first"),
    ],
)
def test_a_cluster_is_left_alone_when_its_keys_are_in_doubt(
    cluster: Controller, situation: Callable[[Controller], AbstractContextManager[None]],
    variables: dict[str, object], reason: str,
) -> None:  # fmt: skip
    before, keys = cluster.instances(), key_pairs(cluster)
    with situation(cluster):
        played = cluster.play("cluster.yml", check=False, ssh_from="172.31.0.0/16", **variables)

    assert played.status != 0
    assert re.search(reason, played.reason), played.output
    assert (cluster.instances(), key_pairs(cluster)) == (before, keys)


def key_pairs(operator: Controller) -> list[str]:
    """The public keys that EC2 has."""
    with operator.bed.network.inside():
        pairs = operator.client("ec2").describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    return [pair["PublicKey"] for pair in pairs]


@pytest.mark.parametrize("playbook", ["cluster.yml", "playbooks/destroy.yml"])
def test_a_cluster_of_another_region_is_left_alone(cluster: Controller, playbook: str) -> None:
    before = cluster.instances()
    elsewhere = Controller(cluster.bed, cluster.home, cluster.cache)
    elsewhere.changes = {"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-2"}

    played = elsewhere.play(playbook, check=False)

    assert played.status != 0
    assert "Cluster demo was started in us-east-1: export AWS_REGION=us-east-1" in played.reason
    assert cluster.instances() == before
    assert cluster.directory.exists()


@pytest.fixture(scope="module")
def elsewhere(operator: Controller) -> tuple[str, str]:
    """Another VPC, and a subnet of it that gives no public addresses."""
    with operator.bed.network.inside():
        ec2 = operator.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        return vpc, ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]


def test_a_subnet_whose_hosts_could_not_be_reached_is_refused(
    newcomer: Controller, elsewhere: tuple[str, str]
) -> None:
    _, subnet = elsewhere
    wanted = {**GOOD, "subnet_id": subnet, "ssh_address": "public"}

    played = newcomer.play("cluster.yml", "-i", "localhost,", check=False, **wanted)

    assert played.status != 0
    assert f"{subnet} gives its hosts no public address: take a subnet that does" in played.reason


def test_a_subnet_in_a_zone_without_the_instance_type_is_refused(newcomer: Controller) -> None:
    with newcomer.bed.network.inside():
        zone = {"Name": "availability-zone", "Values": ["us-east-1a"]}
        subnet = newcomer.client("ec2").describe_subnets(Filters=[zone])["Subnets"][0]["SubnetId"]
    wanted = {**GOOD, "subnet_id": subnet, "worker_type": "p3dn.24xlarge"}

    played = newcomer.play("cluster.yml", "-i", "localhost,", check=False, **wanted)

    assert played.status != 0
    reason = (
        f"us-east-1a, where {subnet} is, does not offer m6i.large and p3dn.24xlarge; these zones do:"
        " us-east-1c, us-east-1d: give a subnet in one of them with -e subnet_id=subnet-..."
    )
    assert reason in played.reason, played.output


NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
NO_REGION = {"AWS_REGION": "us-east-9", "AWS_DEFAULT_REGION": "us-east-9"}


@pytest.mark.parametrize(
    ("playbook", "environment", "reason"),
    [
        ("cluster.yml", NO_CREDENTIALS, "EC2 does not answer as us-east-1: is that a region"),
        ("cluster.yml", NO_REGION, "EC2 does not answer as us-east-9: is that a region"),
        ("playbooks/drain.yml", NO_CREDENTIALS, "The inventory has no coordinator of cluster fresh: is that"),
        ("playbooks/rotate_keys.yml", NO_REGION, "is it in AWS_REGION=us-east-9, and are there credentials?"),
    ],
)
def test_an_inventory_that_cannot_be_read_is_said_in_one_line_and_nothing_is_done(
    newcomer: Controller, playbook: str, environment: dict[str, str], reason: str
) -> None:
    operator = Controller(newcomer.bed, newcomer.home, newcomer.cache, name=newcomer.name)
    operator.changes = environment

    played = operator.play(playbook, check=False, worker="i-1", **GOOD)

    assert played.status != 0
    (line,) = {line for line in played.reason.splitlines() if line}
    assert reason in line
    assert "Traceback" not in played.output
    assert not operator.directory.exists()


def test_a_name_that_exists_in_another_vpc_is_refused(
    cluster: Controller, elsewhere: tuple[str, str]
) -> None:
    vpc, subnet = elsewhere

    played = cluster.play("cluster.yml", check=False, subnet_id=subnet)

    assert played.status != 0
    assert re.search(rf"There is a cluster demo in vpc-\w+ already, and {subnet} is in {vpc}", played.reason)


def wheels_for_arm(operator: Controller, folder: Path) -> Path:
    """The archive of another architecture, as far as pip looks at it: the wheels' names."""
    archive = max((operator.cache / "zmqmr").glob("wheelhouse-*.tar"), key=lambda path: path.stat().st_mtime)
    path = folder / "wheelhouse-arm.tar"
    with tarfile.open(archive) as whole, tarfile.open(path, "w") as other:
        for member in whole.getmembers():
            content = whole.extractfile(member)
            member.name = member.name.replace("x86_64", "aarch64")
            other.addfile(member, content)
    return path


def test_a_host_with_too_little_room_is_named(cluster: Controller, tmp_path: Path) -> None:
    host = cluster.instances("worker")[0]

    played = play_role(
        cluster, tmp_path, "host_preflight", host, check=False, host_preflight_minimum_free_bytes=10**15
    )

    assert played.status != 0
    reason = r"i-\w+: its root drive has [\d.]+ GB free, and zmqmr needs 909\.49 TB; give it a larger one"
    assert re.search(reason, played.reason), played.output


def test_f22_a_host_with_an_old_python_and_another_sort_is_named(cluster: Controller, tmp_path: Path) -> None:
    instance = cluster.instances("worker")[0]
    host = cluster.host(instance)
    pretend = "import platform; platform.python_version = lambda: '3.8.10'"
    host.enter("sh", "-c", f'mkdir -p /srv/old; echo "{pretend}" > /srv/old/sitecustomize.py')
    sort = "printf '#!/bin/sh\necho sort from elsewhere\n' > /srv/old/sort; chmod 755 /srv/old/sort"
    host.enter("sh", "-c", sort)
    old = {"PYTHONPATH": "/srv/old", "PATH": "/srv/old:/usr/sbin:/usr/bin:/sbin:/bin"}

    played = play_role(cluster, tmp_path, "host_preflight", instance, check=False, environment=old)

    assert played.status != 0
    reason = f"{instance['InstanceId']}: its Python is 3.8.10; zmqmr needs 3.10 or later, as on Ubuntu 24.04"
    assert reason in played.reason, played.output
    assert f"{instance['InstanceId']}: it has no GNU sort; install GNU coreutils" in played.reason


def test_wheels_of_another_architecture_are_named_and_the_host_keeps_what_it_runs(
    cluster: Controller, tmp_path: Path
) -> None:
    instance = cluster.instances("worker")[0]
    host = cluster.host(instance)
    before = host.enter("readlink", "/opt/zmqmr/venv")

    played = play_role(
        cluster,
        tmp_path,
        "zmqmr_install",
        instance,
        check=False,
        wheelhouse=wheels_for_arm(cluster, tmp_path),
    )

    assert played.status != 0
    reason = (
        r"has not every wheel for Python 3\.\d+\.\d+ on x86_64 \(ERROR: .*\): "
        r"make it with scripts/wheelhouse\.py --python 3\.\d+ --machine x86_64"
    )
    assert re.search(reason, played.reason), played.output
    assert host.enter("readlink", "/opt/zmqmr/venv") == before
