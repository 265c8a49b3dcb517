"""What the operator's policy allows, and what playbooks have asked for."""

import json

from environment import ROOT
from testbed.bed import Testbed

# What one cluster does not come upon: stopped instances, changed networks. test_open_1_addresses.py does.
ASKED_ELSEWHERE = {"ec2:RevokeSecurityGroupIngress", "ec2:StartInstances"}


def operators_rights() -> set[str]:
    """The actions that docs/iam/operator.json allows, as `ec2:RunInstances`."""
    policy = json.loads((ROOT / "docs/iam/operator.json").read_text())
    actions = [statement["Action"] for statement in policy["Statement"]]
    return {each for action in actions for each in ([action] if isinstance(action, str) else action)}


def asked_of(bed: Testbed) -> set[str]:
    """What was asked of a testbed, but for who one is, which everybody may ask."""
    return set(bed.asked()) - {"sts:GetCallerIdentity"}
