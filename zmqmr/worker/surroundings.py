"""What tasks run in, as far as it may change what they yield: a part of the content keys of their spools."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import mrjob

from zmqmr import __version__

# Variables that differ from one terminal or login to the next, and say nothing to a job.
OF_THE_TERMINAL = {"_", "COLUMNS", "LINES", "LS_COLORS", "OLDPWD", "PWD", "SHLVL", "TERM", "TMPDIR"}
OF_THE_SESSION = ("DBUS_", "GPG_", "INVOCATION_ID", "JOURNAL_", "PYTEST_", "SSH_", "XDG_", "ZMQMR_")
OWN_MODULES = 2000  # of each entry of PYTHONPATH, that are looked at


def surroundings() -> str:
    """The versions of what runs the tasks, the variables that they inherit, the state of their libraries."""
    python = f"{sys.implementation.name} {sys.version_info[:3]}"
    inherited = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name not in OF_THE_TERMINAL and not name.startswith(OF_THE_SESSION)
    ]
    return "\n".join([f"{python} mrjob {mrjob.__version__} zmqmr {__version__}", *inherited, *_libraries()])


def _libraries() -> Iterator[str]:
    """What tells that a package was installed or removed, and that a module on PYTHONPATH was changed."""
    for path in sys.path:
        with suppress(OSError):
            yield f"{path} {os.stat(path).st_mtime_ns}"
    for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        for name in islice(_modules(path), OWN_MODULES):
            with suppress(OSError):
                status = os.stat(name)
                yield f"{name} {status.st_size} {status.st_mtime_ns}"


def _modules(directory: str) -> Iterator[str]:
    """The Python files below a directory, always in the same order, found one by one: it may be a large tree,
    of which the first are looked at only."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(folder, name)
