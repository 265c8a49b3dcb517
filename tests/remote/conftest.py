"""A cluster of a coordinator and two workers, and a client's directory that they cannot see."""

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


@pytest.fixture
def cluster(tmp_path: Path, mine: Path) -> Iterator[RemoteCluster]:
    """It runs. Afterwards everything has ended, and no worker has left a file."""
    cluster = RemoteCluster(tmp_path / "cluster", [mine])
    try:
        cluster.start_coordinator()
        for name in ("ann", "bob"):
            cluster.start_worker(name)
        yield cluster
    finally:
        cluster.end()
    alive = [name for name in ("ann", "bob") if name not in cluster.killed]
    left = [path for name in alive for path in (cluster.home / name).rglob("*") if path.is_file()]
    assert [path.name for path in left if path.name != ".lock"] == []


@pytest.fixture
def text(mine: Path) -> Path:
    """About 20 KB of words, which the cluster cannot see."""
    path = mine / "words.txt"
    path.write_bytes(make_text(7, 20_000))
    return path
