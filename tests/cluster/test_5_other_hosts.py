"""The same plays on hosts that are not on EC2, from the inventory that the project shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster.jobs import JOB, same
from differential.harness import Result
from environment import ROOT
from testbed.bed import Testbed
from testbed.commands import run
from testbed.controller import Controller
from testbed.hosts import Host

pytestmark = pytest.mark.timeout(900)

ADDRESSES = {"one": "172.31.200.1", "two": "172.31.200.2"}
FILES = ("id_ed25519", "known_hosts")


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
        write_inventory(folder)
        yield folder
    finally:
        for host in hosts:
            host.remove()


def write_inventory(folder: Path) -> None:
    """The project's example with the addresses of these hosts, and how this operator reaches them."""
    inventory = yaml.safe_load((ROOT / "inventory/hosts.example.yml").read_text())
    zmqmr = inventory["zmqmr"]
    for group in zmqmr["children"].values():
        group["hosts"] = {
            name: {"ansible_host": ADDRESSES[name], "zmqmr_address": ADDRESSES[name]}
            for name in group["hosts"]
            if name in ADDRESSES
        }
    zmqmr["vars"] |= {
        "ansible_ssh_private_key_file": str(folder / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=yes",
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))


def test_a_cluster_of_hosts_that_are_not_on_ec2_runs_a_job(
    operator: Controller, lab: Path, lines: Path, expected: Result
) -> None:
    their = Controller(operator.bed, operator.home, operator.cache, name="lab")
    their.commands = operator.commands
    # Nothing of AWS is at hand.
    their.changes = {name: "" for name in their.environment() if name.startswith("AWS_")}

    played = their.play("cluster.yml", "-i", str(lab / "hosts.yml"))

    assert "Cluster lab is up: 1 workers" in played.reason
    for name in FILES:  # or the settings of ssh's user
        (their.directory / name).write_bytes((lab / name).read_bytes())
        (their.directory / name).chmod(0o400)
    command = ["zmqmr-run", str(JOB), "--cluster", "lab", "--no-conf", str(lines)]
    done = their.run(*command)
    same(Result(done.returncode, done.stdout.encode(), done.stderr), expected)
    two = operator.bed.host(ADDRESSES["two"])
    assert two.enter("stat", "--format=%U %a", "/srv/zmqmr") == "zmqmr 700"
