"""CURVE keys: their files, who may use which socket, and what a key may say.

A directory of keys holds ROLE.pub for every role that this process meets, ROLE.secret for its own, and
`authorized_keys` with lines `ROLE PUBLICKEY [comment]`. Keys are 40 characters of Z85.
"""

import os
import stat
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from zmqmr.errors import UsageError
from zmqmr.net.endpoints import ROLES

AUTHORIZED = "authorized_keys"
_KEY_CHARACTERS = 40
_LARGEST_FILE = 1024**2  # bytes of a key file or of authorized_keys that are read


@dataclass(frozen=True)
class Keys:
    """The keys of one process. Nothing that shows an object shows its secret."""

    role: str
    directory: str
    public: bytes
    secret: bytes = field(repr=False)
    authorized: "AuthorizedKeys"

    def of(self, role: str) -> bytes:
        """The public key of the peers of a role, read anew: it may have been exchanged. UsageError when
        there is none."""
        return _read_key(os.path.join(self.directory, f"{role}.pub"))

    def candidates(self, role: str) -> list[bytes]:
        """The keys that a server of a role may have: that of its file first, then, while keys are being
        exchanged, the others that are authorized."""
        first = self.of(role)
        return [first, *(key for key in self.authorized.keys_of(role) if key != first)]


class AuthorizedKeys:
    """Who may connect. The file is read again whenever it changes; one that cannot be read authorizes
    nobody."""

    def __init__(self, path: str):
        """UsageError when there is no such file now."""
        self.path = path
        self._roles: dict[bytes, frozenset[str]] = {}
        self._identity: object = None
        self._said: object = None
        try:
            os.stat(path)
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}; it lists who may connect, one line for each key:"
                " ROLE PUBLICKEY"
            ) from error

    def roles(self, key: bytes) -> frozenset[str]:
        """The roles of a public key; empty for a stranger, and from the moment that its line is gone."""
        self._refresh()
        return self._roles.get(key, frozenset())

    def keys_of(self, role: str) -> list[bytes]:
        """The keys with a role, in the order of the file."""
        self._refresh()
        return [key for key, roles in self._roles.items() if role in roles]

    def _refresh(self) -> None:
        try:
            found = os.stat(self.path)
            identity = found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns
            if identity == self._identity:
                return
            with open(self.path, "rb") as file:
                self._roles = self._parse(file.read(_LARGEST_FILE))
            self._identity = identity
        except OSError as error:
            self._roles, self._identity = {}, None
            self._say(f"cannot read {self.path}: {error.strerror}; nobody may connect until it is there")

    def _parse(self, text: bytes) -> dict[bytes, frozenset[str]]:
        roles: dict[bytes, frozenset[str]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith(b"#"):
                continue
            role = words[0].decode("utf-8", "replace")
            if role not in ROLES or len(words) < 2 or not _is_key(words[1]):
                self._say(f"{self.path}: line {number} is not ROLE PUBLICKEY; it authorizes nobody")
                continue
            roles[words[1]] = roles.get(words[1], frozenset()) | {role}
        return roles

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            print(f"zmqmr: {text}", file=sys.stderr, flush=True)


def make_keys(directory: str, roles: Sequence[str]) -> list[str]:
    """Make a pair of keys for each role: ROLE.secret, which its owner alone may read, ROLE.pub, and a line
    of authorized_keys. The paths written. UsageError, with nothing written, when one of them is there
    already."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    paths = [os.path.join(directory, f"{role}.{kind}") for role in roles for kind in ("secret", "pub")]
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(
                f"{path} is there already and is not replaced; give another directory, or remove it"
            )
    try:
        for role in roles:
            public, secret = _new_pair()
            _write_key(os.path.join(directory, f"{role}.secret"), secret, 0o400)
            _write_key(os.path.join(directory, f"{role}.pub"), public, 0o644)
            with open(os.path.join(directory, AUTHORIZED), "ab") as file:
                file.write(role.encode() + b" " + public + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write the keys into {directory}: {error.strerror}") from error
    return paths


def load_keys(directory: str, role: str, authorized: str = "") -> Keys:
    """The keys of a process of `role`. `authorized`: the path of authorized_keys; empty: in `directory`.

    UsageError when a file is missing, is no key, or holds a secret that others can read.
    """
    path = os.path.join(directory, f"{role}.secret")
    secret = _read_key(path, private=True)
    public = zmq.curve_public(secret)
    authorized = authorized or os.path.join(directory, AUTHORIZED)
    if role == "client" and not os.path.exists(authorized):
        authorized = os.devnull  # nobody connects to a client
    return Keys(role, directory, public, secret, AuthorizedKeys(authorized))


def _new_pair() -> tuple[bytes, bytes]:
    """A public and a secret key, in neither of which a template language would see a directive."""
    while True:
        pair: tuple[bytes, bytes] = zmq.curve_keypair()
        if not any(sign in key for key in pair for sign in (b"{{", b"{%", b"{#")):
            return pair


def _write_key(path: str, key: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")


def _read_key(path: str, private: bool = False) -> bytes:
    try:
        with open(path, "rb") as file:
            if private:
                _check_private(path, os.fstat(file.fileno()))
            key = file.read(_LARGEST_FILE).strip()
    except OSError as error:
        raise UsageError(
            f"cannot read the key {path}: {error.strerror}; make keys with: zmqmr keygen DIR"
        ) from error
    if not _is_key(key):
        raise UsageError(f"{path} is not a key of 40 characters; make keys with: zmqmr keygen DIR")
    return key


def _check_private(path: str, found: os.stat_result) -> None:
    """systemd may let a unit's user read a credential by an access list, which shows as the group's bits."""
    others = stat.S_IRWXO if _is_credential(path) else stat.S_IRWXG | stat.S_IRWXO
    if found.st_mode & others:
        raise UsageError(
            f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o});"
            f" make it private with: chmod 0400 {path}, or make new keys"
        )


def _is_credential(path: str) -> bool:
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return bool(directory) and os.path.realpath(os.path.dirname(path)) == os.path.realpath(directory)


def _is_key(key: bytes) -> bool:
    """Whether libzmq would take it for a key."""
    try:
        return len(key) == _KEY_CHARACTERS and bool(z85.decode(key))
    except (KeyError, struct.error):  # another character; a value of more than 32 bits
        return False
