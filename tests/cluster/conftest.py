"""One testbed and one cluster for all tests here: they follow each other as an operator's days do."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster.jobs import MARK, start
from cluster.mistakes import GOOD, MISTAKES, REFUSAL, leave_foreign_names
from differential.harness import Result, run_stock
from environment import ROOT
from testbed.bed import Testbed
from testbed.commands import CommandFailed, missing
from testbed.controller import Controller, Played


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """A testbed without hosts, its fake EC2 running; gone afterwards, whatever happens."""
    if reason := missing():
        pytest.skip(reason)
    bed = Testbed.new()
    try:
        bed.up()
        yield bed
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


@pytest.fixture(scope="session")
def newcomer(operator: Controller, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """Another operator, who has no cluster yet."""
    return Controller(operator.bed, tmp_path_factory.mktemp("newcomer"), operator.cache, name="fresh")


@pytest.fixture(scope="session")
def mistakes(newcomer: Controller) -> Iterator[list[Future[Played]]]:
    """What comes of each of MISTAKES. They change nothing: they are made side by side, and while other tests
    wait for hosts."""

    def make(variables: dict[str, object], environment: dict[str, str]) -> Played:
        operator = Controller(newcomer.bed, newcomer.home, newcomer.cache, name=newcomer.name)
        operator.changes = environment
        # There is nothing that the inventory could find, and it takes its time.
        return operator.play("cluster.yml", "-i", "localhost,", check=False, **{**GOOD, **variables})

    with newcomer.bed.network.inside():
        leave_foreign_names(newcomer.client("iam"), "foreign")
    quota = newcomer.bed.refusing("RunInstances", "VcpuLimitExceeded", "You have none.", where="zmqmr-quota")
    rights = newcomer.bed.refusing("RunInstances", "UnauthorizedOperation", REFUSAL, where="'rightless'")
    refusal = "User is not authorized to perform: iam:CreateRole"
    denied = newcomer.bed.refusing("CreateRole", "AccessDenied", refusal, where="zmqmr-denied")
    with quota, rights, denied, ThreadPoolExecutor(3) as pool:
        yield [pool.submit(make, variables, environment) for variables, environment, _ in MISTAKES]
