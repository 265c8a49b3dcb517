"""What is in doubt about a cluster that is up, or a host of it: each stops before a change, in one line."""

import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cluster.mistakes import make_vpc
from cluster.plays import newest_wheelhouse, play_role
from testbed.commands import run
from testbed.controller import Controller, Played

pytestmark = pytest.mark.timeout(600)


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
        (no_key, {}, r"Cluster open was started elsewhere: its ssh key is not in .*/zmqmr/clusters/open"),
        (
            old_folder,
            {},
            r"has another ssh key than .*/open: that folder is an old one\. Copy the current one",
        ),
        (interrupted_rotation, {}, r"rotate_keys\.yml was interrupted for cluster open: run it again first"),
    ],
)
def test_a_cluster_is_left_alone_when_its_keys_are_in_doubt(
    open_cluster: Controller, situation: Callable[[Controller], AbstractContextManager[None]],
    variables: dict[str, object], reason: str,
) -> None:  # fmt: skip
    before, keys = open_cluster.instances(), key_pairs(open_cluster)
    with situation(open_cluster):
        played = open_cluster.play("cluster.yml", check=False, ssh_from="172.31.0.0/16", **variables)

    assert played.status != 0
    assert re.search(reason, played.reason), played.output
    assert (open_cluster.instances(), key_pairs(open_cluster)) == (before, keys)


def key_pairs(operator: Controller) -> list[str]:
    """The public keys that EC2 has."""
    with operator.bed.network.inside():
        pairs = operator.client("ec2").describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    return [pair["PublicKey"] for pair in pairs]


@pytest.mark.parametrize("playbook", ["cluster.yml", "playbooks/destroy.yml"])
def test_a_cluster_of_another_region_is_left_alone(open_cluster: Controller, playbook: str) -> None:
    before = open_cluster.instances()
    elsewhere = Controller(open_cluster.bed, open_cluster.home, open_cluster.cache, name=open_cluster.name)
    elsewhere.changes = {"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-2"}

    played = elsewhere.play(playbook, check=False)

    assert played.status != 0
    assert "Cluster open was started in us-east-1: export AWS_REGION=us-east-1" in played.reason
    assert open_cluster.instances() == before
    assert open_cluster.directory.exists()


def test_a_name_that_exists_in_another_vpc_is_refused(open_cluster: Controller) -> None:
    vpc, subnet = make_vpc(open_cluster)

    played = open_cluster.play("cluster.yml", check=False, subnet_id=subnet)

    assert played.status != 0
    assert re.search(rf"There is a cluster open in vpc-\w+ already, and {subnet} is in {vpc}", played.reason)


def wheels_for_arm(operator: Controller, folder: Path) -> Path:
    """The archive of another architecture, as far as pip looks at it: the wheels' names."""
    archive = newest_wheelhouse(operator)
    path = folder / "wheelhouse-arm.tar"
    with tarfile.open(archive) as whole, tarfile.open(path, "w") as other:
        for member in whole.getmembers():
            content = whole.extractfile(member)
            member.name = member.name.replace("x86_64", "aarch64")
            other.addfile(member, content)
    return path


def test_a_host_with_too_little_room_is_named(open_cluster: Controller, tmp_path: Path) -> None:
    host = open_cluster.instances("worker")[0]

    played = play_role(
        open_cluster, tmp_path, "host_preflight", host, check=False, host_preflight_minimum_free_bytes=10**15
    )

    assert played.status != 0
    reason = r"i-\w+: its root drive has [\d.]+ GB free, and zmqmr needs 909\.49 TB; give it a larger one"
    assert re.search(reason, played.reason), played.output


def test_f22_a_host_with_an_old_python_and_another_sort_is_named(
    open_cluster: Controller, tmp_path: Path
) -> None:
    instance = open_cluster.instances("worker")[0]
    host = open_cluster.host(instance)
    pretend = "import platform; platform.python_version = lambda: '3.8.10'"
    host.enter("sh", "-c", f'mkdir -p /srv/old; echo "{pretend}" > /srv/old/sitecustomize.py')
    sort = "printf '#!/bin/sh\necho sort from elsewhere\n' > /srv/old/sort; chmod 755 /srv/old/sort"
    host.enter("sh", "-c", sort)
    old = {"PYTHONPATH": "/srv/old", "PATH": "/srv/old:/usr/sbin:/usr/bin:/sbin:/bin"}

    played = play_role(open_cluster, tmp_path, "host_preflight", instance, check=False, environment=old)

    assert played.status != 0
    reason = f"{instance['InstanceId']}: its Python is 3.8.10; zmqmr needs 3.10 or later, as on Ubuntu 24.04"
    assert reason in played.reason, played.output
    assert f"{instance['InstanceId']}: it has no GNU sort; install GNU coreutils" in played.reason


def install(operator: Controller, folder: Path, wheelhouse: Path, **variables: object) -> Played:
    """Install from an archive on the first worker's host."""
    host = operator.instances("worker")[0]
    return play_role(operator, folder, "zmqmr_install", host, check=False, wheelhouse=wheelhouse, **variables)


def test_an_index_that_a_host_does_not_reach_is_named(open_cluster: Controller, tmp_path: Path) -> None:
    wheelhouse = tmp_path / "wheelhouse-elsewhere.tar"
    wheelhouse.symlink_to(newest_wheelhouse(open_cluster, ".thin.tar"))
    index = "https://127.0.0.1:9/simple"

    played = install(open_cluster, tmp_path, wheelhouse, package_index=index)

    assert played.status != 0
    reason = (
        rf"{index} has not every wheel for Python 3\.\d+\.\d+ on x86_64 \(ERROR: .*\): is that index reached"
    )
    assert re.search(reason, played.reason), played.output


def test_wheels_of_another_architecture_are_named_and_the_host_keeps_what_it_runs(
    open_cluster: Controller, tmp_path: Path
) -> None:
    host = open_cluster.host(open_cluster.instances("worker")[0])
    before = host.enter("readlink", "/opt/zmqmr/venv", check=False)

    played = install(open_cluster, tmp_path, wheels_for_arm(open_cluster, tmp_path))

    assert played.status != 0
    reason = (
        r"has not every wheel for Python 3\.\d+\.\d+ on x86_64 \(ERROR: .*\): "
        r"make it with scripts/wheelhouse\.py --python 3\.\d+ --machine x86_64"
    )
    assert re.search(reason, played.reason), played.output
    assert host.enter("readlink", "/opt/zmqmr/venv", check=False) == before
