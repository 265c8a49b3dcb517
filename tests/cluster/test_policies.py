"""What docs/iam lets an operator do, and hosts at the most: T11, by a small reading of IAM's own rules."""

import json
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from environment import ROOT

DOCS = ROOT / "docs/iam"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/zmqmr-demo-us-east-1"
BOUNDARY = {"iam:PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/zmqmr-hosts"}
EC2 = f"arn:aws:ec2:us-east-1:{ACCOUNT}:"
IMAGE = "arn:aws:ec2:us-east-1::image/ami-1"
OURS = {"aws:ResourceTag/zmqmr:cluster": "demo"}
NEW = {"aws:RequestTag/zmqmr:cluster": "demo"}
_LIMIT = 6144  # characters of a managed policy, without white space


def policy(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / name).read_text())
    return found


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def holds(operator: str, key: str, wanted: str | list[str], context: dict[str, str]) -> bool:
    """Whether one condition holds."""
    if operator == "Null":
        return (key not in context) == (wanted == "true")
    tests = {"StringEquals": str.__eq__, "ArnLike": fnmatchcase, "StringLike": fnmatchcase}
    return key in context and any(tests[operator](context[key], value) for value in listed(wanted))


def allows(action: str, resource: str, **context: str) -> bool:
    """Whether the operator's policy allows this; it has no denials."""
    for statement in policy("operator.json")["Statement"]:
        assert statement["Effect"] == "Allow" and set(statement) <= {
            "Sid", "Effect", "Action", "Resource", "Condition"
        }  # fmt: skip
        if action in listed(statement["Action"]) and any(
            fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"])
        ):
            conditions = statement.get("Condition", {}).items()
            if all(holds(name, *pair, context) for name, pairs in conditions for pair in pairs.items()):
                return True
    return False


def test_t11_an_operator_gives_roles_rights_within_the_boundary_only() -> None:
    administrator = {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"}
    for action in ("iam:CreateRole", "iam:PutRolePolicy"):
        assert allows(action, ROLE, **BOUNDARY)
        assert not allows(action, ROLE)
        assert not allows(action, ROLE, **administrator)
        assert not allows(action, f"arn:aws:iam::{ACCOUNT}:role/admin", **BOUNDARY)


@pytest.mark.parametrize(
    "action",
    [
        "iam:PutRolePermissionsBoundary", "iam:DeleteRolePermissionsBoundary", "iam:AttachRolePolicy",
        "iam:UpdateAssumeRolePolicy", "iam:CreatePolicy", "iam:CreatePolicyVersion",
        "iam:SetDefaultPolicyVersion",
    ],
)  # fmt: skip
def test_t11_an_operator_cannot_get_round_the_boundary(action: str) -> None:
    for resource in (ROLE, BOUNDARY["iam:PermissionsBoundary"]):
        assert not allows(action, resource, **BOUNDARY)


@pytest.mark.parametrize(
    ("resource", "good", "bad"),
    [
        (IMAGE, {"ec2:Owner": "099720109477"}, {"ec2:Owner": "210987654321"}),
        (f"{EC2}security-group/sg-1", OURS, {}),
        (f"{EC2}key-pair/zmqmr-demo", OURS, {}),
        (f"{EC2}instance/*", NEW, {}),
        (f"{EC2}volume/*", NEW, {}),
    ],
)
def test_t11_an_operator_starts_what_is_of_clusters(
    resource: str, good: dict[str, str], bad: dict[str, str]
) -> None:
    assert allows("ec2:RunInstances", resource, **good)
    assert not allows("ec2:RunInstances", resource, **bad)


@pytest.mark.parametrize("kind", ["network-interface/*", "subnet/subnet-1", "spot-instances-request/*"])
def test_t11_what_a_launch_needs_beside_them_bears_no_tag(kind: str) -> None:
    assert allows("ec2:RunInstances", EC2 + kind)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("ec2:CreateSecurityGroup", f"{EC2}security-group/*"),
        ("ec2:ImportKeyPair", f"{EC2}key-pair/zmqmr-demo"),
    ],
)
def test_t11_an_operator_makes_nothing_without_a_tag(action: str, resource: str) -> None:
    assert allows(action, resource, **NEW)
    assert not allows(action, resource)


def test_t11_the_boundary_holds_what_hosts_are_ever_given_and_no_more() -> None:
    template = (ROOT / "roles/ec2_cluster/templates/data-policy.json.j2").read_text()
    given = set(re.findall(r"'(s3:[A-Z]\w+)'", template))
    boundary = policy("hosts-boundary.json")["Statement"]

    assert {action for each in boundary for action in listed(each["Action"])} == given
    for each in boundary:
        assert all(name.startswith("arn:aws:s3:::BUCKET-OF-YOURS") for name in listed(each["Resource"]))


@pytest.mark.parametrize("name", ["operator.json", "hosts-boundary.json"])
def test_iam_takes_the_policy_as_a_managed_one(name: str) -> None:
    assert len(re.sub(r"\s", "", (DOCS / name).read_text())) <= _LIMIT
