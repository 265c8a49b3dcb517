"""T19: a key that is taken from authorized_keys is of no use at once; keys are exchanged while a job runs."""

import os
import shutil
import signal
from pathlib import Path

import zmq
from differential.harness import Result
from faults.nemesis import WORDS
from netns.services import Cluster, key_directory
from process.places import wait_until
from threats.peers import PATIENCE_MILLISECONDS, answer, connected, refused_at_the_gate

from zmqmr.messages import Attach, JobUnknown, ListWorkers, Refused, ToClient, WorkerList, decode, encode
from zmqmr.net.curve import load_keys
from zmqmr.net.gate import Refusal


def authorize(keys: Path, text: bytes) -> None:
    """Exchange the list as a tool does that never leaves half a file."""
    (keys / "authorized_keys.new").write_bytes(text)
    os.replace(keys / "authorized_keys.new", keys / "authorized_keys")


def without(keys: Path, role: str) -> bytes:
    """The list without the lines of a role."""
    lines = (keys / "authorized_keys").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(role.encode()))


def test_t19_a_revoked_client_is_refused_although_it_is_connected(cluster: Cluster, keys: Path) -> None:
    client = load_keys(str(keys), "client")
    with connected(cluster.endpoint, client) as socket:
        for expected in (JobUnknown, Refused):
            socket.send(encode(Attach("job")))
            assert socket.poll(PATIENCE_MILLISECONDS), cluster.story()
            assert isinstance(decode(socket.recv(), ToClient), expected)
            authorize(keys, without(keys, "client"))
    assert "does not know our key" in refused_at_the_gate(cluster.endpoint, client)


def test_t19_a_revoked_worker_ends_and_is_not_let_in_again(cluster: Cluster, keys: Path) -> None:
    own = load_keys(str(keys), "coordinator")
    authorize(keys, without(keys, "worker"))
    assert cluster.await_ended("w0") == 3
    assert "not authorized" in cluster.services["w0"].said()
    cluster.again("w0")
    assert cluster.await_ended("w0") == 3
    assert "does not know our key" in cluster.services["w0"].said()
    assert cluster.await_ended("w1") == 3
    wait_until(lambda: answer(cluster, own, ListWorkers()) == WorkerList(()), cluster.story)


def test_t19_whoever_has_the_old_key_of_the_coordinator_is_told_so(cluster: Cluster, keys: Path) -> None:
    (keys / "coordinator.pub").write_bytes(zmq.curve_keypair()[0])
    os.kill(cluster.services["w0"].pid(), signal.SIGTERM)
    assert cluster.await_ended("w0") == 0
    cluster.again("w0")
    assert cluster.await_ended("w0") == 3
    assert "has another key than the coordinator.pub that is given" in cluster.services["w0"].said()
    with connected(cluster.endpoint, load_keys(str(keys), "client")) as socket:
        refusal = Refusal(socket)
        wait_until(refusal.is_for_its_key, cluster.story)
        refusal.close()


def test_t19_a_list_that_is_gone_authorizes_nobody_until_it_is_back(cluster: Cluster, keys: Path) -> None:
    client = load_keys(str(keys), "client")
    text = (keys / "authorized_keys").read_bytes()
    (keys / "authorized_keys").unlink()
    assert "does not know our key" in refused_at_the_gate(cluster.endpoint, client)
    authorize(keys, text)
    assert isinstance(answer(cluster, client, Attach("job")), JobUnknown)


def test_t19_all_worker_and_client_keys_are_exchanged_while_a_job_runs(
    cluster: Cluster, keys: Path, words: Path, expected: Result, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(keys, old)
    new = key_directory(tmp_path / "new")
    added = without(new, "coordinator")

    job = cluster.submit(WORDS, [words], tmp_path / "out", ["--pause", "0.02"])
    wait_until(lambda: any(worker["needed"] for worker in cluster.workers().values()), cluster.story)
    retired = (keys / "authorized_keys").read_bytes().splitlines(keepends=True)
    authorize(keys, (keys / "authorized_keys").read_bytes() + added)  # old and new side by side
    for role in ("worker", "client"):
        for kind in ("secret", "pub"):
            os.replace(new / f"{role}.{kind}", keys / f"{role}.{kind}")
    for name in ("w0", "w1"):
        os.kill(cluster.services[name].pid(), signal.SIGTERM)
        assert cluster.await_ended(name) == 0
        cluster.again(name)
        cluster.await_workers(name)
    coordinator = [line for line in retired if line.startswith(b"coordinator")]
    job.assert_same_as(expected, cluster)  # its client's key is still authorized
    authorize(keys, b"".join(coordinator) + added)  # the old ones go

    (old / "authorized_keys").write_bytes((keys / "authorized_keys").read_bytes())
    for role in ("worker", "client"):
        assert "does not know our key" in refused_at_the_gate(cluster.endpoint, load_keys(str(old), role))
    again = cluster.submit(WORDS, [words], tmp_path / "again")
    again.assert_same_as(expected, cluster)
