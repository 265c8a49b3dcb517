"""What tasks run in, as far as it may change what they yield: a part of the content keys of their spools."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from sysconfig import get_path

import mrjob

from zmqmr import __version__
from zmqmr.data.jobfile import SAFE_PATH

# Variables that differ from one terminal, login or start of a service to the next, and say nothing to a job.
OF_THE_TERMINAL = {"_", "COLUMNS", "LINES", "LS_COLORS", "OLDPWD", "PWD", "SHLVL", "TERM", "TMPDIR"}
OF_THE_SERVICE = ("CREDENTIALS_DIRECTORY", "MEMORY_PRESSURE_", "NOTIFY_SOCKET", "SYSTEMD_", "WATCHDOG_")
OF_THE_SESSION = ("DBUS_", "GPG_", "INVOCATION_ID", "JOURNAL_", "PYTEST_", "SSH_", "XDG_", "ZMQMR_")
OWN_MODULES = 2000  # of each directory that is looked through
# An interpreter's version, two places of installed libraries, and where it imports from; paths hold no NUL.
_SELF = """import sys; from sysconfig import get_path
print("\\0".join([sys.version, get_path("stdlib"), get_path("purelib"), *sys.path]), end="")"""
_SELF_SECONDS = 10.0  # for an interpreter to say it


def surroundings(task_python: Sequence[str] = ()) -> str:
    """The versions of what runs the tasks, the variables that they inherit, the state of their libraries.

    `task_python`: the command of the interpreter that runs the tasks; () is this one.
    """
    inherited = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name not in OF_THE_TERMINAL and not name.startswith(OF_THE_SESSION + OF_THE_SERVICE)
    ]
    versions = f"mrjob {mrjob.__version__} zmqmr {__version__}"
    return "\n".join([versions, *inherited, *_interpreter(task_python)])


def _interpreter(command: Sequence[str]) -> Iterator[str]:
    """Its version, what tells that a package was installed or removed, and that a module was changed which is
    not one of a package: one on PYTHONPATH, or of a project that is installed where it is edited."""
    said = _ask(command) if command else [sys.version, *map(get_path, ("stdlib", "purelib")), *_libraries()]
    if said is None:
        yield f"{command} does not run"  # its tasks will fail, and say why
        return
    version, *installed = said[:3]
    yield version
    for path in filter(None, said[3:]):
        with suppress(OSError):
            yield f"{path} {os.stat(path).st_mtime_ns}"
        if any(path == place or path.startswith(place + os.sep) for place in installed):
            continue
        for name in islice(_modules(path), OWN_MODULES):
            with suppress(OSError):
                status = os.stat(name)
                yield f"{name} {status.st_size} {status.st_mtime_ns}"


def _libraries() -> list[str]:
    """Where this interpreter imports from, without the directory of what it runs: an agent that is started
    again has another there, and tasks have their working directory."""
    return sys.path if SAFE_PATH else sys.path[1:]


def _ask(command: Sequence[str]) -> list[str] | None:
    """What the interpreter says of itself, None when it does not."""
    try:
        said = subprocess.run(
            [*command, "-c", _SELF], capture_output=True, stdin=subprocess.DEVNULL, timeout=_SELF_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(said.stdout).split("\0") if said.returncode == 0 else None


def _modules(directory: str) -> Iterator[str]:
    """The Python files below a directory, always in the same order, found one by one: it may be a large tree,
    of which the first are looked at only."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(folder, name)
