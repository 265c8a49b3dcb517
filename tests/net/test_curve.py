"""Keys: their files, and the list of those that may connect."""

import os
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.errors import UsageError
from zmqmr.net.curve import AuthorizedKeys, load_keys, make_keys
from zmqmr.net.endpoints import ROLES

KEY = b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # the one of ZeroMQ's manual


def test_keys_that_are_made_can_be_loaded_by_each_role(tmp_path: Path) -> None:
    make_keys(str(tmp_path), ROLES)
    for role in ROLES:
        keys = load_keys(str(tmp_path), role)
        assert keys.public == zmq.curve_public(keys.secret) == (tmp_path / f"{role}.pub").read_bytes().strip()
        assert keys.authorized.roles(keys.public) == {role}
        assert (tmp_path / f"{role}.secret").stat().st_mode & 0o777 == 0o400
        assert keys.candidates(role) == [keys.public]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    make_keys(str(tmp_path), ("client",))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"client\.secret is there already"):
        make_keys(str(tmp_path), ("worker", "client"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_second_role_is_added_to_the_list(tmp_path: Path) -> None:
    make_keys(str(tmp_path), ("client",))
    make_keys(str(tmp_path), ("worker",))
    listed = (tmp_path / "authorized_keys").read_text().splitlines()
    assert [line.split()[0] for line in listed] == ["client", "worker"]


@pytest.mark.parametrize("text", [b"", b"short", KEY + b"x", b"\xff" * 40, b"~" * 40, b"#" * 40])
def test_what_is_no_key_is_refused_by_the_name_of_its_file(text: bytes, tmp_path: Path) -> None:
    make_keys(str(tmp_path), ("worker",))
    (tmp_path / "worker.secret").chmod(0o600)
    (tmp_path / "worker.secret").write_bytes(text)
    with pytest.raises(UsageError, match=r"worker\.secret is not a key"):
        load_keys(str(tmp_path), "worker")


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o420])
def test_a_secret_of_others_is_refused(mode: int, tmp_path: Path) -> None:
    make_keys(str(tmp_path), ("worker",))
    (tmp_path / "worker.secret").chmod(mode)
    with pytest.raises(UsageError, match=f"{mode:04o}"):
        load_keys(str(tmp_path), "worker")


def test_systemd_may_show_a_credential_to_the_group_but_not_to_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(str(tmp_path), ("worker",))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "worker.secret").chmod(0o440)
    assert load_keys(str(tmp_path), "worker").role == "worker"
    (tmp_path / "worker.secret").chmod(0o444)
    with pytest.raises(UsageError):
        load_keys(str(tmp_path), "worker")


def test_the_list_is_read_again_when_it_changes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"# people\n\nclient " + KEY + b" ada@example\nworker " + KEY + b"\n")
    listed = AuthorizedKeys(str(path))
    assert listed.roles(KEY) == {"client", "worker"}
    path.write_bytes(b"client " + KEY + b"\nking " + KEY + b"\nclient nonsense\n")
    assert listed.roles(KEY) == {"client"}
    assert "line 3" in capfd.readouterr().err
    path.unlink()
    assert listed.roles(KEY) == frozenset()
    assert "nobody may connect" in capfd.readouterr().err
    path.write_bytes(b"worker " + KEY)
    assert listed.roles(KEY) == {"worker"} and listed.keys_of("worker") == [KEY]


@given(text=st.binary(max_size=300))
def test_no_text_of_the_list_authorizes_a_key_that_it_does_not_name(
    text: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "authorized_keys"
    path.write_bytes(text)
    os.utime(path, ns=(1, hash(text) & 0xFFFF))
    assert AuthorizedKeys(str(path)).roles(KEY) == frozenset()
