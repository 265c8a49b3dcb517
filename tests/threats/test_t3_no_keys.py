"""T3: no socket is open to others without keys, by mistake or by option."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import plain_environ
from environment import ROOT
from netns.services import free_port

from zmqmr.net.endpoints import needs_keys

NET = ROOT / "zmqmr" / "net"


def zmqmr(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "zmqmr", *words]
    return subprocess.run(command, env=plain_environ(environ), capture_output=True, text=True, timeout=60)


def test_t3_every_function_that_makes_a_socket_for_an_endpoint_checks_it() -> None:
    makers = []
    for path in sorted(NET.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            names = {call.id for call in calls if isinstance(call, ast.Name)}
            attributes = {call.attr for call in calls if isinstance(call, ast.Attribute)}
            if "context.socket(" in ast.unparse(function):
                takes_endpoint = "endpoint" in {argument.arg for argument in function.args.args}
                makers.append((path.name, function.name))
                assert not takes_endpoint or names & {"check_safe", "_listen"}, function.name
            elif attributes & {"bind", "connect"} and path.name == "sockets.py":
                assert function.name in ("_listen", "_greeted"), function.name
    assert {name for file, name in makers if file == "sockets.py"} >= {
        "control_server",
        "control_client",
        "shuffle_server",
        "shuffle_client",
    }


@pytest.mark.parametrize("listen", ["tcp://0.0.0.0:{}", "tcp://*:{}", "tcp://[::]:{}", "tcp://10.9.8.7:{}"])
def test_t3_without_keys_a_coordinator_listens_on_loopback_only(listen: str, tmp_path: Path) -> None:
    place = ("--listen", listen.format(free_port()), "--state-directory", str(tmp_path / "state"))
    done = zmqmr("coordinator", *place)
    assert done.returncode == 2
    assert "needs keys" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "coordinator, listen",
    [("tcp://10.9.8.7:2681", "tcp://127.0.0.1:*"), ("tcp://127.0.0.1:2681", "tcp://10.9.8.7:2683")],
)
def test_t3_without_keys_a_worker_uses_loopback_only(coordinator: str, listen: str, tmp_path: Path) -> None:
    where = ("--coordinator", coordinator, "--listen", listen, "--directory", str(tmp_path / "data"))
    done = zmqmr("worker", *where)
    assert done.returncode == 2 and "needs keys" in done.stderr
    assert not (tmp_path / "data").exists()


def test_t3_a_secret_that_others_can_read_is_refused_by_name(keys: Path, tmp_path: Path) -> None:
    secret = keys / "coordinator.secret"
    secret.chmod(0o440)
    options = ("--listen", f"tcp://127.0.0.1:{free_port()}", "--state-directory", str(tmp_path / "state"))
    done = zmqmr("coordinator", *options, "--keys", str(keys))
    assert done.returncode == 2
    assert str(secret) in done.stderr and "0440" in done.stderr
    assert secret.read_text().strip() not in done.stderr


@pytest.mark.parametrize("missing", ["coordinator.secret", "authorized_keys"])
def test_t3_a_missing_file_of_keys_is_named(missing: str, keys: Path, tmp_path: Path) -> None:
    os.unlink(keys / missing)
    options = ("--listen", f"tcp://127.0.0.1:{free_port()}", "--state-directory", str(tmp_path / "state"))
    done = zmqmr("coordinator", *options, "--keys", str(keys))
    assert done.returncode == 2 and missing in done.stderr


@pytest.mark.parametrize(
    "endpoint, needed",
    [
        ("ipc:///tmp/x", False),
        ("tcp://127.0.0.1:1", False),
        ("tcp://127.1.2.3:1", False),
        ("tcp://localhost:1", False),
        ("tcp://[::1]:1", False),
        ("tcp://0.0.0.0:1", True),
        ("tcp://*:1", True),
        ("tcp://eth0:1", True),
        ("tcp://127.0.0.1.example.org:1", True),
        ("tcp://10.0.0.1;127.0.0.1:1", True),
    ],
)
def test_t3_what_others_may_reach_needs_keys(endpoint: str, needed: bool) -> None:
    assert needs_keys(endpoint) is needed
