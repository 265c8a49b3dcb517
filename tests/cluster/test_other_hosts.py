"""The same plays on hosts that are not on EC2, from the inventory that the project shows."""

import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from cluster.jobs import JOB, same, until
from cluster.manual import is_of_other_hosts, manual, was_run
from cluster.plays import newest_wheelhouse, output_until, play_role
from differential.harness import Result
from environment import ROOT
from testbed.bed import Testbed
from testbed.commands import run
from testbed.controller import Controller
from testbed.hosts import Host
from testbed.network import CONTROLLER

pytestmark = pytest.mark.timeout(900)

ADDRESSES = {"one": "172.31.200.1", "two": "172.31.200.2"}
FILES = ("id_ed25519", "known_hosts")
PACKAGE = "toolz==1.0.0"  # what the lab's jobs import
ROTATION_TASKS = 55  # that a rotation has at least, there


def boot(bed: Testbed, address: str, key: str) -> Host:
    """A host that no EC2 knows, with an account that `key` opens, and no drives."""
    third, fourth = address.split(".")[2:]
    number = int(third) * 256 + int(fourth)
    host = Host(bed.folder / "hosts" / f"h{number}", bed.network, number, address)
    host.create(key, drives=0)
    return host


@pytest.fixture(scope="module")
def lab(operator: Controller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an operator with two such hosts: an ssh key, known hosts, and an inventory."""
    folder = tmp_path_factory.mktemp("lab")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "id_ed25519")
    key = (folder / "id_ed25519.pub").read_text().strip()
    hosts = [boot(operator.bed, address, key) for address in ADDRESSES.values()]
    try:
        for host in hosts:
            host.wait_for_ssh()
        known = "".join(f"{host.address} {host.host_key}\n" for host in hosts)
        (folder / "known_hosts").write_text(known)
        write_inventory(folder, ADDRESSES)
        yield folder
    finally:
        for host in hosts:
            host.remove()


def write_inventory(folder: Path, addresses: dict[str, str]) -> None:
    """The project's example with the addresses of these hosts, and how this operator reaches them."""
    inventory = yaml.safe_load((ROOT / "inventory/hosts.example.yml").read_text())
    zmqmr = inventory["zmqmr"]
    for group in zmqmr["children"].values():
        group["hosts"] = {
            name: {"ansible_host": addresses[name], "zmqmr_address": addresses[name]}
            for name in group["hosts"]
            if name in addresses
        }
    zmqmr["vars"] |= {
        "ansible_ssh_private_key_file": str(folder / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=yes",
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))


def lab_operator(operator: Controller, home: Path) -> Controller:
    """Who has the lab's inventory, and nothing of AWS at hand."""
    their = Controller(operator.bed, home, operator.cache, name="lab")
    their.changes = {name: "" for name in their.environment() if name.startswith("AWS_")}
    return their


@pytest.fixture(scope="module")
def their(operator: Controller, lab: Path) -> Controller:
    """The operator of the lab."""
    return lab_operator(operator, operator.home)


def test_a_cluster_of_hosts_that_are_not_on_ec2_runs_a_job(
    their: Controller, lab: Path, lines: Path, expected: Result
) -> None:
    their.play("cluster.yml", "--check", "-i", str(lab / "hosts.yml"))
    assert not their.directory.exists()

    two = their.bed.host(ADDRESSES["two"])

    make = [sys.executable, str(ROOT / "scripts/wheelhouse.py"), f"--with={PACKAGE}"]
    subprocess.run(
        make, check=True, stdout=subprocess.DEVNULL
    )  # no index of the world is reached from the lab
    with package_index(their, lab) as index:
        more = {"package_index": index, "python_packages": PACKAGE}
        played = their.play("cluster.yml", "-i", str(lab / "hosts.yml"), **more)

    assert "Cluster lab is up: 1 worker." in played.reason
    for name in FILES:  # or the settings of ssh's user
        (their.directory / name).write_bytes((lab / name).read_bytes())
        (their.directory / name).chmod(0o400)
    command = ["zmqmr-run", str(JOB), "--cluster", "lab", "--no-conf", str(lines)]
    done = their.run(*command)
    same(Result(done.returncode, done.stdout.encode(), done.stderr), expected)
    assert two.enter("/opt/zmqmr/venv/bin/python", "-c", "import toolz; print(toolz.__version__)") == "1.0.0"
    assert json.loads((their.directory / "cluster.json").read_text())["python_packages"] == [PACKAGE]
    (ours,) = two.enter("ls", "/opt/zmqmr/releases").split()
    pushed = two.enter("ls", f"/opt/zmqmr/releases/{ours}/wheels").split()
    assert sorted(name.split("-")[0] for name in pushed) == ["constraints.txt", "pip", "zmqmr"]
    assert two.enter("readlink", "/opt/zmqmr/venv") == f"/opt/zmqmr/releases/{ours}/venv"
    assert two.enter("stat", "--format=%U %a", "/srv/zmqmr") == "zmqmr 700"


@contextmanager
def package_index(their: Controller, lab: Path) -> Iterator[str]:
    """An index that the lab's hosts reach, with what a wheelhouse has but for zmqmr."""
    index = lab / "index"
    with tarfile.open(newest_wheelhouse(their)) as archive:
        for member in archive.getmembers():
            if member.name.endswith(".whl") and not member.name.startswith(("pip-", "zmqmr-")):
                project = member.name.split("-")[0].lower().replace("_", "-")
                archive.extract(member, index / "simple" / project, filter="data")
    for address in ADDRESSES.values():
        trusting = f"[global]\ntrusted-host = {CONTROLLER}\n"
        their.bed.host(address).enter("sh", "-c", f"printf '{trusting}' > /etc/pip.conf")
    serve = ("-m", "http.server", "8000", f"--bind={CONTROLLER}", f"--directory={index}")
    command = their.bed.network.command(sys.executable, *serve)
    with open(lab / "index.log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield f"http://{CONTROLLER}:8000/simple"
        finally:
            process.terminate()


def state(their: Controller) -> dict[str, str]:
    """What an installation would change on the hosts: keys, units, and the processes."""
    files = ["sh", "-c", "sha256sum /etc/zmqmr/* /etc/zmqmr/keys/* /etc/systemd/system/zmqmr* 2>&1"]
    shown = ["systemctl", "show", "--property=MainPID", "zmqmr-coordinator", "zmqmr-worker"]
    hosts = {name: their.bed.host(address) for name, address in ADDRESSES.items()}
    return {name: host.enter(*files, check=False) + host.enter(*shown) for name, host in hosts.items()}


def test_f48_somebody_elses_keys_do_not_take_a_cluster_over(
    their: Controller, lab: Path, tmp_path: Path
) -> None:
    other = lab_operator(their, tmp_path)
    before = state(their)

    played = other.play("cluster.yml", "-i", str(lab / "hosts.yml"), check=False)

    assert played.status != 0
    (reason,) = [line for line in played.reason.splitlines() if str(other.directory) in line]
    assert f"The keys in {other.directory} are not those that the coordinator of cluster lab has" in reason
    assert reason.endswith("Copy that folder from there, or give the hosts your keys with -e take_over=true")
    assert state(their) == before


def test_files_are_written_where_they_are_not_as_they_should_be(
    their: Controller, lab: Path, tmp_path: Path
) -> None:
    two = their.bed.host(ADDRESSES["two"])
    names = ("as-it-should-be", "other-content", "other-mode", "other-owner", "missing")
    wanted = [{"path": f"/srv/f/{name}", "content": "[It's]\nü {}\n", "mode": "0640"} for name in names]
    two.enter("sh", "-c", "mkdir /srv/f; cd /srv/f; printf '[It%ss]\nü {}\n' \"'\" > as-it-should-be")
    two.enter("sh", "-c", "cd /srv/f; for name in other-mode other-owner; do cp as-it-should-be $name; done")
    two.enter(
        "sh", "-c", "cd /srv/f; : > other-content; chmod 640 *; chmod o+r other-mode; chown zmqmr other-owner"
    )
    before = two.enter("stat", "--format=%i", "/srv/f/as-it-should-be")
    options = ("-i", str(lab / "hosts.yml"), "-e", json.dumps({"host_files_wanted": wanted}))
    play = (their, tmp_path, "host_files", {"InstanceId": "two"}, *options)

    said = play_role(*play).output

    assert [name for name in names if f"changed: [two] => (item=/srv/f/{name})" in said] == list(names[1:])
    shown = two.enter("sh", "-c", "cd /srv/f; stat --format='%a %U:%G' *; md5sum * | cut -c-32 | uniq").split(
        "\n"
    )
    assert set(shown[:5]) == {"640 root:root"} and len(shown) == 6
    assert two.enter("stat", "--format=%i", "/srv/f/as-it-should-be") == before
    assert play_role(*play).changed == 0


def test_f48_a_service_is_restarted_for_a_change_that_a_killed_run_has_made_and_a_later_one_taken_back(
    their: Controller, lab: Path, tmp_path: Path
) -> None:
    """The worker has restarted by itself in between: it runs with what is not there any more."""
    two = their.bed.host(ADDRESSES["two"])
    unit = "/etc/systemd/system/zmqmr-worker.service"
    change = f"cp {unit} /srv/unit; echo '# changed' >> {unit}; systemctl restart zmqmr-worker"
    two.enter("sh", "-c", f"{change}; cp /srv/unit {unit}")
    before = state(their)
    play = (their, tmp_path, "zmqmr_service", {"InstanceId": "two"}, "-i", str(lab / "hosts.yml"))

    play_role(*play, zmqmr_service_name="worker")

    after = state(their)
    assert after["two"] != before["two"]
    assert play_role(*play, zmqmr_service_name="worker").changed == 0
    assert state(their) == after


def test_t19_a_rotation_killed_anywhere_and_run_again_leaves_all_that_live_connected(
    their: Controller, lab: Path
) -> None:
    task = random.SystemRandom().randrange(10, ROTATION_TASKS)
    before = state(their)
    process = their.start("playbooks/rotate_keys.yml", "-i", str(lab / "hosts.yml"))
    output_until(process, task=task)
    their.kill(process)

    write_inventory(lab, ADDRESSES | {"three": "172.31.200.3"})  # where nobody is
    played = their.play("playbooks/rotate_keys.yml", "-i", str(lab / "hosts.yml"), check=False)

    assert played.status != 0
    assert "The keys are exchanged, but three could not be reached and does without" in played.reason
    after = state(their)
    assert all(before[name] != after[name] for name in ADDRESSES), f"killed at task {task}"
    keys = ["--keys=/etc/zmqmr/keys", "--authorized-keys=/etc/zmqmr/authorized_keys"]
    workers = ["zmqmr", "workers", "--json", *keys]
    one = their.bed.host(ADDRESSES["one"])
    until(
        lambda: [each["state"] for each in json.loads(one.enter(*workers))] == ["ready"],
        f"the worker is not there; killed at task {task}",
    )
    their.run("zmqmr", "jobs", "--cluster", "lab")


def test_the_manuals_commands_for_such_hosts_were_run(their: Controller) -> None:
    commands = [command for command in manual() if is_of_other_hosts(command)]

    assert commands
    for command in commands:
        assert was_run(command, their.commands), f"no test runs: {command}"
