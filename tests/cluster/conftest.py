"""One testbed and one cluster for all tests here: they follow each other as an operator's days do."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.jobs import MARK, start
from cluster.rights import asked_of, operators_rights
from differential.harness import Result, run_stock
from environment import ROOT
from testbed.bed import Testbed
from testbed.commands import CommandFailed, missing
from testbed.controller import Controller


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """A testbed without hosts, its fake EC2 running; gone afterwards, whatever happens. T11: what is asked of
    it the policy of docs/iam allows."""
    if reason := missing():
        pytest.skip(reason)
    bed = Testbed.new()
    try:
        bed.up()
        yield bed
        assert asked_of(bed) <= operators_rights()
    finally:
        bed.down()


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """The archive that the hosts get; made here, for no package index can be reached from the testbed."""
    command = [sys.executable, str(ROOT / "scripts/wheelhouse.py")]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="session")
def operator(bed: Testbed, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """The operator of the cluster `demo`, with a home of their own."""
    return Controller(bed, tmp_path_factory.mktemp("operator"), cache=wheelhouse.parent.parent)


@pytest.fixture(scope="session")
def cluster(operator: Controller) -> Controller:
    """The operator, once there is a cluster of one coordinator and three workers."""
    if not is_up(operator):  # a test of the start was not among those chosen, or has failed
        operator.play("cluster.yml", workers=3, ssh_from="172.31.0.0/16")
    return operator


HERE = ["-i", "inventory/cluster.aws_ec2.yml", "-i", "localhost,", "--limit=localhost"]


@pytest.fixture(scope="session")
def open_cluster(operator: Controller) -> Iterator[Controller]:
    """The operator of another one, of one coordinator and two workers, reached at their public addresses. At
    first only EC2's part is made."""
    theirs = Controller(operator.bed, operator.home, operator.cache, name="open", ssh_address="public")
    try:
        theirs.play("cluster.yml", *HERE, workers=2, ssh_from="172.31.0.0/16")
        yield theirs
    finally:
        names = [instance["InstanceId"] for instance in theirs.instances()]
        with theirs.bed.network.inside():
            theirs.client("ec2").terminate_instances(InstanceIds=names)


def is_up(operator: Controller) -> bool:
    try:
        return len(operator.workers()) == 3
    except (CommandFailed, ValueError):
        return False


@pytest.fixture(scope="session")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for a dozen tasks."""
    path = tmp_path_factory.mktemp("input") / "lines.txt"
    path.write_text("".join(f"w{n % 17} v{n % 5} {MARK}{n % 3} {'x' * (n % 7)}\n" for n in range(1500)))
    return path


@pytest.fixture(scope="session")
def expected(lines: Path) -> Result:
    return run_stock("noted_words", inputs=[lines])


@pytest.fixture(scope="session")
def undisturbed(cluster: Controller, lines: Path) -> Result:
    return start(cluster, lines).end()
