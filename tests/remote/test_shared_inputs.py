"""--shared-inputs: the workers read the inputs themselves, under the paths that the client gives."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from differential.harness import run_stock
from remote.cluster import RemoteCluster

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that everybody sees who is not kept from it."""
    path = tmp_path / "shared"
    (path / "below").mkdir(parents=True)
    (path / "one.txt").write_text("".join(f"w{number % 7} a\n" for number in range(3000)))
    (path / "below" / "two.gz").write_bytes(gzip.compress(b"b c\n" * 500))
    (path / "below" / ".hidden").write_text("h\n")
    (path / "below" / "empty").touch()
    return path


@pytest.fixture
def half_blind(tmp_path: Path, shared: Path) -> Iterator[RemoteCluster]:
    """Worker ann sees the shared directory, bob does not."""
    cluster = RemoteCluster(tmp_path / "cluster", [])
    try:
        cluster.start_coordinator()
        cluster.start_worker("ann")
        cluster.start_worker("bob", hides=[shared])
        yield cluster
    finally:
        cluster.end()


def test_inputs_that_the_workers_see_are_not_pushed(steady, shared):
    result = steady.run("word_count", "--shared-inputs", shared)

    stock = run_stock("word_count", inputs=[shared / "one.txt", *sorted((shared / "below").iterdir())])
    assert result.rc == 0, result.stderr
    assert (result.lines, result.counters) == (stock.lines, stock.counters)
    assert "input file" not in result.stderr
    assert steady.stored() == []


def test_a_worker_that_does_not_see_an_input_is_named_with_its_path(half_blind, shared):
    path = shared / "one.txt"

    result = half_blind.run("word_count", "--shared-inputs", path)

    assert result.rc == 1
    assert "(worker bob), in step 1 of 1" in result.stderr
    assert f"{path} is gone" in result.stderr
    assert "check that every worker sees the same files under the same paths" in result.stderr
    assert half_blind.stored() == []


def test_standard_input_cannot_be_shared(steady):
    result = steady.run("word_count", "--shared-inputs", stdin=b"a\n")

    assert result.rc == 2
    assert "no worker can read this standard input" in result.stderr
