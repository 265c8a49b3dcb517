"""Plays of one role on one host, for what a whole run would take long to show; what plays must not show."""

from pathlib import Path
from typing import Any

import yaml
from environment import ROOT
from testbed.controller import Controller, Played


def play_role(
    cluster: Controller, folder: Path, role: str, instance: dict[str, Any], check: bool = True,
    environment: dict[str, str] | None = None, **variables: object,
) -> Played:  # fmt: skip
    """Play a role on the host of an instance, from a playbook in `folder`."""
    play = {
        "name": f"Play {role}",
        "hosts": instance["InstanceId"],
        "become": True,
        "gather_facts": role == "zmqmr_install",
        "environment": environment or {},
        "vars_files": [str(ROOT / "playbooks/vars/cluster.yml")],
        "roles": [role],
    }
    path = folder / "play.yml"
    path.write_text(yaml.safe_dump([play], sort_keys=False))
    return cluster.play(str(path), check=check, **variables)


def shown(secrets: set[str], text: str) -> int:
    """How many of the secrets are in the text."""
    return sum(secret in text for secret in secrets)
