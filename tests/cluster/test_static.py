"""What can be known of playbooks, roles and policies without a host."""

import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError
from environment import ROOT
from jinja2 import Environment, FileSystemLoader

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
PLAYBOOKS = [ROOT / "cluster.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
UNITS = ("coordinator", "worker")
SCORE_LIMIT = 20  # tenths: systemd-analyze's 2.0


def tool(name: str) -> str:
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"needs {name}: run scripts/testbed")
    return path


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def render(role: str, template: str, **variables: object) -> str:
    environment = Environment(loader=FileSystemLoader(ROOT / "roles" / role / "templates"), trim_blocks=True)
    environment.filters |= {
        "comment": lambda text: f"# {text}",
        "to_json": json.dumps,
        "regex_replace": lambda text, pattern, new: re.sub(pattern, new, text),
    }
    return environment.get_template(template).render(ansible_managed="managed", **variables)


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_the_playbook_is_one(playbook: Path) -> None:
    command = [tool("ansible-playbook"), "--syntax-check", "-i", "inventory/hosts.example.yml", str(playbook)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_ansible_lint_is_content_with_all_of_it() -> None:
    paths = ["cluster.yml", "playbooks", "roles", "inventory"]
    command = [tool("ansible-lint"), "--offline", "--nocolor", "--profile=production", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_every_default_of_a_role_is_in_its_argument_specs(role: str) -> None:
    specs = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    options = {name for entry in specs.values() for name in entry.get("options", {})}
    path = ROOT / "roles" / role / "defaults/main.yml"
    defaults = set(yaml.safe_load(path.read_text())) if path.exists() else set()

    assert defaults <= options
    assert all(entry["short_description"] for entry in specs.values())


def test_what_a_cluster_was_started_with_is_noted_under_the_name_that_reads_it_again() -> None:
    defaults = (ROOT / "roles/ec2_cluster/defaults/main.yml").read_text()
    read = set(re.findall(r"validate_inventory_remembered\.(\w+)", defaults))
    values = yaml.safe_load((ROOT / "roles/ec2_cluster/vars/main.yml").read_text())
    given = set(re.findall(r"{{ (\w+) \| default\(", defaults))

    assert read == set(values["__ec2_cluster_arguments"]) - {"name", "region", "python_packages"}
    assert {name for name in given - read if not name.endswith("_seconds")} == {"replace_lost"}
    table = (ROOT / "docs/operations.md").read_text()
    assert [name for name in sorted(given) if f"`{name}`" not in table] == []


SWITCHES = yaml.safe_load((ROOT / "playbooks/vars/cluster.yml").read_text())["zmqmr_switches"]


def test_the_manual_has_every_switch_of_the_playbooks() -> None:
    manual = (ROOT / "docs/operations.md").read_text()
    table = manual.partition("| `-e` | default | what |")[2].partition("\n\n")[0]
    heads = [row.partition(" | ")[0] for row in table.splitlines()]
    defaults = (ROOT / "roles/ec2_cluster/defaults/main.yml").read_text()
    inventories = {"reservation", "provider"}  # what those of the project take, or say

    assert set(re.findall(r"`(\w+)`", "".join(heads))) == set(SWITCHES) - inventories
    assert inventories < set(SWITCHES)
    assert set(re.findall(r"{{ (\w+) \| default\(", defaults)) <= set(SWITCHES)


def test_what_resembles_a_switch_is_misspelt_and_anything_else_is_its_givers_own() -> None:
    misspelt = module("roles/validate_inventory/filter_plugins/zmqmr_misspelt.py").misspelt
    given = ["worker", "subnet", "ssh_form", "cluster", "ansible_user", "awx_job_id", "zmqmr_worker_slots"]

    assert misspelt(given, SWITCHES) == {"worker": "workers", "subnet": "subnet_id", "ssh_form": "ssh_from"}
    assert misspelt(["cancle", "workers"], [*SWITCHES, "worker", "cancel"]) == {"cancle": "cancel"}


@pytest.mark.parametrize("role", [role for role in ROLES if role != "ec2_cluster"])
def test_host_roles_need_nothing_but_ansible_itself(role: str) -> None:
    text = "".join(path.read_text() for path in (ROOT / "roles" / role).rglob("tasks/*.yml"))
    modules = set(re.findall(r"^ +(?:- )?([a-z_]+\.[a-z_]+\.[a-z_]+):", text, re.MULTILINE))

    assert modules and all(name.startswith("ansible.builtin.") for name in modules)
    assert "ignore_errors" not in text
    assert "ansible.builtin.shell" not in text


@pytest.mark.parametrize("folder", ["roles", "playbooks"])
def test_f48_no_restart_is_left_to_a_handler_which_a_killed_run_would_not_reach(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.yml"):
        assert path.parent.name != "handlers" and not re.search(
            r"^ *(notify|handlers|listen):", path.read_text(), re.MULTILINE
        ), path


WAITING = re.compile(r"amazon\.|ec2_|ansible\.builtin\.wait")  # modules that ask AWS or a host


def unlimited(tasks: list[dict[str, Any]], folder: Path, limited: bool = False) -> Iterator[str]:
    """The tasks that may wait, and neither have a limit nor are in what has one."""
    for task in tasks:
        held = limited or "timeout" in task
        inner = [each for key in ("block", "rescue", "always") for each in task.get(key, [])]
        yield from unlimited(inner, folder, held)
        if name := task.get("ansible.builtin.import_tasks"):
            yield from unlimited(yaml.safe_load((folder / name).read_text()), folder, held)
        elif name := task.get("ansible.builtin.include_tasks"):
            # Its own limit is for the inclusion alone.
            yield from unlimited(yaml.safe_load((folder / name).read_text()), folder, limited)
        elif not held and ("delegate_to" in task or any(WAITING.match(key) for key in task)):
            yield str(task["name"])


@pytest.mark.parametrize(
    ("entry", "playbook"), [("main", "cluster.yml"), ("leave", "cluster.yml"), ("destroy", "destroy.yml")]
)
def test_nothing_that_asks_ec2_waits_without_a_limit_of_its_own(entry: str, playbook: str) -> None:
    folder = ROOT / "roles/ec2_cluster/tasks"
    plays = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())
    plays = [play for play in plays if f"'tasks_from': '{entry}'" in str(play)]
    tasks = yaml.safe_load((folder / f"{entry}.yml").read_text())

    assert list(unlimited(tasks, folder, limited=any("timeout" in play for play in plays))) == []


def test_t13_host_keys_are_checked_everywhere() -> None:
    config = (ROOT / "ansible.cfg").read_text()
    text = "".join(
        path.read_text()
        for folder in ("playbooks", "roles", "inventory")
        for path in (ROOT / folder).rglob("*.*")
    )

    assert "host_key_checking = true" in config
    for weak in ("StrictHostKeyChecking=no", "StrictHostKeyChecking=accept", "UserKnownHostsFile=/dev/null"):
        assert weak not in config + text
    assert "StrictHostKeyChecking=yes" in text


def test_t9_every_task_that_handles_keys_keeps_them_to_itself() -> None:
    for path in (ROOT / "roles/keys/tasks").glob("*.yml"):
        for task in yaml.safe_load(path.read_text()):
            for each in task.get("block", [task]):
                if "secret" in str(each) or "keygen" in str(each):
                    applied = each.get("ansible.builtin.include_role", {}).get("apply", {})
                    assert (each | applied).get("no_log") is True, f"{path.name}: {each['name']}"


@pytest.mark.parametrize("unit", UNITS)
def test_t14_the_unit_may_do_little(unit: str, tmp_path: Path) -> None:
    path = tmp_path / f"zmqmr-{unit}.service"
    directories = ["/mnt/ephemeral0/zmqmr", "/mnt/ephemeral1/zmqmr"]
    path.write_text(
        render(
            f"zmqmr_{unit}",
            f"{path.name}.j2",
            zmqmr_worker_directories=directories,
            zmqmr_worker_slots=0,
            zmqmr_worker_memory_max="90%",
            zmqmr_worker_tasks_max=8192,
            zmqmr_worker_open_files=65536,
            zmqmr_coordinator_open_files=65536,
        )
    )
    command = [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={SCORE_LIMIT}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-1500:] + done.stderr
    assert "Overall exposure level" in done.stdout


def statements() -> list[dict[str, Any]]:
    data = render(
        "ec2_cluster",
        "data-policy.json.j2",
        __ec2_cluster_read=["s3://books/in/"],
        __ec2_cluster_write=["s3://books/out", "s3://whole"],
    )
    policies = [json.loads(data), json.loads((ROOT / "docs/iam/operator.json").read_text())]
    return [statement for policy in policies for statement in policy["Statement"]]


def test_t11_no_policy_allows_everything() -> None:
    for statement in statements():
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        resources = (
            [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        )
        assert not any("*" in action for action in actions)
        if "*" in resources:
            reads = all(re.match(r"ec2:Describe", action) for action in actions)
            assert reads, statement["Sid"]


def test_hosts_reach_the_prefixes_that_were_named_and_no_others() -> None:
    found = {
        (tuple(each["Action"]), each["Resource"]) for each in statements() if "s3:GetObject" in each["Action"]
    }
    resources = {resource for _, resource in found}

    assert resources == {"arn:aws:s3:::books/in/*", "arn:aws:s3:::books/out/*", "arn:aws:s3:::whole/*"}
    listed = {
        (each["Resource"], *each["Condition"]["StringLike"]["s3:prefix"])
        for each in statements()
        if each["Action"] == ["s3:ListBucket"]
    }
    books, whole = "arn:aws:s3:::books", "arn:aws:s3:::whole"
    assert listed == {(books, "in/*"), (books, "out/*"), (whole, "*")}
    writable = {resource for actions, resource in found if "s3:PutObject" in actions}
    assert writable == resources - {"arn:aws:s3:::books/in/*"}


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        ("203.0.113.7/32", ""),
        ("10.9.0.0/16", ""),
        ("2001:DB8::/32", ""),
        ("203.0.113.7", "give a network with its prefix length"),
        ("10.0.0.0/255.255.0.0", "give a network with its prefix length"),
        ("999.1.1.1/32", "that is no network"),
        ("10.0.0.1/33", "that is no network"),
        ("1.2.3.4:/32", "that is no network"),
        ("fe80::%eth0/64", "EC2 knows no interfaces of yours"),
        ("10.0.0.1/16", "it has bits beyond its prefix: say 10.0.0.0/16"),
        ("0.0.0.0/1", "the whole world or a large part of it; give your own network, at most a /16, or"),
        ("10.0.0.0/15", "or say -e i_accept_public_ssh=true"),
        ("::/0", "at most a /32, or say -e i_accept_public_ssh=true"),
        ("2000::/31", "at most a /32, or say -e i_accept_public_ssh=true"),
    ],
)
def test_t12_ssh_is_open_to_networks_that_are_somebodys_own(network: str, fault: str) -> None:
    networks = module("roles/ec2_cluster/filter_plugins/ssh_networks.py")
    found = networks.network_fault(network)

    assert fault in found and bool(fault) == bool(found)
    if "i_accept" in found:
        assert networks.network_fault(network, may_be_wide=True) == ""
    if not found:
        assert networks.network(network) == network.lower()


CONSOLE = """[   12.3] cloud-init[512]: -----BEGIN SSH HOST KEY KEYS-----
[   12.4] ecdsa-sha2-nistp256 AAAAold= root@ip-10-0-0-1
-----END SSH HOST KEY KEYS-----
-----BEGIN SSH HOST KEY KEYS-----
ssh-ed25519 AAAAC3Nza root@ip-10-0-0-1
ssh-rsa AAAAB3Nza root@ip-10-0-0-1
-----END SSH HOST KEY KEYS-----
"""


def test_host_keys_are_those_of_the_consoles_last_boot() -> None:
    keys = module("roles/ec2_cluster/library/ec2_host_keys.py")

    assert keys.keys_on(CONSOLE) == ["ssh-ed25519 AAAAC3Nza"]
    assert keys.keys_on("nothing yet") == []


def test_a_known_hosts_file_that_was_written_is_read_again() -> None:
    keys = module("roles/ec2_cluster/library/ec2_host_keys.py")
    instances = [
        {"id": "i-2", "addresses": ["10.0.0.2"]},
        {"id": "i-1", "addresses": ["10.0.0.1", "192.0.2.1"]},
    ]
    known = {"i-1": ["ssh-ed25519 AAAA1"], "i-2": ["ssh-ed25519 AAAA2"]}
    text = keys.known_hosts(instances, known)

    assert text.splitlines()[0] == "i-1,10.0.0.1,192.0.2.1 ssh-ed25519 AAAA1"
    assert keys.known_keys(text) == known


def test_f48_a_request_that_was_begun_keeps_its_token_until_ec2_shows_what_came_of_it(tmp_path: Path) -> None:
    launch = module("roles/ec2_cluster/library/ec2_launch.py")
    path = str(tmp_path / "launch-worker")

    begun = launch.token_at(path, ["i-1"], 2)

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, "the next run would refuse the folder"
    assert launch.token_at(path, ["i-1"], 2) == begun
    assert launch.token_at(path, ["i-1", "i-2"], 1) != begun
    assert launch.token_at(path, ["i-1"], 2) != begun


@pytest.mark.parametrize(
    ("code", "message", "passes"),
    [
        ("InsufficientInstanceCapacity", "", True),
        ("InvalidParameterValue", "Value (x) is invalid. Invalid IAM Instance Profile name", True),
        ("InvalidParameterValue", 'IAM Instance Profile "arn:x" has no associated IAM Roles', True),
        ("InvalidKeyPair.NotFound", "The key pair 'zmqmr-demo' does not exist", True),
        ("InvalidGroup.NotFound", "The security group 'sg-1' does not exist", True),
        ("InvalidParameterValue", "Value (x) for parameter groupId is invalid", False),
        ("VcpuLimitExceeded", "", False),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_else(code: str, message: str, passes: bool) -> None:
    assert module("roles/ec2_cluster/library/ec2_launch.py").may_pass(code, message) is passes


@pytest.mark.parametrize(
    ("code", "status", "is_decided"),
    [("VcpuLimitExceeded", 400, True), ("RequestLimitExceeded", 503, False), ("InternalError", 500, False)],
)
def test_f48_nobody_knows_what_came_of_a_request_that_ec2_failed_over(
    code: str, status: int, is_decided: bool
) -> None:
    launch = module("roles/ec2_cluster/library/ec2_launch.py")
    answer = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert launch.decided(ClientError(answer, "RunInstances")) is is_decided


@pytest.mark.parametrize(("python", "has_setuptools"), [("3.11", False), ("3.12", True), ("3.13", True)])
def test_the_wheelhouse_has_what_the_hosts_python_needs(
    wheel: Path, python: str, has_setuptools: bool
) -> None:
    needed = module("scripts/wheelhouse.py").requirements_of(wheel, python, "x86_64")

    assert any(line.startswith("pyzmq") for line in needed)
    assert any(line.startswith("setuptools") for line in needed) is has_setuptools
    assert not any(line.startswith("ansible") for line in needed)
