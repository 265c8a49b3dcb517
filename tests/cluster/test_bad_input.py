"""What operators get wrong before there is a cluster: each stops before anything is started, in one line that
says what to do. T12."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster.mistakes import GOOD, MISTAKES, REFUSAL, leave_a_foreign_group, leave_foreign_names, make_vpc
from environment import ROOT
from testbed.controller import Controller, Played

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def newcomer(operator: Controller, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """An operator who has no cluster yet."""
    return Controller(operator.bed, tmp_path_factory.mktemp("newcomer"), operator.cache, name="fresh")


@pytest.fixture(scope="module")
def mistakes(newcomer: Controller) -> Iterator[list[Future[Played]]]:
    """What comes of each of MISTAKES. They change nothing, so they are made side by side."""

    def make(variables: dict[str, object], environment: dict[str, str]) -> Played:
        operator = Controller(newcomer.bed, newcomer.home, newcomer.cache, name=newcomer.name)
        operator.changes = environment
        # There is nothing that the inventory could find, and it takes its time.
        return operator.play("cluster.yml", "-i", "localhost,", check=False, **{**GOOD, **variables})

    with newcomer.bed.network.inside():
        leave_foreign_names(newcomer.client("iam"), "foreign")
        leave_a_foreign_group(newcomer.client("ec2"), "foreign")
    quota = newcomer.bed.refusing("RunInstances", "VcpuLimitExceeded", "You have none.", where="zmqmr-quota")
    rights = newcomer.bed.refusing("RunInstances", "UnauthorizedOperation", REFUSAL, where="'rightless'")
    refusal = "User is not authorized to perform: iam:CreateRole"
    denied = newcomer.bed.refusing("CreateRole", "AccessDenied", refusal, where="zmqmr-denied")
    with quota, rights, denied, ThreadPoolExecutor(2) as pool:
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


def test_a_subnet_whose_hosts_could_not_be_reached_is_refused(
    newcomer: Controller,
) -> None:
    _, subnet = make_vpc(newcomer)
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


@pytest.mark.parametrize(
    ("playbook", "inventory", "region", "reason"),
    [
        ("cluster.yml", "localhost,", "", "Cluster fresh is one of hosts that are not on EC2: give their"),
        ("playbooks/destroy.yml", "localhost,", "", "Cluster fresh is one of hosts that are not on EC2"),
        (
            "cluster.yml",
            "inventory/hosts.example.yml",
            "us-east-1",
            "Cluster fresh was started on EC2",
        ),
    ],
)
def test_a_cluster_of_ec2_and_one_of_other_hosts_do_not_take_each_others_folder(
    newcomer: Controller, tmp_path: Path, playbook: str, inventory: str, region: str, reason: str
) -> None:
    operator = Controller(newcomer.bed, tmp_path, newcomer.cache, name=newcomer.name)
    operator.directory.mkdir(parents=True, mode=0o700)
    note = operator.directory / "cluster.json"
    note.touch(mode=0o600)
    note.write_text(json.dumps({"name": "fresh", "region": region}))

    played = operator.play(playbook, "-i", inventory, check=False, **GOOD)

    assert played.status != 0
    assert reason in played.reason, played.output
    assert [each.name for each in operator.directory.iterdir()] == ["cluster.json"]
    assert json.loads(note.read_text())["region"] == region


def test_a_limit_that_leaves_the_checks_out_is_refused_before_a_host_is_asked(newcomer: Controller) -> None:
    hosts = ("-i", "inventory/hosts.example.yml", "--limit=two")

    played = newcomer.play("cluster.yml", *hosts, check=False, **GOOD)

    assert played.status != 0
    assert "--limit leaves localhost out" in played.reason, played.output


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"clustre": "demo"}, "There is no -e clustre here: did you mean -e cluster?"),
        ({"cluster": "Demo"}, "Say which cluster: -e cluster=NAME"),
    ],
)
def test_a_destruction_that_is_misspelt_ends_nothing(
    newcomer: Controller, variables: dict[str, object], reason: str
) -> None:
    before = len(newcomer.bed.asked())

    played = newcomer.play("playbooks/destroy.yml", "-i", "localhost,", check=False, **variables)

    assert played.status != 0
    assert reason in played.reason, played.output
    assert len(newcomer.bed.asked()) == before


def test_a_folder_that_the_workers_service_does_not_see_is_refused_before_a_host_is_asked(
    newcomer: Controller, tmp_path: Path
) -> None:
    example = (ROOT / "inventory/hosts.example.yml").read_text()
    (tmp_path / "hosts.yml").write_text(example.replace("/srv/zmqmr", "/home/data"))

    played = newcomer.play("cluster.yml", "-i", str(tmp_path / "hosts.yml"), check=False, **GOOD)

    assert played.status != 0
    assert "two: zmqmr_worker_directories names a folder below /home" in played.reason, played.output


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

    given = {"worker": "i-1"} if playbook == "playbooks/drain.yml" else GOOD

    played = operator.play(playbook, check=False, **given)

    assert played.status != 0
    (line,) = {line for line in played.reason.splitlines() if line}
    assert reason in line
    assert "Traceback" not in played.output
    assert not operator.directory.exists()
