"""Runs the machine's commands; a failure says which command, and what it said."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

# apt package that brings a command that the testbed needs.
_PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "losetup": "mount",
    "nsenter": "util-linux",
}


class CommandFailed(Exception):
    """A command ended with another status than 0."""


def run(*command: object, check: bool = True, **options: Any) -> str:
    """Run a command; its standard output, stripped."""
    words = [str(word) for word in command]
    done = subprocess.run(words, text=True, capture_output=True, **options)
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def missing() -> str:
    """Why no testbed can be made on this machine; empty when one can."""
    if os.geteuid() != 0:
        return "needs root: the hosts of the testbed are containers with networks and drives of their own"
    absent = [command for command in _PACKAGES if shutil.which(command) is None]
    if absent:
        return f"needs {absent[0]}: apt-get install {_PACKAGES[absent[0]]}, or run scripts/testbed"
    if _cgroup_root() is None:
        return "needs cgroup v2: mount it at /sys/fs/cgroup"
    return ""


def cgroups() -> Path:
    """Where this machine's cgroup v2 tree is mounted."""
    root = _cgroup_root()
    if root is None:
        raise CommandFailed("this machine has no cgroup v2 tree")
    return root


def _cgroup_root() -> Path | None:
    for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (path / "cgroup.controllers").exists():
            return path
    return None
