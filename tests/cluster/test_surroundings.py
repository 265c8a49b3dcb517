"""What a cluster has on AWS beside its instances: whose it is, in which region, and that all of it goes."""

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster.mistakes import GOOD, leave_foreign_names
from testbed.controller import Controller, Played

pytestmark = pytest.mark.timeout(600)

EAST, WEST = "us-east-1", "us-west-2"
BOUNDARY = "arn:aws:iam::123456789012:policy/zmqmr-hosts"
FIRST, LAST = 13, 18  # the tasks of a destruction that remove something
ALL = ["zmqmr-twin", "zmqmr-twin", "zmqmr-twin-REGION", "zmqmr-twin-REGION", "coordinator"]


def test_check_mode_on_nothing_makes_nothing_and_says_what_it_would(
    operator: Controller, tmp_path: Path
) -> None:
    nobody = Controller(operator.bed, tmp_path, operator.cache, name="unborn")

    played = nobody.play("cluster.yml", "--check", **GOOD, s3_read="s3://books/in/")

    assert "Would start 1 worker of type c6id.large, on-demand." in played.reason
    assert nobody.instances() == []
    assert not nobody.directory.exists()


@pytest.fixture(scope="module")
def twins(operator: Controller, tmp_path_factory: pytest.TempPathFactory) -> tuple[Controller, Controller]:
    """Clusters of one name in two regions, of operators who know nothing of each other, without workers: the
    coordinators stand for all instances, and nobody waits for them to boot."""
    east = Controller(operator.bed, tmp_path_factory.mktemp("east"), operator.cache, name="twin")
    west = Controller(operator.bed, tmp_path_factory.mktemp("west"), operator.cache, name="twin")
    west.changes = {"AWS_REGION": WEST, "AWS_DEFAULT_REGION": WEST}
    ask(east, leave_a_key_pair)

    def prepare(operator: Controller) -> Played:
        wanted = {**GOOD, "permissions_boundary": BOUNDARY, "s3_read": "s3://books/in/"}
        return operator.play("cluster.yml", "-i", "localhost,", check=False, **wanted)

    refusing = operator.bed.refusing("RunInstances", "VcpuLimitExceeded", "You have none.", where="'worker'")
    with refusing, ThreadPoolExecutor(2) as pool:
        for played in pool.map(prepare, (east, west)):
            assert "(VcpuLimitExceeded)" in played.reason, played.output
    return east, west


def leave_a_key_pair(ec2: Any, _: Any) -> None:
    """As a cluster does whose folder was lost, and whose instances have ended."""
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "zmqmr:cluster", "Value": "twin"}]}]
    ec2.create_key_pair(KeyName="zmqmr-twin", TagSpecifications=tags)


def destroy(operator: Controller) -> Played:
    return operator.play("playbooks/destroy.yml", "-i", "localhost,")


def ask(operator: Controller, question: Callable[[Any, Any], Any], region: str = EAST) -> Any:
    """What EC2 and IAM say."""
    with operator.bed.network.inside():
        return question(operator.client("ec2", region), operator.client("iam", region))


def there(operator: Controller, region: str) -> list[str]:
    """What the twin in this region has on AWS: its names, and the roles of its instances."""

    def look(ec2: Any, iam: Any) -> list[str]:
        named = [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]
        named += [pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]]
        named += [role["RoleName"] for role in iam.list_roles()["Roles"]]
        profiles = iam.list_instance_profiles()["InstanceProfiles"]
        named += [profile["InstanceProfileName"] for profile in profiles]
        named = [name for name in named if name in ("zmqmr-twin", f"zmqmr-twin-{region}")]
        living = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        mine = [*living, {"Name": "tag:zmqmr:cluster", "Values": ["twin"]}]
        for reservation in ec2.describe_instances(Filters=mine)["Reservations"]:
            for instance in reservation["Instances"]:
                named += [tag["Value"] for tag in instance["Tags"] if tag["Key"] == "zmqmr:role"]
        return [name.replace(region, "REGION") for name in named]

    found: list[str] = ask(operator, look, region)
    return found


def test_t11_the_hosts_role_has_its_boundary_and_all_bears_the_tag(
    twins: tuple[Controller, Controller],
) -> None:
    def look(ec2: Any, iam: Any) -> list[Any]:
        name = "zmqmr-twin-us-east-1"
        groups = ec2.describe_security_groups(GroupNames=["zmqmr-twin"])["SecurityGroups"]
        return [
            iam.get_role(RoleName=name)["Role"],
            iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"],
            *ec2.describe_key_pairs(KeyNames=["zmqmr-twin"], IncludePublicKey=True)["KeyPairs"],
            *groups,
        ]

    role, profile, pair, group = ask(twins[0], look)

    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY
    assert [each["RoleName"] for each in profile["Roles"]] == ["zmqmr-twin-us-east-1"]
    for each in (role, profile, pair, group):
        assert {"Key": "zmqmr:cluster", "Value": "twin"} in each["Tags"]
    # An older one of the name has gone: no instance needed it.
    assert pair["PublicKey"].split()[1] in (twins[0].directory / "id_ed25519.pub").read_text()


def test_a_launch_that_fails_has_noted_the_region(twins: tuple[Controller, Controller]) -> None:
    regions = [json.loads((each.directory / "cluster.json").read_text())["region"] for each in twins]

    assert regions == [EAST, WEST]


def test_f48_a_destruction_killed_anywhere_and_run_again_leaves_nothing_here_and_all_there(
    twins: tuple[Controller, Controller],
) -> None:
    east, west = twins
    assert there(east, EAST) == ALL
    seed = random.SystemRandom().randrange(10**6)
    choose = random.Random(seed)
    begins = choose.randint(FIRST, LAST)

    process = east.start("playbooks/destroy.yml", "-i", "localhost,")
    assert process.stdout is not None
    for text in process.stdout:
        begins -= text.startswith("TASK [")
        if begins == 0:
            time.sleep(choose.random())  # a task takes about a second
            east.kill(process)
            break
    destroy(east)

    assert there(east, EAST) == [], f"seed {seed}"
    assert not east.directory.exists(), f"seed {seed}"
    assert there(west, WEST) == ALL
    assert west.directory.exists()


def test_destroy_leaves_alone_what_only_has_the_name_and_says_that_there_was_nothing(
    twins: tuple[Controller, Controller],
) -> None:
    east, _ = twins
    ask(east, lambda ec2, iam: leave_foreign_names(iam, "twin"))

    played = destroy(east)

    assert played.changed == 0
    for kind in ("a role", "an instance profile"):
        reason = f"Left alone: {kind} zmqmr-twin-us-east-1, which does not bear the tag zmqmr:cluster=twin"
        assert reason in played.reason, played.output
    assert "Nothing in us-east-1 bears the tag of cluster twin. It has been ended already" in played.reason
    assert there(east, EAST) == ["zmqmr-twin-REGION", "zmqmr-twin-REGION"]
