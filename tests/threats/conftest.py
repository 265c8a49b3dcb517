"""A cluster on the loopback interface, with keys, and an input whose words are on the wire nowhere else."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from differential.harness import Result
from faults.nemesis import FaultPlace, oracle, some_words
from netns.services import QUICK, Cluster, Host, free_port, key_directory

HERE = Host("here")
MARKER = "quetzalcoatlus"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Keys of all roles."""
    return key_directory(tmp_path)


@pytest.fixture
def cluster(tmp_path: Path, keys: Path) -> Iterator[Cluster]:
    """A coordinator and two workers with keys."""
    yield from running_cluster(tmp_path, keys)


def running_cluster(
    tmp_path: Path, keys: Path | None, workers: int = 2, settings: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """Coordinator and workers on this host; ended in order after the test."""
    notes = tmp_path / "notes"
    notes.mkdir()
    with TemporaryDirectory() as folder:
        cluster = Cluster(FaultPlace(Path(folder), notes), keys, QUICK | (settings or {}))
        try:
            cluster.start_coordinator(HERE, free_port())
            names = [f"w{number}" for number in range(workers)]
            for name in names:
                cluster.start_worker(name, HERE, "*")
            cluster.await_workers(*names)
            yield cluster
            cluster.stop()
        finally:
            cluster.kill()


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 10 KB of words, enough for a dozen map tasks."""
    path = tmp_path_factory.mktemp("threats") / "words.txt"
    path.write_text(some_words(320, MARKER))
    return path


@pytest.fixture(scope="session")
def expected(words: Path) -> Result:
    """What mrjob's inline runner makes of `words`."""
    return oracle([words])
