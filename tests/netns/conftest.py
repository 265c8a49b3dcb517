"""A cluster of one coordinator, three workers and a client, each on a host of its own, with keys."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from differential.harness import Result
from faults.nemesis import WORDS, FaultPlace, oracle, some_words
from netns.network import Network, network
from netns.services import Cluster, Submitted, key_directory

WORKERS = ("w0", "w1", "w2")


@pytest.fixture(scope="session")
def wires() -> Iterator[Network]:
    """The hosts of all tests of this folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can make network namespaces")
    missing = [tool for tool in ("ip", "tc", "nsenter", "unshare") if shutil.which(tool) is None]
    assert not missing, f"install {missing}; on Debian: apt-get install iproute2 util-linux"
    with network("coordinator", *WORKERS, "client") as wires:
        yield wires


@dataclass
class Ring:
    """A running cluster on its hosts, and the job that runs on it."""

    wires: Network
    cluster: Cluster
    words: Path
    place: FaultPlace

    def submit(self, *args: str, **options: object) -> Submitted:
        """Submit the word count from the client's host."""
        host = self.wires.hosts["client"]
        tell = ("--tell", str(self.place.notes))
        output = self.place.notes / "out"
        return self.cluster.submit(  # type: ignore[arg-type]
            WORDS, [self.words], output, (*tell, *args), host=host, **options
        )

    def executions(self, kind: str = "") -> list[str]:
        """The attempts that began, in order: attempt ids of mrjob. `kind`: mapper or reducer."""
        return [attempt for attempt, _ in self.processes(kind)]

    def processes(self, kind: str = "") -> list[tuple[str, int]]:
        """Those, each with its process."""
        path = self.place.notes / "executions"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(words[1], int(words[2])) for words in map(str.split, lines) if words[0].startswith(kind)]


@pytest.fixture
def ring(wires: Network, tmp_path: Path, words: Path, request: pytest.FixtureRequest) -> Iterator[Ring]:
    """Coordinator and workers, ended in order after the test; nothing may be left then. The parameter, if
    there is one: settings beside the usual."""
    notes = tmp_path / "notes"
    notes.mkdir()
    keys = key_directory(tmp_path)
    with TemporaryDirectory() as folder:
        place = FaultPlace(Path(folder), notes)
        cluster = Cluster(place, keys)
        cluster.settings |= getattr(request, "param", {})
        try:
            cluster.start_coordinator(wires.hosts["coordinator"])
            for name in WORKERS:
                cluster.start_worker(name, wires.hosts[name])
            cluster.await_workers(*WORKERS)
            yield Ring(wires, cluster, words, place)
            cluster.stop()
            assert not place.processes()
            left = [path for name in WORKERS for path in (Path(folder) / name).rglob("*") if path.is_file()]
            # A worker that was given up keeps its spools for when it is started again.
            assert [path for path in left if path.name != ".lock" and path.parent.name != "spools"] == []
        finally:
            cluster.kill()


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 10 KB of words, enough for a dozen map tasks."""
    path = tmp_path_factory.mktemp("netns") / "words.txt"
    path.write_text(some_words(640))
    return path


@pytest.fixture(scope="session")
def expected(words: Path) -> Result:
    """What mrjob's inline runner makes of `words`."""
    return oracle([words])
