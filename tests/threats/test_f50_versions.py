"""F50: what does not fit together is refused by name of both sides, and the others go on."""

from pathlib import Path

import mrjob
import msgspec
from differential.harness import Result
from faults.nemesis import WORDS
from netns.services import Cluster
from threats.peers import answer

from zmqmr import __version__
from zmqmr.messages import PROTOCOL, Refused, Register
from zmqmr.net.curve import load_keys
from zmqmr.net.sockets import worker_identity

OTHER = Register("old", 1, "old-host", 1, 1, "tcp://127.0.0.1:1", "9.9", PROTOCOL + 1)
IDENTITY = worker_identity("old", 1)


def test_f50_a_worker_of_another_protocol_is_refused_and_both_sides_are_named(
    cluster: Cluster, keys: Path, words: Path, expected: Result, tmp_path: Path
) -> None:
    worker = load_keys(str(keys), "worker")
    of_the_future = msgspec.to_builtins(OTHER) | {"type": "Register", "invented": [1, 2]}
    for first in (OTHER, msgspec.msgpack.encode(of_the_future)):
        said = answer(cluster, worker, first, IDENTITY)
        assert isinstance(said, Refused)
        for part in (
            "worker old on old-host",
            "9.9",
            f"protocol {PROTOCOL + 1}",
            "coordinator on",
            __version__,
        ):
            assert part in said.reason, said.reason
    assert set(cluster.workers()) == {"w0", "w1"}
    cluster.submit(WORDS, [words], tmp_path / "out").assert_same_as(expected, cluster)


def test_f50_a_client_or_worker_with_another_mrjob_is_refused(
    cluster: Cluster, keys: Path, words: Path, tmp_path: Path
) -> None:
    ended = cluster.submit(WORDS, [words], tmp_path / "out", versions={"mrjob": "0.6.12"}).end()
    assert ended["state"] == "refused"
    assert "client on client-host has mrjob 0.6.12" in ended["reason"]
    assert f"has mrjob {mrjob.__version__}" in ended["reason"]
    register = msgspec.structs.replace(OTHER, protocol=PROTOCOL, mrjob="0.6.12")
    said = answer(cluster, load_keys(str(keys), "worker"), register, IDENTITY)
    assert isinstance(said, Refused) and "worker old on old-host has mrjob 0.6.12" in said.reason


def test_f50_another_python_is_a_warning(
    cluster: Cluster, words: Path, expected: Result, tmp_path: Path
) -> None:
    job = cluster.submit(WORDS, [words], tmp_path / "out", versions={"python": "3.1.4"})
    ended = job.assert_same_as(expected, cluster)
    (notice,) = ended["notices"]
    assert "this is Python 3.1.4, worker w0 and 1 more has 3." in notice
