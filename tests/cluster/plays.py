"""Plays of one role on one host, for what a whole run would take long to show; what plays must not show."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from environment import ROOT
from testbed.controller import Controller, Played

# Uses no ssh connections that an earlier command has left open, whose host keys were checked then.
AFRESH = "--ssh-extra-args=-o ControlPath=none"


def newest_wheelhouse(operator: Controller, kind: str = ".tar") -> Path:
    """The newest archive of wheels; `kind`: .tar for all of them, .thin.tar for those that no index has."""
    found = (operator.cache / "zmqmr").glob(f"wheelhouse-????????????????{kind}")
    return max(found, key=lambda path: path.stat().st_mtime)


def play_role(
    cluster: Controller, folder: Path, role: str, instance: dict[str, Any], *options: str, check: bool = True,
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
    return cluster.play(str(path), *options, check=check, **variables)


def output_until(process: "subprocess.Popen[str]", task: int = 0, line: str = "") -> str:
    """What a playbook prints until it begins task number `task`, or a line with `line` in it, or ends."""
    assert process.stdout is not None
    said = ""
    for text in process.stdout:
        said += text
        task -= text.startswith("TASK [")
        if (text.startswith("TASK [") and task == 0) or (line and line in text):
            break
    return said


def rest_of(process: "subprocess.Popen[str]", said: str) -> Played:
    """What comes of a playbook of which `said` was read."""
    assert process.stdout is not None
    output = said + process.stdout.read()
    return Played(process.wait(), output, 0.0)


def shown(secrets: set[str], text: str) -> int:
    """How many of the secrets are in the text."""
    return sum(secret in text for secret in secrets)
