"""A cluster of a coordinator and two workers, and a client's directory that they cannot see."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from differential.conftest import make_text
from remote.cluster import RemoteCluster


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The client's own directory."""
    path = tmp_path / "mine"
    path.mkdir()
    return path


@pytest.fixture
def tell(tmp_path: Path) -> Path:
    """A directory that everybody sees, for what jobs tell the test."""
    path = tmp_path / "tell"
    path.mkdir()
    return path


@contextlib.contextmanager
def running(home: Path, hidden: list[Path]) -> Iterator[RemoteCluster]:
    cluster = RemoteCluster(home, hidden)
    try:
        cluster.start_coordinator()
        for name in ("ann", "bob"):
            cluster.start_worker(name)
        yield cluster
    finally:
        cluster.end()
    alive = [name for name in ("ann", "bob") if name not in cluster.killed]
    left = [path for name in alive for path in (cluster.home / name).rglob("*") if path.is_file()]
    left = [path for path in left if path.name != ".lock" and path.parent.name != "spools"]  # for --resume
    assert left == []


@pytest.fixture
def cluster(tmp_path: Path, mine: Path) -> Iterator[RemoteCluster]:
    """It runs. Afterwards everything has ended, and no worker that was not killed has left a file."""
    with running(tmp_path / "cluster", [mine]) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteCluster]:
    """The same for all tests that harm nobody; the client's directories are in `hidden`."""
    home, hidden = tmp_path_factory.mktemp("steady"), tmp_path_factory.mktemp("clients")
    with running(home, [hidden]) as cluster:
        yield cluster


@pytest.fixture
def ours(steady: RemoteCluster, tmp_path: Path) -> Path:
    """A client's own directory, which the steady cluster cannot see."""
    path = steady.hidden[0] / tmp_path.name
    path.mkdir()
    return path


@pytest.fixture
def text(ours: Path) -> Path:
    """About 20 KB of words, which the steady cluster cannot see."""
    path = ours / "words.txt"
    path.write_bytes(make_text(7, 20_000))
    return path
