"""The role's own modules against the fake EC2: what they find, and what they say is refused."""

import json
import sys
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cluster.test_static import CONSOLE, module
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(120)

PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{architecture}/hvm/ebs-gp3/ami-id"
USER = "User: arn:aws:iam::123456789012:user/o is not authorized to perform: ec2:RunInstances on resource: "
INSTANCE = (
    "arn:aws:ec2:us-east-1:123456789012:instance/* because no identity-based policy allows it. Encoded x"
)
GROUP = "arn:aws:ec2:us-east-1:123456789012:security-group/sg-1 because no policy allows it."


def survey(
    operator: Controller, worker_type: str, cluster: str = "surveyed", **options: object
) -> dict[str, Any]:
    """What the module gives, as a playbook would get it."""
    launches = [
        {"role": "coordinator", "type": "m6i.large", "count": 1, "market": "on-demand"},
        {"role": "worker", "type": worker_type, "count": 1, "market": "spot"},
    ]
    names = {"cluster": cluster, "iam_name": f"zmqmr-{cluster}-us-east-1"}
    arguments = {**names, "launches": launches, "image_parameter": PARAMETER, **options}
    library = ["-M", "roles/ec2_cluster/library", "-m", "ec2_survey", "-a", json.dumps(arguments)]
    here = [
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    done = operator.run("ansible", *here, *library, check=False)
    assert "SUCCESS => " in done.stdout, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.partition(" => ")[2])
    return found


def test_a_survey_finds_what_a_cluster_needs(operator: Controller) -> None:
    found = survey(operator, "c6id.large")

    assert "us-east-1" in found["regions"]
    assert found["types"]["c6id.large"] == {"architecture": "x86_64", "cores": 2, "drives": 1}
    assert found["types"]["m6i.large"]["drives"] == 0
    assert found["subnet"]["availability_zone"] == "us-east-1a"
    assert found["subnet"]["map_public_ip_on_launch"] is True
    assert found["image"]["owner_id"] == "099720109477" and found["image"]["root_device_name"]
    nothing = ("instances", "key_pairs", "groups", "roles", "profiles", "refused", "forbidden")
    assert [found[name] for name in nothing] == [[]] * len(nothing)


def test_the_subnet_is_in_a_zone_that_offers_both_types(operator: Controller) -> None:
    found = survey(operator, "p3dn.24xlarge")

    assert found["zones"] == ["us-east-1c", "us-east-1d"]
    assert found["subnet"]["availability_zone"] == "us-east-1c"


def test_what_is_refused_is_data_and_the_rest_is_answered(operator: Controller) -> None:
    refusal = ("DescribeInstanceTypes", "UnauthorizedOperation", "You may not. Encoded authorization failure")
    with operator.bed.refusing(*refusal):
        found = survey(operator, "c6id.large")

    assert found["refused"] == [{"what": "types", "reason": "UnauthorizedOperation: You may not."}]
    assert found["zones"] and found["subnet"]


@pytest.mark.parametrize(
    ("message", "in_group", "forbidden"),
    [
        (INSTANCE, False, True),
        (GROUP, False, False),
        (GROUP, True, True),
        ("", False, False),
        ("", True, True),
    ],
    ids=["instances", "default group", "own group", "unnamed", "unnamed in own group"],
)
def test_a_refusal_of_the_default_group_says_nothing_about_rights(
    message: str, in_group: bool, forbidden: bool
) -> None:
    answer = {"Error": {"Code": "UnauthorizedOperation", "Message": USER + message if message else ""}}
    told = module("roles/ec2_cluster/library/ec2_survey.py").is_forbidden(
        ClientError(answer, "RunInstances"), in_group
    )

    assert told is forbidden


def test_nothing_is_tried_that_is_there(operator: Controller) -> None:
    launches = [{"role": "coordinator", "count": 1}, {"role": "worker", "count": "2"}]
    present = [{"tags": {"zmqmr:role": "coordinator"}}, {"tags": {"zmqmr:role": "worker"}}]

    tried = module("roles/ec2_cluster/library/ec2_survey.py").missing(launches, present)

    assert [each["role"] for each in tried] == ["worker"]


class Consoles:
    """Consoles that answer when all of them are asked at once."""

    def __init__(self, count: int) -> None:
        self.together = threading.Barrier(count)

    def get_console_output(self, **_: object) -> dict[str, str]:
        self.together.wait(timeout=20)
        return {"Output": CONSOLE}


def test_consoles_are_read_side_by_side() -> None:
    names = [f"i-{number}" for number in range(8)]

    seen = module("roles/ec2_cluster/library/ec2_host_keys.py").learn(Consoles(8), names, timeout_seconds=0)

    assert all(seen[name]["keys"] == ["ssh-ed25519 AAAAC3Nza"] for name in names)


class Mute(Consoles):
    """Consoles on which nothing is to be seen yet, each of which is asked in the newer way first."""

    def get_console_output(self, **options: object) -> dict[str, str]:
        if options.get("Latest"):
            raise ClientError({"Error": {"Code": "UnsupportedOperation"}}, "GetConsoleOutput")
        return {"Output": "booting"}


def test_a_console_without_a_host_key_is_said_to_have_none() -> None:
    seen = module("roles/ec2_cluster/library/ec2_host_keys.py").learn(Mute(1), ["i-1"], timeout_seconds=0)

    assert seen["i-1"]["keys"] == []
    assert seen["i-1"]["reason"] == "its console shows no ssh host key"
    assert seen["i-1"]["console"] == "booting"
