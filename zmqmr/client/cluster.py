"""Clusters that this machine's user may use: a directory for each, written by the playbook that made it."""

import os
import re
from dataclasses import dataclass

import msgspec

from zmqmr.errors import UsageError
from zmqmr.net.curve import Keys, load_keys
from zmqmr.net.endpoints import check_endpoint, check_safe
from zmqmr.settings import Settings

CONTROL_PORT = 2681
STORE_PORT = 2682
FILE = "cluster.json"
IDENTITY, KNOWN_HOSTS = "id_ed25519", "known_hosts"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class ClusterFile(msgspec.Struct, frozen=True):
    """What cluster.json says."""

    name: str
    coordinator: str  # address or name of its host
    user: str = "ubuntu"
    port: int = 22  # of ssh
    region: str = ""  # of EC2; without it, ssh goes by its own user's settings where the files are missing
    control_port: int = CONTROL_PORT  # of the coordinator, as its own host sees it
    store_port: int = STORE_PORT


@dataclass(frozen=True)
class Cluster:
    """How to reach one cluster: by ssh, or, without `ssh`, at two endpoints."""

    name: str  # for people, and for --cluster
    control: str
    store: str
    keys: Keys | None
    directory: str = ""
    ssh: ClusterFile | None = None


def find_cluster(name: str, settings: Settings) -> Cluster:
    """The cluster that --cluster names: the name of one, or tcp://HOST:PORT of a coordinator whose store has
    the next port, or both endpoints with a comma between. UsageError says what is missing."""
    if "://" in name:
        return _at(name, settings)
    if not _NAME.fullmatch(name):
        raise UsageError(f"--cluster {name!r} is neither the name of a cluster nor tcp://HOST:PORT")
    directory = os.path.join(clusters_directory(), name)
    found = _read(os.path.join(directory, FILE), name)
    for file in (IDENTITY, KNOWN_HOSTS):
        path = os.path.join(directory, file)
        if found.region and not os.access(path, os.R_OK):
            raise UsageError(f"cannot read {path}; run the playbook of the cluster {name} again")
    return Cluster(name, "", "", load_keys(directory, "client"), directory, found)


def clusters_directory() -> str:
    """Where the clusters' directories are."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "zmqmr", "clusters")


def _at(name: str, settings: Settings) -> Cluster:
    control, _, store = name.partition(",")
    control = check_endpoint(control)
    if not store:
        address, _, port = control.rpartition(":")
        if not port.isdecimal() or int(port) > 65534:
            raise UsageError(f"--cluster {name}: give the store's endpoint too, after a comma")
        store = f"{address}:{int(port) + 1}"
    store = check_endpoint(store)
    keys = load_keys(settings.keys, "client") if settings.keys else None
    for endpoint in (control, store):
        try:
            check_safe(endpoint, keys is not None)
        except UsageError as error:
            raise UsageError(
                f"--cluster {name} is used with the cluster's keys: set ZMQMR_KEYS to the folder that has its"
                " coordinator.pub and client.secret, or give the cluster's name"
            ) from error
    return Cluster(name, control, store, keys)


def _read(path: str, name: str) -> ClusterFile:
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read(), type=ClusterFile)
    except FileNotFoundError:
        raise UsageError(f"no cluster {name} is known here{_others()}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"cannot read {path}: {error}; run the playbook of the cluster again") from error
    ports = (found.port, found.control_port, found.store_port)
    if not (_HOST.fullmatch(found.coordinator) and _USER.fullmatch(found.user)) or not all(
        0 < port < 65536 for port in ports
    ):
        raise UsageError(
            f"{path}: coordinator, user and port are not those of a host; run the playbook again"
        )
    return found


def _others() -> str:
    directory = clusters_directory()
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    except OSError:
        names = []
    if names:
        return f"; there are: {', '.join(names[:20])}"
    return f" ({directory} has none); the playbook cluster.yml makes one"
