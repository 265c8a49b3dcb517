"""T5: a flood of connections costs a bounded amount of memory and of descriptors, and stops no job."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from differential.harness import Result
from faults.nemesis import WORDS, memory_bytes
from netns.services import Cluster
from process.places import wait_until
from threats.conftest import running_cluster
from threats.test_t4_garbage import GREETING, address_of

MAX_PEERS = 200
FLOOD = 5000
MOST_MORE_BYTES = 64 * 1024**2
MOST_DESCRIPTORS = MAX_PEERS + 1000


@pytest.fixture
def bounded(tmp_path: Path, keys: Path) -> Iterator[Cluster]:
    """A cluster whose ports take few peers."""
    yield from running_cluster(tmp_path, keys, settings={"ZMQMR_MAX_PEERS": str(MAX_PEERS)})


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def flood(address: tuple[str, int], stack: ExitStack) -> int:
    """Open connections and leave them open; how many were taken."""
    taken = 0
    for number in range(FLOOD):
        peer = stack.enter_context(socket.socket())
        peer.setblocking(False)
        peer.connect_ex(address)
        if number % 100 == 99:
            time.sleep(0.01)
        try:
            peer.send(GREETING[: number % 64])
            taken += 1
        except OSError:
            peer.close()
    return taken


@pytest.mark.parametrize("whose", ["coordinator", "w0"])
def test_t5_a_flood_of_connections_is_bounded_and_stops_no_job(
    whose: str, bounded: Cluster, words: Path, expected: Result, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FLOOD + 1000), hard))
    pid = bounded.services[whose].pid()
    shuffle = bounded.workers()["w0"]["shuffle"]
    address = address_of(bounded.endpoint if whose == "coordinator" else shuffle)
    before = memory_bytes(pid)
    job = bounded.submit(WORDS, [words], tmp_path / "out", ["--pause", "0.005"])
    wait_until(lambda: any((tmp_path / "out").iterdir()) or bounded.workers()["w0"]["needed"])
    try:
        with ExitStack() as stack:
            flood(address, stack)
            assert descriptors(pid) < MOST_DESCRIPTORS
            assert memory_bytes(pid) - before < MOST_MORE_BYTES
            assert "no more are taken" in bounded.services[whose].said()
            if whose == "coordinator":
                job.assert_same_as(expected, bounded)  # those that are in stay in
        wait_until(lambda: descriptors(pid) < MAX_PEERS, bounded.story)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if whose != "coordinator":
        job.assert_same_as(expected, bounded)
    assert set(bounded.workers()) == {"w0", "w1"}  # the port is open again
