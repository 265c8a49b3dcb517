"""What operators get wrong: each stops before anything is changed, in one line that says what to do. T12."""

import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from environment import ROOT
from testbed.controller import Controller, Played

pytestmark = pytest.mark.timeout(600)

GOOD = {"workers": 1, "ssh_from": "172.31.0.0/16"}


# What is given, the environment, and what the playbook says.
MISTAKES: list[tuple[dict[str, object], dict[str, str], str]] = [
    ({"cluster": "Demo_1"}, {}, r"Say which cluster: -e cluster=NAME.*\(not \"Demo_1\"\)"),
    ({"workers": 0}, {}, r"workers=0: give the number of workers, 1 or more; playbooks/destroy.yml ends"),
    ({"workers": "many"}, {}, r"workers=many: give the number of workers"),
    ({"ssh_from": ""}, {}, r"Say from where you use ssh: -e ssh_from=203\.0\.113\.7/32"),
    ({"ssh_from": "0.0.0.0/0"}, {}, r"whole world.*-e i_accept_public_ssh=true"),
    ({"ssh_from": "10.0.0.0/16,::/0"}, {}, r"ssh_from=::/0: that is the whole world"),
    ({"ssh_from": "10.0.0.1"}, {}, r"give a network with its prefix length"),
    ({"worker_type": "c99.huge"}, {}, r"us-east-1 has no instance type c99\.huge"),
    ({"worker_type": "m5.large"}, {}, r"m5\.large has no local NVMe drives.*-e allow_no_drives=true"),
    (
        {"worker_market": "stolen"},
        {},
        r"value of ec2_cluster_worker_market must be one of: on-demand, spot",
    ),
    (
        {"subnet_id": "subnet-0123456789abcdef0"},
        {},
        r"There is no subnet subnet-0123456789abcdef0 in us-east-1",
    ),
    ({}, {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, r"Say in which region: export AWS_REGION="),
    ({}, {"AWS_REGION": "us-east-9"}, r"EC2 does not answer as us-east-9: is that a region"),
    (
        {},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        r"EC2 does not answer.*are there credentials",
    ),
]


@pytest.fixture(scope="module")
def newcomer(operator: Controller, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """Another operator, who has no cluster yet."""
    return Controller(operator.bed, tmp_path_factory.mktemp("newcomer"), operator.cache, name="fresh")


@pytest.fixture(scope="module")
def mistakes(newcomer: Controller) -> Iterator[list[Future[Played]]]:
    """What came of each of MISTAKES. They change nothing, so they are made side by side."""

    def make(variables: dict[str, object], environment: dict[str, str]) -> Played:
        operator = Controller(newcomer.bed, newcomer.home, newcomer.cache, name=newcomer.name)
        operator.changes = environment
        # There is nothing that the inventory could find, and it takes its time.
        return operator.play("cluster.yml", "-i", "localhost,", check=False, **{**GOOD, **variables})

    with ThreadPoolExecutor(3) as pool:
        yield [pool.submit(make, variables, environment) for variables, environment, _ in MISTAKES]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[mistake[2][:40] for mistake in MISTAKES])
def test_a_mistake_is_named_before_anything_is_started(
    newcomer: Controller, mistakes: list[Future[Played]], number: int
) -> None:
    played = mistakes[number].result()

    assert played.status != 0
    assert re.search(MISTAKES[number][2], played.reason), played.output
    assert newcomer.instances() == []
    assert not newcomer.directory.exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        # (What may pass, as a lack of capacity, amazon.aws tries for minutes.)
        ("InsufficientFreeAddressesInSubnet", r"the subnet has no free addresses: give another"),
        ("VcpuLimitExceeded", r"quota of vCPUs is used up: ask AWS for more"),
    ],
)
def test_what_ec2_refuses_is_explained(newcomer: Controller, code: str, reason: str) -> None:
    with newcomer.bed.refusing("RunInstances", code, "We have none."):
        played = newcomer.play("cluster.yml", "-i", "localhost,", check=False, **GOOD)

    assert played.status != 0
    assert re.search(
        rf"EC2 does not start the 1 coordinator of type m6i\.large: .*{reason}.*\({code}\)", played.reason
    )
    assert newcomer.instances() == []


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
    (operator.directory / "new-keys").mkdir()
    yield
    (operator.directory / "new-keys").rmdir()


@pytest.mark.parametrize(
    ("situation", "variables", "reason"),
    [
        (readable_key, {}, r"Others can read .*/client\.secret: chmod go= .*rotate_keys\.yml"),
        (no_key, {}, r"Cluster demo was started elsewhere: its ssh key is not in .*/zmqmr/clusters/demo"),
        (interrupted_rotation, {}, r"rotate_keys\.yml was interrupted for cluster demo: run it again first"),
    ],
)
def test_a_cluster_is_left_alone_when_its_keys_are_in_doubt(
    cluster: Controller, situation: Callable[[Controller], AbstractContextManager[None]],
    variables: dict[str, object], reason: str,
) -> None:  # fmt: skip
    before = cluster.instances()
    with situation(cluster):
        played = cluster.play("cluster.yml", check=False, ssh_from="172.31.0.0/16", **variables)

    assert played.status != 0
    assert re.search(reason, played.reason), played.output
    assert cluster.instances() == before


def test_a_name_that_exists_in_another_vpc_is_refused(cluster: Controller) -> None:
    with cluster.bed.network.inside():
        ec2 = cluster.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]

    played = cluster.play("cluster.yml", check=False, subnet_id=subnet)

    assert played.status != 0
    assert re.search(rf"There is a cluster demo in vpc-\w+ already, and {subnet} is in {vpc}", played.reason)


def few_wheels(operator: Controller, folder: Path) -> Path:
    archive = next((operator.cache / "zmqmr").glob("wheelhouse-*.tar"))
    path = folder / "wheelhouse-few.tar"
    with tarfile.open(archive) as whole, tarfile.open(path, "w") as few:
        for member in whole.getmembers():
            if not member.name.startswith("pyzmq"):
                few.addfile(member, whole.extractfile(member))
    return path


@pytest.mark.parametrize("what", ["too little disk", "wheels of another kind"])
def test_a_host_that_cannot_serve_is_named(cluster: Controller, what: str, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    role, variables, reason = {
        "too little disk": (
            "host_preflight",
            {"host_preflight_minimum_free_bytes": 10**15},
            r"i-\w+: its root drive has [\d.]+ GB free, and zmqmr needs 909\.49 TB; give it a larger one",
        ),
        "wheels of another kind": (
            "zmqmr_install",
            {"wheelhouse": few_wheels(cluster, tmp_path)},
            r"has not every wheel for Python 3\.\d+\.\d+ on x86_64 .*pyzmq.*"
            r"make it with scripts/wheelhouse\.py --python 3\.\d+",
        ),
    }[what]
    play.write_text(
        f"- {{name: One, hosts: 'zmqmr_workers[0]', become: true, gather_facts: {role == 'zmqmr_install'},"
        f" roles: [{role}], vars_files: [{ROOT}/playbooks/vars/cluster.yml]}}\n"
    )

    played = cluster.play(str(play), check=False, **variables)

    assert played.status != 0
    assert re.search(reason, played.reason), played.output
