"""T1: whoever reaches a port can do nothing without a key, and with a key nothing but what its role may."""

import os
from pathlib import Path

import pytest
from faults.nemesis import WORDS
from netns.services import Cluster, free_port, key_directory
from threats.peers import answer, refused_at_the_gate

from zmqmr import __version__
from zmqmr.errors import UsageError
from zmqmr.messages import (
    Attach,
    Cancel,
    Drain,
    Heartbeat,
    JobUnknown,
    ListWorkers,
    Refused,
    Register,
    WorkerList,
)
from zmqmr.net import gate
from zmqmr.net.curve import load_keys
from zmqmr.net.gate import Gate
from zmqmr.net.sockets import PATIENCE, context, control_server, shuffle_client, worker_identity
from zmqmr.settings import Settings

REGISTER = Register("intruder", 1, "host", 1, 1, "tcp://127.0.0.1:1", __version__)


def test_t1_without_keys_or_with_unknown_ones_nobody_gets_a_connection(
    cluster: Cluster, keys: Path, tmp_path: Path
) -> None:
    stranger = key_directory(tmp_path / "stranger")
    (stranger / "coordinator.pub").write_bytes((keys / "coordinator.pub").read_bytes())
    assert "does not know our key" in refused_at_the_gate(
        cluster.endpoint, load_keys(str(stranger), "client")
    )
    assert "keys" in refused_at_the_gate(cluster.endpoint, None)
    assert "is not authorized for the control socket" in cluster.services["coordinator"].said()


def test_t1_a_client_that_is_unknown_submits_nothing(
    cluster: Cluster, words: Path, keys: Path, tmp_path: Path
) -> None:
    stranger = key_directory(tmp_path / "stranger")
    (stranger / "coordinator.pub").write_bytes((keys / "coordinator.pub").read_bytes())
    ended = cluster.submit(WORDS, [words], tmp_path / "out", keys=stranger).end()
    assert ended["state"] == "refused"
    assert os.listdir(tmp_path / "out") == []


def test_t1_each_role_says_what_it_may_and_nothing_else(cluster: Cluster, keys: Path) -> None:
    client, worker, own = (load_keys(str(keys), role) for role in ("client", "worker", "coordinator"))
    identity = worker_identity("intruder", 1)

    for keys_of, message in (
        (client, REGISTER),
        (client, Heartbeat(1)),
        (client, Drain("w0")),
        (worker, Attach("job")),
        (worker, Cancel("job")),
        (worker, ListWorkers()),
        (own, REGISTER),
        (own, Attach("job")),
    ):
        name = identity if isinstance(message, Register | Heartbeat) else b""
        said = answer(cluster, keys_of, message, name)
        assert isinstance(said, Refused) and "not authorized" in said.reason, (keys_of.role, message)

    assert isinstance(answer(cluster, client, Attach("job")), JobUnknown)
    assert isinstance(answer(cluster, client, ListWorkers()), WorkerList)
    listed = answer(cluster, own, ListWorkers())
    assert [worker.name for worker in listed.workers] == ["w0", "w1"]
    assert "may not send Register" in cluster.services["coordinator"].said()


def test_t1_a_client_key_gets_no_connection_to_a_worker(cluster: Cluster, keys: Path) -> None:
    endpoint = next(iter(cluster.workers().values()))["shuffle"]
    zmq_context = context()
    try:
        with pytest.raises(Exception, match="refuses this worker's key"):
            shuffle_client(zmq_context, endpoint, 16, 1024, load_keys(str(keys), "client"), PATIENCE)
    finally:
        zmq_context.term()
    shuffle_context = context()
    shuffle_client(shuffle_context, endpoint, 16, 1024, load_keys(str(keys), "worker"), PATIENCE).close()
    shuffle_context.term()


def test_t1_a_coordinator_whose_gate_lets_strangers_in_does_not_start(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate._Domain, "callback", lambda self, domain, key: True)
    zmq_context = context()
    opened = Gate(zmq_context, load_keys(str(keys), "coordinator"))
    try:
        with pytest.raises(UsageError, match="was let in"):
            control_server(zmq_context, f"tcp://127.0.0.1:{free_port()}", Settings(), opened)
    finally:
        opened.close()
        zmq_context.term()
